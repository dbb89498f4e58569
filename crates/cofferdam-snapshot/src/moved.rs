//! [`Moved`]: where the frames of a pack went that was repacked, and [`Packs`], which reads packs wherever they are.
//!
//! Who names a frame says in which pack it lies and where, and that is never rewritten. When little of a pack is still needed,
//! that is copied, byte for byte, into a new one, and an object under `moved/` says where each frame went. Who does not find a
//! pack looks there. A pack that was moved to may be repacked in turn, so there may be several steps on the way.

use std::{
    collections::VecDeque,
    fmt,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, FutureExt as _};

use crate::{
    error::SnapshotError,
    frame::{Codec, FrameKey, FrameKind, MAX_FRAME},
    head::{seal, unseal},
    id::PackName,
    node::Place,
    storage::Storage,
    windows::pack_object,
    wire::{Decoder, Encoder, Malformed},
};

const MAGIC: &[u8; 8] = b"cfdmove\x01";
const VERSION: u32 = 1;
pub(crate) const DIRECTORY: &str = "moved";
/// The most steps on the way to a frame. A pack at the end of so many is not repacked.
pub(crate) const MAX_STEPS: usize = 16;
/// How many are kept in memory.
const KEPT: usize = 64;

/// Where one frame went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MovedFrame {
    pub(crate) key: FrameKey,
    /// Where it lay.
    pub(crate) offset: u32,
    pub(crate) length: u32,
    /// Where it lies.
    pub(crate) pack: PackName,
    pub(crate) at: u32,
}

/// Where the frames of one pack went.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Moved {
    /// In ascending order of where they lay; they do not overlap.
    frames: Vec<MovedFrame>,
}

/// Returns the object for a pack.
pub(crate) fn object(pack: &PackName) -> String {
    format!("{DIRECTORY}/{pack}")
}

impl Moved {
    pub(crate) fn new(mut frames: Vec<MovedFrame>) -> Self {
        frames.sort_unstable_by_key(|frame| frame.offset);
        Self { frames }
    }

    /// Returns the packs that frames went to, in ascending order.
    pub(crate) fn targets(&self) -> Vec<PackName> {
        let mut targets: Vec<PackName> = self.frames.iter().map(|frame| frame.pack).collect();
        targets.sort_unstable();
        targets.dedup();
        targets
    }

    /// Returns what went somewhere.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &FrameKey> {
        self.frames.iter().map(|frame| &frame.key)
    }

    /// Returns where the frame went that lay there.
    pub(crate) fn find(&self, offset: u32) -> Option<(PackName, u32)> {
        let at = self.frames.binary_search_by_key(&offset, |frame| frame.offset).ok()?;
        self.frames.get(at).map(|frame| (frame.pack, frame.at))
    }

    /// Returns where a frame went, by its id.
    pub(crate) fn place_of(&self, key: &FrameKey) -> Option<Place> {
        let frame = self.frames.iter().find(|frame| frame.key == *key)?;
        Some(Place::Pack { pack: frame.pack, offset: frame.at, length: frame.length })
    }

    /// Returns the frames of which some bytes lay in a part of the pack.
    fn within(&self, range: &Range<u64>) -> &[MovedFrame] {
        let end = |frame: &MovedFrame| u64::from(frame.offset) + u64::from(frame.length);
        let first = self.frames.partition_point(|frame| end(frame) <= range.start);
        let last = self.frames.partition_point(|frame| u64::from(frame.offset) < range.end);
        self.frames.get(first..last.max(first)).unwrap_or_default()
    }

    pub(crate) fn encode(&self, codec: &Codec, pack: &PackName) -> Result<Bytes, SnapshotError> {
        let targets = self.targets();
        let mut body = Encoder::default();
        body.count(targets.len());
        targets.iter().for_each(|target| body.raw(target.as_bytes()));
        body.count(self.frames.len());
        for frame in &self.frames {
            body.byte(frame.key.0.code());
            body.raw(&frame.key.1);
            body.number(u64::from(frame.offset));
            body.number(u64::from(frame.length));
            body.number(targets.binary_search(&frame.pack).unwrap_or_default() as u64);
            body.number(u64::from(frame.at));
        }
        seal(codec, MAGIC, VERSION, &object(pack), &body.into_bytes())
    }

    fn decode(codec: &Codec, pack: &PackName, bytes: &[u8]) -> Result<Self, SnapshotError> {
        let object = object(pack);
        let body = unseal(codec, MAGIC, VERSION, &object, bytes)?;
        decode_body(&body).map_err(|Malformed(reason)| SnapshotError::Corrupt {
            object,
            holds: format!("where the frames of the pack {pack} went"),
            reason: reason.to_owned(),
        })
    }
}

