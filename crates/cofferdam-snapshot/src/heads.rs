//! [`Heads`]: heads that were read or written lately. A head never changes; whether it is still there is asked of the storage.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    head::Head,
    id::{Lineage, SnapshotId},
};

/// How many are kept; each has at most some [`MAX_INLINE_BYTES`](crate::head::MAX_INLINE_BYTES) of frames.
const KEPT: usize = 8;

/// A head, and the hash of its object.
#[derive(Debug, Clone)]
pub(crate) struct KeptHead {
    pub(crate) head: Arc<Head>,
    pub(crate) hash: [u8; 32],
}

/// A cache of heads, of bounded size.
#[derive(Default)]
pub(crate) struct Heads(Mutex<VecDeque<KeptHead>>);

impl fmt::Debug for Heads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Heads")
    }
}

impl Heads {
    fn kept(&self) -> std::sync::MutexGuard<'_, VecDeque<KeptHead>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn find(&self, snapshot: &SnapshotId) -> Option<KeptHead> {
        let mut kept = self.kept();
        let at = kept.iter().position(|known| known.head.snapshot == *snapshot)?;
        let found = kept.remove(at)?;
        kept.push_front(found.clone());
        Some(found)
    }

    /// Returns the newest of a lineage that is kept, which need not be the newest that there is.
    pub(crate) fn newest(&self, lineage: &Lineage) -> Option<SnapshotId> {
        let kept = self.kept();
        let of = kept.iter().map(|known| &known.head.snapshot).filter(|id| id.lineage == *lineage);
        of.max_by_key(|id| id.seq).cloned()
    }

    pub(crate) fn keep(&self, head: KeptHead) {
        let mut kept = self.kept();
        kept.retain(|known| known.head.snapshot != head.head.snapshot);
        kept.push_front(head);
        kept.truncate(KEPT);
    }

    /// Forgets all, after anything that was not as it was thought to be.
    pub(crate) fn clear(&self) {
        self.kept().clear();
    }
}
