//! The guest: the first process of a sandbox, which serves the guest protocol on its standard input.
//!
//! It is one thread around one `poll`: no lock, no race between threads, and `fork` is safe at any moment.
//!
//! - [`server`]: the loop; [`connection`] and [`door`]: the host, and how it comes back; [`relay`]: its way in.
//! - [`session`]: the channels, and turns for each of them ([`flow`]).
//! - [`commands`], [`exec`], [`reaper`], [`process_tree`]: commands and all that descends from them.
//! - [`workspace`], [`files`], [`walk`], [`upload`]: files, resolved beneath the workspace.
//! - [`port`]: connections inside; [`watch`], [`changes`]: changes of files.
//! - [`sys`]: system calls; it and the reaper have the only unsafe code.
//!
//! `build.rs` compiles this file and the crate's library with a bare `rustc` to one static executable, so it uses only
//! the standard library.

#[cfg(target_os = "linux")]
mod changes;
#[cfg(target_os = "linux")]
mod commands;
#[cfg(target_os = "linux")]
mod connection;
#[cfg(target_os = "linux")]
mod door;
#[cfg(target_os = "linux")]
mod exec;
#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod flow;
#[cfg(target_os = "linux")]
mod outcome;
#[cfg(target_os = "linux")]
mod poll;
#[cfg(target_os = "linux")]
mod port;
#[cfg(target_os = "linux")]
mod process_tree;
#[cfg(target_os = "linux")]
mod reaper;
#[cfg(target_os = "linux")]
mod relay;
#[cfg(target_os = "linux")]
mod ring;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod session;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod trail;
#[cfg(target_os = "linux")]
mod upload;
#[cfg(target_os = "linux")]
mod walk;
#[cfg(target_os = "linux")]
mod watch;
#[cfg(target_os = "linux")]
mod workspace;

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&*error);
            ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
fn run() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(|word| word.as_encoded_bytes()).collect();
    match *words {
        [] => server::serve(None),
        [b"--listen", _] => server::serve(Some(arguments[1].as_ref())),
        [b"--relay", _] => Ok(relay::relay(arguments[1].as_ref())?),
        [word] if word == reaper::END_TREE.to_bytes() => {
            reaper::end_tree();
            Ok(())
        }
        _ => Err("usage: cofferdam-guest [--listen PATH | --relay PATH]".into()),
    }
}

/// Says something on descriptor 2, which is for diagnostics; if nobody reads them there is nothing more to do.
#[cfg(target_os = "linux")]
fn complain(error: &dyn std::error::Error) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "cofferdam-guest: {error}");
}

/// The guest serves Linux sandboxes only; elsewhere it exists so that the workspace builds.
#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    ExitCode::FAILURE
}
