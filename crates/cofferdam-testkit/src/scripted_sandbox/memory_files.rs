//! [`MemoryFiles`]: a workspace in memory, with the rules of a real one and faults on demand.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{
    FileMetadata, Files, ListOptions, Listing, LossReason, SandboxError, WriteOptions,
};

use crate::file_tree::{Content, FileTree, Node};

/// Files, directories and links in memory.
///
/// Modification times count changes, so that later ones are greater and tests are the same each time.
#[derive(Debug, Default)]
pub struct MemoryFiles {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) tree: FileTree,
    faults: VecDeque<Fault>,
    /// Calls after which every call finds the sandbox lost.
    calls_left: Option<u32>,
}

/// A call that is to fail.
#[derive(Debug)]
struct Fault {
    operation: &'static str,
    path: String,
    errno: i32,
}

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
        match &self.lock().tree.node(path.as_bytes(), false).ok()?.content {
            Content::File(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        }
    }

    /// Returns one line a node, such as `644 src/main.rs: "fn main() {}"`, a directory before what is in it.
    #[must_use]
    pub fn render(&self) -> String {
        let line = |(path, node): (Vec<u8>, &Node)| {
            let path = String::from_utf8_lossy(&path);
            match &node.content {
                Content::File(bytes) => {
                    format!("{:03o} {path}: {:?}\n", node.mode, String::from_utf8_lossy(bytes))
                }
                Content::Directory => format!("{:03o} {path}/\n", node.mode),
                Content::Link(target) => {
                    format!("lnk {path} -> {}\n", String::from_utf8_lossy(target))
                }
                Content::Special => format!("spc {path}\n"),
            }
        };
        let state = self.lock();
        state.tree.walk(b"").into_iter().flatten().skip(1).map(line).collect()
    }

    fn add(self, path: &str, content: Content, mode: u32) -> Self {
        let path = WorkspacePath::new(path).unwrap_or_else(|error| panic!("{error}"));
        let added = self.lock().tree.place(b"", path.as_str().as_bytes(), content, mode, None);
        added.unwrap_or_else(|errno| panic!("{path}: error {errno}"));
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

fn bytes(path: &WorkspacePath) -> &[u8] {
    path.as_str().as_bytes()
}

#[async_trait]
impl Files for MemoryFiles {
    async fn read(
        &self,
        path: &WorkspacePath,
        offset: u64,
        max_bytes: u64,
    ) -> Result<Bytes, SandboxError> {
        self.with("read", path, |state| state.tree.read(bytes(path), offset, max_bytes))
    }

    async fn write(
        &self,
        path: &WorkspacePath,
        content: Bytes,
        options: &WriteOptions,
    ) -> Result<(), SandboxError> {
        self.with("write", path, |state| state.tree.write(bytes(path), content, options))
    }

    async fn list(
        &self,
        path: &WorkspacePath,
        options: &ListOptions,
    ) -> Result<Listing, SandboxError> {
        self.with("list", path, |state| state.tree.list(bytes(path), options))
    }

    async fn stat(&self, path: &WorkspacePath) -> Result<FileMetadata, SandboxError> {
        self.with("stat", path, |state| Ok(state.tree.node(bytes(path), false)?.metadata()))
    }

    async fn make_directory(&self, path: &WorkspacePath, mode: u32) -> Result<(), SandboxError> {
        self.with("make_directory", path, |state| {
            state.tree.make_directories(bytes(path), mode).map(drop)
        })
    }

    async fn rename(
        &self,
        from: &WorkspacePath,
        to: &WorkspacePath,
        replace: bool,
    ) -> Result<(), SandboxError> {
        self.with("rename", from, |state| state.tree.rename(bytes(from), bytes(to), replace))
    }

    async fn remove(&self, path: &WorkspacePath, recursive: bool) -> Result<(), SandboxError> {
        self.with("remove", path, |state| state.tree.remove(bytes(path), recursive))
    }
}
