//! Going on with a run's workspace in another process: the very sandbox if it still lives, else one like it.

use cofferdam_sandbox::SandboxError;
use cofferdam_snapshot::SnapshotId;

use crate::{
    CheckpointId, CheckpointStore, LiveWorkspace, RunRecords, SandboxHandle, WorkspaceError,
    Workspaces,
};

/// A workspace to go on in.
#[derive(Debug, Clone)]
pub struct Reopened {
    /// The live sandbox.
    pub workspace: LiveWorkspace,
    /// Whether it is the very sandbox that the run had, with everything that happened in it.
    pub same_sandbox: bool,
    /// The newest checkpoint of the workspace; in a fresh sandbox the one that it was restored from. `None` in a fresh one: it
    /// is as at the run's start.
    pub checkpoint: Option<CheckpointId>,
}

impl Workspaces {
    /// Connects to the sandbox that a run had last. If it is gone, makes one with the workspace of the run's newest
    /// checkpoint, or with that of the run's start if there is none.
    ///
    /// Take the run's lease first: whoever drives the run loses the sandbox to this.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError::NothingKept`] if there is no checkpoint, and no snapshot of the start: fill a fresh one.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the sandbox goes on as if nobody had connected, and a fresh one is closed.
    pub async fn reopen(
        &self,
        checkpoints: &dyn CheckpointStore,
        records: &RunRecords,
    ) -> Result<Reopened, WorkspaceError> {
        let newest = match records.state.checkpoint() {
            Some(taken) => Some(taken.checkpoint.parse::<CheckpointId>()?),
            None => None,
        };
        if let Some(handle) = &records.sandbox {
            match self.attach(handle).await {
                Ok(workspace) => {
                    let kept = records.state.checkpoint().and_then(|taken| taken.snapshot.as_ref());
                    let kept = kept.and_then(|snapshot| snapshot.parse::<SnapshotId>().ok());
                    let kept = kept.or_else(|| workspace.start().cloned());
                    let workspace = workspace.kept_as(kept);
                    return Ok(Reopened { workspace, same_sandbox: true, checkpoint: newest });
                }
                Err(error) if may_restore(&error) => {
                    tracing::info!(%error, "the run's sandbox is gone; its workspace is restored");
                }
                Err(error) => return Err(error),
            }
        }
        self.reopen_at(checkpoints, records, newest).await
    }

    /// Makes a sandbox with the workspace of a checkpoint, or of the run's start.
    ///
    /// # Errors
    ///
    /// As [`Workspaces::reopen`].
    ///
    /// # Cancel safety
    ///
    /// As [`Workspaces::open`].
    pub async fn reopen_at(
        &self,
        checkpoints: &dyn CheckpointStore,
        records: &RunRecords,
        checkpoint: Option<CheckpointId>,
    ) -> Result<Reopened, WorkspaceError> {
        let handle =
            records.sandbox.as_ref().and_then(|handle| SandboxHandle::from_value(handle).ok());
        let start = handle.and_then(|handle| handle.start);
        let workspace = match (&checkpoint, &start) {
            (Some(id), _) => self.open_checkpoint(checkpoints, id).await?,
            (None, Some(start)) => self.open(start).await?,
            (None, None) => return Err(WorkspaceError::NothingKept),
        };
        let workspace = workspace.beginning_at(start);
        Ok(Reopened { workspace, same_sandbox: false, checkpoint })
    }
}

/// Tells a sandbox that is gone from one that cannot be asked for at the moment.
fn may_restore(error: &WorkspaceError) -> bool {
    matches!(
        error,
        WorkspaceError::Handle { .. }
            | WorkspaceError::Sandbox(
                SandboxError::Lost { .. }
                    | SandboxError::Unsupported { .. }
                    | SandboxError::Protocol { .. }
                    | SandboxError::VersionMismatch { .. }
            )
    )
}
