//! [`Packer`]: where new frames go. Few of them stay in the head; when they become too many, packs are filled and put, while
//! more are made.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::{
    error::SnapshotError,
    frame::{FrameKey, FrameKind},
    head::MAX_INLINE_BYTES,
    id::{PackName, TreeId},
    index::Index,
    node::{Draft, Place, Reference},
    pack::{PackBuilder, PackRef, TARGET_BYTES},
    receipt::Stored,
    store::Env,
    windows::pack_object,
    wire::Malformed,
};

/// Frames of earlier heads that a head carries on. With more of them, all goes to a pack: each head would store them anew.
const MAX_CARRIED_BYTES: usize = 128 << 10;

/// Packs that are put at the same time.
const PARALLEL_PUTS: usize = 2;

/// Takes new frames.
pub(crate) struct Packer {
    env: Env,
    /// Frames of the heads that are built upon, and new ones while they are few.
    pub(crate) head_frames: HashMap<FrameKey, Bytes>,
    /// The new ones among them, and what they name that is in the head too.
    new: HashMap<FrameKey, Vec<FrameKey>>,
    new_bytes: usize,
    /// The most of them, in bytes.
    max_new_bytes: usize,
    /// From then on everything new goes to packs.
    spilled: bool,
    /// Where frames went that were in a head.
    moved: HashMap<FrameKey, Place>,
    chunks: Option<PackBuilder>,
    nodes: Option<PackBuilder>,
    full: Vec<PackBuilder>,
    puts: JoinSet<Result<(), SnapshotError>>,
    pub(crate) packs: Vec<PackRef>,
    pub(crate) stored: Stored,
}

impl Packer {
    pub(crate) fn new(env: Env, is_first: bool, head_frames: HashMap<FrameKey, Bytes>) -> Self {
        Self {
            env,
            head_frames,
            new: HashMap::new(),
            new_bytes: 0,
            // All of a first snapshot is carried on by the next.
            max_new_bytes: if is_first { MAX_CARRIED_BYTES } else { MAX_INLINE_BYTES },
            spilled: false,
            moved: HashMap::new(),
            chunks: None,
            nodes: None,
            full: Vec::new(),
            puts: JoinSet::new(),
            packs: Vec::new(),
            stored: Stored::default(),
        }
    }

    /// Returns where a frame lies that is in a head or was.
    pub(crate) fn find(&self, key: &FrameKey) -> Option<Place> {
        if self.head_frames.contains_key(key) {
            return Some(self.moved.get(key).copied().unwrap_or(Place::Head));
        }
        self.moved.get(key).copied()
    }

    /// Takes a new frame.
    pub(crate) fn append(&mut self, key: FrameKey, frame: Vec<u8>) -> Place {
        if !self.spilled && self.new_bytes + frame.len() <= self.max_new_bytes {
            self.new_bytes += frame.len();
            self.head_frames.insert(key, frame.into());
            self.new.insert(key, Vec::new());
            return Place::Head;
        }
        self.spilled = true;
        self.pack(key, &frame)
    }

    /// Takes a new node.
    pub(crate) fn append_node(&mut self, key: FrameKey, frame: Vec<u8>, node: &Draft) -> Place {
        let place = self.append(key, frame);
        if place == Place::Head {
            self.new.insert(key, names_in_head(&node.references));
        }
        place
    }

    fn pack(&mut self, key: FrameKey, frame: &[u8]) -> Place {
        let builder = match key.0 {
            FrameKind::Chunk => &mut self.chunks,
            FrameKind::Node => &mut self.nodes,
        };
        if builder.as_ref().is_some_and(|builder| builder.len() + frame.len() > TARGET_BYTES) {
            self.full.extend(builder.take());
        }
        let env = &self.env;
        let builder = builder.get_or_insert_with(|| {
            PackBuilder::new(PackName::generate(env.clock.now(), &*env.entropy))
        });
        builder.append(key, frame)
    }

    /// Makes a node ready for a pack: when packs are filled, nothing that it names may stay in the head.
    pub(crate) fn settle(&mut self, node: &mut Draft) -> Result<(), SnapshotError> {
        if self.spilled {
            for (key, place) in &mut node.references {
                if *place == Place::Head {
                    *place = self.settled(*key)?;
                }
            }
        }
        Ok(())
    }

