//! [`Marker`]: finds what snapshots need, of which packs, and how much of each.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use crate::{
    error::SnapshotError,
    frame::{FrameKey, FrameKind},
    id::{PackName, TreeId},
    moved::{MAX_STEPS, Moved},
    node::{Node, Place, Stored},
    path::TreePath,
    reader::{MAX_DEPTH, Reader},
};

/// Where frames went, of all packs that were repacked.
pub(crate) type AllMoves = HashMap<PackName, Arc<Moved>>;

/// What is needed of one pack: of each frame where it lies, its length and what it is.
pub(crate) type NeededFrames = BTreeMap<u32, (u32, FrameKey)>;

/// How much of a pack is needed, as far as anybody wants to know.
#[derive(Debug)]
enum Share {
    Little { frames: NeededFrames, bytes: u64 },
    Enough,
}

/// Finds the packs that snapshots need. A node that was seen is not walked again, so the cost is that of what differs.
#[derive(Debug, Default)]
pub(crate) struct Marker {
    /// The packs in which frames are that are needed, wherever they went.
    pub(crate) packs: HashSet<PackName>,
    /// Nodes in packs, by where they lay first: the same node at another place may name other places.
    seen: HashSet<(PackName, u32)>,
    moves: AllMoves,
    /// The most bytes of each pack that count as little. Of others nothing is taken down.
    little: HashMap<PackName, u64>,
    shares: HashMap<PackName, Share>,
}

impl Marker {
    /// Begins. Of the packs in `little` it is taken down what is needed, up to so many bytes: memory is bounded by those.
    pub(crate) fn new(moves: AllMoves, little: HashMap<PackName, u64>) -> Self {
        Self { moves, little, ..Self::default() }
    }

    /// Ends the taking down of what is needed, and returns it for the packs of which little is.
    pub(crate) fn take_little(&mut self) -> HashMap<PackName, (NeededFrames, u64)> {
        self.little.clear();
        let shares = std::mem::take(&mut self.shares).into_iter();
        let little = shares.filter_map(|(pack, share)| match share {
            Share::Little { frames, bytes } => Some((pack, (frames, bytes))),
            Share::Enough => None,
        });
        little.collect()
    }

    /// Returns where frames went.
    pub(crate) fn moves(&self) -> &AllMoves {
        &self.moves
    }

    pub(crate) async fn walk(&mut self, reader: &Reader) -> Result<(), SnapshotError> {
        let tree = reader.head.tree;
        let mut open = vec![(tree, 0)];
        self.need((FrameKind::Node, *tree.id.as_bytes()), tree.place);
        let mut seen_in_head = HashSet::new();
        let path = TreePath::root();
        while let Some((stored, depth)) = open.pop() {
            let new = match stored.place {
                Place::Head => seen_in_head.insert(stored.id),
                Place::Pack { pack, offset, .. } => self.seen.insert((pack, offset)),
            };
            if !new {
                continue;
            }
            // A directory in pages has two nodes to a level, and a list of pieces is one more.
            if depth > MAX_DEPTH * 2 + 4 {
                return Err(SnapshotError::TooLarge {
                    what: "the depth of a tree",
                    limit: MAX_DEPTH as u64,
                });
            }
            let node: Node = reader.node(stored, &path).await?;
            node.references(|kind, id, place| {
                self.need((kind, *id), place);
                if kind == FrameKind::Node {
                    let id = TreeId::from_bytes(*id);
                    open.push((Stored { id, place }, depth + 1));
                }
            });
        }
        Ok(())
    }

    /// Takes down that a frame is needed.
    fn need(&mut self, key: FrameKey, place: Place) {
        let Place::Pack { pack, offset, length } = place else { return };
        let (pack, offset) = self.whereabouts(pack, offset);
        self.packs.insert(pack);
        let Some(most) = self.little.get(&pack) else { return };
        let share = self.shares.entry(pack);
        let share = share.or_insert(Share::Little { frames: BTreeMap::new(), bytes: 0 });
        if let Share::Little { frames, bytes } = share
            && frames.insert(offset, (length, key)).is_none()
        {
            *bytes += u64::from(length);
            if *bytes > *most {
                *share = Share::Enough;
            }
        }
    }

    /// Returns where a frame is that lay somewhere.
    fn whereabouts(&self, mut pack: PackName, mut offset: u32) -> (PackName, u32) {
        for _ in 0..=MAX_STEPS {
            match self.moves.get(&pack).and_then(|moved| moved.find(offset)) {
                Some(next) => (pack, offset) = next,
                None => break,
            }
        }
        (pack, offset)
    }
}
