//! File operations, all resolved by the guest beneath the workspace: no link leads out, whoever swaps it when.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::WorkspacePath;
use serde::{Deserialize, Serialize};

use crate::SandboxError;

/// What can be done to single files of a workspace.
///
/// Names in results are bytes, since a workspace may hold names that are not UTF-8.
#[async_trait]
pub trait Files: Debug + Send + Sync + 'static {
    /// Reads at most `max_bytes` of a regular file from `offset`. Fewer bytes mean the end of the file.
    ///
    /// Links that stay in the workspace are followed. Fifos, sockets and devices are refused without being opened.
    ///
    /// # Errors
    ///
    /// [`SandboxError::File`].
    async fn read(
        &self,
        path: &WorkspacePath,
        offset: u64,
        max_bytes: u64,
    ) -> Result<Bytes, SandboxError>;

    /// Writes a whole file: a reader sees the old content or the new one, never a mixture. A final link is replaced,
    /// not followed.
    ///
    /// # Errors
    ///
    /// [`SandboxError::File`]; nothing has changed then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the file has its old or its new content.
    async fn write(
        &self,
        path: &WorkspacePath,
        content: Bytes,
        options: &WriteOptions,
    ) -> Result<(), SandboxError>;

    /// Lists a directory, sorted by name.
    ///
    /// # Errors
    ///
    /// [`SandboxError::File`].
    async fn list(
        &self,
        path: &WorkspacePath,
        options: &ListOptions,
    ) -> Result<Listing, SandboxError>;

    /// Describes what is at a path, without following a final link.
    ///
    /// # Errors
    ///
    /// [`SandboxError::File`].
    async fn stat(&self, path: &WorkspacePath) -> Result<FileMetadata, SandboxError>;

    /// Makes a directory and those above it; `Ok` if it is there already.
    ///
    /// # Errors
    ///
    /// [`SandboxError::File`].
    async fn make_directory(&self, path: &WorkspacePath, mode: u32) -> Result<(), SandboxError>;

    /// Moves a file or directory, atomically. With `replace`, a file at the new path is replaced.
    ///
    /// # Errors
    ///
    /// [`SandboxError::File`]; nothing has changed then.
    async fn rename(
        &self,
        from: &WorkspacePath,
        to: &WorkspacePath,
        replace: bool,
    ) -> Result<(), SandboxError>;

    /// Removes a file, a link, or a directory (with all in it if `recursive`, else only if empty).
    ///
    /// # Errors
    ///
    /// [`SandboxError::File`]; a recursive removal may have removed a part.
    async fn remove(&self, path: &WorkspacePath, recursive: bool) -> Result<(), SandboxError>;
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteOptions {
    /// Permission bits of a new file, and of a replaced one if `keep_mode` is false; set-id bits are dropped. Default `0o644`.
    pub mode: u32,
    /// Keep the permission bits of a file that is there. Default true.
    pub keep_mode: bool,
    /// Fail with [`SandboxError::File`] (`EEXIST`) if something is there. Default false.
    pub must_be_new: bool,
    /// Make missing directories above. Default true.
    pub make_parents: bool,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { mode: 0o644, keep_mode: true, must_be_new: false, make_parents: true }
    }
}

/// How a directory is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListOptions {
    /// Levels to go down: 1 is the directory alone. Default 1.
    pub depth: u32,
    /// Entries at most; [`Listing::truncated`] tells if there are more. Default 10 000.
    pub max_entries: u32,
}

impl Default for ListOptions {
    fn default() -> Self {
        Self { depth: 1, max_entries: 10_000 }
    }
}

/// What a directory holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// The entries, sorted by path.
    pub entries: Vec<ListingEntry>,
    /// Whether there are more than were asked for.
    pub truncated: bool,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListingEntry {
    /// Path relative to the listed directory, as bytes.
    pub path: Vec<u8>,
    /// What it is.
    pub metadata: FileMetadata,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMetadata {
    /// File, directory, link or something else.
    pub kind: FileKind,
    /// Size in bytes; of a link, the length of its target.
    pub size: u64,
    /// Permission bits, set-id and sticky bits included.
    pub mode: u32,
    /// Last change of content, nanoseconds since the Unix epoch.
    pub modified_ns: i64,
    /// Where a link points to, as bytes.
    pub link_target: Option<Vec<u8>>,
}

/// What kind of file something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A fifo, socket or device: listed, never opened.
    Special,
}
