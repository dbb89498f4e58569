//! Sudden death of a harness whose sandboxes go on: the next one finds each of them, and each command ran once to its end.
//!
//! The harness says what it has made and started, and is killed at a random moment; in some rounds a process of the backend is
//! killed first, and may take one sandbox along. Then the director attaches to whatever was made. A command that was started is
//! known, ends as it was told to, and has left its traces once; one that was only asked for left them once or never.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use cofferdam_core::{SandboxId, WorkspacePath};
use cofferdam_sandbox::{
    ExecEvent, ExecRequest, ExitStatus, OutputPosition, Sandbox, SandboxBackend, SandboxError,
    SandboxSpec, SandboxState,
};
use futures::StreamExt as _;
use rustix::process::{Pid, Signal, kill_process};

use super::{
    Subject, Victim,
    director::{self, HARNESS_BOUND, Harness, PROCESS_BOUND, TIDY_BOUND},
    harness::{BEGIN, MARK},
    outcome::{Outcome, Table},
};
use crate::random::Random;

/// How long a sandbox waits for the next harness.
const LINGER: Duration = Duration::from_secs(120);
/// Tasks that make sandboxes at the same time.
const LANES: u64 = 3;
/// The most commands of a sandbox.
const COMMANDS: u64 = 6;

/// What a harness says, each followed by what it is about.
const MADE: &str = "made ";
const STARTED: &str = "started ";
const CLOSING: &str = "closing ";

fn name(number: u64) -> String {
    format!("c{number}")
}

/// A command that leaves a trace at its begin and its end, and a status of its own.
fn command(number: u64) -> ExecRequest {
    let script = format!(
        "echo begin >> trace.{number}; sleep 0.0{number}; echo end >> trace.{number}; exit {}",
        expected(number)
    );
    ExecRequest { id: Some(name(number)), ..ExecRequest::shell(script) }
}

fn expected(number: u64) -> u64 {
    number + 3
}

/// Makes sandboxes and starts commands until it is killed.
#[expect(clippy::expect_used, reason = "a harness that cannot begin has failed its round")]
#[expect(clippy::print_stdout, reason = "the director reads it")]
pub(super) fn play(subject: &dyn Subject, seed: u64) {
    let runtime = director::runtime().expect("a runtime");
    runtime.block_on(async {
        let backend = subject.backend();
        let spec = SandboxSpec { linger: LINGER, ..subject.spec() };
        println!("\n{MARK}{BEGIN}");
        let lanes = (0..LANES).map(|lane| {
            let mut random = Random::new(seed ^ (lane << 32));
            let (backend, spec) = (&backend, &spec);
            async move {
                loop {
                    // The death of a helper in the making is no concern of this play.
                    let Ok(sandbox) = backend.create(spec).await else { continue };
                    let state = serde_json::to_string(&sandbox.state()).expect("a state");
                    println!("\n{MARK}{MADE}{state}");
                    let _ = use_it(&*sandbox, &mut random).await;
                }
            }
        });
        // Until it is killed.
        let _: Vec<()> = futures::future::join_all(lanes).await;
    });
}

#[expect(clippy::print_stdout, reason = "the director reads it")]
async fn use_it(sandbox: &dyn Sandbox, random: &mut Random) -> Result<(), SandboxError> {
    let id = sandbox.id();
    for number in 0..random.below(COMMANDS) + 1 {
        let mut process = sandbox.exec(command(number)).await?;
        println!("\n{MARK}{STARTED}{id} {number}");
        if random.below(2) == 0 {
            while let Some(event) = process.next().await {
                event?;
            }
        } else {
            process.detach().await?;
        }
    }
    if random.below(2) == 0 {
        println!("\n{MARK}{CLOSING}{id}");
        sandbox.close().await?;
    }
    Ok(())
}

