//! [`WorkspaceKeeper`]: who keeps what a run works in: takes checkpoints of it, notices that it is lost, makes it anew.
//!
//! The harness knows no sandbox and no snapshot. It says *when*: a checkpoint after a turn that wrote, a recovery after a
//! loss; and it records what the keeper answers.

use std::fmt::Debug;

use async_trait::async_trait;
use cofferdam_core::{BoxError, RunId};
use cofferdam_journal::Seq;
use serde_json::Value;

/// Keeps the workspace of one run.
///
/// The harness calls one method at a time, except [`WorkspaceKeeper::is_lost`], which may be called during a checkpoint.
#[async_trait]
pub trait WorkspaceKeeper: Debug + Send + Sync + 'static {
    /// Returns the handle of the live sandbox, for the record.
    fn sandbox(&self) -> Value;

    /// Returns what the workspace was filled from, if that has a name. The default has none.
    fn tree(&self) -> Option<String> {
        None
    }

    /// Takes a checkpoint of the workspace as it is now. No tool call of the run goes on meanwhile.
    ///
    /// # Errors
    ///
    /// [`KeeperError::Lost`] if the sandbox is gone; the harness then asks for a recovery.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no checkpoint is there, or one that no journal names, which a later clean-up may remove.
    async fn checkpoint(&self, point: CheckpointPoint) -> Result<CheckpointTaken, KeeperError>;

    /// Returns why the sandbox is gone, if it is. Asks the backend: a tool's message proves nothing.
    async fn is_lost(&self) -> Option<String>;

    /// Makes a fresh sandbox with the workspace of a checkpoint (`None`: as at the run's start), and puts it in the place of the
    /// lost one, so that tools that hold the sandbox go on.
    ///
    /// # Errors
    ///
    /// [`KeeperError`]; the harness tries again after a pause, and gives up after some losses.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the sandbox that was being made is closed in the background.
    async fn recover(
        &self,
        last: Option<&CheckpointTaken>,
        attempt: u32,
    ) -> Result<Recovered, KeeperError>;

    /// Called at the end of a run that the model finished, before its sandbox may be deleted: the last snapshot is verified.
    ///
    /// # Errors
    ///
    /// [`KeeperError::Failed`] if what was kept is not what was there.
    async fn finish(&self) -> Result<(), KeeperError>;
}

/// The moment of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointPoint {
    /// The run.
    pub run: RunId,
    /// The last record whose effects the workspace holds.
    pub at: Seq,
    /// Answers of the model by then; 0 before the first.
    pub turn: u32,
}

/// A checkpoint that was taken.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckpointTaken {
    /// Its name.
    pub checkpoint: String,
    /// The last record whose effects it holds: [`CheckpointPoint::at`].
    pub at: Seq,
    /// Answers of the model by then.
    pub turn: u32,
    /// The snapshot of the workspace, if it has one.
    pub snapshot: Option<String>,
    /// The handle of the sandbox.
    pub sandbox: Value,
    /// What taking it cost and what was left out, for the record.
    pub receipt: Value,
    /// Commands that were running meanwhile, by name.
    pub running: Vec<String>,
}

/// A fresh sandbox in the place of a lost one.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovered {
    /// Its handle.
    pub sandbox: Value,
    /// The checkpoint that its workspace was restored from; `None`: it was filled as at the run's start. It may be older than
    /// the one that was asked for, if that one is damaged.
    pub checkpoint: Option<String>,
}

/// Why a keeper could not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeeperError {
    /// The sandbox is gone: recover.
    #[error("the sandbox is lost: {reason}")]
    Lost {
        /// What ended it.
        reason: String,
    },
    /// The store of checkpoints or the backend failed: its error tells.
    #[error("could not {operation}")]
    Failed {
        /// What was tried, such as `take a checkpoint`.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: BoxError,
    },
}
