//! The command from outside: what it prints, what it returns, what it leaves.

mod bad_input;
mod exec;
#[cfg(feature = "openai")]
mod live_model;
mod other;
mod run;
mod support;
