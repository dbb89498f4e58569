//! The probe program: tries to get out of the sandbox it runs in, and says what came of it.
//!
//! ```text
//! probe list                             the probes, a line of JSON each
//! probe run TARGETS [ID…]                tries them, a line of JSON each
//! probe neighbour TARGETS                is something that another sandbox must not reach, until its input ends
//! probe victim TOKEN KEY                 is a process of the host with secrets, until its input ends
//! probe swap OUTSIDE                     swaps a directory for a link to another place, again and again
//! probe plant special|sparse|names       makes files that are hard on a harness
//! probe linger WORD                      leaves a process that wants to outlive its sandbox
//! probe kill-all | flood                 kills all in sight; writes without end
//! probe stage UID OUTSIDE CMD…           runs a command as a careless host would: open descriptors, a terminal
//! ```
//!
//! - [`run`]: each probe in a child process with a bound of time; how it died is told.
//! - [`probes`]: the table.
//! - [`outcome`], [`targets`]: what comes out and what goes in.
//! - [`props`]: what attacks through the interface need inside.
//! - [`stage`]: the careless host, the victim and the neighbour.
//! - [`sys`], [`numbers`]: system calls.
//!
//! Every probe is harmless where it works: bombs are bounded, writes are undone or of the same value, no packet leaves, and
//! calls that would change the machine are made with senseless arguments, which tell that the check was passed.
//!
//! `build.rs` compiles this file with a bare `rustc` to one static executable, so that it runs in any root file system,
//! with no shell and no library.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's result is what it prints"
)]

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod numbers;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod outcome;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod probes;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod props;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod run;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod stage;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod sys;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod targets;

use std::process::ExitCode;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["list"] => list(),
        ["run", targets, ids @ ..] => chosen(targets, ids),
        ["neighbour", targets] => {
            targets::Targets::read(targets).and_then(|it| stage::neighbour(&it))
        }
        ["victim", token, key] => stage::victim(token, key),
        ["swap", outside] => props::swap(outside),
        ["plant", what] => props::plant(what),
        ["linger", _] => props::linger(),
        ["kill-all"] => props::kill_all(),
        ["flood"] => props::flood(),
        ["stage", user, outside, command @ ..] => stage::stage(user, outside, command),
        _ => Err(std::io::Error::other(
            "usage: probe list | run | neighbour | victim | swap | plant | linger | kill-all | flood | stage",
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The attacks are system calls of x86-64 Linux; elsewhere the program exists so that the workspace builds.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() -> ExitCode {
    eprintln!("probe: only on Linux on x86-64");
    println!();
    ExitCode::FAILURE
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn list() -> std::io::Result<()> {
    use outcome::Quoted;
    for probe in probes::all() {
        println!(
            "{{\"id\":{},\"group\":{},\"name\":{}}}",
            Quoted(probe.id),
            Quoted(probe.group),
            Quoted(probe.name)
        );
    }
    Ok(())
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn chosen(targets: &str, ids: &[&str]) -> std::io::Result<()> {
    let targets = targets::Targets::read(targets)?;
    let mut chosen = Vec::new();
    if ids.is_empty() {
        chosen.extend(probes::all());
    }
    for id in ids {
        let known = probes::all().chain(probes::SELF_TEST).find(|probe| probe.id == *id);
        chosen.push(known.ok_or_else(|| std::io::Error::other(format!("no probe {id}")))?);
    }
    run::run(&chosen, &targets)
}