    /// Moves a frame, and all that it names, from the head to a pack. Nodes in a head are few, and so is their depth.
    fn settled(&mut self, key: FrameKey) -> Result<Place, SnapshotError> {
        if let Some(place) = self.moved.get(&key) {
            return Ok(*place);
        }
        let corrupt = |Malformed(reason)| SnapshotError::Corrupt {
            object: "the head before".to_owned(),
            holds: format!("the {} {}", key.0, TreeId::from_bytes(key.1)),
            reason: reason.to_owned(),
        };
        let missing = Malformed("it is not in the head");
        let frame = self.head_frames.get(&key).cloned().ok_or_else(|| corrupt(missing))?;
        let frame = match key.0 {
            FrameKind::Chunk => frame,
            FrameKind::Node => {
                let id = TreeId::from_bytes(key.1);
                let codec = self.env.codec.clone();
                let mut node = Draft::of(&codec.open_node(&id, &frame).map_err(corrupt)?);
                self.settle(&mut node)?;
                codec.node_frame(&id, &node).map_err(corrupt)?.into()
            }
        };
        let place = self.pack(key, &frame);
        self.moved.insert(key, place);
        Ok(place)
    }

    /// Makes the frame of a node.
    pub(crate) fn node_frame(&self, id: &TreeId, node: &Draft) -> Result<Vec<u8>, SnapshotError> {
        let framed = self.env.codec.node_frame(id, node);
        framed.map_err(|Malformed(reason)| SnapshotError::Worker { reason: reason.to_owned() })
    }

    /// Puts the packs that are full, waiting if too many are on their way.
    pub(crate) async fn put_full(&mut self, index: &mut Index) -> Result<(), SnapshotError> {
        while let Some(builder) = self.full.pop() {
            self.put(builder, index).await?;
        }
        Ok(())
    }

    async fn put(&mut self, builder: PackBuilder, index: &mut Index) -> Result<(), SnapshotError> {
        while self.puts.len() >= PARALLEL_PUTS {
            self.one_put().await?;
        }
        let (pack, bytes, keys) = builder.finish();
        self.stored.bytes_put += bytes.len() as u64;
        self.stored.objects_put += 1;
        self.packs.push(pack);
        index.put(pack, &keys);
        let storage = self.env.storage.clone();
        self.puts.spawn(async move { storage.put(&pack_object(&pack.name), bytes.into()).await });
        Ok(())
    }

    async fn one_put(&mut self) -> Result<(), SnapshotError> {
        match self.puts.join_next().await {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(error)) => Err(SnapshotError::Worker { reason: error.to_string() }),
        }
    }

    /// Ends: everything that the tree needs is in packs that are durable, or returned to lie in the head.
    pub(crate) async fn finish(
        &mut self,
        index: &mut Index,
        root: TreeId,
        place: Place,
    ) -> Result<(Place, HashMap<FrameKey, Bytes>), SnapshotError> {
        let key = (FrameKind::Node, *root.as_bytes());
        let mut place = place;
        let mut live = HashMap::new();
        if place == Place::Head {
            if !self.spilled {
                live = self.live(key)?;
                let all: usize = live.values().map(Bytes::len).sum();
                let new = live.iter().filter(|(key, _)| self.new.contains_key(key));
                let carried = all - new.map(|(_, frame)| frame.len()).sum::<usize>();
                self.spilled = carried > MAX_CARRIED_BYTES || all > MAX_INLINE_BYTES;
            }
            if self.spilled {
                place = self.settled(key)?;
                live.clear();
            }
        }
        self.full.extend(self.chunks.take());
        self.full.extend(self.nodes.take());
        self.put_full(index).await?;
        while !self.puts.is_empty() {
            self.one_put().await?;
        }
        Ok((place, live))
    }

    /// Returns the frames of the head that a tree needs. Nothing in a pack names what is in a head, so the walk goes over
    /// nodes in the head alone.
    fn live(&self, root: FrameKey) -> Result<HashMap<FrameKey, Bytes>, SnapshotError> {
        let mut live: HashMap<FrameKey, Bytes> = HashMap::new();
        let mut open = vec![root];
        while let Some(key) = open.pop() {
            if live.contains_key(&key) {
                continue;
            }
            let corrupt = |Malformed(reason)| SnapshotError::Corrupt {
                object: "the head before".to_owned(),
                holds: format!("the {} {}", key.0, TreeId::from_bytes(key.1)),
                reason: reason.to_owned(),
            };
            let missing = Malformed("it is not in the head");
            let frame = self.head_frames.get(&key).ok_or_else(|| corrupt(missing))?;
            if let Some(names) = self.new.get(&key) {
                open.extend(names);
            } else if key.0 == FrameKind::Node {
                let id = TreeId::from_bytes(key.1);
                let node = self.env.codec.open_node(&id, frame).map_err(corrupt)?;
                open.extend(names_in_head(&Draft::of(&node).references));
            }
            live.insert(key, frame.clone());
        }
        Ok(live)
    }
}

fn names_in_head(references: &[Reference]) -> Vec<FrameKey> {
    let in_head = references.iter().filter(|(_, place)| *place == Place::Head);
    in_head.map(|(key, _)| *key).collect()
}