pub(crate) fn decode_body(body: &[u8]) -> Result<Moved, Malformed> {
    let mut body = Decoder::new(body);
    let targets = (0..body.count(PackName::BYTES)?)
        .map(|_| Ok(PackName::from_bytes(body.array()?)))
        .collect::<Result<Vec<_>, Malformed>>()?;
    let mut frames: Vec<MovedFrame> = Vec::new();
    let mut free = 0;
    for _ in 0..body.count(1 + 32 + 4)? {
        let key = (FrameKind::from_code(body.byte()?)?, body.array()?);
        let (offset, length) = (body.number_u32()?, body.number_u32()?);
        let target = body.number_u32()? as usize;
        let pack = *targets.get(target).ok_or(Malformed("a frame went to no pack"))?;
        let at = body.number_u32()?;
        if u64::from(offset) < free || length == 0 || length as usize > MAX_FRAME {
            return Err(Malformed("frames are not one after the other"));
        }
        free = u64::from(offset) + u64::from(length);
        frames.push(MovedFrame { key, offset, length, pack, at });
    }
    body.end()?;
    Ok(Moved { frames })
}

/// What was read lately of where frames went.
#[derive(Default)]
pub(crate) struct Moves(Mutex<VecDeque<(PackName, Arc<Moved>)>>);

impl fmt::Debug for Moves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Moves")
    }
}

impl Moves {
    fn find(&self, pack: &PackName) -> Option<Arc<Moved>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(known, _)| known == pack)?;
        let found = kept.remove(at)?;
        kept.push_front(found.clone());
        Some(found.1)
    }

    fn keep(&self, pack: PackName, moved: Arc<Moved>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_front((pack, moved));
        kept.truncate(KEPT);
    }
}

/// Reads packs, wherever their frames went.
#[derive(Debug, Clone)]
pub(crate) struct Packs {
    pub(crate) storage: Storage,
    pub(crate) codec: Codec,
    pub(crate) moves: Arc<Moves>,
}

impl Packs {
    /// Returns a part of a pack, less if it ends before; `None` if it is not there. Of a pack that was repacked what lay
    /// there and is still needed, and zeros between.
    pub(crate) async fn range(
        &self,
        pack: PackName,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, SnapshotError> {
        self.range_after(pack, range, 0).await
    }

    fn range_after(
        &self,
        pack: PackName,
        range: Range<u64>,
        steps: usize,
    ) -> BoxFuture<'_, Result<Option<Bytes>, SnapshotError>> {
        async move {
            let found = self.storage.get_range(&pack_object(&pack), range.clone()).await?;
            if found.is_some() {
                return Ok(found);
            }
            let Some(moved) = self.moved(&pack).await? else { return Ok(None) };
            if steps > MAX_STEPS {
                return Err(SnapshotError::TooLarge {
                    what: "the steps to where a frame went",
                    limit: MAX_STEPS as u64,
                });
            }
            self.laid_out(&moved, range, steps).await
        }
        .boxed()
    }

    /// Reads frames where they are, and lays them out as they lay.
    async fn laid_out(
        &self,
        moved: &Moved,
        range: Range<u64>,
        steps: usize,
    ) -> Result<Option<Bytes>, SnapshotError> {
        let frames = moved.within(&range);
        let Some(last) = frames.last() else { return Ok(None) };
        let end = (u64::from(last.offset) + u64::from(last.length)).min(range.end);
        let mut laid = BytesMut::zeroed(size(end - range.start));
        let follows = |a: &MovedFrame, b: &MovedFrame| {
            a.pack == b.pack && u64::from(a.at) + u64::from(a.length) == u64::from(b.at)
        };
        for run in frames.chunk_by(follows) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let from = u64::from(first.at);
            let to = u64::from(last.at) + u64::from(last.length);
            let Some(part) = self.range_after(first.pack, from..to, steps + 1).await? else {
                return Ok(None);
            };
            for frame in run {
                let content = part.get(size(u64::from(frame.at) - from)..).unwrap_or_default();
                let content = content.get(..frame.length as usize).unwrap_or(content);
                // Both ends may lie outside of what was asked for.
                let offset = u64::from(frame.offset);
                let before = size(range.start.saturating_sub(offset));
                let content = content.get(before..).unwrap_or_default();
                let into = laid.get_mut(size(offset.saturating_sub(range.start))..);
                let into = into.unwrap_or_default();
                let length = content.len().min(into.len());
                if let (Some(into), Some(content)) = (into.get_mut(..length), content.get(..length))
                {
                    into.copy_from_slice(content);
                }
            }
        }
        Ok(Some(laid.freeze()))
    }

    /// Returns where the frames of a pack went; `None` if it was not repacked.
    pub(crate) async fn moved(&self, pack: &PackName) -> Result<Option<Arc<Moved>>, SnapshotError> {
        if let Some(known) = self.moves.find(pack) {
            return Ok(Some(known));
        }
        let Some(bytes) = self.storage.get(&object(pack)).await? else { return Ok(None) };
        let moved = Arc::new(Moved::decode(&self.codec, pack, &bytes)?);
        self.moves.keep(*pack, Arc::clone(&moved));
        Ok(Some(moved))
    }
}

