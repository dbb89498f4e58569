//! The command from outside: what it prints, what it returns, what it leaves.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
mod exec;
#[cfg(feature = "openai")]
mod live_model;
mod other;
mod resume;
mod run;
mod shell;
mod support;
