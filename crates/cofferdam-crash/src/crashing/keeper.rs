//! [`CrashingKeeper`]: any keeper of a workspace, with points.

use std::sync::Arc;

use async_trait::async_trait;
use cofferdam_harness::{
    CheckpointPoint, CheckpointTaken, KeeperError, Recovered, WorkspaceKeeper,
};
use serde_json::Value;

use crate::point::Points;

/// A keeper whose process may die when a checkpoint is taken, a sandbox is recovered, or the workspace is verified at the end.
#[derive(Debug)]
pub struct CrashingKeeper {
    inner: Arc<dyn WorkspaceKeeper>,
    points: Arc<Points>,
}

impl CrashingKeeper {
    /// Puts points around a keeper.
    pub fn new(inner: Arc<dyn WorkspaceKeeper>, points: Arc<Points>) -> Self {
        Self { inner, points }
    }
}

#[async_trait]
impl WorkspaceKeeper for CrashingKeeper {
    fn sandbox(&self) -> Value {
        self.inner.sandbox()
    }

    fn tree(&self) -> Option<String> {
        self.inner.tree()
    }

    async fn checkpoint(&self, point: CheckpointPoint) -> Result<CheckpointTaken, KeeperError> {
        self.points.around("keeper.checkpoint", self.inner.checkpoint(point)).await
    }

    async fn is_lost(&self) -> Option<String> {
        self.inner.is_lost().await
    }

    async fn recover(
        &self,
        last: Option<&CheckpointTaken>,
        attempt: u32,
    ) -> Result<Recovered, KeeperError> {
        self.points.around("keeper.recover", self.inner.recover(last, attempt)).await
    }

    async fn finish(&self) -> Result<(), KeeperError> {
        self.points.around("keeper.finish", self.inner.finish()).await
    }
}
