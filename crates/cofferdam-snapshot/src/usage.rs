//! [`Usage`]: how much room a store takes.

use crate::{error::SnapshotError, gc, id::PackName, moved, store::SnapshotStore};

/// How much room a store takes, without whatever its object store adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Bytes of all objects but marks and pins, which are a few bytes each.
    pub bytes: u64,
    /// Bytes without those of packs that are condemned: what is left when the next collections have deleted them.
    pub needed_bytes: u64,
    /// Packs.
    pub packs: u64,
}

impl SnapshotStore {
    /// Returns how much room the store takes. Objects are listed, and none is read.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Storage`].
    pub async fn usage(&self) -> Result<Usage, SnapshotError> {
        let storage = &self.env.storage;
        let condemned = gc::condemned(storage).await?;
        let mut usage = Usage::default();
        for listed in storage.list("packs").await? {
            usage.packs += 1;
            usage.bytes += listed.size;
            let pack = listed.name.parse::<PackName>();
            if !pack.is_ok_and(|pack| condemned.contains_key(&pack)) {
                usage.needed_bytes += listed.size;
            }
        }
        for directory in ["heads", "indexes", moved::DIRECTORY] {
            let bytes: u64 = storage.list(directory).await?.iter().map(|listed| listed.size).sum();
            usage.bytes += bytes;
            usage.needed_bytes += bytes;
        }
        Ok(usage)
    }
}
