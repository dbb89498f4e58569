//! [`Reader`]: nodes and content of one snapshot, each held against its id before it is used.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    error::SnapshotError,
    frame::{Codec, FrameKind},
    head::{Head, object},
    id::{ChunkId, TreeId},
    moved::Packs,
    node::{Entry, Extent, Node, Page, Place, Stored},
    path::{Name, TreePath},
    windows::{Windows, pack_object},
    wire::Malformed,
};

/// The most directories below each other. Deeper trees are refused, when they are taken and when they are read.
pub const MAX_DEPTH: usize = 512;
/// The most entries of one directory.
pub(crate) const MAX_DIRECTORY_ENTRIES: usize = 4 << 20;

/// Reads one snapshot.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) packs: Packs,
    pub(crate) codec: Codec,
    pub(crate) windows: Arc<Windows>,
    pub(crate) head: Arc<Head>,
}

/// A directory, joined of its pages, or of some of them.
#[derive(Debug, Default)]
pub(crate) struct ReadDirectory {
    /// What is in the pages that were read, in order.
    pub(crate) entries: Vec<Entry>,
    /// Its node, and its pages if it has some.
    pub(crate) nodes: Vec<Stored<TreeId>>,
    /// The pages that were not read, in order.
    pub(crate) unread: Vec<UnreadPage>,
}

/// A page of a directory that was not read.
#[derive(Debug, Clone)]
pub(crate) struct UnreadPage {
    pub(crate) page: Page,
    /// What the page after it begins with, if there is one.
    pub(crate) next: Option<Name>,
}

impl Reader {
    /// Returns a node of the tree; `path` is what it is told to be of, if it cannot be read.
    pub(crate) async fn node(
        &self,
        node: Stored<TreeId>,
        path: &TreePath,
    ) -> Result<Node, SnapshotError> {
        let key = (FrameKind::Node, *node.id.as_bytes());
        let frame = match node.place {
            Place::Head => self.head.frames.get(&key).cloned(),
            Place::Pack { pack, offset, length } => {
                self.windows.read(&self.packs, pack, offset, length).await?
            }
        };
        let frame = frame.ok_or_else(|| self.missing(&node.place, &holds_node(&node.id, path)))?;
        let opened = self.codec.open_node(&node.id, &frame);
        opened.map_err(|error| self.corrupt(&node.place, holds_node(&node.id, path), error))
    }

    /// Returns what is in a directory.
    pub(crate) async fn directory(
        &self,
        node: Stored<TreeId>,
        path: &TreePath,
    ) -> Result<ReadDirectory, SnapshotError> {
        self.part_of_directory(node, None, path).await
    }

    /// Returns what is in a directory, without the pages in which none of these names would be, which are in order.
    pub(crate) async fn part_of_directory(
        &self,
        node: Stored<TreeId>,
        names: Option<&[&Name]>,
        path: &TreePath,
    ) -> Result<ReadDirectory, SnapshotError> {
        let mut read = ReadDirectory { nodes: vec![node], ..ReadDirectory::default() };
        let pages = match self.node(node, path).await? {
            Node::Leaf(entries) => {
                read.entries = entries;
                return Ok(read);
            }
            Node::Branch(pages) => pages,
            Node::Extents(_) => return Err(self.wrong_page(&node, path, "it is no directory")),
        };
        let mut names_left = names;
        let mut pages = pages.into_iter().peekable();
        while let Some(page) = pages.next() {
            let next = pages.peek().map(|next| &next.first);
            read.nodes.push(page.node);
            // A name before the first page would be in it.
            let here = names_left.map(|names| {
                let (here, later) = names.split_at(
                    next.map_or(names.len(), |next| names.partition_point(|name| *name < next)),
                );
                names_left = Some(later);
                here
            });
            let page = UnreadPage { page, next: next.cloned() };
            if here.is_some_and(<[_]>::is_empty) {
                read.unread.push(page);
                continue;
            }
            read.entries.extend(self.page(&page, path).await?);
            if read.entries.len() > MAX_DIRECTORY_ENTRIES {
                let reason = "a directory has too many entries";
                return Err(self.wrong_page(&page.page.node, path, reason));
            }
        }
        Ok(read)
    }

