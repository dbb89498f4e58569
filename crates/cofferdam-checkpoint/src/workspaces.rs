//! [`Workspaces`]: makes sandboxes of snapshots and snapshots of sandboxes, by the best way that a backend has.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cofferdam_core::{RunId, WorkspacePath};
use cofferdam_sandbox::{
    HostLayerKind, Sandbox, SandboxBackend, SandboxError, SandboxSpec, WorkspaceBase,
    freezer::DEFAULT_FREEZE,
};
use cofferdam_snapshot::{
    Base, BaseCache, DirectoryOptions, DirectorySource, Lineage, Parent, Receipt, SnapshotError,
    SnapshotId, SnapshotOptions, SnapshotStore, Source, TargetError, TreeChanges, TreePath,
};
use serde_json::Value;

use crate::{
    CheckpointId, CheckpointStore, SandboxHandle, SandboxSource, SandboxTarget, ScanMemory,
    WorkspaceError, gone, stands_still::StandsStill,
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
    /// What this host keeps of workspaces that can be made anew; `None` for a host that keeps nothing.
    pub host: Option<HostWorkspaces>,
}

/// What a host keeps of workspaces to be faster the next time. Nothing is lost with it.
#[derive(Debug, Clone)]
pub struct HostWorkspaces {
    /// Directories that workspaces begin with.
    pub bases: BaseCache,
    /// A directory for what was seen of each sandbox's files at its last snapshot, and for what is being made; on the file
    /// system of the bases.
    pub scratch: PathBuf,
}

/// Makes sandboxes of snapshots and snapshots of sandboxes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Workspaces {
    parts: Arc<WorkspacesParts>,
}

/// The most paths in which a workspace may differ from the directory that it begins with. Each is written into the sandbox, where it
/// counts against the disk limit, so more are rather made on this host, once.
const MOST_CHANGES: usize = 4096;

/// The mode of an empty workspace.
const EMPTY_MODE: u32 = 0o755;

/// A live sandbox, and what is known of its workspace.
#[derive(Debug, Clone)]
pub struct LiveWorkspace {
    sandbox: Arc<dyn Sandbox>,
    base: Option<SnapshotId>,
    /// Keeps the directory that the workspace begins with.
    #[expect(dead_code, reason = "it is held, not read")]
    lease: Option<Base>,
    /// Says on this host that somebody is connected to it.
    #[expect(dead_code, reason = "it is held, not read")]
    began: Option<Arc<File>>,
    start: Option<SnapshotId>,
    newest: Option<SnapshotId>,
    memory: Arc<ScanMemory>,
}

impl LiveWorkspace {
    fn new(sandbox: Arc<dyn Sandbox>, base: Option<SnapshotId>, start: Option<SnapshotId>) -> Self {
        Self {
            sandbox,
            base,
            lease: None,
            began: None,
            start,
            newest: None,
            memory: Arc::default(),
        }
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
        let (spec, _) = self.spec().await?;
        Ok(LiveWorkspace::new(self.parts.backend.create(&spec).await?, None, None))
    }

    /// Returns a name for a directory that a workspace can be made in before there is a sandbox, if sandboxes can begin with
    /// one here. Nothing is there yet. Give it to [`Workspaces::begin_from`], which removes it.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError::Sandbox`] if the backend cannot be asked.
    pub async fn fresh_directory(&self, run: &RunId) -> Result<Option<PathBuf>, WorkspaceError> {
        let (_, can_begin) = self.spec().await?;
        let Some(host) = self.parts.host.as_ref().filter(|_| can_begin) else { return Ok(None) };
        make_directory(&host.scratch)?;
        let fresh = gone::filling(&host.scratch, run.as_str());
        // A process that died meanwhile may have left it.
        remove_directory(fresh.clone()).await?;
        Ok(Some(fresh))
    }

