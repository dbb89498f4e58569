//! `CrashingSandbox`: any sandbox, with points.

use std::sync::Arc;

use async_trait::async_trait;
use cofferdam_core::SandboxId;
use cofferdam_sandbox::{
    ExecRequest, Files, Freezer, HostWorkspace, Ports, Process, Sandbox, SandboxError,
    SandboxState, Sessions, Tree, Watcher,
};

use super::{files::CrashingFiles, sessions::CrashingSessions, tree::CrashingTree};
use crate::point::Points;

/// A sandbox whose process may die at each of its calls.
#[derive(Debug)]
pub(super) struct CrashingSandbox {
    inner: Arc<dyn Sandbox>,
    points: Arc<Points>,
    files: CrashingFiles,
    sessions: CrashingSessions,
    tree: CrashingTree,
}

impl CrashingSandbox {
    pub(super) fn new(inner: Arc<dyn Sandbox>, points: Arc<Points>) -> Self {
        let files = CrashingFiles::new(Arc::clone(&inner), Arc::clone(&points));
        let sessions = CrashingSessions::new(Arc::clone(&inner), Arc::clone(&points));
        let tree = CrashingTree::new(Arc::clone(&inner), Arc::clone(&points));
        Self { files, sessions, tree, inner, points }
    }
}

#[async_trait]
impl Sandbox for CrashingSandbox {
    fn id(&self) -> &SandboxId {
        self.inner.id()
    }

    fn state(&self) -> SandboxState {
        self.inner.state()
    }

    async fn exec(&self, request: ExecRequest) -> Result<Process, SandboxError> {
        self.points.around_in(&*self.inner, "sandbox.exec", self.inner.exec(request)).await
    }

    fn files(&self) -> &dyn Files {
        &self.files
    }

    fn tree(&self) -> &dyn Tree {
        &self.tree
    }

    fn sessions(&self) -> Option<&dyn Sessions> {
        self.inner.sessions().map(|_| &self.sessions as &dyn Sessions)
    }

    fn ports(&self) -> Option<&dyn Ports> {
        self.inner.ports()
    }

    fn watcher(&self) -> Option<&dyn Watcher> {
        self.inner.watcher()
    }

    fn host_workspace(&self) -> Option<&dyn HostWorkspace> {
        self.inner.host_workspace()
    }

    fn freezer(&self) -> Option<&dyn Freezer> {
        self.inner.freezer()
    }

    async fn lost(&self) -> SandboxError {
        self.inner.lost().await
    }

    async fn close(&self) -> Result<(), SandboxError> {
        self.points.around("sandbox.close", self.inner.close()).await
    }
}
