//! Runs probes, each in a child process with a bound of time, and prints a line of JSON for each.

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    numbers as n,
    outcome::{Line, Outcome},
    probes::Probe,
    sys::{self, Ended, sys},
    targets::Targets,
};

/// What one probe may take. Bombs are bounded so that they are over long before.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of an answer that are read; an answer is a line.
const MAX_ANSWER: u64 = 4096;

const SIGKILL: i32 = 9;
const SIGSYS: i32 = 31;

/// Runs the probes in order.
pub(crate) fn run(probes: &[&Probe], targets: &Targets) -> io::Result<()> {
    for probe in probes {
        let outcome = one(probe, targets);
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{}", Line { id: probe.id, outcome: &outcome })?;
        stdout.flush()?;
    }
    Ok(())
}

fn one(probe: &Probe, targets: &Targets) -> Outcome {
    // A directory of its own, so that none finds what another left.
    let place = format!("probe-{}", probe.id);
    let made = fs::create_dir_all(&place);
    let outcome = in_a_child(probe, targets, &place);
    let removed = fs::remove_dir_all(&place);
    match (made, removed, outcome) {
        // What cannot be written to cannot be used to attack either; each probe says so itself.
        (Err(_), _, outcome) | (_, Ok(()), outcome) => outcome,
        (_, Err(error), outcome) => match outcome {
            Outcome::Open(seen) => Outcome::Open(format!("{seen}; its directory stays: {error}")),
            other => other,
        },
    }
}

fn in_a_child(probe: &Probe, targets: &Targets, place: &str) -> Outcome {
    let (reading, writing) = match sys::pipe() {
        Ok(ends) => ends,
        Err(error) => return Outcome::broken(format!("no pipe: {error}")),
    };
    let child = match sys::fork_process() {
        Ok(Some(pid)) => pid,
        Ok(None) => {
            drop(reading);
            // A group of its own, so that whatever it starts can be ended with it.
            let _ = sys!(n::SETPGID, 0, 0);
            let _ = std::env::set_current_dir(place);
            let outcome = (probe.run)(targets);
            let answer = format!("{}\t{}", outcome.word(), outcome.evidence());
            let written = fs::File::from(writing).write_all(answer.as_bytes());
            sys::exit_now(if written.is_ok() { 0 } else { 99 });
        }
        Err(error) => return Outcome::broken(format!("no child process: {error}")),
    };
    drop(writing);
    let ended = wait(child, &reading);
    // Also what the probe left behind.
    let _ = sys::kill(-child, SIGKILL);
    match ended {
        Err(error) => Outcome::broken(format!("could not wait for it: {error}")),
        Ok(None) => {
            let _ = sys::kill(child, SIGKILL);
            let _ = sys::wait_child(child, true);
            Outcome::broken(format!("it took longer than {} s", TIMEOUT.as_secs()))
        }
        Ok(Some(Ended::Killed(signal))) => killed(probe, signal),
        Ok(Some(Ended::Exited(0))) => answer(reading),
        Ok(Some(Ended::Exited(code))) => Outcome::broken(format!("it ended with code {code}")),
    }
}

/// Waits for the end of a child, which tells by closing its end of the pipe, or for the bound.
fn wait(child: sys::Pid, reading: &std::os::fd::OwnedFd) -> io::Result<Option<Ended>> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(ended) = sys::wait_child(child, false)? {
            return Ok(Some(ended));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        // An answer has come or the pipe is closed: the end is near, and waiting for it is not busy.
        if sys::readable_within(reading, 100)? {
            return sys::wait_child(child, true);
        }
    }
}

fn killed(probe: &Probe, signal: i32) -> Outcome {
    if signal == SIGSYS {
        return Outcome::denied("killed by the system call filter (SIGSYS)");
    }
    if probe.killed_by.contains(&signal) {
        return Outcome::denied(format!("killed by signal {signal}"));
    }
    Outcome::broken(format!("it died of signal {signal}"))
}

fn answer(reading: std::os::fd::OwnedFd) -> Outcome {
    let mut text = String::new();
    if let Err(error) = fs::File::from(reading).take(MAX_ANSWER).read_to_string(&mut text) {
        return Outcome::broken(format!("its answer is no text: {error}"));
    }
    match text.split_once('\t') {
        Some(("open", seen)) => Outcome::open(seen),
        Some(("denied", seen)) => Outcome::denied(seen),
        Some(("broken", why)) => Outcome::broken(why),
        _ => Outcome::broken("it gave no answer"),
    }
}

/// Whether a path is there, whatever it is.
pub(crate) fn exists(path: impl AsRef<Path>) -> bool {
    fs::symlink_metadata(path).is_ok()
}
