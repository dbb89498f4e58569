//! Runs that survive the death of their sandbox and of their process, with real sandboxes and a scripted model.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![expect(
    clippy::disallowed_methods,
    reason = "the processes that die are processes of this program, and are told by variables where they work"
)]

#[cfg(feature = "docker")]
mod docker;
mod host;
mod losses;
mod processes;
mod retention;
mod secrets;