    /// Makes a sandbox whose workspace begins with what is in a directory, takes that as the run's first snapshot, and removes
    /// the directory. What a later snapshot costs is what was changed since.
    ///
    /// Nothing in the directory may change meanwhile. Its own mode becomes that of an empty workspace: what it was private with
    /// is the host's matter.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError`]; no sandbox is left then.
    ///
    /// # Cancel safety
    ///
    /// As [`Workspaces::open`]; the directory may be left.
    pub async fn begin_from(
        &self,
        directory: PathBuf,
        run: &RunId,
    ) -> Result<LiveWorkspace, WorkspaceError> {
        let lineage = start_of(run)?;
        let open = fs::Permissions::from_mode(EMPTY_MODE);
        fs::set_permissions(&directory, open).map_err(|source| WorkspaceError::Host {
            operation: "open",
            path: directory.clone(),
            source,
        })?;
        let options = DirectoryOptions {
            exclude: self.excluded(),
            frozen: true,
            ..DirectoryOptions::default()
        };
        let source = DirectorySource::open(&directory, options).map_err(SnapshotError::from)?;
        let receipt = self.take(&lineage, Parent::Newest, &source).await?;
        remove_directory(directory).await?;
        self.open(&receipt.snapshot).await
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
        let lineage = start_of(run)?;
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
        let live = match self.open_on_a_base(snapshot).await? {
            Some(live) => live,
            None => self.open_and_fill(snapshot).await?,
        };
        let start = Some(snapshot.clone());
        Ok(LiveWorkspace { newest: start.clone(), start, ..live })
    }

    /// Makes a sandbox that begins with a directory of this host; `None` if none can here.
    async fn open_on_a_base(
        &self,
        snapshot: &SnapshotId,
    ) -> Result<Option<LiveWorkspace>, WorkspaceError> {
        let (spec, can_begin) = self.spec().await?;
        let Some(host) = self.parts.host.as_ref().filter(|_| can_begin) else { return Ok(None) };
        if let Some((found, base, changes)) = self.base_before(host, snapshot).await? {
            match self.begin_on(&spec, found, base, changes).await {
                Err(WorkspaceError::Restore { source, .. })
                    if !matches!(source, TargetError::Gone { .. }) =>
                {
                    // Such as a directory that nothing may be written into: the very tree can be made all the same.
                    tracing::info!(%source, "a workspace cannot be changed into another");
                }
                begun => return begun,
            }
        }
        let base = host.bases.make(&self.parts.snapshots, snapshot).await;
        let base = base
            .map_err(|error| WorkspaceError::Base { snapshot: snapshot.clone(), source: error })?;
        self.begin_on(&spec, snapshot.clone(), base, None).await
    }

