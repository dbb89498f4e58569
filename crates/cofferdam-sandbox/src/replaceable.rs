//! [`ReplaceableSandbox`]: a sandbox whose place another can take, under the hands of whoever holds it.

use std::{
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::{SandboxId, WorkspacePath};
use futures::stream::BoxStream;

use crate::{
    CommandInfo, DownloadOptions, ExecRequest, FileMetadata, Files, Freezer, Frozen, HostLayer,
    HostWorkspace, ListOptions, Listing, OutputPosition, PortAddress, PortListener, PortStream,
    Ports, Process, Sandbox, SandboxError, SandboxState, ScanEvent, ScanOptions, Sessions, Tree,
    TreeEvent, WatchEvent, WatchOptions, Watcher, WriteOptions,
};

/// Hands every call to the sandbox that is in its place now.
///
/// Tools hold it and know nothing of losses: when a sandbox is lost, whoever recovers the run makes a new one and calls
/// [`ReplaceableSandbox::replace`]. What was under way on the lost sandbox ends with its error ([`SandboxError::Lost`]) and
/// never moves to the new one; what begins afterwards goes to the new one.
///
/// What it can do is asked of the current sandbox at each call: [`Sandbox::sessions`] and its like may answer differently
/// after a replacement by one of another kind, and a part that was taken before then fails with
/// [`SandboxError::Unsupported`].
#[derive(Debug)]
pub struct ReplaceableSandbox {
    place: Place,
    /// The name of the first one.
    first: Name,
}

impl ReplaceableSandbox {
    /// Puts a first sandbox in the place.
    #[must_use]
    pub fn new(sandbox: Arc<dyn Sandbox>) -> Self {
        Self { first: Name::of(&*sandbox), place: Place(RwLock::new(sandbox)) }
    }

    /// Returns the sandbox that is in the place now.
    #[must_use]
    pub fn current(&self) -> Arc<dyn Sandbox> {
        self.place.current()
    }

    /// Puts another sandbox in the place and returns the former one, which is neither closed nor touched.
    pub fn replace(&self, sandbox: Arc<dyn Sandbox>) -> Arc<dyn Sandbox> {
        let name = Name::of(&*sandbox);
        let former = {
            let mut place = self.place.0.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *place, sandbox)
        };
        // Two replacements at a time may note their names in the other order than they took the place; the name is for
        // people, and `state` is what finds a sandbox again.
        self.first.follow(Box::new(name));
        former
    }
}

/// A sandbox's name and that of the one after it: names are lent out for as long as this lives, so none is ever dropped.
#[derive(Debug)]
struct Name {
    id: SandboxId,
    next: OnceLock<Box<Self>>,
}

impl Name {
    fn of(sandbox: &dyn Sandbox) -> Self {
        Self { id: sandbox.id().clone(), next: OnceLock::new() }
    }

    fn last(&self) -> &Self {
        let mut name = self;
        while let Some(next) = name.next.get() {
            name = next;
        }
        name
    }

    fn follow(&self, mut name: Box<Self>) {
        while let Err(refused) = self.last().next.set(name) {
            name = refused;
        }
    }
}

/// Who is in the place, and every part of a sandbox, each of which asks for that anew in each call.
#[derive(Debug)]
struct Place(RwLock<Arc<dyn Sandbox>>);

