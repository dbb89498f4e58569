//! [`MemoryFiles`]: a workspace in memory, with the rules of a real one and faults on demand.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{
    FileKind, FileMetadata, Files, ListOptions, Listing, ListingEntry, LossReason, SandboxError,
    WriteOptions,
};

/// Files, directories and links in memory.
///
/// Modification times count writes, so that later ones are greater and tests are the same each time.
#[derive(Debug, Default)]
pub struct MemoryFiles {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Every node but the workspace itself, by path. A directory is there before what is in it.
    pub(super) nodes: BTreeMap<String, Node>,
    writes: i64,
    faults: VecDeque<Fault>,
    /// Calls after which every call finds the sandbox lost.
    calls_left: Option<u32>,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) content: Content,
    pub(super) mode: u32,
    pub(super) modified_ns: i64,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    File(Bytes),
    Directory,
    Link(String),
    Special,
}

/// A call that is to fail.
#[derive(Debug)]
struct Fault {
    operation: &'static str,
    path: String,
    errno: i32,
}

/// Error numbers of Linux.
mod errno {
    pub(super) const ENOENT: i32 = 2;
    pub(super) const EEXIST: i32 = 17;
    pub(super) const ENOTDIR: i32 = 20;
    pub(super) const EISDIR: i32 = 21;
    pub(super) const EINVAL: i32 = 22;
    pub(super) const ENOTEMPTY: i32 = 39;
    pub(super) const ELOOP: i32 = 40;
}
use errno::{EEXIST, EINVAL, EISDIR, ELOOP, ENOENT, ENOTDIR, ENOTEMPTY};

impl MemoryFiles {
    /// Adds a file of mode `0o644`, with the directories above it.
    ///
    /// # Panics
    ///
    /// If the path is not one of a workspace, here and in the other methods.
    #[must_use]
    pub fn file(self, path: &str, content: impl Into<Bytes>) -> Self {
        self.add(path, Content::File(content.into()), 0o644)
    }

    /// Adds a file that can be executed.
    #[must_use]
    pub fn executable(self, path: &str, content: impl Into<Bytes>) -> Self {
        self.add(path, Content::File(content.into()), 0o755)
    }

    /// Adds a directory.
    #[must_use]
    pub fn directory(self, path: &str) -> Self {
        self.add(path, Content::Directory, 0o755)
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(self, path: &str, target: &str) -> Self {
        self.add(path, Content::Link(target.into()), 0o777)
    }

    /// Adds a socket.
    #[must_use]
    pub fn special(self, path: &str) -> Self {
        self.add(path, Content::Special, 0o644)
    }

    /// Makes the next call of an operation (`read`, `write`, `list`, `stat`, `make_directory`, `rename`, `remove`) on a
    /// path fail with this error number. It is a fault of the test if that call does not come.
    pub fn fail(&self, operation: &'static str, path: &str, errno: i32) {
        self.lock().faults.push_back(Fault { operation, path: path.into(), errno });
    }

    /// Loses the sandbox after this many more calls.
    pub fn lose_after(&self, calls: u32) {
        self.lock().calls_left = Some(calls);
    }

    /// Returns the text of a file; `None` if there is no file.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        match &self.lock().nodes.get(path)?.content {
            Content::File(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        }
    }

    /// Returns one line a node, such as `-rw-r--r-- src/main.rs: fn main() {}`, sorted by path.
    #[must_use]
    pub fn render(&self) -> String {
        let line = |(path, node): (&String, &Node)| match &node.content {
            Content::File(bytes) => {
                format!("{:03o} {path}: {:?}\n", node.mode, String::from_utf8_lossy(bytes))
            }
            Content::Directory => format!("{:03o} {path}/\n", node.mode),
            Content::Link(target) => format!("lnk {path} -> {target}\n"),
            Content::Special => format!("spc {path}\n"),
        };
        self.lock().nodes.iter().map(line).collect()
    }