/// What a harness has said before it was killed.
#[derive(Debug, Default)]
struct Said {
    made: BTreeMap<SandboxId, SandboxState>,
    started: BTreeMap<SandboxId, BTreeSet<u64>>,
    closing: BTreeSet<SandboxId>,
}

impl Said {
    /// Takes a line down. One that was cut by the death says nothing.
    fn take(&mut self, line: &str) {
        if let Some(state) = line.strip_prefix(MADE).and_then(|s| serde_json::from_str(s).ok()) {
            let state: SandboxState = state;
            self.made.insert(state.id.clone(), state);
        } else if let Some((id, number)) =
            line.strip_prefix(STARTED).and_then(|rest| rest.split_once(' '))
            && let Ok(number) = number.parse()
        {
            self.started.entry(SandboxId::new(id)).or_default().insert(number);
        } else if let Some(id) = line.strip_prefix(CLOSING) {
            self.closing.insert(SandboxId::new(id));
        }
    }
}

/// Plays all rounds.
pub(super) fn direct(test: &str, subject: &dyn Subject, first: u64, rounds: u64) -> Table {
    director::adopt_orphans();
    let mut table = Table::default();
    for seed in first..first.saturating_add(rounds) {
        let outcome = round(test, subject, seed, &mut table);
        table.add(outcome);
    }
    table
}

fn round(test: &str, subject: &dyn Subject, seed: u64, table: &mut Table) -> Outcome {
    let mut random = Random::new(seed ^ 0x0011_4e6e);
    let victim = if random.below(4) == 0 { Victim::HelperAndHarness } else { Victim::Harness };
    let length = u64::try_from(subject.length().as_micros()).unwrap_or(u64::MAX);
    let delay = Duration::from_micros(random.below(length));
    let mut outcome =
        Outcome { seed, victim, hit: false, swept: false, testimony: None, violations: Vec::new() };
    let mut harness = Harness::start(test, subject, seed);
    let pid = harness.child.id();
    let deadline = Instant::now() + HARNESS_BOUND;
    match harness.says(deadline) {
        Ok(Some(said)) if said == BEGIN => std::thread::sleep(delay),
        other => outcome.violations.push(format!("instead of beginning it said {other:?}")),
    }
    let helper = match victim {
        Victim::HelperAndHarness => random.pick(&subject.find(Victim::Helper, pid)),
        _ => None,
    };
    let helper = helper.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let may_lose = helper.is_some_and(|helper| kill_process(helper, Signal::KILL).is_ok());
    outcome.hit = harness.child.kill().is_ok();
    let _ = harness.child.wait();
    let mut said = Said::default();
    while let Ok(Some(line)) = harness.says(deadline) {
        said.take(&line);
    }
    let checked = director::runtime().map(|runtime| {
        runtime.block_on(async {
            tokio::time::timeout(HARNESS_BOUND, find_all(subject, &said, may_lose, table)).await
        })
    });
    match checked {
        Ok(Ok(violations)) => outcome.violations.extend(violations),
        Ok(Err(_elapsed)) => {
            outcome.violations.push(format!("finding them took longer than {HARNESS_BOUND:?}"));
        }
        Err(failure) => outcome.violations.push(failure),
    }
    let orphans = || director::orphans(&subject.bystanders());
    outcome.violations.extend(director::wait_for_none(PROCESS_BOUND, orphans));
    let left = || -> Vec<String> {
        said.made
            .keys()
            .flat_map(|id| subject.leftovers_of(id))
            .chain(subject.leftovers(pid))
            .collect()
    };
    outcome.swept = !director::wait_for_none(TIDY_BOUND, left).is_empty();
    if let Err(failure) = director::next_start(subject) {
        outcome.violations.push(failure);
    }
    outcome.violations.extend(director::wait_for_none(TIDY_BOUND, left));
    outcome.violations.extend(director::files_in(&harness.directory));
    // What is in it was found above.
    let _ = std::fs::remove_dir_all(&harness.directory);
    outcome
}