impl Place {
    fn current(&self) -> Arc<dyn Sandbox> {
        // A panic cannot leave the place half changed: it changes in one step.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a part says that was taken from a sandbox which had it, now that another is there which has not.
fn unsupported(operation: &'static str) -> SandboxError {
    SandboxError::Unsupported { backend: "present sandbox's", operation }
}

#[async_trait]
impl Sandbox for ReplaceableSandbox {
    fn id(&self) -> &SandboxId {
        &self.first.last().id
    }

    fn state(&self) -> SandboxState {
        self.current().state()
    }

    async fn exec(&self, request: ExecRequest) -> Result<Process, SandboxError> {
        self.current().exec(request).await
    }

    fn files(&self) -> &dyn Files {
        &self.place
    }

    fn tree(&self) -> &dyn Tree {
        &self.place
    }

    fn sessions(&self) -> Option<&dyn Sessions> {
        self.current().sessions().map(|_| &self.place as &dyn Sessions)
    }

    fn ports(&self) -> Option<&dyn Ports> {
        self.current().ports().map(|_| &self.place as &dyn Ports)
    }

    fn watcher(&self) -> Option<&dyn Watcher> {
        self.current().watcher().map(|_| &self.place as &dyn Watcher)
    }

    fn host_workspace(&self) -> Option<&dyn HostWorkspace> {
        self.current().host_workspace().map(|_| &self.place as &dyn HostWorkspace)
    }

    fn freezer(&self) -> Option<&dyn Freezer> {
        self.current().freezer().map(|_| &self.place as &dyn Freezer)
    }

    /// Waits for the end of the sandbox that is in the place now.
    async fn lost(&self) -> SandboxError {
        self.current().lost().await
    }

    /// Closes the sandbox that is in the place now.
    async fn close(&self) -> Result<(), SandboxError> {
        self.current().close().await
    }
}

#[async_trait]
impl Files for Place {
    async fn read(
        &self,
        path: &WorkspacePath,
        offset: u64,
        max_bytes: u64,
    ) -> Result<Bytes, SandboxError> {
        self.current().files().read(path, offset, max_bytes).await
    }

    async fn write(
        &self,
        path: &WorkspacePath,
        content: Bytes,
        options: &WriteOptions,
    ) -> Result<(), SandboxError> {
        self.current().files().write(path, content, options).await
    }

    async fn list(
        &self,
        path: &WorkspacePath,
        options: &ListOptions,
    ) -> Result<Listing, SandboxError> {
        self.current().files().list(path, options).await
    }

    async fn stat(&self, path: &WorkspacePath) -> Result<FileMetadata, SandboxError> {
        self.current().files().stat(path).await
    }

    async fn make_directory(&self, path: &WorkspacePath, mode: u32) -> Result<(), SandboxError> {
        self.current().files().make_directory(path, mode).await
    }

    async fn rename(
        &self,
        from: &WorkspacePath,
        to: &WorkspacePath,
        replace: bool,
    ) -> Result<(), SandboxError> {
        self.current().files().rename(from, to, replace).await
    }

    async fn remove(&self, path: &WorkspacePath, recursive: bool) -> Result<(), SandboxError> {
        self.current().files().remove(path, recursive).await
    }
}

#[async_trait]
impl Tree for Place {
    async fn upload(
        &self,
        target: &WorkspacePath,
        entries: BoxStream<'static, Result<TreeEvent, SandboxError>>,
    ) -> Result<u64, SandboxError> {
        self.current().tree().upload(target, entries).await
    }

    async fn download(
        &self,
        source: &WorkspacePath,
        options: &DownloadOptions,
    ) -> Result<BoxStream<'static, Result<TreeEvent, SandboxError>>, SandboxError> {
        self.current().tree().download(source, options).await
    }

    async fn scan(
        &self,
        root: &WorkspacePath,
        options: &ScanOptions,
    ) -> Result<BoxStream<'static, Result<ScanEvent, SandboxError>>, SandboxError> {
        self.current().tree().scan(root, options).await
    }
}

#[async_trait]
impl Sessions for Place {
    async fn list(&self) -> Result<Vec<CommandInfo>, SandboxError> {
        let current = self.current();
        current.sessions().ok_or_else(|| unsupported("finding commands again"))?.list().await
    }

    async fn attach(&self, id: &str, from: OutputPosition) -> Result<Process, SandboxError> {
        let current = self.current();
        let sessions = current.sessions().ok_or_else(|| unsupported("finding commands again"))?;
        sessions.attach(id, from).await
    }

    async fn forget(&self, id: &str) -> Result<(), SandboxError> {
        let current = self.current();
        current.sessions().ok_or_else(|| unsupported("finding commands again"))?.forget(id).await
    }
}

#[async_trait]
impl Ports for Place {
    async fn connect(&self, address: &PortAddress) -> Result<PortStream, SandboxError> {
        let current = self.current();
        current.ports().ok_or_else(|| unsupported("connections"))?.connect(address).await
    }

    async fn listen(&self, port: u16) -> Result<PortListener, SandboxError> {
        let current = self.current();
        current.ports().ok_or_else(|| unsupported("connections"))?.listen(port).await
    }
}

#[async_trait]
impl Watcher for Place {
    async fn watch(
        &self,
        path: &WorkspacePath,
        options: &WatchOptions,
    ) -> Result<BoxStream<'static, Result<WatchEvent, SandboxError>>, SandboxError> {
        let current = self.current();
        current.watcher().ok_or_else(|| unsupported("watching"))?.watch(path, options).await
    }
}

impl HostWorkspace for Place {
    fn layer(&self) -> Result<HostLayer, SandboxError> {
        let current = self.current();
        current.host_workspace().ok_or_else(|| unsupported("files seen from the host"))?.layer()
    }
}

#[async_trait]
impl Freezer for Place {
    async fn freeze(&self, max: Duration) -> Result<Frozen, SandboxError> {
        let current = self.current();
        current.freezer().ok_or_else(|| unsupported("freezing"))?.freeze(max).await
    }
}
