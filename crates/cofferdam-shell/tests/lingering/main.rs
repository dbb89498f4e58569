//! Commands that outlive the tools that started them, in a real sandbox that lingers.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod host;
mod probe;
mod sessions;
