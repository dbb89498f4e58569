//! [`Nodes`]: nodes that were read lately, as what they say. A directory that changes is read for each snapshot that changes it.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::{
    id::TreeId,
    leaf::ReadLeaf,
    node::{Node, Page},
};

/// About the most bytes that they take.
const MAX_BYTES: usize = 16 << 20;

/// A cache of nodes, of bounded size.
#[derive(Default)]
pub(crate) struct Nodes(Mutex<VecDeque<Kept>>);

/// A directory, or a page of one, as it is kept.
#[derive(Debug, Clone)]
pub(crate) enum ReadNode {
    Leaf(Arc<ReadLeaf>),
    Branch(Arc<Vec<Page>>),
}

impl ReadNode {
    /// Takes a node; `None` if it is no directory.
    pub(crate) fn new(node: Node) -> Option<Self> {
        match node {
            Node::Leaf(entries) => Some(Self::Leaf(Arc::new(ReadLeaf::new(entries)))),
            Node::Branch(pages) => Some(Self::Branch(Arc::new(pages))),
            Node::Extents(_) => None,
        }
    }

    /// About the bytes that it takes in memory.
    fn memory(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.memory(),
            Self::Branch(pages) => pages.len() * 128,
        }
    }
}

struct Kept {
    id: TreeId,
    /// What the node was read from. A node of the same id in another frame may say that things lie elsewhere.
    frame: Bytes,
    node: ReadNode,
    bytes: usize,
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nodes")
    }
}

impl Nodes {
    fn kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn find(&self, id: &TreeId, frame: &Bytes) -> Option<ReadNode> {
        let mut kept = self.kept();
        let at = kept.iter().position(|known| known.id == *id && known.frame == *frame)?;
        let found = kept.remove(at)?;
        let node = found.node.clone();
        kept.push_front(found);
        Some(node)
    }

    pub(crate) fn keep(&self, id: TreeId, frame: &Bytes, node: ReadNode) {
        // Copied, for it may be a slice of something larger.
        let frame = Bytes::copy_from_slice(frame);
        let bytes = frame.len() + node.memory();
        let mut kept = self.kept();
        kept.push_front(Kept { id, frame, node, bytes });
        let mut sum = 0;
        kept.retain(|known| {
            sum += known.bytes;
            sum <= MAX_BYTES
        });
    }
}