    fn add(self, path: &str, content: Content, mode: u32) -> Self {
        let path = WorkspacePath::new(path).unwrap_or_else(|error| panic!("{error}"));
        let mut state = self.lock();
        if let Some(parent) = path.parent() {
            state
                .make_directories(&parent, 0o755)
                .unwrap_or_else(|errno| panic!("{path}: error {errno}"));
        }
        state.put(&path, content, mode);
        drop(state);
        self
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn faults(&self) -> Vec<String> {
        let state = self.lock();
        let pending = state.faults.iter();
        pending.map(|fault| format!("did not come: {} {:?}", fault.operation, fault.path)).collect()
    }

    /// Does one operation, or the fault that was ordered instead.
    pub(super) fn with<T>(
        &self,
        operation: &'static str,
        path: &WorkspacePath,
        work: impl FnOnce(&mut State) -> Result<T, i32>,
    ) -> Result<T, SandboxError> {
        let mut state = self.lock();
        match &mut state.calls_left {
            Some(0) => {
                let detail = "scripted".to_owned();
                return Err(SandboxError::Lost { reason: LossReason::StreamBroken { detail } });
            }
            Some(left) => *left -= 1,
            None => {}
        }
        let ordered = state
            .faults
            .iter()
            .position(|fault| fault.operation == operation && fault.path == path.as_str())
            .and_then(|index| state.faults.remove(index));
        let outcome = match ordered {
            Some(fault) => Err(fault.errno),
            None => work(&mut state),
        };
        outcome.map_err(|errno| SandboxError::File {
            operation,
            path: path.to_string(),
            reason: std::io::Error::from_raw_os_error(errno).to_string(),
            errno,
        })
    }
}

impl State {
    pub(super) fn put(&mut self, path: &WorkspacePath, content: Content, mode: u32) {
        if path.is_root() {
            return;
        }
        self.writes += 1;
        let node = Node { content, mode, modified_ns: self.writes };
        self.nodes.insert(path.to_string(), node);
    }

    /// Returns the node at a path; links above it are not followed, and neither is a final one.
    fn node(&self, path: &WorkspacePath) -> Result<Node, i32> {
        if path.is_root() {
            return Ok(Node { content: Content::Directory, mode: 0o755, modified_ns: 0 });
        }
        if let Some(parent) = path.parent() {
            match self.node(&parent)?.content {
                Content::Directory => {}
                Content::Link(_) => return Err(ELOOP),
                _ => return Err(ENOTDIR),
            }
        }
        self.nodes.get(path.as_str()).cloned().ok_or(ENOENT)
    }

    /// Follows final links that stay in the workspace, relative to their directory.
    fn follow(&self, path: &WorkspacePath) -> Result<Node, i32> {
        let mut path = path.clone();
        for _ in 0..40 {
            let node = self.node(&path)?;
            let Content::Link(target) = node.content else { return Ok(node) };
            let parent = path.parent().unwrap_or_else(WorkspacePath::root);
            path = parent.join(&target).map_err(|_| ELOOP)?;
        }
        Err(ELOOP)
    }

    pub(super) fn make_directories(&mut self, path: &WorkspacePath, mode: u32) -> Result<(), i32> {
        match self.node(path) {
            Ok(Node { content: Content::Directory, .. }) => Ok(()),
            Ok(_) => Err(EEXIST),
            Err(ENOENT) => {
                if let Some(parent) = path.parent() {
                    self.make_directories(&parent, mode)?;
                }
                self.put(path, Content::Directory, mode);
                Ok(())
            }
            Err(errno) => Err(errno),
        }
    }

    /// Returns the paths below a directory, that of the directory left out.
    pub(super) fn below(&self, path: &WorkspacePath) -> Vec<(String, Node)> {
        let prefix = if path.is_root() { String::new() } else { format!("{path}/") };
        self.nodes
            .iter()
            .filter_map(|(name, node)| Some((name.strip_prefix(&prefix)?.to_owned(), node.clone())))
            .collect()
    }
}

impl Node {
    fn metadata(&self) -> FileMetadata {
        let (kind, size, link_target) = match &self.content {
            Content::File(bytes) => (FileKind::File, bytes.len() as u64, None),
            Content::Directory => (FileKind::Directory, 0, None),
            Content::Link(target) => {
                (FileKind::Link, target.len() as u64, Some(target.clone().into_bytes()))
            }
            Content::Special => (FileKind::Special, 0, None),
        };
        FileMetadata { kind, size, mode: self.mode, modified_ns: self.modified_ns, link_target }
    }
}

#[async_trait]
impl Files for MemoryFiles {
    async fn read(
        &self,
        path: &WorkspacePath,
        offset: u64,
        max_bytes: u64,
    ) -> Result<Bytes, SandboxError> {
        self.with("read", path, |state| match state.follow(path)?.content {
            Content::File(bytes) => {
                let length = bytes.len();
                let at =
                    |position: u64| usize::try_from(position).map_or(length, |at| at.min(length));
                Ok(bytes.slice(at(offset)..at(offset.saturating_add(max_bytes))))
            }
            Content::Directory => Err(EISDIR),
            _ => Err(EINVAL),
        })
    }

