//! What snapshots there are: lineages, their history, and names that are pinned.

use bytes::Bytes;
use cofferdam_core::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    error::SnapshotError,
    head::{self, Head},
    id::{Lineage, SnapshotId, TreeId},
    node::Totals,
    source::Detection,
    store::SnapshotStore,
};

/// A snapshot, as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogEntry {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Its tree.
    pub tree: TreeId,
    /// The one before it, which may have been dropped since.
    pub parent: Option<SnapshotId>,
    /// When it was made, by its writer's clock.
    pub created: Timestamp,
    /// What is in it.
    pub totals: Totals,
    /// How many entries of the tree are not in it.
    pub skipped: u64,
    /// How changes were found.
    pub detection: Detection,
    /// True if nothing wrote to the tree meanwhile.
    pub frozen: bool,
    /// What its writer noted.
    pub note: String,
}

impl From<Head> for LogEntry {
    fn from(head: Head) -> Self {
        Self {
            tree: head.tree.id,
            parent: head.parent.map(|(parent, _)| parent),
            created: head.created,
            totals: head.totals,
            skipped: head.skipped,
            detection: head.detection,
            frozen: head.frozen,
            note: head.note,
            snapshot: head.snapshot,
        }
    }
}

/// The most snapshots that are looked for beyond those that are listed.
const MAX_AHEAD: u64 = 1000;

impl SnapshotStore {
    /// Returns the lineages of the store, in ascending order.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Storage`].
    pub async fn lineages(&self) -> Result<Vec<Lineage>, SnapshotError> {
        let names = self.env.storage.directories("heads").await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Returns the snapshots of a lineage, oldest first.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Storage`].
    pub async fn snapshots(&self, lineage: &Lineage) -> Result<Vec<SnapshotId>, SnapshotError> {
        let listed = self.env.storage.list(&format!("heads/{lineage}")).await?;
        let mut found: Vec<SnapshotId> = listed
            .iter()
            .filter_map(|listed| head::snapshot_of(&format!("{lineage}/{}", listed.name)))
            .collect();
        // A list may be older than the objects are, and numbers follow each other.
        let mut ahead = found.last().map_or(0, |last| last.seq);
        for _ in 0..MAX_AHEAD {
            ahead = ahead.saturating_add(1);
            let next = SnapshotId::new(lineage.clone(), ahead);
            if !self.env.storage.exists(&head::object(&next)).await? {
                break;
            }
            found.push(next);
        }
        Ok(found)
    }

    /// Returns the newest snapshot of a lineage; `None` if it has none.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Storage`].
    pub async fn newest(&self, lineage: &Lineage) -> Result<Option<SnapshotId>, SnapshotError> {
        Ok(self.snapshots(lineage).await?.pop())
    }

    /// Returns the last `limit` snapshots of a lineage, newest first.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NoLineage`] if it has none.
    pub async fn log(
        &self,
        lineage: &Lineage,
        limit: usize,
    ) -> Result<Vec<LogEntry>, SnapshotError> {
        let snapshots = self.snapshots(lineage).await?;
        if snapshots.is_empty() {
            return Err(SnapshotError::NoLineage { lineage: lineage.clone() });
        }
        let mut entries = Vec::new();
        for snapshot in snapshots.iter().rev().take(limit) {
            match self.head(snapshot).await {
                Ok(read) => entries.push(read.head.into()),
                // Dropped since it was listed.
                Err(SnapshotError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    /// Keeps a snapshot, under a name, until the name is taken off or given to another.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NotFound`] if there is no such snapshot.
    pub async fn pin(&self, name: &Lineage, snapshot: &SnapshotId) -> Result<(), SnapshotError> {
        let text = Bytes::from(snapshot.to_string());
        self.env.storage.put(&pin_object(name), text).await?;
        // A collection that did not see the pin may have dropped it.
        self.head(snapshot).await.map(|_| ())
    }

    /// Takes a name off; that there is none of it is as good.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Storage`].
    pub async fn unpin(&self, name: &Lineage) -> Result<(), SnapshotError> {
        self.env.storage.delete(&pin_object(name)).await
    }

    /// Returns the names and what they keep.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Corrupt`] if one of them cannot be read: then nothing is dropped.
    pub async fn pins(&self) -> Result<Vec<(Lineage, SnapshotId)>, SnapshotError> {
        let mut pins = Vec::new();
        for listed in self.env.storage.list("pins").await? {
            let Ok(name) = listed.name.parse::<Lineage>() else { continue };
            let Some(text) = self.env.storage.get(&pin_object(&name)).await? else { continue };
            let snapshot = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
            let snapshot = snapshot.ok_or_else(|| SnapshotError::Corrupt {
                object: pin_object(&name),
                holds: "the name of a snapshot".to_owned(),
                reason: "it is none".to_owned(),
            })?;
            pins.push((name, snapshot));
        }
        Ok(pins)
    }
}

fn pin_object(name: &Lineage) -> String {
    format!("pins/{name}")
}
