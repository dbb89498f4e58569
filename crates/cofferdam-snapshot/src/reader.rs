//! [`Reader`]: nodes and content of one snapshot, each held against its id before it is used.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    error::SnapshotError,
    frame::{Codec, FrameKind},
    head::{Head, object},
    id::{ChunkId, TreeId},
    leaf::ReadLeaf,
    moved::Packs,
    node::{Entry, Extent, Node, Page, Place, Stored},
    nodes::{Nodes, ReadNode},
    pages::MAX_PAGE_ENTRIES,
    path::{Name, TreePath},
    windows::{Windows, pack_object},
    wire::Malformed,
};

/// The most directories below each other. Deeper trees are refused, when they are taken and when they are read.
pub const MAX_DEPTH: usize = 512;
/// The most entries of one directory.
pub(crate) const MAX_DIRECTORY_ENTRIES: usize = 4 << 20;

const NO_PAGE: &str = "it is no page of a directory";

/// Reads one snapshot.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) packs: Packs,
    pub(crate) codec: Codec,
    pub(crate) windows: Arc<Windows>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) head: Arc<Head>,
}

/// A directory, joined of its pages.
#[derive(Debug, Default)]
pub(crate) struct ReadDirectory {
    pub(crate) entries: Vec<Entry>,
    /// Its node, and its pages if it has some.
    pub(crate) nodes: Vec<Stored<TreeId>>,
}

/// What was read of a directory to make another of it.
#[derive(Debug, Default)]
pub(crate) struct PartOfDirectory {
    /// Its pages in order, or the one leaf that it is.
    pub(crate) pages: Vec<DirectoryPage>,
    /// Its node, and its pages if it has some.
    pub(crate) nodes: Vec<Stored<TreeId>>,
}

/// A page of a directory.
#[derive(Debug, Clone)]
pub(crate) enum DirectoryPage {
    Read(Arc<ReadLeaf>),
    Unread(UnreadPage),
}

impl PartOfDirectory {
    /// Returns what is of a name in a page that was read.
    pub(crate) fn find(&self, name: &Name) -> Option<&Entry> {
        let after = self.pages.partition_point(|page| page.first().is_none_or(|it| it <= name));
        match self.pages.get(after.checked_sub(1)?)? {
            DirectoryPage::Read(leaf) => leaf.find(name),
            DirectoryPage::Unread(_) => None,
        }
    }

    /// Returns whether all of it was read.
    pub(crate) fn is_whole(&self) -> bool {
        self.pages.iter().all(|page| matches!(page, DirectoryPage::Read(_)))
    }

    /// Returns the most entries that there can be; how many there are, if all of it was read.
    pub(crate) fn most_entries(&self) -> usize {
        let counts = self.pages.iter().map(|page| match page {
            DirectoryPage::Read(leaf) => leaf.entries.len(),
            DirectoryPage::Unread(_) => MAX_PAGE_ENTRIES,
        });
        counts.sum()
    }
}

