//! The guest: the first process of a sandbox, which serves the guest protocol on its standard input.
//!
//! It is one thread around one `poll`: no lock, no race between threads, and `fork` is safe at any moment.
//!
//! - [`server`]: the stream, the channels, and turns for each of them.
//! - [`exec`], [`reaper`], [`process_tree`]: commands and all that descends from them.
//! - [`workspace`], [`files`], [`walk`], [`upload`]: files, resolved beneath the workspace.
//! - [`sys`]: system calls; the only unsafe code.
//!
//! `build.rs` compiles this file and the crate's library with a bare `rustc` to one static executable, so it uses only
//! the standard library.

#[cfg(target_os = "linux")]
mod exec;
#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod outcome;
#[cfg(target_os = "linux")]
mod process_tree;
#[cfg(target_os = "linux")]
mod reaper;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod upload;
#[cfg(target_os = "linux")]
mod walk;
#[cfg(target_os = "linux")]
mod workspace;

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word.as_encoded_bytes() == reaper::END_TREE.to_bytes())
    {
        reaper::end_tree();
        return ExitCode::SUCCESS;
    }
    match server::serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write as _;
            // Descriptor 2 is for diagnostics; if nobody reads them there is nothing more to do.
            let _ = writeln!(std::io::stderr(), "cofferdam-guest: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The guest serves Linux sandboxes only; elsewhere it exists so that the workspace builds.
#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    ExitCode::FAILURE
}
