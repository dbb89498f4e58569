//! [`Receipt`] and [`RestoreReceipt`]: what was done, with figures, and what was not.

use std::time::Duration;

use cofferdam_core::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    id::{SnapshotId, TreeId},
    node::Totals,
    path::TreePath,
    source::{Detection, SkipReason},
};

/// What a snapshot holds, what it cost, and what it lacks.
///
/// Processes, memory, the environment, mounts and anything outside the tree are in no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Receipt {
    /// The snapshot, which is durable and complete.
    pub snapshot: SnapshotId,
    /// Its tree; equal trees have equal ids.
    pub tree: TreeId,
    /// The snapshot before it, in its lineage or, for the first of a fork, in another.
    pub parent: Option<SnapshotId>,
    /// When it was made.
    pub created: Timestamp,
    /// What is in it.
    pub totals: Totals,
    /// What was stored for it.
    pub stored: Stored,
    /// What was seen and is not in it.
    pub skipped: Skipped,
    /// How changes were found.
    pub detection: Detection,
    /// True if nothing wrote to the tree meanwhile; false if it is as a crash would have left it.
    pub frozen: bool,
    /// How long it took.
    #[serde(with = "millis")]
    pub took: Duration,
}

/// What one snapshot has added to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stored {
    /// Files whose content was read.
    pub files_read: u64,
    /// Bytes that were read.
    pub bytes_read: u64,
    /// Chunks that were not there before.
    pub new_chunks: u64,
    /// Bytes of their content.
    pub new_bytes: u64,
    /// Nodes of directories that were not there before.
    pub new_nodes: u64,
    /// Bytes put, compressed, with all that is around them.
    pub bytes_put: u64,
    /// Objects put, the head among them.
    pub objects_put: u64,
}

/// What was seen and is not in a snapshot: a count, and the first of them by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Skipped {
    /// How many.
    pub count: u64,
    /// The first [`Self::MAX_LISTED`].
    pub listed: Vec<SkippedEntry>,
}

impl Skipped {
    /// The most that are listed by name.
    pub const MAX_LISTED: usize = 100;

    pub(crate) fn add(&mut self, path: &TreePath, reason: SkipReason) {
        self.count += 1;
        if self.listed.len() < Self::MAX_LISTED {
            self.listed.push(SkippedEntry { path: path.to_string(), reason });
        }
    }
}

/// Something that is not in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SkippedEntry {
    /// Its path, as it may be shown.
    pub path: String,
    /// Why.
    #[serde(flatten)]
    pub reason: SkipReason,
}

/// What a restore has made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RestoreReceipt {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Its tree.
    pub tree: TreeId,
    /// What was made, counted by the target and found equal to what the snapshot holds.
    pub totals: Totals,
    /// How long it took.
    #[serde(with = "millis")]
    pub took: Duration,
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(took: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}
