//! [`Nodes`]: nodes that were read lately, as what they say. A directory that changes is read for each snapshot that changes it.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::{
    id::TreeId,
    node::{Entry, Node},
};

/// About the most bytes that they take.
const MAX_BYTES: usize = 16 << 20;

/// A cache of nodes, of bounded size.
#[derive(Default)]
pub(crate) struct Nodes(Mutex<VecDeque<Kept>>);

struct Kept {
    id: TreeId,
    /// What the node was read from. A node of the same id in another frame may say that things lie elsewhere.
    frame: Bytes,
    node: Arc<Node>,
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

    pub(crate) fn find(&self, id: &TreeId, frame: &Bytes) -> Option<Arc<Node>> {
        let mut kept = self.kept();
        let at = kept.iter().position(|known| known.id == *id && known.frame == *frame)?;
        let found = kept.remove(at)?;
        let node = Arc::clone(&found.node);
        kept.push_front(found);
        Some(node)
    }

    pub(crate) fn keep(&self, id: TreeId, frame: Bytes, node: Arc<Node>) {
        // Copied, for it may be a slice of something larger.
        let frame = Bytes::copy_from_slice(&frame);
        let bytes = frame.len() + size(&node);
        let mut kept = self.kept();
        kept.push_front(Kept { id, frame, node, bytes });
        let mut sum = 0;
        kept.retain(|known| {
            sum += known.bytes;
            sum <= MAX_BYTES
        });
    }
}

/// About the bytes that a node takes in memory.
fn size(node: &Node) -> usize {
    match node {
        Node::Leaf(entries) => entries.iter().map(Entry::memory).sum(),
        Node::Branch(pages) => pages.len() * 128,
        Node::Extents(extents) => size_of_val(&extents[..]),
    }
}