/// Attaches to everything that was made, and removes it; returns what did not hold.
async fn find_all(
    subject: &dyn Subject,
    said: &Said,
    may_lose: bool,
    table: &mut Table,
) -> Vec<String> {
    let backend = subject.backend();
    let mut violations = Vec::new();
    let mut lost = 0;
    for (id, state) in &said.made {
        let closing = said.closing.contains(id);
        match check(&*backend, state, said.started.get(id), closing).await {
            Ok(commands) => {
                table.count("attach", "done");
                (0..commands).for_each(|_| table.count("command", "ended"));
            }
            Err(Failed::Lost) if closing => table.count("attach", "closed"),
            Err(Failed::Lost) if may_lose && lost == 0 => {
                table.count("attach", "lost");
                lost += 1;
            }
            Err(Failed::Lost) => violations.push(format!("{id} is lost")),
            Err(Failed::Wrong(what)) => violations.push(format!("{id}: {what}")),
        }
    }
    // Also one that was made and never spoken of.
    match backend.list().await {
        Ok(listed) => {
            for listed in listed {
                table.count(
                    "remove",
                    if said.made.contains_key(&listed.id) { "known" } else { "unknown" },
                );
                if let Err(error) = backend.remove(&listed.id).await {
                    violations.push(format!("{} is not removed: {error}", listed.id));
                }
            }
        }
        Err(error) => violations.push(format!("nothing is listed: {error}")),
    }
    match backend.list().await {
        Ok(listed) if listed.is_empty() => {}
        other => violations.push(format!("after removing all there is {other:?}")),
    }
    violations
}

enum Failed {
    Lost,
    Wrong(String),
}

impl From<SandboxError> for Failed {
    fn from(error: SandboxError) -> Self {
        if error.is_loss() { Self::Lost } else { Self::Wrong(error.to_string()) }
    }
}

/// Attaches to a sandbox and looks at all of its commands; returns how many there are.
async fn check(
    backend: &dyn SandboxBackend,
    state: &SandboxState,
    started: Option<&BTreeSet<u64>>,
    closing: bool,
) -> Result<usize, Failed> {
    let wrong = |what: String| Err(Failed::Wrong(what));
    let sandbox = backend.attach(state).await?;
    let Some(sessions) = sandbox.sessions() else { return wrong("no sessions".to_owned()) };
    let known: BTreeSet<String> =
        sessions.list().await?.into_iter().map(|command| command.id).collect();
    for number in started.into_iter().flatten() {
        if !known.contains(&name(*number)) {
            return wrong(format!("the command {number} was started and is not known"));
        }
    }
    for number in (0..COMMANDS).filter(|number| known.contains(&name(*number))) {
        let mut process = sessions.attach(&name(number), OutputPosition::default()).await?;
        let mut status = None;
        while let Some(event) = process.next().await {
            if let ExecEvent::Exited(exited) = event? {
                status = Some(exited);
            }
        }
        let meant = i32::try_from(expected(number)).ok().map(ExitStatus::Code);
        if status != meant {
            return wrong(format!("the command {number} ended with {status:?}, not {meant:?}"));
        }
    }
    for number in 0..COMMANDS {
        let path = WorkspacePath::new(&format!("trace.{number}"));
        let path = path.map_err(|error| Failed::Wrong(error.to_string()))?;
        let trace = match sandbox.files().read(&path, 0, 1 << 10).await {
            Ok(trace) => Some(String::from_utf8_lossy(&trace).into_owned()),
            Err(SandboxError::File { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let meant = known.contains(&name(number)).then(|| "begin\nend\n".to_owned());
        if trace != meant {
            return wrong(format!("the trace of the command {number} is {trace:?}"));
        }
    }
    // One that was being closed may end by itself.
    match sandbox.close().await {
        Err(error) if !closing => Err(error.into()),
        _ => Ok(known.len()),
    }
}
