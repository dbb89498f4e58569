//! `cofferdam runs`: what is recorded of runs, and the end of what is kept of them.

use std::{
    collections::HashSet,
    io::Write as _,
    pin::pin,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::Context as _;
use cofferdam::{
    CleanedUp, StateError, SystemClock, backends,
    checkpoint::Retention,
    core::{Clock as _, RunId},
    journal::{
        Journal, JournalError, JournalExt as _, RecordBody, RunFilter, RunOutcome, RunStatus,
        RunSummary, Seq,
    },
};
use futures::{TryStreamExt as _, future::ready};

use crate::{
    arguments::RunsCommand,
    display::record,
    exit::{Exit, Failure},
    job::Job,
    keep::Keep,
    state::State,
};

/// A job without a run is left alone for so long.
const JOB_GRACE_MS: u64 = 24 * 60 * 60 * 1000;

/// How often a followed run is looked at.
const FOLLOW: Duration = Duration::from_millis(200);

pub(crate) async fn run(command: RunsCommand) -> Result<Exit, Failure> {
    match command {
        RunsCommand::List { json, state } => list(State::open(&state)?.journal(), json).await,
        RunsCommand::Show { run, json, state } => {
            show(State::open(&state)?.journal(), &run, json).await
        }
        RunsCommand::Tail { run, lines, follow, json, state } => {
            tail(State::open(&state)?.journal(), &run, lines, follow, json).await
        }
        RunsCommand::Rm { runs, state } => remove(&State::open(&state)?, &runs).await,
        RunsCommand::Gc { keep, dry_run, state } => {
            collect(&State::open(&state)?, keep, dry_run).await
        }
    }
}

/// Lists all runs, a line each.
async fn list(journal: &Arc<dyn Journal>, json: bool) -> Result<Exit, Failure> {
    let mut runs = journal.all_runs(RunFilter::default());
    let mut any = false;
    while let Some(run) = runs.try_next().await.map_err(failure)? {
        let line = if json { to_json(&run)? } else { summary(journal, &run).await? };
        print(&line)?;
        any = true;
    }
    if !any && !json {
        print("no runs are recorded here")?;
    }
    Ok(Exit::Done)
}

/// Shows one run: what it is, and a line for each record. All records are verified on the way.
async fn show(journal: &Arc<dyn Journal>, run: &RunId, json: bool) -> Result<Exit, Failure> {
    let found = find(journal, run).await?;
    if json {
        print(&to_json(&found)?)?;
        return Ok(Exit::Done);
    }
    print(&summary(journal, &found).await?)?;
    if let Some(head) = found.head {
        print(&format!("head {head}"))?;
    }
    let mut records = journal.read(run, Seq(1));
    while let Some(next) = records.try_next().await.map_err(failure)? {
        print(&record::render(&next))?;
    }
    Ok(Exit::Done)
}

/// Shows the last records of a run, and with `follow` those that come.
async fn tail(
    journal: &Arc<dyn Journal>,
    run: &RunId,
    lines: u64,
    follow: bool,
    json: bool,
) -> Result<Exit, Failure> {
    let found = find(journal, run).await?;
    let mut next = Seq(found.records.0.saturating_sub(lines) + 1);
    loop {
        let mut records = journal.read(run, next);
        while let Some(read) = records.try_next().await.map_err(failure)? {
            next = Seq(read.seq.0 + 1);
            let line = if json { to_json(&read)? } else { record::render(&read) };
            print(&line)?;
        }
        if !follow {
            return Ok(Exit::Done);
        }
        if find(journal, run).await?.status == RunStatus::Finished {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(FOLLOW).await;
    }
}

async fn remove(state: &State, runs: &[RunId]) -> Result<Exit, Failure> {
    for run in runs {
        find(state.journal(), run).await?;
        state.directory().remove(run).await.map_err(|error| match error {
            StateError::Journal(error) => failure(error),
            error => Failure::new(Exit::Failed, error),
        })?;
        Job::remove(state.path(), run)?;
        print(&format!("forgot {run}"))?;
    }
    Ok(Exit::Done)
}

async fn collect(state: &State, keep: Option<Keep>, dry_run: bool) -> Result<Exit, Failure> {
    let directory = state.directory();
    // What is said here, else what is done beside runs, else what would be done if that were not off.
    let retention = match (keep, directory.automatic()) {
        (Some(Keep(retention)), _) => retention,
        (None, Some(automatic)) => automatic.retention,
        (None, None) => Retention::default(),
    };
    let backends: Vec<_> = backends::names().filter_map(|name| backends::open(name).ok()).collect();
    let done = directory.clean_up_to(&retention, &backends, dry_run).await;
    let CleanedUp { kept, gone, .. } = done.map_err(|error| Failure::new(Exit::Failed, error))?;
    for run in &kept.runs {
        print(&format!("{} {run}", if dry_run { "would forget" } else { "forgot" }))?;
    }
    if kept.checkpoints > 0 {
        print(&format!("{} checkpoints of other runs removed", kept.checkpoints))?;
    }
    let snapshots = kept.snapshots;
    print(&format!(
        "{} snapshots kept, {} dropped; {} packs marked, {} deleted ({:.1} MB)",
        snapshots.kept,
        snapshots.dropped,
        snapshots.condemned,
        snapshots.deleted,
        snapshots.deleted_bytes as f64 / 1e6
    ))?;
    if snapshots.condemned > 0 {
        let bytes = snapshots.condemned_bytes as f64 / 1e6;
        print(&format!("{bytes:.1} MB more can be deleted a day after they were marked"))?;
    }
    if gone.freed + gone.half_made > 0 {
        print(&format!(
            "{} sandboxes that are gone and {} half-made workspaces forgotten",
            gone.freed, gone.half_made
        ))?;
    }
    if kept.excess_bytes > 0 {
        let bytes = kept.excess_bytes as f64 / 1e6;
        print(&format!("{bytes:.1} MB too many are of runs that have not ended"))?;
    }
    if dry_run {
        print("nothing was changed")?;
    } else {
        remove_jobs(state).await?;
    }
    Ok(Exit::Done)
}

/// Removes the jobs of runs that are not recorded any more: clean-ups beside runs know nothing of jobs. A young one may be of a
/// run that is about to begin.
async fn remove_jobs(state: &State) -> Result<(), Failure> {
    let before = SystemClock.now().as_millis().saturating_sub(JOB_GRACE_MS);
    let jobs = Job::older_than(state.path(), UNIX_EPOCH + Duration::from_millis(before));
    if jobs.is_empty() {
        return Ok(());
    }
    let filter = RunFilter { limit: RunFilter::MAX_LIMIT, ..RunFilter::default() };
    let recorded = state.journal().all_runs(filter).map_ok(|run| run.run);
    let recorded: HashSet<RunId> = recorded.try_collect().await.map_err(failure)?;
    for run in jobs.iter().filter(|run| !recorded.contains(*run)) {
        Job::remove(state.path(), run)?;
    }
    Ok(())
}

/// Finds one run, by its name.
pub(crate) async fn find(journal: &Arc<dyn Journal>, run: &RunId) -> Result<RunSummary, Failure> {
    // The name without its last character sorts before it, and after nearly all others that do: mostly one page is enough.
    let name = run.as_str();
    let before = name.char_indices().next_back().map_or("", |(at, _)| &name[..at]);
    let filter = RunFilter { after: Some(RunId::new(before)), ..RunFilter::default() };
    let from_there = journal.all_runs(filter).try_skip_while(|it| ready(Ok(it.run < *run)));
    let found = pin!(from_there).try_next().await.map_err(failure)?;
    found.filter(|found| found.run == *run).ok_or_else(|| {
        Failure::usage(anyhow::anyhow!(
            "no run {run} is recorded here; `cofferdam runs list` shows which are"
        ))
    })
}

/// Sorts a failure of the journal by what the caller can do next.
pub(crate) fn failure(error: JournalError) -> Failure {
    let exit = match &error {
        JournalError::Leased { .. } => Exit::Usage,
        _ => Exit::Failed,
    };
    Failure::new(exit, error)
}

/// Returns how a run ended, from its last record.
async fn outcome(
    journal: &Arc<dyn Journal>,
    run: &RunSummary,
) -> Result<Option<RunOutcome>, Failure> {
    let mut last = journal.read(&run.run, run.records);
    Ok(match last.try_next().await.map_err(failure)?.map(|record| record.body) {
        Some(RecordBody::RunFinished { outcome, .. }) => Some(outcome),
        _ => None,
    })
}

/// Says in one line how far a run is, and what can be done about it.
async fn summary(journal: &Arc<dyn Journal>, run: &RunSummary) -> Result<String, Failure> {
    let holder = match &run.holder {
        Some(holder) if holder.live => format!(", driven by {}", holder.owner),
        _ => String::new(),
    };
    let status = match run.status {
        RunStatus::New => "has no record yet",
        RunStatus::Open if holder.is_empty() => "was cut off; `cofferdam resume` goes on with it",
        RunStatus::Open => "goes on",
        RunStatus::Paused => "waits for somebody",
        RunStatus::Finished => match outcome(journal, run).await? {
            Some(RunOutcome::Cancelled) => "was cancelled; `cofferdam resume` goes on with it",
            Some(RunOutcome::Failed { .. }) => "has failed; `cofferdam resume` goes on with it",
            _ => "has ended",
        },
        _ => "is in a state that this release does not know",
    };
    let started = run.started.map(|time| format!(" {time}")).unwrap_or_default();
    let agent = run.agent.as_deref().unwrap_or("?");
    Ok(format!("{}{started} {agent}: {status}, {} records{holder}", run.run, run.records))
}

fn to_json(value: &impl serde::Serialize) -> Result<String, Failure> {
    Ok(serde_json::to_string(value).context("cannot write JSON")?)
}

fn print(line: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout().lock(), "{line}").context(crate::exit::NOT_WRITTEN)?;
    Ok(())
}
