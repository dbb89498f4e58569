//! [`Windows`]: parts of packs that were read lately. Nodes of a tree lie beside each other, so one read brings many.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, PoisonError},
};

use bytes::{Bytes, BytesMut};

use crate::{error::SnapshotError, id::PackName, moved::Packs};

/// The unit that is read.
const WINDOW: u32 = 256 << 10;
/// How many are kept: 8 MiB.
const KEPT: usize = 32;

/// A cache of parts of packs, of bounded size.
#[derive(Default)]
pub(crate) struct Windows(Mutex<VecDeque<((PackName, u32), Bytes)>>);

impl fmt::Debug for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Windows")
    }
}

/// Returns the object of a pack.
pub(crate) fn pack_object(pack: &PackName) -> String {
    format!("packs/{pack}")
}

impl Windows {
    fn find(&self, key: (PackName, u32)) -> Option<Bytes> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(known, _)| *known == key)?;
        let found = kept.remove(at)?;
        let bytes = found.1.clone();
        kept.push_front(found);
        Some(bytes)
    }

    fn keep(&self, key: (PackName, u32), bytes: Bytes) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_front((key, bytes));
        kept.truncate(KEPT);
    }

    /// Returns a part of a pack; `None` if the pack is not there, less if it ends before.
    pub(crate) async fn read(
        &self,
        packs: &Packs,
        pack: PackName,
        offset: u32,
        length: u32,
    ) -> Result<Option<Bytes>, SnapshotError> {
        let end = u64::from(offset) + u64::from(length);
        let (first, last) = (offset / WINDOW, (end.saturating_sub(1)) / u64::from(WINDOW));
        if last > u64::from(first) + 1 {
            return packs.range(pack, u64::from(offset)..end).await;
        }
        let begin = u64::from(first) * u64::from(WINDOW);
        let read = async |window: u32| {
            if let Some(bytes) = self.find((pack, window)) {
                return Ok::<_, SnapshotError>(Some(bytes));
            }
            let at = u64::from(window) * u64::from(WINDOW);
            let read = packs.range(pack, at..at + u64::from(WINDOW)).await?;
            if let Some(bytes) = &read {
                self.keep((pack, window), bytes.clone());
            }
            Ok(read)
        };
        let last = u32::try_from(last).unwrap_or(first);
        let Some(mut bytes) = read(first).await? else { return Ok(None) };
        if last > first {
            let Some(second) = read(last).await? else { return Ok(None) };
            let mut joined = BytesMut::from(bytes);
            joined.extend_from_slice(&second);
            bytes = joined.freeze();
        }
        let (from, to) = (u64::from(offset) - begin, end - begin);
        let to = usize::try_from(to).unwrap_or(usize::MAX).min(bytes.len());
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(to);
        Ok(Some(bytes.slice(from..to)))
    }
}
