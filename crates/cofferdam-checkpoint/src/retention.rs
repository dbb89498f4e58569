//! [`Retention`]: what is kept of runs, and for how long; [`apply_retention`] makes it so.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use cofferdam_core::{Clock, RunId, Timestamp};
use cofferdam_journal::{Journal, JournalError, RunStatus, RunSummary};
use cofferdam_snapshot::{GcReport, SnapshotId, SnapshotStore};

use crate::{
    CheckpointError, CheckpointId, CheckpointStore, CheckpointStoreExt as _, CleanUpError,
    WorkspaceError,
    clean_up::{Without, collect, runs},
};

/// Who holds a run while it is removed, as others see it.
const OWNER: &str = "clean-up";
/// How long a run is held for that.
const HOLD: Duration = Duration::from_secs(60);

/// What is kept of runs. Whatever it says, what no run and no checkpoint needs is freed, and nothing of a run that somebody
/// drives at the moment is touched.
///
/// The default keeps every run, and 32 checkpoints of each. A run that has not ended is never removed: somebody may go on with
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// So many of the newest checkpoints of each run are kept. Beside them stay those that no other comes from, those that other
    /// runs come from, and those of snapshots that are pinned. `None`: all. Default 32.
    pub checkpoints: Option<usize>,
    /// A run that has ended is kept for so long after its last record. `None`, the default: for ever.
    pub runs_for: Option<Duration>,
    /// So many of the runs that have ended last are kept. `None`, the default: all.
    pub runs: Option<usize>,
    /// The snapshots may take so many bytes; when they take more, the runs that ended first go. `None`, the default: no bound.
    pub max_bytes: Option<u64>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { checkpoints: Some(32), ..Self::never() }
    }
}

impl Retention {
    /// Never removes a run or a checkpoint.
    #[must_use]
    pub const fn never() -> Self {
        Self { checkpoints: None, runs_for: None, runs: None, max_bytes: None }
    }
}

/// What was removed, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RetentionReport {
    /// Runs that were removed, by their names.
    pub runs: Vec<RunId>,
    /// Checkpoints that were removed of other runs.
    pub checkpoints: u64,
    /// What became of the snapshots. What is condemned is deleted by a later call, a day after.
    pub snapshots: GcReport,
    /// Bytes beyond [`Retention::max_bytes`] that nothing could be removed for: what is left is of runs that have not ended.
    pub excess_bytes: u64,
}

/// Removes what a policy does not keep, and takes one step in freeing what nothing needs, as
/// [`clean_up`](fn@crate::clean_up) does. With `dry_run` nothing is removed, and the report says what would be.
///
/// # Errors
///
/// [`CleanUpError`]. What was removed by then stays removed; calling again goes on.
///
/// # Cancel safety
///
/// If the future is dropped, the next call goes on.
pub async fn apply_retention(
    retention: &Retention,
    snapshots: &SnapshotStore,
    checkpoints: &dyn CheckpointStore,
    journal: &dyn Journal,
    clock: &dyn Clock,
    dry_run: bool,
) -> Result<RetentionReport, CleanUpError> {
    let runs = runs(journal).await?;
    let (planned, excess_bytes) =
        runs_to_remove(retention, &runs, snapshots, checkpoints, clock.now()).await?;
    let mut report = RetentionReport { excess_bytes, ..RetentionReport::default() };
    let mut without = Without { dry_run, ..Without::default() };
    for run in planned {
        if dry_run {
            without.checkpoints.extend(removable(checkpoints, &run).await?);
        } else if !remove_ended(checkpoints, journal, &run).await? {
            continue;
        }
        without.runs.insert(run.clone());
        report.runs.push(run);
    }
    if let Some(keep) = retention.checkpoints {
        let pins = snapshots.pins().await.map_err(WorkspaceError::from)?;
        let pinned: HashSet<SnapshotId> = pins.into_iter().map(|(_, snapshot)| snapshot).collect();
        let others = runs.values().filter(|run| !without.runs.contains(&run.run) && !is_held(run));
        for run in others {
            for id in to_prune(checkpoints, &run.run, keep, &pinned).await? {
                if !dry_run {
                    match checkpoints.remove(&id).await {
                        Ok(()) => {}
                        // A fork has come meanwhile.
                        Err(CheckpointError::Needed { .. }) => continue,
                        Err(error) => return Err(WorkspaceError::from(error).into()),
                    }
                }
                report.checkpoints += 1;
                without.checkpoints.insert(id);
            }
        }
    }
    report.snapshots = collect(snapshots, checkpoints, journal, clock, &without).await?;
    Ok(report)
}

