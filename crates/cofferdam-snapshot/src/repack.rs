//! [`Repacker`]: copies what is still needed of packs of which little is, so that the rest can go.
//!
//! The order carries the proof, as in [`crate::gc`]:
//!
//! 1. The frames are copied into new packs, each held against its id, and the packs are durable.
//! 2. An object under `moved/` says where each frame of an old pack went. It is put if there is none, when the new packs are
//!    there, not condemned, and were begun less than half a grace ago: a pack that no snapshot seems to need is left alone for a
//!    whole grace.
//! 3. From then on nothing needs the old pack, but for frames that a snapshot came to need meanwhile: with one of those it
//!    is kept as a whole. So it is condemned and deleted as any other, by the same rules.
//!
//! A crash after 1 leaves packs that nothing needs; one after 2 leaves a pack that nothing needs. Two that repack the same pack
//! at once: the first to put the object has done it.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use cofferdam_core::Timestamp;

use crate::{
    error::SnapshotError,
    frame::{FrameKey, FrameKind},
    gc,
    id::{ChunkId, PackName, TreeId},
    marker::{AllMoves, NeededFrames},
    moved::{self, MAX_STEPS, Moved, MovedFrame},
    node::Place,
    pack::{PackBuilder, TARGET_BYTES},
    storage::Created,
    store::Env,
    windows::pack_object,
};

/// Less than this is not worth a repacking.
const LEAST_GAIN: u64 = 64 << 10;
/// The most bytes that are read at once, unless one frame has more.
const READ_BYTES: u64 = 4 << 20;

/// A pack of which little is needed.
#[derive(Debug)]
pub(crate) struct Sparse {
    pub(crate) pack: PackName,
    pub(crate) size: u64,
    frames: NeededFrames,
    pub(crate) needed_bytes: u64,
}

/// Returns the packs that are worth it, those first of which the least is needed, as many as `most_bytes` can be copied of.
pub(crate) fn choose(
    little: HashMap<PackName, (NeededFrames, u64)>,
    sizes: &HashMap<PackName, u64>,
    moves: &AllMoves,
    most_bytes: u64,
) -> Vec<Sparse> {
    let mut steps = Steps::new(moves);
    let mut sparse: Vec<Sparse> = little
        .into_iter()
        .filter_map(|(pack, (frames, needed_bytes))| {
            let size = *sizes.get(&pack)?;
            let pays = size.saturating_sub(needed_bytes) >= LEAST_GAIN;
            let may = pays && !moves.contains_key(&pack) && steps.to(pack) < MAX_STEPS;
            may.then_some(Sparse { pack, size, frames, needed_bytes })
        })
        .collect();
    sparse.sort_by_key(|it| (u128::from(it.needed_bytes << 20) / u128::from(it.size), it.pack));
    let mut left = most_bytes;
    sparse
        .into_iter()
        .take_while(|it| {
            let fits = it.needed_bytes <= left;
            left = left.saturating_sub(it.needed_bytes);
            fits
        })
        .collect()
}

/// Counts the steps on the way to packs.
struct Steps {
    from: HashMap<PackName, Vec<PackName>>,
    known: HashMap<PackName, usize>,
}

impl Steps {
    fn new(moves: &AllMoves) -> Self {
        let mut from: HashMap<PackName, Vec<PackName>> = HashMap::new();
        for (pack, moved) in moves {
            for target in moved.targets() {
                from.entry(target).or_default().push(*pack);
            }
        }
        Self { from, known: HashMap::new() }
    }

    /// The longest way on which frames came to a pack.
    fn to(&mut self, pack: PackName) -> usize {
        if let Some(known) = self.known.get(&pack) {
            return *known;
        }
        // Whatever is in a circle is too far.
        self.known.insert(pack, MAX_STEPS);
        let before = self.from.get(&pack).cloned().unwrap_or_default();
        let steps = before.into_iter().map(|one| self.to(one) + 1).max().unwrap_or(0);
        let steps = steps.min(MAX_STEPS);
        self.known.insert(pack, steps);
        steps
    }
}

/// Copies frames out of packs, and says where they went.
#[derive(Debug)]
pub(crate) struct Repacker {
    env: Env,
    begun: Option<Timestamp>,
    chunks: Option<PackBuilder>,
    nodes: Option<PackBuilder>,
    put: Vec<PackName>,
    moved: BTreeMap<PackName, Vec<MovedFrame>>,
}

impl Repacker {
    pub(crate) fn new(env: Env) -> Self {
        Self {
            env,
            begun: None,
            chunks: None,
            nodes: None,
            put: Vec::new(),
            moved: BTreeMap::new(),
        }
    }

