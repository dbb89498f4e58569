//! The director: starts a harness, kills the victim, and looks at what is left.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, waitpid};

use super::{
    HARNESS, Subject, Victim,
    harness::{BEGIN, END, MARK},
    outcome::{Outcome, Table, Testimony},
    processes::{self, Moment, Namespaces},
};
use crate::random::Random;

/// How long a harness may take to begin, and how long to end after the kill.
pub(super) const HARNESS_BOUND: Duration = Duration::from_secs(90);
/// How long the processes of a round may outlive it.
pub(super) const PROCESS_BOUND: Duration = Duration::from_secs(10);
/// How long a backend may tidy up by itself before that counts as the work of the next start.
pub(super) const TIDY_BOUND: Duration = Duration::from_secs(1);
/// How much shorter than the operations the first moments of a sandbox are, in which it may be hit while it is made.
const MAKING_PART: u64 = 50;

/// How the victim ends.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// At once.
    Kill,
    /// It is stopped for this long first, so that whoever waits for it really waits.
    StopFirst(Duration),
}

/// When the victim is hit.
#[derive(Debug, Clone, Copy)]
enum Aim {
    /// At the moment of the round.
    AtOnce,
    /// So long after the next sandbox has got its first process: while it is being made.
    WhileMaking(Duration),
}

/// Plays all rounds.
pub(super) fn direct(test: &str, subject: &dyn Subject, first: u64, rounds: u64) -> Table {
    adopt_orphans();
    let mut table = Table::default();
    for seed in first..first.saturating_add(rounds) {
        table.add(round(test, subject, seed));
    }
    table
}

/// What loses its parent becomes a child of this process from now on, and so is found.
#[expect(clippy::expect_used, reason = "a test that cannot begin has failed")]
pub(super) fn adopt_orphans() {
    set_child_subreaper(Some(rustix::process::getpid())).expect("orphans come here");
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
}

/// A harness that runs.
pub(super) struct Harness {
    pub(super) child: Child,
    lines: Receiver<String>,
    /// For its temporary files; removed at the end of the round.
    pub(super) directory: PathBuf,
}

impl Harness {
    #[expect(clippy::disallowed_methods, reason = "the harness is a process that is to be killed")]
    #[expect(clippy::expect_used, reason = "a test that cannot begin has failed")]
    pub(super) fn start(test: &str, subject: &dyn Subject, seed: u64) -> Self {
        let directory = std::env::temp_dir().join(format!("chaos-{}-{seed}", std::process::id()));
        std::fs::create_dir(&directory).expect("a directory");
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", test, "--nocapture"])
            .env(HARNESS, seed.to_string())
            .envs(subject.environment())
            .env("TMPDIR", &directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a harness");
        let stdout = child.stdout.take().expect("piped");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(said) = line.strip_prefix(MARK)
                    && sender.send(said.to_owned()).is_err()
                {
                    break;
                }
            }
        });
        Self { child, lines, directory }
    }

    /// Returns what it says next; `None` if it ends, or takes too long, without a word.
    pub(super) fn says(&self, deadline: Instant) -> Result<Option<String>, String> {
        match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                Err(format!("the harness did not end within {HARNESS_BOUND:?}"))
            }
        }
    }
}

fn round(test: &str, subject: &dyn Subject, seed: u64) -> Outcome {
    let mut random = Random::new(seed ^ 0x00c0_ffee);
    let victim = random.pick(&subject.victims()).unwrap_or(Victim::Harness);
    // Operations that are under way go on after this length, so that none is too late to be hit.
    let length = u64::try_from(subject.length().as_micros()).unwrap_or(u64::MAX);
    let delay = Duration::from_micros(random.below(length));
    let manner = match random.below(3) {
        0 => Manner::StopFirst(Duration::from_millis(random.below(200))),
        _ => Manner::Kill,
    };
    let aim = match random.below(2) {
        0 => Aim::AtOnce,
        _ => Aim::WhileMaking(Duration::from_micros(random.below(length / MAKING_PART))),
    };
    let mut outcome =
        Outcome { seed, victim, hit: false, swept: false, testimony: None, violations: Vec::new() };
    let mut harness = Harness::start(test, subject, seed);
    let pid = harness.child.id();
    let deadline = Instant::now() + HARNESS_BOUND;
    let mut seen = (Namespaces::new(), processes::now());
    match harness.says(deadline) {
        Ok(Some(said)) if said == BEGIN => {
            thread::sleep(delay);
            seen = (processes::foreign_namespaces(pid), processes::now());
            outcome.hit = strike(subject, victim, pid, (aim, manner), &mut random);
            if outcome.hit {
                subject.recover(victim);
            }
        }
        Ok(other) => outcome.violations.push(format!("instead of beginning it said {other:?}")),
        Err(late) => outcome.violations.push(late),
    }
    hear_out(&mut harness, victim, deadline, &mut outcome);
    outcome.violations.extend(look_around(subject, pid, &seen, &mut outcome.swept));
    outcome.violations.extend(files_in(&harness.directory));
    // What is in it was found above.
    let _ = std::fs::remove_dir_all(&harness.directory);
    outcome
}

