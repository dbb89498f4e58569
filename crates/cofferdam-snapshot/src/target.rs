//! [`Target`]: a place that a tree is restored to, given a stream of entries whose content has been verified.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::BoxError;
use futures::stream::BoxStream;

use crate::{
    error::SnapshotError,
    node::{Metadata, Totals},
    path::TreePath,
};

/// A place that a tree is restored to.
#[async_trait]
pub trait Target: fmt::Debug + Send {
    /// Makes everything in a stream, and returns what was made, counted by the target itself.
    ///
    /// Whatever a path says, a target makes nothing outside the place it stands for, follows no link on the way to it, and
    /// overwrites nothing that it did not make itself. It takes set-id bits off and makes no devices: none are in a stream.
    /// A directory's mode and time are set after everything in it was made.
    ///
    /// # Errors
    ///
    /// What the stream fails with, as [`TargetError::Snapshot`]; otherwise why something could not be made. What was made
    /// until then is removed or unusable: no half of a tree is taken for a whole one.
    ///
    /// # Cancel safety
    ///
    /// As after an error.
    async fn restore(
        &mut self,
        plan: &RestorePlan,
        entries: BoxStream<'_, Result<TargetEntry, SnapshotError>>,
    ) -> Result<Totals, TargetError>;
}

/// What will be in a stream, known before it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestorePlan {
    /// How much it is.
    pub totals: Totals,
    /// The mode, time and attributes of the root directory.
    pub root: Metadata,
}

/// One step of making a tree.
///
/// Parents come before what is in them, and names in ascending order. [`TargetEntry::Data`] and [`TargetEntry::Hole`] fill
/// the file before them, together exactly to its size.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetEntry {
    /// A directory; the root is not among them.
    Directory {
        /// Its path.
        path: TreePath,
        /// Its mode, time and attributes.
        metadata: Metadata,
    },
    /// A file; what it holds follows.
    File {
        /// Its path.
        path: TreePath,
        /// Its mode, time and attributes.
        metadata: Metadata,
        /// Its length in bytes.
        size: u64,
    },
    /// The next bytes of the file.
    Data(Bytes),
    /// The next so many bytes are zero, and need no room where that can be had.
    Hole(u64),
    /// A symbolic link. Where it leads is not the snapshot's business: it is restored as it was.
    SymbolicLink {
        /// Its path.
        path: TreePath,
        /// Its time and attributes.
        metadata: Metadata,
        /// Where it leads.
        target: Vec<u8>,
    },
    /// Another name of a file that was made before.
    HardLink {
        /// The new name.
        path: TreePath,
        /// The file.
        to: TreePath,
    },
}

/// A tree cannot be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The snapshot could not be read: see what it says.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The place has something in it that would be overwritten: empty it, or choose another.
    #[error("{what} is in the way")]
    InTheWay {
        /// What is there.
        what: String,
    },
    /// The place, or whatever holds it, is not there any more: restore to another.
    #[error("the place {what} is gone")]
    Gone {
        /// What is gone.
        what: String,
        /// Why it is known.
        #[source]
        source: Option<BoxError>,
    },
    /// Something cannot be made: look at permissions, space and what the file system can hold.
    #[error("cannot make {path}")]
    Make {
        /// What was to be made.
        path: TreePath,
        /// Why it failed.
        #[source]
        source: BoxError,
    },
    /// Less or more was made than the snapshot holds: the place is not to be used.
    #[error("{made:?} was made, and the snapshot holds {expected:?}")]
    Incomplete {
        /// What the snapshot holds.
        expected: Totals,
        /// What the target counted.
        made: Totals,
    },
    /// An entry has no place in a tree, so that the snapshot is not to be trusted.
    #[error("{path} is refused: {reason}")]
    Refused {
        /// The entry.
        path: TreePath,
        /// What is wrong with it.
        reason: &'static str,
    },
}
