//! [`Draft`]: a node that is being made. What it says and where the things lie are apart, so that places can still change, and
//! entries that stay as they were are copied as they lie.

use super::{
    BRANCH, EXTENTS, Entry, EntryKind, Extent, FileContent, LEAF, Node, Page, Place, VERSION,
    encode_metadata, encode_totals, places::encode_places,
};
use crate::{
    frame::{FrameKey, FrameKind},
    wire::Encoder,
};

/// Something that a node names, and where it lies.
pub(crate) type Reference = (FrameKey, Place);

/// A node that is being made.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    canonical: Encoder,
    /// What it names, in the order of the canonical string.
    pub(crate) references: Vec<Reference>,
}

impl Draft {
    /// Begins a directory, or a page of one, of so many entries.
    pub(crate) fn leaf(entries: usize) -> Self {
        Self::begin(LEAF, entries)
    }

    /// Makes a directory of pages.
    pub(crate) fn branch(pages: &[Page]) -> Self {
        let mut draft = Self::begin(BRANCH, pages.len());
        for page in pages {
            draft.canonical.text(page.first.as_bytes());
            draft.reference(FrameKind::Node, page.node.id.as_bytes(), page.node.place);
        }
        draft
    }

    /// Makes a part of a file.
    pub(crate) fn extents(extents: &[Extent]) -> Self {
        let mut draft = Self::begin(EXTENTS, extents.len());
        extents.iter().for_each(|extent| draft.extent(extent));
        draft
    }

    /// Makes what a node says.
    pub(crate) fn of(node: &Node) -> Self {
        match node {
            Node::Leaf(entries) => {
                let mut draft = Self::leaf(entries.len());
                entries.iter().for_each(|entry| draft.entry(entry));
                draft
            }
            Node::Branch(pages) => Self::branch(pages),
            Node::Extents(extents) => Self::extents(extents),
        }
    }

    fn begin(kind: u8, count: usize) -> Self {
        let mut draft = Self::default();
        draft.canonical.byte(VERSION);
        draft.canonical.byte(kind);
        draft.canonical.count(count);
        draft
    }

    /// Returns the string whose hash is the id.
    pub(crate) fn canonical(&self) -> &[u8] {
        self.canonical.bytes()
    }

    /// Returns what is stored: the length of the canonical string, the string, and the places.
    pub(crate) fn stored(&self) -> Vec<u8> {
        let mut stored = Encoder::default();
        stored.text(self.canonical());
        stored.raw(&encode_places(self.references.iter().map(|(_, place)| place)));
        stored.into_bytes()
    }

    /// Adds entries as they lie encoded, and what they name.
    pub(crate) fn encoded(&mut self, canonical: &[u8], references: &[Reference]) {
        self.canonical.raw(canonical);
        self.references.extend_from_slice(references);
    }

    fn reference(&mut self, kind: FrameKind, id: &[u8; 32], place: Place) {
        self.canonical.raw(id);
        self.references.push(((kind, *id), place));
    }

    fn extent(&mut self, extent: &Extent) {
        match extent {
            Extent::Data { chunk, length } => {
                self.canonical.byte(0);
                self.canonical.number(u64::from(*length));
                self.reference(FrameKind::Chunk, chunk.id.as_bytes(), chunk.place);
            }
            Extent::Hole { length } => {
                self.canonical.byte(1);
                self.canonical.number(*length);
            }
        }
    }

    /// Adds an entry, the next in order.
    pub(crate) fn entry(&mut self, entry: &Entry) {
        self.canonical.text(entry.name.as_bytes());
        encode_metadata(&mut self.canonical, &entry.metadata);
        match &entry.kind {
            EntryKind::File { size, link_group, content } => {
                self.canonical.byte(1);
                self.canonical.number(*size);
                self.canonical.byte(u8::from(link_group.is_some()));
                if let Some(group) = link_group {
                    self.canonical.raw(&group.to_le_bytes());
                }
                self.content(content);
            }
            EntryKind::Directory { node, totals } => {
                self.canonical.byte(2);
                self.reference(FrameKind::Node, node.id.as_bytes(), node.place);
                encode_totals(&mut self.canonical, totals);
            }
            EntryKind::SymbolicLink { target } => {
                self.canonical.byte(3);
                self.canonical.text(target);
            }
        }
    }

    fn content(&mut self, content: &FileContent) {
        match content {
            FileContent::Inline(bytes) => {
                self.canonical.byte(0);
                self.canonical.raw(bytes);
            }
            FileContent::Extents(extents) => {
                self.canonical.byte(1);
                self.canonical.count(extents.len());
                extents.iter().for_each(|extent| self.extent(extent));
            }
            FileContent::Lists(lists) => {
                self.canonical.byte(2);
                self.canonical.count(lists.len());
                for (list, length) in lists {
                    self.reference(FrameKind::Node, list.id.as_bytes(), list.place);
                    self.canonical.number(*length);
                }
            }
        }
    }
}