    /// Makes a sandbox that begins with a directory, and changes what is to be changed in it.
    async fn begin_on(
        &self,
        spec: &SandboxSpec,
        begun_with: SnapshotId,
        base: Base,
        changes: Option<TreeChanges>,
    ) -> Result<Option<LiveWorkspace>, WorkspaceError> {
        // A sandbox that outlives this process keeps its base.
        let lock = base.lock().try_clone_to_owned().map_err(|source| WorkspaceError::Host {
            operation: "keep",
            path: base.directory().to_owned(),
            source,
        })?;
        let begin = WorkspaceBase::new(base.directory()).with_lock(Arc::new(lock));
        let spec = SandboxSpec { base: Some(begin), ..spec.clone() };
        match self.parts.backend.create(&spec).await {
            Ok(sandbox) => {
                let began = match self.pin(&*sandbox, &begun_with).await {
                    Ok(began) => began,
                    Err(error) => {
                        let _ = sandbox.close().await;
                        return Err(error);
                    }
                };
                if let Some(changes) = changes
                    && let Err(source) =
                        SandboxTarget::new(Arc::clone(&sandbox)).bring(changes).await
                {
                    let _ = sandbox.close().await;
                    return Err(WorkspaceError::Restore { snapshot: begun_with, source });
                }
                let live = LiveWorkspace::new(sandbox, Some(begun_with), None);
                Ok(Some(LiveWorkspace { lease: Some(base), began, ..live }))
            }
            Err(SandboxError::Base { reason, .. }) => {
                tracing::info!(reason, "a workspace cannot begin with a directory; it is filled");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps what a sandbox begins with: what its changes are changes of must stay in the store as long as the sandbox. The file
    /// comes first, since it leads to the pin of a sandbox that ends alone.
    async fn pin(
        &self,
        sandbox: &dyn Sandbox,
        begun_with: &SnapshotId,
    ) -> Result<Option<Arc<File>>, WorkspaceError> {
        let began = match &self.parts.host {
            Some(host) => {
                make_directory(&host.scratch)?;
                let backend = self.parts.backend.name();
                Some(Arc::new(gone::began(&host.scratch, sandbox.id(), backend)?))
            }
            None => None,
        };
        self.parts.snapshots.pin(&gone::pin_of(sandbox.id())?, begun_with).await?;
        Ok(began)
    }

    /// Finds a directory that lies ready, of the snapshot's tree or of one before it, and what is still to be changed in it. `None`
    /// if there is none, or if too much differs.
    async fn base_before(
        &self,
        host: &HostWorkspaces,
        snapshot: &SnapshotId,
    ) -> Result<Option<(SnapshotId, Base, Option<TreeChanges>)>, WorkspaceError> {
        let store = &self.parts.snapshots;
        let found = host.bases.base_for(store, snapshot).await;
        let found = found
            .map_err(|error| WorkspaceError::Base { snapshot: snapshot.clone(), source: error })?;
        let Some((found, base)) = found else { return Ok(None) };
        if store.get(snapshot).await?.tree == *base.tree() {
            return Ok(Some((found, base, None)));
        }
        let changes = store.changes(&found, snapshot, MOST_CHANGES).await?;
        // A removal names its path as text.
        let changes = changes.filter(|changes| {
            changes.removed.iter().all(|path| std::str::from_utf8(path.as_bytes()).is_ok())
        });
        Ok(changes.map(|changes| (found, base, Some(changes))))
    }

    /// Makes an empty sandbox and uploads everything.
    async fn open_and_fill(&self, snapshot: &SnapshotId) -> Result<LiveWorkspace, WorkspaceError> {
        let live = self.create().await?;
        let mut target = SandboxTarget::new(Arc::clone(&live.sandbox));
        if let Err(source) = self.parts.snapshots.restore(snapshot, &mut target).await {
            // What it could not be filled with tells more than that it could not be closed.
            let _ = live.sandbox.close().await;
            return Err(WorkspaceError::Restore { snapshot: snapshot.clone(), source });
        }
        Ok(live)
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
        let lease = match &base {
            Some(base) => self.lease_of(base).await,
            None => None,
        };
        let host = self.parts.host.as_ref();
        let began = host.and_then(|host| gone::joined(&host.scratch, sandbox.id())).map(Arc::new);
        Ok(LiveWorkspace { lease, began, ..LiveWorkspace::new(sandbox, base, start) })
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
        let Some(source) = self.host_source(live) else {
            let source = SandboxSource::new(
                Arc::clone(&live.sandbox),
                self.parts.exclude.clone(),
                Arc::clone(&live.memory),
            );
            return Ok(self.take(lineage, parent, &source).await?);
        };
        let frozen = match live.sandbox.freezer() {
            Some(freezer) => freezer.freeze(DEFAULT_FREEZE).await.ok(),
            None => None,
        };
        let still = StandsStill::new(&source, frozen);
        let taken = self.take(lineage, parent, &still).await;
        still.end().await;
        Ok(taken?)
    }

    /// Keeps the directory that a sandbox of another process began with, if it is there.
    async fn lease_of(&self, base: &SnapshotId) -> Option<Base> {
        let tree = self.parts.snapshots.get(base).await.ok()?.tree;
        self.parts.host.as_ref()?.bases.get(&tree).ok()?
    }

    /// Returns the files of a sandbox as the host sees them, if it does.
    fn host_source(&self, live: &LiveWorkspace) -> Option<DirectorySource> {
        let layer = live.sandbox.host_workspace()?.layer().ok()?;
        let host = self.parts.host.as_ref();
        let options = DirectoryOptions {
            cache: host.and_then(|host| memory_of(&host.scratch, &*live.sandbox)),
            exclude: self.excluded(),
            ..DirectoryOptions::default()
        };
        match (layer.kind, &live.base) {
            (HostLayerKind::Whole, _) => Some(DirectorySource::whole(layer.directory, options)),
            (HostLayerKind::Upper, Some(base)) => {
                Some(DirectorySource::upper(layer.directory, base.clone(), options))
            }
            _ => None,
        }
    }

    fn excluded(&self) -> BTreeSet<TreePath> {
        let paths = self.parts.exclude.iter().filter(|path| !path.is_root());
        paths.filter_map(|path| TreePath::new(path.as_str().as_bytes()).ok()).collect()
    }

    /// Forgets what was kept for a sandbox alone, once it is gone: what was seen of its files, and the pin on what it began with.
    pub async fn forget(&self, live: &LiveWorkspace) {
        let id = live.sandbox.id();
        let forgotten = async {
            if live.base.is_some() {
                self.parts.snapshots.unpin(&gone::pin_of(id)?).await?;
            }
            let host = self.parts.host.as_ref();
            host.map_or(Ok(()), |host| gone::remove_files(&host.scratch, id))
        };
        let forgotten: Result<(), WorkspaceError> = forgotten.await;
        if let Err(error) = forgotten {
            // A clean-up finds it by what is left.
            tracing::debug!(%error, "something stays kept for a sandbox that is gone");
        }
    }

    /// Reads everything that a snapshot needs, and compares it with its names.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError::Snapshot`] for the first thing that is missing or damaged.
    pub async fn verify(&self, snapshot: &SnapshotId) -> Result<(), WorkspaceError> {
        let report = self.parts.snapshots.verify(snapshot).await?;
        match report.problems.into_iter().next() {
            None => Ok(()),
            Some(problem) => Err(problem.error.into()),
        }
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

    /// Returns what a sandbox is to be, and whether it can begin with a directory.
    async fn spec(&self) -> Result<(SandboxSpec, bool), SandboxError> {
        let can = self.parts.backend.capabilities().await?;
        let linger = if can.linger { self.parts.linger } else { Duration::ZERO };
        let spec = SandboxSpec { linger, base: None, ..self.parts.spec.clone() };
        Ok((spec, can.workspace_base && can.host_workspace))
    }
}

/// The line of snapshots in which a run's beginning is.
fn start_of(run: &RunId) -> Result<Lineage, SnapshotError> {
    Ok(format!("{run}-start").parse::<Lineage>()?)
}

/// Returns the file for what was seen of a sandbox's files; without a place for it everything is read each time.
fn memory_of(scratch: &Path, sandbox: &dyn Sandbox) -> Option<PathBuf> {
    make_directory(scratch).ok()?;
    Some(gone::seen(scratch, sandbox.id()))
}

/// Makes a directory for this user alone.
fn make_directory(directory: &Path) -> Result<(), WorkspaceError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|source| WorkspaceError::Host {
        operation: "make",
        path: directory.to_owned(),
        source,
    })
}

/// Removes a directory with all in it; `Ok` if it is not there.
pub(crate) async fn remove_directory(directory: PathBuf) -> Result<(), WorkspaceError> {
    let removed = tokio::task::spawn_blocking(move || {
        let removed = remove_all(&directory);
        (directory, removed)
    });
    match removed.await {
        Ok((_, Ok(()))) => Ok(()),
        Ok((path, Err(source))) => Err(WorkspaceError::Host { operation: "remove", path, source }),
        Err(error) => Err(WorkspaceError::Host {
            operation: "remove",
            path: PathBuf::new(),
            source: io::Error::other(error),
        }),
    }
}

/// As `std::fs::remove_dir_all`, also where a directory does not let its owner write.
fn remove_all(directory: &Path) -> io::Result<()> {
    let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_directories(directory)?;
            fs::remove_dir_all(directory)
        }
        Err(error) if missing(&error) => Ok(()),
        removed => removed,
    }
}

/// Lets the owner into every directory; links are not followed.
fn open_directories(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_directories(&entry.path())?;
        }
    }
    Ok(())
}
