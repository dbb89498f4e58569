//! [`WorkspaceError`]: why a workspace cannot be kept or brought back, sorted by what the caller can do next.

use cofferdam_sandbox::SandboxError;
use cofferdam_snapshot::{BaseError, SnapshotError, SnapshotId, SourceError, TargetError};

use crate::CheckpointError;

/// A failure to keep a workspace or to bring one back. Whatever is returned, what was kept before is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkspaceError {
    /// The sandbox failed or could not be made: its error tells.
    #[error("the sandbox failed")]
    Sandbox(#[from] SandboxError),
    /// The snapshot could not be taken or read: its error tells.
    #[error("the snapshot of the workspace failed")]
    Snapshot(#[from] SnapshotError),
    /// The workspace could not be made from its snapshot; the sandbox it was for is closed.
    #[error("the workspace cannot be restored from {snapshot}")]
    Restore {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Why.
        #[source]
        source: TargetError,
    },
    /// The directory that a workspace begins with could not be made: its error tells.
    #[error("no directory of this host could be made of {snapshot}")]
    Base {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Why.
        #[source]
        source: BaseError,
    },
    /// A directory of this host cannot be used: look at its permissions and its room.
    #[error("could not {operation} {}", .path.display())]
    Host {
        /// What was tried.
        operation: &'static str,
        /// The directory.
        path: std::path::PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The store of checkpoints failed: its error tells.
    #[error("the checkpoint failed")]
    Checkpoint(#[from] CheckpointError),
    /// The record of the sandbox cannot be read: restore the workspace from a checkpoint.
    #[error("the record of the sandbox cannot be read: {reason}")]
    Handle {
        /// Why not.
        reason: String,
    },
    /// Nothing of the workspace was kept: it can only be filled anew.
    #[error("no snapshot of the workspace was kept")]
    NothingKept,
}

impl WorkspaceError {
    /// Returns true if the sandbox is gone, so that another is to be made.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Sandbox(error) => error.is_loss(),
            Self::Snapshot(SnapshotError::Source(SourceError::Gone { .. }))
            | Self::Restore { source: TargetError::Gone { .. }, .. } => true,
            _ => false,
        }
    }

    /// Returns true if it is the snapshot that is damaged or gone, so that an older one may do.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        let damaged = |error: &SnapshotError| {
            matches!(
                error,
                SnapshotError::Corrupt { .. }
                    | SnapshotError::Missing { .. }
                    | SnapshotError::NotFound { .. }
                    | SnapshotError::NoLineage { .. }
            )
        };
        match self {
            Self::Snapshot(error) => damaged(error),
            Self::Restore { source, .. }
            | Self::Base { source: BaseError::Restore(source), .. } => match source {
                TargetError::Snapshot(error) => damaged(error),
                TargetError::Refused { .. } | TargetError::Incomplete { .. } => true,
                _ => false,
            },
            Self::Base { source: BaseError::Snapshot(error), .. } => damaged(error),
            Self::Checkpoint(error) => {
                matches!(error, CheckpointError::Corrupt { .. } | CheckpointError::NotFound { .. })
            }
            _ => false,
        }
    }
}
