//! [`Workspaces`]: makes sandboxes of snapshots and snapshots of sandboxes, by the best way that a backend has.

use std::{sync::Arc, time::Duration};

use cofferdam_core::{RunId, WorkspacePath};
use cofferdam_sandbox::{Sandbox, SandboxBackend, SandboxError, SandboxSpec};
use cofferdam_snapshot::{
    Lineage, Parent, Receipt, SnapshotError, SnapshotId, SnapshotOptions, SnapshotStore, Source,
};
use futures::TryStreamExt;
use serde_json::Value;

use crate::{
    CheckpointId, CheckpointStore, SandboxHandle, SandboxSource, SandboxTarget, ScanMemory,
    WorkspaceError,
};

/// What sandboxes of one kind are made of, and where their workspaces are kept.
#[derive(Debug, Clone)]
pub struct WorkspacesParts {
    /// Who makes the sandboxes.
    pub backend: Arc<dyn SandboxBackend>,
    /// What each is to be. Its base is set by what a workspace begins with, its linger time by `linger`.
    pub spec: SandboxSpec,
    /// Where snapshots are.
    pub snapshots: Arc<SnapshotStore>,
    /// Workspace paths that no snapshot holds: ephemeral entries and mounts.
    pub exclude: Vec<WorkspacePath>,
    /// How long a sandbox outlives the process that made it, where the backend can do that. Ten minutes are usual.
    pub linger: Duration,
}

/// Makes sandboxes of snapshots and snapshots of sandboxes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Workspaces {
    parts: Arc<WorkspacesParts>,
}

/// A live sandbox, and what is known of its workspace.
#[derive(Debug, Clone)]
pub struct LiveWorkspace {
    sandbox: Arc<dyn Sandbox>,
    base: Option<SnapshotId>,
    start: Option<SnapshotId>,
    newest: Option<SnapshotId>,
    memory: Arc<ScanMemory>,
}

impl LiveWorkspace {
    fn new(sandbox: Arc<dyn Sandbox>, base: Option<SnapshotId>, start: Option<SnapshotId>) -> Self {
        Self { sandbox, base, start, newest: None, memory: Arc::default() }
    }

    /// Returns the sandbox.
    #[must_use]
    pub fn sandbox(&self) -> &Arc<dyn Sandbox> {
        &self.sandbox
    }

    /// Returns the newest snapshot of the workspace that is known, if there is one.
    #[must_use]
    pub fn newest(&self) -> Option<&SnapshotId> {
        self.newest.as_ref()
    }

    /// Returns the snapshot that the workspace was at the run's beginning, if one was taken.
    #[must_use]
    pub fn start(&self) -> Option<&SnapshotId> {
        self.start.as_ref()
    }

    /// Takes over from which snapshot a run began, for what a run falls back to if it has no checkpoint.
    pub(crate) fn beginning_at(self, start: Option<SnapshotId>) -> Self {
        Self { start: start.or(self.start), ..self }
    }

    /// Says which snapshot of it is the newest.
    pub(crate) fn kept_as(self, newest: Option<SnapshotId>) -> Self {
        Self { newest: newest.or(self.newest), ..self }
    }

    /// Returns what a run's records say of it.
    #[must_use]
    pub fn handle(&self) -> Value {
        let handle = SandboxHandle {
            version: crate::handle::HANDLE_VERSION,
            sandbox: self.sandbox.state(),
            base: self.base.clone(),
            start: self.start.clone(),
        };
        handle.to_value()
    }
}

