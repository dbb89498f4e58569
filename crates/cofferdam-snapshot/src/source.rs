//! [`Source`]: a tree that a snapshot is taken of, as listings of directories and as content of the files asked for.
//!
//! A source is asked once per snapshot, in this order:
//!
//! 1. [`Source::begin`]: how it will look for changes, and the stream of [`Listing`]s;
//! 2. [`Source::read`]: content, in batches, while listings still arrive, and only of what cannot be reused;
//! 3. [`Source::facts`]: what was true of the walk, when all of it is done;
//! 4. [`Source::committed`]: the snapshot is durable; now the source may remember what it saw.
//!
//! # What may be reused
//!
//! Only the source can tell whether a file is the same as before, because only it knows what its file system promises. It
//! says so with [`SourceKind::File::unchanged`]: this file has the content that the snapshot given to `begin` as
//! [`Previous`] has under the same path. The writer then takes that content without a read. A source with a memory of its
//! own (inode, size, times) keeps it under [`Previous::tree`], and forgets it if another tree is named.
//!
//! # Whole trees and changes
//!
//! A walk with [`Coverage::Whole`] lists every directory, and what is not listed is not there. A walk with
//! [`Coverage::ChangesTo`] a snapshot lists what differs from *that* snapshot, which need not be the newest: the upper
//! directory of an overlay holds what changed since its base, whatever was recorded in between.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::BoxError;
use futures::stream::BoxStream;

use crate::{
    id::{SnapshotId, TreeId},
    node::Metadata,
    path::{Name, TreePath},
};

/// A tree that a snapshot is taken of.
///
/// # Cancel safety
///
/// Dropping the future or a stream of any method leaves the tree as it was; the snapshot it was for is not made.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync {
    /// Begins a walk. `previous` is the newest snapshot of the lineage, whose content may be reused.
    ///
    /// # Errors
    ///
    /// [`SourceError::Gone`] if the tree is not there.
    async fn begin<'a>(&'a self, previous: Option<&Previous>) -> Result<Walk<'a>, SourceError>;

    /// Returns the content of files, in the order of `files` and one after the other: for each, pieces in order and one
    /// [`Content::End`].
    ///
    /// It runs beside the stream of listings, and several batches never at the same time. A reader that sees a file change
    /// while it reads it sends [`Content::Again`] and begins with it anew, a bounded number of times, and then ends it
    /// with [`FileEnd::Skipped`].
    fn read<'a>(&'a self, files: Vec<Wanted>) -> BoxStream<'a, Result<Content, SourceError>>;

    /// Returns what was true of the walk. Called when all listings and contents have been taken.
    fn facts(&self) -> SourceFacts;

    /// Says that a snapshot with this tree is durable, so that the source may remember what it saw of it.
    ///
    /// Does nothing by default. It cannot fail the snapshot: what it could not remember is read again next time.
    async fn committed(&self, snapshot: &SnapshotId, tree: &TreeId) {
        let _ = (snapshot, tree);
    }
}

/// The snapshot whose content a source may declare unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Previous {
    /// Its name.
    pub snapshot: SnapshotId,
    /// Its tree.
    pub tree: TreeId,
}

/// A walk over a tree.
pub struct Walk<'a> {
    /// What the listings are about.
    pub coverage: Coverage,
    /// The mode, time and attributes of the root directory.
    pub root: Metadata,
    /// One listing for each directory, depth first and parents first: the root's, then for each directory in it, in the
    /// order of names, its own and all below it.
    ///
    /// Each entry of kind [`SourceKind::Directory`] is followed by a listing of it, in its place; one without entries, not
    /// [`Listing::complete`], says that nothing below has changed.
    pub listings: BoxStream<'a, Result<Listing, SourceError>>,
}

impl fmt::Debug for Walk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walk")
            .field("coverage", &self.coverage)
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

/// What the listings of a walk are about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Coverage {
    /// Everything; every listing is complete.
    Whole,
    /// What differs from a snapshot. It must be in the store until the new one is made.
    ChangesTo(SnapshotId),
}