/// Parts that are read are far smaller than memory.
fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use cofferdam_core::Secret;
    use object_store::{memory::InMemory, path::Path};
    use proptest::prelude::*;

    use super::*;
    use crate::{crypt::Keys, storage::StorageRetry};

    fn name(number: u8) -> PackName {
        PackName::from_bytes([number; 16])
    }

    fn packs(codec: Codec) -> Packs {
        let storage = Storage::new(
            Arc::new(InMemory::new()),
            Path::from("store"),
            StorageRetry::without_pause(),
        );
        Packs { storage, codec, moves: Arc::default() }
    }

    fn codecs() -> [Codec; 2] {
        [Codec::default(), Codec::new(Some(Keys::derive(&Secret::new("k".repeat(32)))))]
    }

    /// Frames of these lengths, with gaps between, that went to packs 1 and 2 in turn.
    fn spread(lengths: &[(u32, u32)]) -> (Moved, Vec<u8>, [Vec<u8>; 2]) {
        let (mut old, mut new, mut frames) = (Vec::new(), [Vec::new(), Vec::new()], Vec::new());
        for (number, (gap, length)) in lengths.iter().enumerate() {
            old.resize(old.len() + *gap as usize, 0);
            let target = &mut new[number / 2 % 2];
            let content = vec![u8::try_from(number % 255).unwrap() + 1; *length as usize];
            frames.push(MovedFrame {
                key: (FrameKind::Chunk, [u8::try_from(number).unwrap(); 32]),
                offset: u32::try_from(old.len()).unwrap(),
                length: *length,
                pack: name(if number / 2 % 2 == 0 { 1 } else { 2 }),
                at: u32::try_from(target.len()).unwrap(),
            });
            old.extend_from_slice(&content);
            target.extend_from_slice(&content);
        }
        (Moved::new(frames), old, new)
    }

    async fn put(packs: &Packs, of: u8, moved: &Moved) {
        let bytes = moved.encode(&packs.codec, &name(of)).unwrap();
        packs.storage.put(&object(&name(of)), bytes).await.unwrap();
    }

    proptest! {
        #[test]
        fn any_part_reads_as_it_lay(
            lengths in proptest::collection::vec((0_u32..5, 1_u32..9), 1..20),
            from in 0_u64..100, length in 1_u64..60,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (moved, old, new) = spread(&lengths);
                for codec in codecs() {
                    let packs = packs(codec);
                    put(&packs, 7, &moved).await;
                    for (number, content) in (1..).zip(&new) {
                        let object = pack_object(&name(number));
                        packs.storage.put(&object, content.clone().into()).await.unwrap();
                    }
                    let read = packs.range(name(7), from..from + length).await.unwrap();
                    let end = old.len().min(size(from + length));
                    let lay = old.get(size(from)..end).unwrap_or_default();
                    // What follows the last frame is not read, and zeros alone are nobody's.
                    let read = read.unwrap_or_default();
                    assert_eq!(read, &lay[..read.len()]);
                    assert!(lay[read.len()..].iter().all(|byte| *byte == 0));
                }
            });
        }

        #[test]
        fn a_changed_object_is_refused(at in any::<prop::sample::Index>(), bit in 0..8) {
            let (moved, ..) = spread(&[(0, 3), (2, 4), (0, 5)]);
            for codec in codecs() {
                let mut bytes = moved.encode(&codec, &name(7)).unwrap().to_vec();
                prop_assert_eq!(&Moved::decode(&codec, &name(7), &bytes).unwrap(), &moved);
                let at = at.index(bytes.len());
                bytes[at] ^= 1_u8 << bit;
                prop_assert!(Moved::decode(&codec, &name(7), &bytes).is_err());
            }
        }

        #[test]
        fn arbitrary_bodies_do_no_harm(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(moved) = decode_body(&body) {
                moved.within(&(3..90));
                moved.find(5);
            }
        }
    }

    #[tokio::test]
    async fn several_steps_are_gone_and_no_circle_is() {
        let packs = packs(Codec::default());
        let frame = |pack| MovedFrame {
            key: (FrameKind::Node, [3; 32]),
            offset: 5,
            length: 4,
            pack,
            at: 5,
        };
        for number in 1..10 {
            put(&packs, number, &Moved::new(vec![frame(name(number + 1))])).await;
        }
        packs.storage.put(&pack_object(&name(10)), b"xxxxxfourx".as_slice().into()).await.unwrap();
        assert_eq!(packs.range(name(1), 5..9).await.unwrap().unwrap(), &b"four"[..]);
        assert_eq!(packs.range(name(1), 20..30).await.unwrap(), None);
        assert_eq!(packs.range(name(11), 5..9).await.unwrap(), None);
        put(&packs, 20, &Moved::new(vec![frame(name(21))])).await;
        put(&packs, 21, &Moved::new(vec![frame(name(20))])).await;
        let circle = packs.range(name(20), 5..9).await;
        assert!(matches!(circle, Err(SnapshotError::TooLarge { .. })), "{circle:?}");
    }
}