impl Workspaces {
    /// Makes one; nothing is touched yet.
    #[must_use]
    pub fn new(parts: WorkspacesParts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// Returns what it is made of.
    #[must_use]
    pub fn parts(&self) -> &WorkspacesParts {
        &self.parts
    }

    /// Makes a sandbox with an empty workspace.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError::Sandbox`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the half-made sandbox is torn down.
    pub async fn create(&self) -> Result<LiveWorkspace, WorkspaceError> {
        let sandbox = self.parts.backend.create(&self.spec().await?).await?;
        Ok(LiveWorkspace::new(sandbox, None, None))
    }

    /// Takes the snapshot that a filled workspace is at the beginning of a run, so that it can be brought back as it was. It is in
    /// a line of its own, `RUN-start`.
    ///
    /// # Errors
    ///
    /// As [`Workspaces::snapshot`].
    ///
    /// # Cancel safety
    ///
    /// As [`Workspaces::snapshot`].
    pub async fn begin(
        &self,
        filled: LiveWorkspace,
        run: &RunId,
    ) -> Result<LiveWorkspace, WorkspaceError> {
        let lineage = format!("{run}-start").parse::<Lineage>().map_err(SnapshotError::from)?;
        // A process that died before the run began may have left one.
        let receipt = self.snapshot(&filled, &lineage, Parent::Newest).await?;
        let start = Some(receipt.snapshot);
        Ok(LiveWorkspace { newest: start.clone(), start, ..filled })
    }

    /// Makes a sandbox whose workspace is that of a snapshot.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError`]; no sandbox is left then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the sandbox is closed in the background.
    pub async fn open(&self, snapshot: &SnapshotId) -> Result<LiveWorkspace, WorkspaceError> {
        let live = self.create().await?;
        let restored = self
            .parts
            .snapshots
            .restore(snapshot, &mut SandboxTarget::new(Arc::clone(&live.sandbox)))
            .await;
        if let Err(source) = restored {
            // What it could not be filled with tells more than that it could not be closed.
            let _ = live.sandbox.close().await;
            return Err(WorkspaceError::Restore { snapshot: snapshot.clone(), source });
        }
        let start = Some(snapshot.clone());
        Ok(LiveWorkspace { newest: start.clone(), start, ..live })
    }

    /// Makes a sandbox whose workspace is that of a checkpoint.
    ///
    /// # Errors
    ///
    /// As [`Workspaces::open`]; [`WorkspaceError::Checkpoint`], and [`WorkspaceError::NothingKept`] if it has no workspace.
    ///
    /// # Cancel safety
    ///
    /// As [`Workspaces::open`].
    pub async fn open_checkpoint(
        &self,
        checkpoints: &dyn CheckpointStore,
        id: &CheckpointId,
    ) -> Result<LiveWorkspace, WorkspaceError> {
        let kept = checkpoints.get(id).await?.workspace.ok_or(WorkspaceError::NothingKept)?;
        self.open(&kept.snapshot).await
    }

    /// Connects again to the sandbox that a record names, if it still lives.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError::Handle`] if the record cannot be read; [`WorkspaceError::Sandbox`] if the sandbox is gone
    /// ([`SandboxError::Lost`]) or cannot be had again ([`SandboxError::Unsupported`]).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the sandbox goes on as if nobody had connected.
    pub async fn attach(&self, handle: &Value) -> Result<LiveWorkspace, WorkspaceError> {
        let SandboxHandle { sandbox, base, start, .. } = SandboxHandle::from_value(handle)?;
        if sandbox.backend != self.parts.backend.name() {
            let reason = format!(
                "it is of the backend {}, and this is {}",
                sandbox.backend,
                self.parts.backend.name()
            );
            return Err(WorkspaceError::Handle { reason });
        }
        let sandbox = self.parts.backend.attach(&sandbox).await?;
        Ok(LiveWorkspace::new(sandbox, base, start))
    }

    /// Takes a snapshot of a workspace into a lineage. Durable on return.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError::Snapshot`]; [`WorkspaceError::Sandbox`] with [`SandboxError::Lost`] if the sandbox is gone.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the snapshot is there whole or not at all.
    pub async fn snapshot(
        &self,
        live: &LiveWorkspace,
        lineage: &Lineage,
        parent: Parent,
    ) -> Result<Receipt, WorkspaceError> {
        let source = SandboxSource::new(
            Arc::clone(&live.sandbox),
            self.parts.exclude.clone(),
            Arc::clone(&live.memory),
        );
        Ok(self.take(lineage, parent, &source).await?)
    }

    /// Reads everything that a snapshot holds, which verifies it.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError::Snapshot`] for the first thing that is missing or damaged.
    pub async fn verify(&self, snapshot: &SnapshotId) -> Result<(), WorkspaceError> {
        let mut entries = self.parts.snapshots.entries(snapshot).await?;
        while entries.try_next().await?.is_some() {}
        Ok(())
    }

    async fn take(
        &self,
        lineage: &Lineage,
        parent: Parent,
        source: &dyn Source,
    ) -> Result<Receipt, SnapshotError> {
        let options = SnapshotOptions { parent, ..SnapshotOptions::default() };
        self.parts.snapshots.snapshot(lineage, source, options).await
    }

    async fn spec(&self) -> Result<SandboxSpec, SandboxError> {
        let can = self.parts.backend.capabilities().await?;
        let linger = if can.linger { self.parts.linger } else { Duration::ZERO };
        Ok(SandboxSpec { linger, base: None, ..self.parts.spec.clone() })
    }
}
