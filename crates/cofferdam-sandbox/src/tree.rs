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

    /// Streams what is in the tree at `root` without any content: the root itself under an empty path, then each directory
    /// before what is in it, names sorted. Nothing is opened but directories.
    ///
    /// What is told of a file is what its file system tells; somebody who remembers it knows which files may have changed.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Unsupported`] if the box's guest is older than this operation. The stream ends with
    /// [`SandboxError::File`] at the first failure, or at the bound of `options`.
    async fn scan(
        &self,
        root: &WorkspacePath,
        options: &ScanOptions,
    ) -> Result<BoxStream<'static, Result<ScanEvent, SandboxError>>, SandboxError> {
        let _ = (root, options);
        Err(SandboxError::Unsupported { backend: "sandbox's", operation: "scan" })
    }
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
    /// A second name of a regular file that came before in the same stream. Mode and time are those of the file.
    ///
    /// An upload also takes a file that is there already. A download tells this only if it was asked to.
    HardLink {
        /// The path of the file's entry, relative to the tree's root.
        to: Vec<u8>,
    },
}

/// A piece of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScanEvent {
    /// Something is there.
    Entry(ScanEntry),
    /// What is in this directory, whose entry came before, cannot be told.
    Skipped(SkippedEntry),
}

/// What the file system tells of one entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanEntry {
    /// Path relative to the tree's root, as bytes, `/` between components; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: ScanKind,
    /// Permission bits, set-id and sticky bits included.
    pub mode: u32,
    /// Size in bytes.
    pub size: u64,
    /// The file system that it is on; a number that means something only beside others of the same scan.
    pub device: u64,
    /// Its number in that file system.
    pub inode: u64,
    /// Last change of content, nanoseconds since the Unix epoch. Programs inside may set it to anything.
    pub modified_ns: i64,
    /// Last change of content or of anything else, nanoseconds since the Unix epoch; nobody inside can set it.
    pub changed_ns: i64,
    /// How many names it has.
    pub links: u32,
}

/// What an entry of a scan is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScanKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Link {
        /// Where it points to, as bytes.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A device.
    Device,
}

/// Bounds of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanOptions {
    /// Entries at most. Default 2 000 000.
    pub max_entries: u64,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self { max_entries: 2_000_000 }
    }
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
    /// Whether a second name of a file is told as [`TreeEntryKind::HardLink`] rather than as one more file. Default false.
    pub hard_links: bool,
}

impl Default for DownloadOptions {
    fn default() -> Self {
        Self { max_bytes: 1 << 30, max_entries: 200_000, hard_links: false }
    }
}