    async fn write(
        &self,
        path: &WorkspacePath,
        content: Bytes,
        options: &WriteOptions,
    ) -> Result<(), SandboxError> {
        self.with("write", path, |state| {
            if let (true, Some(parent)) = (options.make_parents, path.parent()) {
                state.make_directories(&parent, 0o755)?;
            }
            let mode = match state.node(path) {
                Ok(_) if options.must_be_new => return Err(EEXIST),
                Ok(Node { content: Content::Directory, .. }) => return Err(EISDIR),
                Ok(Node { content: Content::File(_), mode, .. }) if options.keep_mode => mode,
                Ok(_) | Err(ENOENT) => options.mode,
                Err(errno) => return Err(errno),
            };
            if let Some(parent) = path.parent() {
                state.node(&parent)?;
            }
            state.put(path, Content::File(content), mode);
            Ok(())
        })
    }

    async fn list(
        &self,
        path: &WorkspacePath,
        options: &ListOptions,
    ) -> Result<Listing, SandboxError> {
        self.with("list", path, |state| {
            if !matches!(state.node(path)?.content, Content::Directory) {
                return Err(ENOTDIR);
            }
            let mut entries: Vec<ListingEntry> = state
                .below(path)
                .into_iter()
                .filter(|(name, _)| name.split('/').count() <= options.depth as usize)
                .map(|(name, node)| ListingEntry {
                    path: name.into_bytes(),
                    metadata: node.metadata(),
                })
                .collect();
            let truncated = entries.len() > options.max_entries as usize;
            entries.truncate(options.max_entries as usize);
            Ok(Listing { entries, truncated })
        })
    }

    async fn stat(&self, path: &WorkspacePath) -> Result<FileMetadata, SandboxError> {
        self.with("stat", path, |state| state.node(path).map(|node| node.metadata()))
    }

    async fn make_directory(&self, path: &WorkspacePath, mode: u32) -> Result<(), SandboxError> {
        self.with("make_directory", path, |state| state.make_directories(path, mode))
    }

    async fn rename(
        &self,
        from: &WorkspacePath,
        to: &WorkspacePath,
        replace: bool,
    ) -> Result<(), SandboxError> {
        self.with("rename", from, |state| {
            let node = state.node(from)?;
            if let Some(parent) = to.parent()
                && !matches!(state.node(&parent)?.content, Content::Directory)
            {
                return Err(ENOTDIR);
            }
            match state.node(to) {
                Ok(_) if !replace => return Err(EEXIST),
                Ok(Node { content: Content::Directory, .. }) => return Err(EISDIR),
                Ok(_) | Err(ENOENT) => {}
                Err(errno) => return Err(errno),
            }
            if from.contains(to) && from != to {
                return Err(EINVAL);
            }
            for (name, child) in state.below(from) {
                state.nodes.remove(&format!("{from}/{name}"));
                state.nodes.insert(format!("{to}/{name}"), child);
            }
            state.nodes.remove(from.as_str());
            state.nodes.insert(to.to_string(), node);
            Ok(())
        })
    }

    async fn remove(&self, path: &WorkspacePath, recursive: bool) -> Result<(), SandboxError> {
        self.with("remove", path, |state| {
            state.node(path)?;
            let below = state.below(path);
            if path.is_root() || !recursive && !below.is_empty() {
                return Err(ENOTEMPTY);
            }
            for (name, _) in below {
                state.nodes.remove(&format!("{path}/{name}"));
            }
            state.nodes.remove(path.as_str());
            Ok(())
        })
    }
}
