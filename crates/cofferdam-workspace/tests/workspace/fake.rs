//! A sandbox in memory: it takes only sound uploads, and can send whatever a test wants.

use std::{collections::BTreeMap, sync::Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::{SandboxId, WorkspacePath};
use cofferdam_sandbox::{
    DownloadOptions, ExecRequest, FileMetadata, Files, ListOptions, Listing, Process, Sandbox,
    SandboxError, SandboxState, Tree, TreeEntry, TreeEntryKind, TreeEvent, WriteOptions,
};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};

/// What is at a path.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    Directory(u32),
    File(u32, Vec<u8>),
    Link(Vec<u8>),
}

#[derive(Debug)]
pub(crate) struct FakeSandbox {
    id: SandboxId,
    pub(crate) tree: FakeTree,
}

/// Something that happens on the host while an upload is under way.
pub(crate) struct AtFirstEvent(pub(crate) Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for AtFirstEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AtFirstEvent")
    }
}

#[derive(Debug, Default)]
pub(crate) struct FakeTree {
    pub(crate) nodes: Mutex<BTreeMap<Vec<u8>, Node>>,
    /// Sent by every download instead of the true tree.
    pub(crate) scripted: Mutex<Option<Vec<TreeEvent>>>,
    /// Makes each upload fail after so many events.
    pub(crate) fail_after: Option<usize>,
    /// Done at the first event of an upload.
    pub(crate) at_first_event: Option<AtFirstEvent>,
}

impl FakeSandbox {
    pub(crate) fn new() -> Self {
        Self::with(FakeTree::default())
    }

    pub(crate) fn with(tree: FakeTree) -> Self {
        Self { id: SandboxId::new("fake"), tree }
    }

    /// A sandbox whose downloads send these events.
    pub(crate) fn sending(events: Vec<TreeEvent>) -> Self {
        Self::with(FakeTree { scripted: Mutex::new(Some(events)), ..FakeTree::default() })
    }