/// Kills the victim; false if there is none until the harness ends.
fn strike(
    subject: &dyn Subject,
    victim: Victim,
    harness: u32,
    (aim, manner): (Aim, Manner),
    random: &mut Random,
) -> bool {
    let parts: &[Victim] = match victim {
        Victim::HelperAndHarness => &[Victim::Helper, Victim::Harness],
        _ => &[victim],
    };
    let mut killed = false;
    for &part in parts {
        // What lives for a moment only may be gone before it is hit; then it is somebody else's turn.
        let hit = until_ended(harness, || {
            let target = target(subject, part, harness, aim, random)?;
            if let Manner::StopFirst(time) = manner
                && kill_process(target, Signal::STOP).is_ok()
            {
                thread::sleep(time);
            }
            kill_process(target, Signal::KILL).ok()
        });
        killed |= hit.is_some();
    }
    killed
}

/// Returns the process to be killed.
fn target(
    subject: &dyn Subject,
    victim: Victim,
    harness: u32,
    aim: Aim,
    random: &mut Random,
) -> Option<Pid> {
    let mut newborn = None;
    // Nobody but the guest is inside of one that is being made.
    if let Aim::WhileMaking(age) = aim
        && victim != Victim::Inside
    {
        let known = subject.find(Victim::Guest, harness);
        let birth = || {
            let guests = subject.find(Victim::Guest, harness);
            guests.into_iter().find(|guest| !known.contains(guest))
        };
        newborn = Some(until_ended(harness, birth)?);
        thread::sleep(age);
    }
    let pid = match (victim, newborn) {
        (Victim::Harness, _) => harness,
        (Victim::Guest, Some(newborn)) => newborn,
        _ => random.pick(&subject.find(victim, harness))?,
    };
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// Tries until it works or the harness has ended.
fn until_ended<T>(harness: u32, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        if let Some(found) = attempt() {
            return Some(found);
        }
        if has_ended(harness) {
            return None;
        }
        thread::sleep(Duration::from_micros(300));
    }
}

fn has_ended(pid: u32) -> bool {
    !processes::children(std::process::id())
        .iter()
        .any(|process| process.pid == pid && !process.zombie)
}

/// Waits for the end of a harness and takes down what it says; ends it if it does not end.
fn hear_out(harness: &mut Harness, victim: Victim, deadline: Instant, outcome: &mut Outcome) {
    loop {
        match harness.says(deadline) {
            Ok(Some(said)) => match said.strip_prefix(END).map(serde_json::from_str::<Testimony>) {
                Some(Ok(testimony)) => {
                    outcome.violations.extend(testimony.violations.clone());
                    outcome.testimony = Some(testimony);
                }
                Some(Err(_)) | None => {
                    outcome.violations.push(format!("the harness said {said:?}"));
                }
            },
            Ok(None) => break,
            Err(late) => {
                outcome.violations.push(late);
                break;
            }
        }
    }
    // It has closed its output or is late, so either has nothing more to do.
    let _ = harness.child.kill();
    let _ = harness.child.wait();
    let meant = matches!(victim, Victim::Harness | Victim::HelperAndHarness) && outcome.hit;
    if outcome.testimony.is_none() && !meant && outcome.violations.is_empty() {
        outcome.violations.push("the harness broke; its words are above".to_owned());
    }
}

/// Returns what is left: at once, and after the next start.
fn look_around(
    subject: &dyn Subject,
    harness: u32,
    (namespaces, since): &(Namespaces, Moment),
    swept: &mut bool,
) -> Vec<String> {
    let mut violations = wait_for_none(PROCESS_BOUND, || orphans(&subject.bystanders()));
    violations.extend(wait_for_none(PROCESS_BOUND, || processes::holders(namespaces, *since)));
    *swept = !wait_for_none(TIDY_BOUND, || subject.leftovers(harness)).is_empty();
    if let Err(failure) = next_start(subject) {
        violations.push(failure);
    }
    violations.extend(wait_for_none(TIDY_BOUND, || subject.leftovers(harness)));
    violations
}

/// Looks until there is nothing, and returns what there still is when the time is over.
pub(super) fn wait_for_none(bound: Duration, look: impl Fn() -> Vec<String>) -> Vec<String> {
    let deadline = Instant::now() + bound;
    loop {
        let found = look();
        if found.is_empty() || Instant::now() >= deadline {
            return found;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Returns the processes of the round, which are all below this one but the bystanders since the harness has ended; asks for
/// the status of those that have ended.
pub(super) fn orphans(bystanders: &[u32]) -> Vec<String> {
    let below = processes::descendants(std::process::id());
    below
        .into_iter()
        .filter(|process| !bystanders.contains(&process.pid))
        .filter(|process| {
            let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
            let own = process.parent == std::process::id();
            !(process.zombie && own && waitpid(pid, WaitOptions::NOHANG).is_ok())
        })
        .map(|process| format!("process {} ({}) lives on", process.pid, process.name))
        .collect()
}

/// Does what a program does that starts after the end of another one.
pub(super) fn next_start(subject: &dyn Subject) -> Result<(), String> {
    let start = async {
        let guarantees = subject.backend().guarantees().await;
        guarantees.map(drop).map_err(|error| format!("the next start fails: {error}"))
    };
    runtime()?.block_on(async {
        tokio::time::timeout(HARNESS_BOUND, start)
            .await
            .unwrap_or_else(|_elapsed| Err("the next start hangs".to_owned()))
    })
}

pub(super) fn files_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries
        .filter_map(|entry| Some(format!("file {} is left", entry.ok()?.path().display())))
        .collect()
}