/// What is in a directory, or what has changed in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The directory.
    pub path: TreePath,
    /// What is there, in ascending order of name bytes, each name once.
    pub entries: Vec<SourceEntry>,
    /// Names that the base has and that are gone; empty in a complete listing.
    pub removed: Vec<Name>,
    /// True if what is not listed is not there; false if it is as in the base of [`Coverage::ChangesTo`].
    pub complete: bool,
    /// What is there and cannot be kept, by name. It is not in the snapshot.
    pub skipped: Vec<(Name, SkipReason)>,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceEntry {
    /// Its name.
    pub name: Name,
    /// Its mode, time and attributes.
    pub metadata: Metadata,
    /// What it is.
    pub kind: SourceKind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceKind {
    /// A regular file.
    File {
        /// Its length in bytes, when it was listed.
        size: u64,
        /// True if its content is what [`Previous`] has under this path; see the module's documentation.
        unchanged: bool,
        /// Files with the same number are one file under several names. The number is used for no other file of this source,
        /// and stays as long as the source; it must not be an inode number alone if the source is one of changes, for the
        /// base may come from another file system: mix it with a number that is the source's own.
        link_group: Option<u64>,
    },
    /// A directory; its listing follows.
    Directory,
    /// A symbolic link.
    SymbolicLink {
        /// Where it leads, as it was written.
        target: Vec<u8>,
    },
}

/// A file whose content is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its path.
    pub path: TreePath,
    /// Its length when it was listed.
    pub size: u64,
}

/// A part of an answer to [`Source::read`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// The next bytes of the current file; best 64 KiB to 1 MiB at a time.
    Data(Bytes),
    /// The next so many bytes are zero and not stored. A source that cannot tell sends zeros, with the same result.
    Hole(u64),
    /// What was sent of the current file does not count: it changed, and begins anew.
    Again,
    /// The current file ends; what follows is of the next.
    End(FileEnd),
}

/// How a file ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileEnd {
    /// All of it was sent; these are its mode, time and attributes as of then.
    Whole(Metadata),
    /// It cannot be kept. It is not in the snapshot, and in the receipt.
    Skipped(SkipReason),
}

/// Why something is not in a snapshot.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case", tag = "reason", content = "detail")]
#[non_exhaustive]
pub enum SkipReason {
    /// A socket, named pipe or device.
    Special,
    /// Another file system is mounted there.
    Mount,
    /// It was listed, and then was not there.
    Vanished,
    /// It changed each time it was read.
    Unstable,
    /// It may not be read.
    Unreadable(String),
    /// Its name or target cannot be kept.
    Unsupported(String),
    /// Asked for by whoever takes the snapshot.
    Excluded,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Special => f.write_str("a socket, pipe or device"),
            Self::Mount => f.write_str("another file system is mounted there"),
            Self::Vanished => f.write_str("it vanished while the snapshot was taken"),
            Self::Unstable => f.write_str("it changed each time it was read"),
            Self::Unreadable(why) => write!(f, "it cannot be read: {why}"),
            Self::Unsupported(what) => write!(f, "it cannot be kept: {what}"),
            Self::Excluded => f.write_str("excluded"),
        }
    }
}

/// How a source told what had changed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Detection {
    /// It read everything.
    #[default]
    Content,
    /// It compared inode, size, times and mode with those of the last snapshot, and read what differed or was too fresh to
    /// tell.
    Stat,
    /// The file system itself kept the changes (the upper directory of an overlay).
    Layer,
}

/// What was true of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceFacts {
    /// How changes were found.
    pub detection: Detection,
    /// True if nothing could write to the tree from the first listing to the last byte.
    pub frozen: bool,
}

/// A tree cannot be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The tree, or whatever holds it, is not there any more: nothing can be taken of it.
    #[error("the tree {what} is gone")]
    Gone {
        /// What is gone.
        what: String,
        /// Why it is known.
        #[source]
        source: Option<BoxError>,
    },
    /// A directory cannot be listed, so that the snapshot would silently lack it: look at its permissions.
    #[error("cannot list {path}")]
    List {
        /// The directory.
        path: TreePath,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// Reading failed in a way that concerns more than one file: try again.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: TreePath,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The tree is larger than the source walks: raise the bound or take a smaller tree.
    #[error("{what} is above the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}
