//! Whole trees as one stream: thousands of small files cost one round trip, not one each.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::WorkspacePath;
use futures::stream::BoxStream;

use crate::SandboxError;

/// Transfer of trees into and out of a workspace.
#[async_trait]
pub trait Tree: Debug + Send + Sync + 'static {
    /// Unpacks a stream of entries below `target`, in order, and returns the number of entries made.
    ///
    /// A directory that is there is kept (its mode is set); a file or link that is there is replaced. Paths that leave
    /// the workspace by `..` or through a link are refused.
    ///
    /// # Errors
    ///
    /// [`SandboxError::File`] with the first entry that failed; entries before it stay.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, a prefix of the entries has been made.
    async fn upload(
        &self,
        target: &WorkspacePath,
        entries: BoxStream<'static, Result<TreeEvent, SandboxError>>,
    ) -> Result<u64, SandboxError>;

    /// Streams the tree at `source`: each directory before what is in it, names sorted, content in pieces.
    ///
    /// # Errors
    ///
    /// The stream ends with [`SandboxError::File`] at the first failure, or at a bound of `options`.
    async fn download(
        &self,
        source: &WorkspacePath,
        options: &DownloadOptions,
    ) -> Result<BoxStream<'static, Result<TreeEvent, SandboxError>>, SandboxError>;
}

/// A piece of a tree on the wire: an entry, then the content if it is a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TreeEvent {
    /// An entry begins. For a file, exactly `size` bytes of [`TreeEvent::Content`] follow.
    Entry(TreeEntry),
    /// Content of the file that began last.
    Content(Bytes),
    /// Something that was left out (download only).
    Skipped(SkippedEntry),
}

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// Path relative to the tree's root, as bytes, `/` between components; empty for the root itself.
    pub path: Vec<u8>,
    /// Permission bits; set-id bits are dropped on upload.
    pub mode: u32,
    /// Last change of content, nanoseconds since the Unix epoch; `None` leaves the time of writing.
    pub modified_ns: Option<i64>,
    /// What it is.
    pub kind: TreeEntryKind,
}

/// What an entry of a tree is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TreeEntryKind {
    /// A directory.
    Directory,
    /// A regular file of this many bytes.
    File {
        /// Size in bytes.
        size: u64,
    },
    /// A symbolic link, kept as written, also if it is absolute or dangling.
    Link {
        /// Where it points to, as bytes.
        target: Vec<u8>,
    },
}

/// Something that a download left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedEntry {
    /// Path relative to the tree's root, as bytes.
    pub path: Vec<u8>,
    /// Why, for people: `socket`, `fifo`, `device`, `unreadable`.
    pub reason: String,
}

/// Bounds of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownloadOptions {
    /// Bytes of content at most. Default 1 GiB.
    pub max_bytes: u64,
    /// Entries at most. Default 200 000.
    pub max_entries: u64,
}

impl Default for DownloadOptions {
    fn default() -> Self {
        Self { max_bytes: 1 << 30, max_entries: 200_000 }
    }
}
