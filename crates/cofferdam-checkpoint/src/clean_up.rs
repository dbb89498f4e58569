//! [`clean_up`]: frees what no run and no checkpoint needs any more.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use cofferdam_core::{Clock, RunId};
use cofferdam_journal::{Journal, JournalError, JournalExt as _, RunFilter, RunSummary};
use cofferdam_snapshot::{GcOptions, GcReport, Lineage, SnapshotError, SnapshotId, SnapshotStore};
use futures::TryStreamExt as _;

use crate::{CheckpointError, CheckpointId, CheckpointStore, WorkspaceError};

/// A line of snapshots without a run is left alone for so long after its newest one: a run that begins has snapshots before it
/// has records.
const YOUNG: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a clean-up did nothing, or not all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CleanUpError {
    /// The journal could not be asked which runs there are; nothing was dropped.
    #[error("the journal could not tell which runs there are")]
    Journal(#[from] JournalError),
    /// The snapshots or checkpoints failed: their error tells. Calling again goes on.
    #[error("the snapshots could not be cleaned up")]
    Workspace(#[from] WorkspaceError),
}

/// Drops the snapshots of runs that are in no journal any more, and takes one step in freeing what no snapshot needs. Every
/// snapshot that a checkpoint names is kept, and so is what live sandboxes begin with.
///
/// What is freed goes in two steps, a day apart: what one call condemns, a later one deletes. So it may be called at any time,
/// also while runs are going on.
///
/// # Errors
///
/// [`CleanUpError`].
///
/// # Cancel safety
///
/// If the future is dropped, the next call goes on.
pub async fn clean_up(
    snapshots: &SnapshotStore,
    checkpoints: &dyn CheckpointStore,
    journal: &dyn Journal,
    clock: &dyn Clock,
) -> Result<GcReport, CleanUpError> {
    collect(snapshots, checkpoints, journal, clock, &Without::default()).await
}

/// What a collection is to do without, as if it were removed already.
#[derive(Debug, Default)]
pub(crate) struct Without {
    pub(crate) runs: HashSet<RunId>,
    pub(crate) checkpoints: HashSet<CheckpointId>,
    /// Whether only to tell what would be done.
    pub(crate) dry_run: bool,
}

pub(crate) async fn collect(
    snapshots: &SnapshotStore,
    checkpoints: &dyn CheckpointStore,
    journal: &dyn Journal,
    clock: &dyn Clock,
    without: &Without,
) -> Result<GcReport, CleanUpError> {
    let lineages = snapshots.lineages().await.map_err(WorkspaceError::from)?;
    // After the lines were listed: a run that begins meanwhile has none among them.
    let runs = runs(journal).await?;
    let now = clock.now().as_millis();
    let mut options = GcOptions::default();
    options.dry_run = without.dry_run;
    let mut seen: HashSet<RunId> = HashSet::new();
    for lineage in lineages {
        let run = run_of(&lineage);
        if seen.insert(run.clone()) {
            options.keep.extend(kept(checkpoints, &run, without).await?);
        }
        if runs.contains_key(&run) && !without.runs.contains(&run) {
            continue;
        }
        let newest = snapshots.newest(&lineage).await.map_err(WorkspaceError::from)?;
        let Some(newest) = newest else { continue };
        let entry = match snapshots.get(&newest).await {
            Ok(entry) => entry,
            // Another clean-up has dropped it.
            Err(SnapshotError::NotFound { .. }) => continue,
            Err(error) => return Err(WorkspaceError::from(error).into()),
        };
        let age = now.saturating_sub(entry.created.as_millis());
        if u128::from(age) >= YOUNG.as_millis() {
            options.drop.insert(lineage);
        }
    }
    Ok(snapshots.gc(&options).await.map_err(WorkspaceError::from)?)
}

/// The run that a line of snapshots is of: those that are no run's own have its name and a suffix.
fn run_of(lineage: &Lineage) -> RunId {
    let name = lineage.as_str();
    RunId::new(name.split_once('-').map_or(name, |(run, _)| run))
}

/// The runs of a journal, by their names.
pub(crate) async fn runs(
    journal: &dyn Journal,
) -> Result<BTreeMap<RunId, RunSummary>, JournalError> {
    let filter = RunFilter { limit: RunFilter::MAX_LIMIT, ..RunFilter::default() };
    journal.all_runs(filter).map_ok(|run| (run.run.clone(), run)).try_collect().await
}

/// The snapshots that the checkpoints of a run name. A run that was removed has some left if others come from them.
async fn kept(
    checkpoints: &dyn CheckpointStore,
    run: &RunId,
    without: &Without,
) -> Result<Vec<SnapshotId>, WorkspaceError> {
    let mut kept = Vec::new();
    for id in checkpoints.list(run).await? {
        if without.checkpoints.contains(&id) {
            continue;
        }
        let checkpoint = match checkpoints.get(&id).await {
            Ok(checkpoint) => checkpoint,
            // Removed since it was listed.
            Err(CheckpointError::NotFound { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        kept.extend(checkpoint.workspace.map(|receipt| receipt.snapshot));
    }
    Ok(kept)
}
