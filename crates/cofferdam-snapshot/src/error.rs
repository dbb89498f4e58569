//! [`SnapshotError`]: why a store does not do what was asked, sorted by what the caller can do next.

use cofferdam_core::{BoxError, Retry};

use crate::{
    id::{IdError, Lineage, SnapshotId},
    path::TreePath,
    source::SourceError,
};

/// A snapshot store cannot do what was asked.
///
/// Whatever is returned, all snapshots that were acknowledged before are as they were.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Somebody else has added to the lineage meanwhile: look at its newest snapshot, and decide again.
    #[error("{snapshot} is there already, and was made by another writer")]
    Conflict {
        /// The snapshot that was to be made.
        snapshot: SnapshotId,
    },
    /// A snapshot that the new one builds upon was dropped while it was taken, or what it reuses is about to be: take the
    /// snapshot again.
    #[error("{what} was dropped from the store while a snapshot was taken that builds upon it")]
    Overtaken {
        /// What was dropped.
        what: String,
    },
    /// There is no such snapshot: list what is there.
    #[error("there is no snapshot {snapshot}")]
    NotFound {
        /// The snapshot that was asked for.
        snapshot: SnapshotId,
    },
    /// There is no such lineage: list what is there.
    #[error("there is no lineage {lineage}")]
    NoLineage {
        /// The lineage that was asked for.
        lineage: Lineage,
    },
    /// An object is not there that a snapshot needs: restore another snapshot, or bring the object back.
    #[error("the object {object}, which holds {holds}, is missing")]
    Missing {
        /// Its path in the store.
        object: String,
        /// What was to be read from it.
        holds: String,
    },
    /// What was read is not what was stored: restore another snapshot, and look at the storage.
    #[error("the object {object}, which holds {holds}, is corrupt: {reason}")]
    Corrupt {
        /// Its path in the store.
        object: String,
        /// What was to be read from it.
        holds: String,
        /// How that shows.
        reason: String,
    },
    /// It was written by a later release: use that.
    #[error(
        "the object {object} has version {version} of its format, and versions up to {known} are read"
    )]
    Version {
        /// Its path in the store.
        object: String,
        /// Its version.
        version: u32,
        /// The newest that is read.
        known: u32,
    },
    /// The key does not fit the store: open it with the one it was made with.
    #[error("the store cannot be opened: {reason}")]
    Key {
        /// What does not fit.
        reason: String,
        /// Why the key could not be had, if that is it.
        #[source]
        source: Option<BoxError>,
    },
    /// The storage failed: try again as `retry` says.
    #[error("cannot {operation} the object {object}")]
    Storage {
        /// What was tried, such as `put`.
        operation: &'static str,
        /// The object's path in the store.
        object: String,
        /// Whether the same may succeed later.
        retry: Retry,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The tree could not be read: see what its source says.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The source breaks the rules of [`crate::Source`]: it has to be repaired.
    #[error("the source is not usable: {reason} (at {path})")]
    Listing {
        /// Where.
        path: TreePath,
        /// Which rule.
        reason: String,
    },
    /// It is above a bound: take a smaller tree.
    #[error("{what} is above the limit of {limit}")]
    TooLarge {
        /// What is too large, with its unit.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A name cannot be used: correct it.
    #[error(transparent)]
    Name(#[from] IdError),
    /// A thread of this process failed: this is a defect.
    #[error("a worker failed: {reason}")]
    Worker {
        /// What it said.
        reason: String,
    },
}

impl SnapshotError {
    /// Returns whether the same may succeed if it is tried again.
    ///
    /// The store has by then tried storage again by itself, so a pause is in order.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Storage { retry, .. } => *retry,
            Self::Overtaken { .. } | Self::Source(SourceError::Read { .. }) => Retry::Backoff,
            _ => Retry::Never,
        }
    }
}