/// Removes a run: its checkpoints, but those that other runs come from, and then its records. Its snapshots are freed by
/// clean-ups. Idempotent.
///
/// # Errors
///
/// [`WorkspaceError::Checkpoint`], or [`JournalError`] such as [`JournalError::Leased`] while somebody drives the run; calling
/// again goes on.
pub async fn remove_run(
    checkpoints: &dyn CheckpointStore,
    journal: &dyn Journal,
    run: &RunId,
) -> Result<(), CleanUpError> {
    // Whoever drives it needs its checkpoints.
    let lease = journal.lease(run, OWNER, HOLD).await?;
    let removed = remove_checkpoints(checkpoints, run).await;
    journal.release(&lease).await?;
    removed?;
    // Last: with it goes the knowledge that the run was there.
    Ok(journal.remove(run).await?)
}

/// Removes a run unless somebody took it up; tells whether it is removed.
async fn remove_ended(
    checkpoints: &dyn CheckpointStore,
    journal: &dyn Journal,
    run: &RunId,
) -> Result<bool, CleanUpError> {
    match remove_run(checkpoints, journal, run).await {
        Ok(()) => Ok(true),
        Err(CleanUpError::Journal(JournalError::Leased { .. })) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn remove_checkpoints(
    checkpoints: &dyn CheckpointStore,
    run: &RunId,
) -> Result<(), WorkspaceError> {
    for id in checkpoints.list(run).await?.iter().rev() {
        match checkpoints.remove(id).await {
            Ok(()) | Err(CheckpointError::Needed { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The checkpoints of a run that could be removed.
async fn removable(
    checkpoints: &dyn CheckpointStore,
    run: &RunId,
) -> Result<Vec<CheckpointId>, WorkspaceError> {
    let mut removable = Vec::new();
    for id in checkpoints.list(run).await? {
        if checkpoints.forks(&id).await?.is_empty() {
            removable.push(id);
        }
    }
    Ok(removable)
}

/// The checkpoints of a run that a policy does not keep.
async fn to_prune(
    checkpoints: &dyn CheckpointStore,
    run: &RunId,
    keep: usize,
    pinned: &HashSet<SnapshotId>,
) -> Result<Vec<CheckpointId>, WorkspaceError> {
    let listed = checkpoints.list(run).await?;
    if listed.len() <= keep {
        return Ok(Vec::new());
    }
    let heads = checkpoints.heads(run).await?;
    let mut pruned = Vec::new();
    for id in listed.iter().take(listed.len() - keep).filter(|id| !heads.contains(id)) {
        let workspace = checkpoints.get(id).await?.workspace;
        let is_pinned = workspace.is_some_and(|receipt| pinned.contains(&receipt.snapshot));
        if !is_pinned && checkpoints.forks(id).await?.is_empty() {
            pruned.push(id.clone());
        }
    }
    Ok(pruned)
}

/// The runs that a policy does not keep, those that ended first before the others, and the bytes that are still too many then.
async fn runs_to_remove(
    retention: &Retention,
    runs: &BTreeMap<RunId, RunSummary>,
    snapshots: &SnapshotStore,
    checkpoints: &dyn CheckpointStore,
    now: Timestamp,
) -> Result<(Vec<RunId>, u64), WorkspaceError> {
    let is_over = |run: &&RunSummary| run.status == RunStatus::Finished && !is_held(run);
    let mut ended: Vec<&RunSummary> = runs.values().filter(is_over).collect();
    ended.sort_by_key(|run| (run.updated, run.run.as_str()));
    let too_many = retention.runs.map_or(0, |keep| ended.len().saturating_sub(keep));
    let is_old = |run: &RunSummary| {
        let age = run.updated.map_or(0, |ended| now.as_millis().saturating_sub(ended.as_millis()));
        retention.runs_for.is_some_and(|keep| u128::from(age) > keep.as_millis())
    };
    let old = ended.iter().take_while(|run| is_old(run)).count();
    let mut count = too_many.max(old);
    let Some(max) = retention.max_bytes else {
        return Ok((names(&ended[..count]), 0));
    };
    let mut excess = snapshots.usage().await?.needed_bytes.saturating_sub(max);
    // What a run has stored says about what goes with it; what others share with it stays, and the next clean-up looks again.
    for run in &ended[..count] {
        excess = excess.saturating_sub(stored_bytes(checkpoints, &run.run).await?);
    }
    while let Some(run) = ended.get(count).filter(|_| excess > 0) {
        excess = excess.saturating_sub(stored_bytes(checkpoints, &run.run).await?);
        count += 1;
    }
    Ok((names(&ended[..count]), excess))
}

fn names(runs: &[&RunSummary]) -> Vec<RunId> {
    runs.iter().map(|run| run.run.clone()).collect()
}

fn is_held(run: &RunSummary) -> bool {
    run.holder.as_ref().is_some_and(|holder| holder.live)
}

/// Bytes that the checkpoints of a run have put into the store.
async fn stored_bytes(
    checkpoints: &dyn CheckpointStore,
    run: &RunId,
) -> Result<u64, WorkspaceError> {
    let mut bytes = 0;
    for id in checkpoints.list(run).await? {
        match checkpoints.get(&id).await {
            Ok(checkpoint) => {
                bytes += checkpoint.workspace.map_or(0, |receipt| receipt.stored.bytes_put);
            }
            Err(CheckpointError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}