impl DirectoryPage {
    /// Returns the name with which it begins; `None` if it is empty.
    pub(crate) fn first(&self) -> Option<&Name> {
        match self {
            Self::Read(leaf) => leaf.entries.first().map(|entry| &entry.name),
            Self::Unread(unread) => Some(&unread.page.first),
        }
    }
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
        let frame = self.frame(&node, path).await?;
        self.open_node(&node, &frame, path)
    }

    /// Returns the node of a directory, which the next snapshot is likely to read again.
    async fn kept_node(
        &self,
        node: &Stored<TreeId>,
        path: &TreePath,
    ) -> Result<ReadNode, SnapshotError> {
        let frame = self.frame(node, path).await?;
        if let Some(kept) = self.nodes.find(&node.id, &frame) {
            return Ok(kept);
        }
        let read = ReadNode::new(self.open_node(node, &frame, path)?);
        let read = read.ok_or_else(|| self.wrong_page(node, path, "it is no directory"))?;
        self.nodes.keep(node.id, &frame, read.clone());
        Ok(read)
    }

    async fn frame(&self, node: &Stored<TreeId>, path: &TreePath) -> Result<Bytes, SnapshotError> {
        let frame = match node.place {
            Place::Head => self.head.frames.get(&(FrameKind::Node, *node.id.as_bytes())).cloned(),
            Place::Pack { pack, offset, length } => {
                self.windows.read(&self.packs, pack, offset, length).await?
            }
        };
        frame.ok_or_else(|| self.missing(&node.place, &holds_node(&node.id, path)))
    }

    fn open_node(
        &self,
        node: &Stored<TreeId>,
        frame: &[u8],
        path: &TreePath,
    ) -> Result<Node, SnapshotError> {
        let opened = self.codec.open_node(&node.id, frame);
        opened.map_err(|error| self.corrupt(&node.place, holds_node(&node.id, path), error))
    }

    /// Returns what is in a directory.
    pub(crate) async fn directory(
        &self,
        node: Stored<TreeId>,
        path: &TreePath,
    ) -> Result<ReadDirectory, SnapshotError> {
        let mut read = ReadDirectory { nodes: vec![node], entries: Vec::new() };
        let pages = match self.node(node, path).await? {
            Node::Leaf(entries) => {
                read.entries = entries;
                return Ok(read);
            }
            Node::Branch(pages) => pages,
            Node::Extents(_) => return Err(self.wrong_page(&node, path, "it is no directory")),
        };
        for (at, page) in pages.iter().enumerate() {
            read.nodes.push(page.node);
            let Node::Leaf(entries) = self.node(page.node, path).await? else {
                return Err(self.wrong_page(&page.node, path, NO_PAGE));
            };
            let next = pages.get(at + 1).map(|next| &next.first);
            self.check_page(&entries, page, next, path)?;
            read.entries.extend(entries);
            if read.entries.len() > MAX_DIRECTORY_ENTRIES {
                let reason = "a directory has too many entries";
                return Err(self.wrong_page(&page.node, path, reason));
            }
        }
        Ok(read)
    }

    /// Returns what is in a directory, without the pages in which none of these names would be, which are in order.
    pub(crate) async fn part_of_directory(
        &self,
        node: Stored<TreeId>,
        names: Option<&[&Name]>,
        path: &TreePath,
    ) -> Result<PartOfDirectory, SnapshotError> {
        let mut part = PartOfDirectory { nodes: vec![node], pages: Vec::new() };
        let pages = match self.kept_node(&node, path).await? {
            ReadNode::Leaf(leaf) => {
                part.pages.push(DirectoryPage::Read(leaf));
                return Ok(part);
            }
            ReadNode::Branch(pages) => pages,
        };
        let mut names_left = names;
        for (at, page) in pages.iter().enumerate() {
            let next = pages.get(at + 1).map(|next| &next.first);
            part.nodes.push(page.node);
            // A name before the first page would be in it.
            let here = names_left.map(|names| {
                let (here, later) = names.split_at(
                    next.map_or(names.len(), |next| names.partition_point(|name| *name < next)),
                );
                names_left = Some(later);
                here
            });
            let page = UnreadPage { page: page.clone(), next: next.cloned() };
            part.pages.push(match here {
                Some([]) => DirectoryPage::Unread(page),
                _ => DirectoryPage::Read(self.page(&page, path).await?),
            });
        }
        Ok(part)
    }

    /// Returns what is in a page of a directory.
    pub(crate) async fn page(
        &self,
        UnreadPage { page, next }: &UnreadPage,
        path: &TreePath,
    ) -> Result<Arc<ReadLeaf>, SnapshotError> {
        let ReadNode::Leaf(leaf) = self.kept_node(&page.node, path).await? else {
            return Err(self.wrong_page(&page.node, path, NO_PAGE));
        };
        self.check_page(&leaf.entries, page, next.as_ref(), path)?;
        Ok(leaf)
    }

    fn check_page(
        &self,
        entries: &[Entry],
        page: &Page,
        next: Option<&Name>,
        path: &TreePath,
    ) -> Result<(), SnapshotError> {
        let ends = match (entries.last(), next) {
            (Some(last), Some(next)) => last.name < *next,
            _ => true,
        };
        if !ends || entries.first().is_none_or(|first| first.name != page.first) {
            let reason = "the pages of a directory do not fit together";
            return Err(self.wrong_page(&page.node, path, reason));
        }
        Ok(())
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