    /// Copies what is needed of a pack; false if that cannot be read, and then the pack stays as it is.
    pub(crate) async fn copy(&mut self, sparse: &Sparse) -> Result<bool, SnapshotError> {
        let frames: Vec<(u32, u32, FrameKey)> =
            sparse.frames.iter().map(|(at, (length, key))| (*at, *length, *key)).collect();
        let mut read: Vec<(FrameKey, u32, Bytes)> = Vec::with_capacity(frames.len());
        let mut rest = &frames[..];
        while let Some((first, ..)) = rest.first() {
            let begin = u64::from(*first);
            let end = |(at, length, _): &(u32, u32, FrameKey)| u64::from(*at) + u64::from(*length);
            let near = rest.iter().take_while(|frame| end(frame) - begin <= READ_BYTES).count();
            let (part, after) = rest.split_at(near.max(1));
            rest = after;
            let last = part.last().map_or(begin, end);
            let object = pack_object(&sparse.pack);
            let Some(bytes) = self.env.storage.get_range(&object, begin..last).await? else {
                return Ok(false);
            };
            for (at, length, key) in part {
                let from = usize::try_from(u64::from(*at) - begin).unwrap_or(usize::MAX);
                let to = from.saturating_add(*length as usize);
                // What does not fit its name is not spread; verification finds it where it is.
                match bytes.get(from..to) {
                    Some(frame) if self.fits(key, frame) => {
                        read.push((*key, *at, bytes.slice(from..to)));
                    }
                    _ => {
                        tracing::warn!(pack = %sparse.pack, "a pack is damaged and is not repacked");
                        return Ok(false);
                    }
                }
            }
        }
        let mut moved = Vec::with_capacity(read.len());
        for (key, offset, frame) in read {
            if let Place::Pack { pack, offset: at, length } = self.append(key, &frame).await? {
                moved.push(MovedFrame { key, offset, length, pack, at });
            }
        }
        self.moved.insert(sparse.pack, moved);
        Ok(true)
    }

    fn fits(&self, (kind, id): &FrameKey, frame: &[u8]) -> bool {
        let codec = &self.env.codec;
        match kind {
            FrameKind::Chunk => codec.open_chunk(&ChunkId::from_bytes(*id), frame).is_ok(),
            FrameKind::Node => codec.open_node(&TreeId::from_bytes(*id), frame).is_ok(),
        }
    }

    async fn append(&mut self, key: FrameKey, frame: &[u8]) -> Result<Place, SnapshotError> {
        // Nodes lie beside each other, since they are read together.
        let builder = match key.0 {
            FrameKind::Chunk => &mut self.chunks,
            FrameKind::Node => &mut self.nodes,
        };
        let full = builder.take_if(|it| it.len() > 0 && it.len() + frame.len() > TARGET_BYTES);
        let env = &self.env;
        let now = env.clock.now();
        let builder =
            builder.get_or_insert_with(|| PackBuilder::new(PackName::generate(now, &*env.entropy)));
        let place = builder.append(key, frame);
        self.begun.get_or_insert(now);
        if let Some(full) = full {
            self.put(full).await?;
        }
        Ok(place)
    }

    async fn put(&mut self, builder: PackBuilder) -> Result<(), SnapshotError> {
        let (pack, bytes, _) = builder.finish();
        self.env.storage.put(&pack_object(&pack.name), bytes.into()).await?;
        self.put.push(pack.name);
        Ok(())
    }

    /// Ends: what was copied is durable, and it is said where it went. Returns the packs of which nothing is needed any more.
    pub(crate) async fn finish(mut self) -> Result<Vec<PackName>, SnapshotError> {
        for builder in [self.chunks.take(), self.nodes.take()].into_iter().flatten() {
            self.put(builder).await?;
        }
        let mut done = Vec::new();
        for (pack, frames) in std::mem::take(&mut self.moved) {
            let bytes = Moved::new(frames).encode(&self.env.codec, &pack)?;
            if !self.may_say().await? {
                tracing::warn!(
                    "repacking took too long; what was copied is copied again another time"
                );
                break;
            }
            match self.env.storage.create(&moved::object(&pack), bytes).await? {
                Created::Ours => done.push(pack),
                Created::Taken => {}
            }
        }
        Ok(done)
    }

    /// Whether all that was copied is there, and stays until it is seen what it is needed for.
    async fn may_say(&self) -> Result<bool, SnapshotError> {
        let begun = self.begun.unwrap_or_default();
        let took = self.env.clock.now().as_millis().saturating_sub(begun.as_millis());
        if u128::from(took) > self.env.grace.as_millis() / 2 {
            return Ok(false);
        }
        let condemned = gc::condemned(&self.env.storage).await?;
        Ok(!self.put.iter().any(|pack| condemned.contains_key(pack)))
    }
}
