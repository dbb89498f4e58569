//! Runs that survive the death of their sandbox and of their process, with real sandboxes and a scripted model.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "docker")]
mod docker;
mod losses;
mod retention;
mod secrets;
