//! [`TreeChanges`]: what makes one snapshot's tree of another's, so that a workspace that begins with one is brought to the
//! other without the rest.

use std::{collections::BTreeSet, fmt, sync::Arc};

use futures::{TryStreamExt as _, stream::BoxStream};

use crate::{
    diff::ChangeKind, error::SnapshotError, id::SnapshotId, node::Metadata, path::TreePath,
    restore, store::SnapshotStore, target::TargetEntry,
};

/// What makes one tree of another: first the removals, then the entries.
#[non_exhaustive]
pub struct TreeChanges {
    /// What is to be removed, with all that is in it.
    pub removed: Vec<TreePath>,
    /// What is to be made, or made anew, verified and in order; the directories on the way are among it, for their modes and times.
    pub entries: BoxStream<'static, Result<TargetEntry, SnapshotError>>,
    /// The metadata of the root.
    pub root: Metadata,
}

impl fmt::Debug for TreeChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeChanges").field("removed", &self.removed).finish_non_exhaustive()
    }
}

impl SnapshotStore {
    /// Returns what makes the tree of `to` of the tree of `from`; `None` if more than `most` paths differ, when it is better to
    /// begin anew. Reads nothing of what is the same.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NotFound`] if one is not there. The stream ends with its first error.
    pub async fn changes(
        &self,
        from: &SnapshotId,
        to: &SnapshotId,
        most: usize,
    ) -> Result<Option<TreeChanges>, SnapshotError> {
        let mut differing = self.diff(from, to).await?;
        let (mut removed, mut wanted) = (Vec::<TreePath>::new(), BTreeSet::new());
        let mut seen = 0_usize;
        while let Some(change) = differing.try_next().await? {
            seen += 1;
            if seen > most {
                return Ok(None);
            }
            if matches!(change.kind, ChangeKind::Removed | ChangeKind::Replaced) {
                removed.push(change.path.clone());
            }
            if change.kind != ChangeKind::Removed {
                wanted.insert(change.path);
            }
        }
        // What is in a directory that goes, goes with it.
        let all: BTreeSet<TreePath> = removed.iter().cloned().collect();
        removed.retain(|path| {
            let mut above = path.parent();
            while let Some(directory) = above {
                if all.contains(&directory) {
                    return false;
                }
                above = directory.parent();
            }
            true
        });
        let head = self.head(to).await?.head;
        let root = head.root.clone();
        let entries = restore::entries_of(self.reader(head), Some(Arc::new(wanted)));
        Ok(Some(TreeChanges { removed, entries, root }))
    }
}