    /// Renders the workspace, one line a path.
    pub(crate) fn listing(&self) -> String {
        let nodes = self.tree.nodes.lock().unwrap();
        let lines = nodes.iter().map(|(path, node)| {
            let path = String::from_utf8_lossy(path);
            match node {
                Node::Directory(mode) => format!("{mode:04o} {path}/"),
                Node::File(mode, content) => format!("{mode:04o} {path} {}", content.len()),
                Node::Link(target) => format!("link {path} -> {}", String::from_utf8_lossy(target)),
            }
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn content(&self, path: &str) -> Vec<u8> {
        match self.tree.nodes.lock().unwrap().get(path.as_bytes()) {
            Some(Node::File(_, content)) => content.clone(),
            other => panic!("{path} is {other:?}"),
        }
    }

    pub(crate) fn put(&self, path: &str, node: Node) {
        self.tree.nodes.lock().unwrap().insert(path.as_bytes().to_vec(), node);
    }
}

fn file_error(path: &[u8], reason: &str, errno: i32) -> SandboxError {
    let path = String::from_utf8_lossy(path).into_owned();
    SandboxError::File { operation: "fake", path, reason: reason.to_owned(), errno }
}

#[async_trait]
impl Tree for FakeTree {
    async fn upload(
        &self,
        target: &WorkspacePath,
        mut entries: BoxStream<'static, Result<TreeEvent, SandboxError>>,
    ) -> Result<u64, SandboxError> {
        assert!(target.is_root(), "the fake takes uploads at the root only");
        let (mut made, mut events) = (0, 0);
        let mut open: Option<(TreeEntry, u64, Vec<u8>)> = None;
        loop {
            let event = entries.next().await.transpose()?;
            events += 1;
            if let Some(AtFirstEvent(action)) = &self.at_first_event
                && events == 1
            {
                action();
            }
            if self.fail_after.is_some_and(|limit| events > limit) {
                return Err(file_error(b"x", "no space left on device", 28));
            }
            match event {
                Some(TreeEvent::Content(bytes)) => {
                    let (_, rest, content) = open.as_mut().unwrap();
                    *rest = rest.checked_sub(bytes.len() as u64).unwrap();
                    content.extend_from_slice(&bytes);
                    continue;
                }
                Some(TreeEvent::Skipped(_)) => panic!("an upload skips nothing"),
                Some(TreeEvent::Entry(_)) | None => {}
                Some(other) => panic!("unknown event {other:?}"),
            }
            let mut nodes = self.nodes.lock().unwrap();
            if let Some((entry, rest, content)) = open.take() {
                assert_eq!(rest, 0, "{entry:?} is not whole");
                nodes.insert(entry.path, Node::File(entry.mode, content));
            }
            let Some(TreeEvent::Entry(entry)) = event else { return Ok(made) };
            made += 1;
            let parent = entry.path.iter().rposition(|byte| *byte == b'/');
            if let Some(parent) = parent.map(|at| &entry.path[..at]) {
                match nodes.get(parent) {
                    Some(Node::Directory(mode)) if mode & 0o700 == 0o700 => {}
                    other => panic!("{entry:?} comes into {other:?}"),
                }
            }
            let there = nodes.get(&entry.path);
            match entry.kind.clone() {
                TreeEntryKind::Directory => {
                    assert!(matches!(there, None | Some(Node::Directory(_))), "{entry:?} replaces");
                    nodes.insert(entry.path, Node::Directory(entry.mode));
                }
                TreeEntryKind::Link { target } => {
                    assert!(!matches!(there, Some(Node::Directory(_))), "{entry:?} replaces");
                    nodes.insert(entry.path, Node::Link(target));
                }
                TreeEntryKind::File { size } => {
                    assert!(!matches!(there, Some(Node::Directory(_))), "{entry:?} replaces");
                    open = Some((entry, size, Vec::new()));
                }
                other => panic!("unknown kind {other:?}"),
            }
        }
    }

    async fn download(
        &self,
        source: &WorkspacePath,
        _: &DownloadOptions,
    ) -> Result<BoxStream<'static, Result<TreeEvent, SandboxError>>, SandboxError> {
        if let Some(events) = &*self.scripted.lock().unwrap() {
            return Ok(stream::iter(events.clone().into_iter().map(Ok)).boxed());
        }
        let nodes = self.nodes.lock().unwrap();
        let mut events = Vec::new();
        for (path, node) in nodes.iter() {
            let text = String::from_utf8(path.clone()).unwrap();
            if !source.contains(&WorkspacePath::new(&text).unwrap()) {
                continue;
            }
            let prefix = if source.is_root() { 0 } else { source.as_str().len() };
            let relative = path[prefix..].strip_prefix(b"/").unwrap_or(&path[prefix..]).to_vec();
            events.extend(match node {
                Node::Directory(mode) => vec![directory(relative, *mode)],
                Node::File(mode, content) => file(relative, *mode, content),
                Node::Link(target) => vec![link(relative, target)],
            });
        }
        if events.is_empty() {
            return Err(file_error(source.as_str().as_bytes(), "no such file or directory", 2));
        }
        Ok(stream::iter(events.into_iter().map(Ok)).boxed())
    }
}

pub(crate) fn directory(path: impl Into<Vec<u8>>, mode: u32) -> TreeEvent {
    let kind = TreeEntryKind::Directory;
    TreeEvent::Entry(TreeEntry { path: path.into(), mode, modified_ns: None, kind })
}

pub(crate) fn file(path: impl Into<Vec<u8>>, mode: u32, content: &[u8]) -> Vec<TreeEvent> {
    let kind = TreeEntryKind::File { size: content.len() as u64 };
    let entry = TreeEntry { path: path.into(), mode, modified_ns: None, kind };
    vec![TreeEvent::Entry(entry), TreeEvent::Content(Bytes::copy_from_slice(content))]
}

pub(crate) fn link(path: impl Into<Vec<u8>>, target: &[u8]) -> TreeEvent {
    let kind = TreeEntryKind::Link { target: target.to_vec() };
    TreeEvent::Entry(TreeEntry { path: path.into(), mode: 0o777, modified_ns: None, kind })
}

const fn unsupported(operation: &'static str) -> SandboxError {
    SandboxError::Unsupported { backend: "fake", operation }
}

#[async_trait]
impl Sandbox for FakeSandbox {
    fn id(&self) -> &SandboxId {
        &self.id
    }

    fn state(&self) -> SandboxState {
        panic!("the fake has no state")
    }

    async fn exec(&self, _: ExecRequest) -> Result<Process, SandboxError> {
        Err(unsupported("commands"))
    }

    fn files(&self) -> &dyn Files {
        &self.tree
    }

    fn tree(&self) -> &dyn Tree {
        &self.tree
    }

    async fn lost(&self) -> SandboxError {
        std::future::pending().await
    }

    async fn close(&self) -> Result<(), SandboxError> {
        Ok(())
    }
}

#[async_trait]
impl Files for FakeTree {
    async fn read(&self, _: &WorkspacePath, _: u64, _: u64) -> Result<Bytes, SandboxError> {
        Err(unsupported("files"))
    }

    async fn write(
        &self,
        _: &WorkspacePath,
        _: Bytes,
        _: &WriteOptions,
    ) -> Result<(), SandboxError> {
        Err(unsupported("files"))
    }

    async fn list(&self, _: &WorkspacePath, _: &ListOptions) -> Result<Listing, SandboxError> {
        Err(unsupported("files"))
    }

    async fn stat(&self, _: &WorkspacePath) -> Result<FileMetadata, SandboxError> {
        Err(unsupported("files"))
    }

    async fn make_directory(&self, _: &WorkspacePath, _: u32) -> Result<(), SandboxError> {
        Err(unsupported("files"))
    }

    async fn rename(
        &self,
        _: &WorkspacePath,
        _: &WorkspacePath,
        _: bool,
    ) -> Result<(), SandboxError> {
        Err(unsupported("files"))
    }

    async fn remove(&self, _: &WorkspacePath, _: bool) -> Result<(), SandboxError> {
        Err(unsupported("files"))
    }
}