    /// Returns what is in a page of a directory.
    pub(crate) async fn page(
        &self,
        UnreadPage { page, next }: &UnreadPage,
        path: &TreePath,
    ) -> Result<Vec<Entry>, SnapshotError> {
        let Node::Leaf(entries) = self.node(page.node, path).await? else {
            return Err(self.wrong_page(&page.node, path, "it is no page of a directory"));
        };
        let ends = match (entries.last(), next) {
            (Some(last), Some(next)) => last.name < *next,
            _ => true,
        };
        if !ends || entries.first().is_none_or(|first| first.name != page.first) {
            let reason = "the pages of a directory do not fit together";
            return Err(self.wrong_page(&page.node, path, reason));
        }
        Ok(entries)
    }

    fn wrong_page(
        &self,
        node: &Stored<TreeId>,
        path: &TreePath,
        reason: &'static str,
    ) -> SnapshotError {
        self.corrupt(&node.place, holds_node(&node.id, path), Malformed(reason))
    }

    /// Returns the pieces in a node, which cover so many bytes.
    pub(crate) async fn extents(
        &self,
        list: Stored<TreeId>,
        length: u64,
        path: &TreePath,
    ) -> Result<Vec<Extent>, SnapshotError> {
        let wrong =
            |reason| self.corrupt(&list.place, holds_node(&list.id, path), Malformed(reason));
        match self.node(list, path).await? {
            Node::Extents(extents) => {
                let covered = extents.iter().try_fold(0, |sum: u64, e| sum.checked_add(e.length()));
                if covered == Some(length) {
                    Ok(extents)
                } else {
                    Err(wrong("its pieces are not as long as the file"))
                }
            }
            _ => Err(wrong("it is no list of pieces")),
        }
    }

    /// Returns a chunk's content, out of its frame.
    pub(crate) fn open_chunk(
        &self,
        chunk: &Stored<ChunkId>,
        length: u32,
        frame: &[u8],
        path: &TreePath,
    ) -> Result<Bytes, SnapshotError> {
        let opened = self.codec.open_chunk(&chunk.id, frame).and_then(|content| {
            let right = content.len() == length as usize;
            right.then_some(content).ok_or(Malformed("it is not as long as the file says"))
        });
        opened
            .map(Bytes::from)
            .map_err(|error| self.corrupt(&chunk.place, holds_chunk(&chunk.id, path), error))
    }

    /// Returns the frame of a chunk that lies in the head.
    pub(crate) fn head_chunk(
        &self,
        chunk: &Stored<ChunkId>,
        path: &TreePath,
    ) -> Result<Bytes, SnapshotError> {
        let frame = self.head.frames.get(&(FrameKind::Chunk, *chunk.id.as_bytes()));
        frame.cloned().ok_or_else(|| self.missing(&chunk.place, &holds_chunk(&chunk.id, path)))
    }

    fn object(&self, place: &Place) -> String {
        match place {
            Place::Head => object(&self.head.snapshot),
            Place::Pack { pack, .. } => pack_object(pack),
        }
    }

    pub(crate) fn missing(&self, place: &Place, holds: &str) -> SnapshotError {
        match place {
            // The head itself was read.
            Place::Head => {
                self.corrupt(place, holds.to_owned(), Malformed("it is not in the head"))
            }
            Place::Pack { .. } => {
                SnapshotError::Missing { object: self.object(place), holds: holds.to_owned() }
            }
        }
    }

    pub(crate) fn corrupt(
        &self,
        place: &Place,
        holds: String,
        Malformed(reason): Malformed,
    ) -> SnapshotError {
        SnapshotError::Corrupt { object: self.object(place), holds, reason: reason.to_owned() }
    }
}

pub(crate) fn holds_node(id: &TreeId, path: &TreePath) -> String {
    format!("the node {id} of {path}")
}

pub(crate) fn holds_chunk(id: &ChunkId, path: &TreePath) -> String {
    format!("the chunk {id} of {path}")
}
