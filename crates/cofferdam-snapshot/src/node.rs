//! Nodes: directories, pages of large directories, and lists of the chunks of large files.
//!
//! A node is two byte strings. The *canonical* one says what is in it, and its hash is the node's id. The *places* say where
//! the things lie that it names, in the order in which it names them; they are no part of the id, so the same tree has the
//! same id wherever it is stored, and finding something takes no index.

mod draft;
mod places;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub(crate) use self::draft::{Draft, Reference};
use self::places::Places;

use crate::{
    frame::FrameKind,
    id::{ChunkId, PackName, TreeId},
    path::Name,
    wire::{Decoder, Encoder, Malformed},
};

/// The version of nodes that is written.
const VERSION: u8 = 1;
const LEAF: u8 = 1;
const BRANCH: u8 = 2;
const EXTENTS: u8 = 3;

/// Files up to this size lie in the node of their directory.
pub(crate) const MAX_INLINE_FILE: usize = 256;
/// Files with more pieces have them in nodes of their own.
pub(crate) const MAX_ENTRY_EXTENTS: usize = 64;
/// Pieces in one such node.
pub(crate) const MAX_NODE_EXTENTS: usize = 8192;
/// The most bytes of the canonical form of a node.
pub(crate) const MAX_NODE_BYTES: usize = 16 << 20;
/// The longest target of a symbolic link, as Linux has it.
pub(crate) const MAX_TARGET_BYTES: usize = 4095;
const MAX_XATTRS: usize = 64;
const MAX_XATTR_NAME: usize = 255;
/// The most bytes that the attributes of one file have, names and values together.
pub(crate) const MAX_XATTR_BYTES: usize = 64 << 10;
const ID: usize = 32;

/// The mode, time and attributes of a file, directory or link. Owners are not kept: a sandbox has one user.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Metadata {
    /// Permission bits, set-id and sticky bits: the lower twelve.
    pub mode: u16,
    /// When the content was last changed, in nanoseconds since the Unix epoch.
    pub modified_ns: i64,
    /// Extended attributes, in ascending order of their names; which are kept, the source decides.
    pub xattrs: Vec<Xattr>,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Xattr {
    /// Its whole name, such as `user.comment`; at most 255 bytes.
    pub name: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// How much is in a tree. The root directory is not counted; each name of a file with several is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Names of regular files.
    pub files: u64,
    /// Directories below the root.
    pub directories: u64,
    /// Symbolic links.
    pub symbolic_links: u64,
    /// Bytes of content, holes included, counted for each name.
    pub bytes: u64,
}

impl Totals {
    /// Adds what one entry counts for.
    pub(crate) fn add(&mut self, kind: &EntryKind) {
        match kind {
            EntryKind::File { size, .. } => {
                self.files += 1;
                self.bytes = self.bytes.saturating_add(*size);
            }
            EntryKind::Directory { totals, .. } => {
                self.directories = self.directories.saturating_add(totals.directories + 1);
                self.files = self.files.saturating_add(totals.files);
                self.symbolic_links = self.symbolic_links.saturating_add(totals.symbolic_links);
                self.bytes = self.bytes.saturating_add(totals.bytes);
            }
            EntryKind::SymbolicLink { .. } => self.symbolic_links += 1,
        }
    }

    /// Returns what is left without a part; `None` if that cannot be told, because a sum went beyond all numbers.
    pub(crate) fn without(&self, part: &Self) -> Option<Self> {
        (self.bytes < u64::MAX).then_some(())?;
        Some(Self {
            files: self.files.checked_sub(part.files)?,
            directories: self.directories.checked_sub(part.directories)?,
            symbolic_links: self.symbolic_links.checked_sub(part.symbolic_links)?,
            bytes: self.bytes.checked_sub(part.bytes)?,
        })
    }

    /// Returns how many names there are.
    pub(crate) fn names(&self) -> u64 {
        self.files.saturating_add(self.directories).saturating_add(self.symbolic_links)
    }
}

/// Where something lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// In the head of the snapshot that is read.
    Head,
    /// In a pack.
    Pack { pack: PackName, offset: u32, length: u32 },
}

/// Something by its id, and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Stored<I> {
    pub(crate) id: I,
    pub(crate) place: Place,
}

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Extent {
    Data { chunk: Stored<ChunkId>, length: u32 },
    Hole { length: u64 },
}

impl Extent {
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Data { length, .. } => u64::from(*length),
            Self::Hole { length } => *length,
        }
    }
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileContent {
    Inline(Bytes),
    Extents(Vec<Extent>),
    /// Nodes of extents, and how many bytes each covers.
    Lists(Vec<(Stored<TreeId>, u64)>),
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File { size: u64, link_group: Option<u64>, content: FileContent },
    Directory { node: Stored<TreeId>, totals: Totals },
    SymbolicLink { target: Vec<u8> },
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: Name,
    pub(crate) metadata: Metadata,
    pub(crate) kind: EntryKind,
}

impl Entry {
    /// About the bytes that it takes in memory.
    pub(crate) fn memory(&self) -> usize {
        let xattrs = self.metadata.xattrs.iter().map(|x| 64 + x.name.len() + x.value.len());
        let kind = match &self.kind {
            EntryKind::File { content: FileContent::Inline(bytes), .. } => bytes.len(),
            EntryKind::File { content: FileContent::Extents(extents), .. } => {
                size_of_val(&extents[..])
            }
            EntryKind::File { content: FileContent::Lists(lists), .. } => size_of_val(&lists[..]),
            EntryKind::Directory { .. } => 0,
            EntryKind::SymbolicLink { target } => target.len(),
        };
        size_of::<Self>() + self.name.as_bytes().len() + xattrs.sum::<usize>() + kind
    }
}

/// A page of a large directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) first: Name,
    pub(crate) node: Stored<TreeId>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// A directory, or a page of one: entries in ascending order of names.
    Leaf(Vec<Entry>),
    /// A directory in pages.
    Branch(Vec<Page>),
    /// A part of a file.
    Extents(Vec<Extent>),
}

/// Takes apart what [`Draft::stored`] made: the canonical string and the places.
pub(crate) fn split(stored: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut decoder = Decoder::new(stored);
    let canonical = decoder.text(MAX_NODE_BYTES)?;
    Ok((canonical, decoder.rest()))
}

impl Node {
    /// Decodes what a [`Draft`] has made, and nothing else.
    pub(crate) fn decode(canonical: &[u8], places: &[u8]) -> Result<Self, Malformed> {
        let mut reader =
            NodeReader { canonical: Decoder::new(canonical), places: Places::decode(places)? };
        if reader.canonical.byte()? != VERSION {
            return Err(Malformed("it is a node of another version"));
        }
        let node = match reader.canonical.byte()? {
            LEAF => Self::Leaf(reader.entries()?),
            BRANCH => Self::Branch(reader.pages()?),
            EXTENTS => Self::Extents(reader.extents(MAX_NODE_EXTENTS)?),
            _ => return Err(Malformed("it is a node of an unknown kind")),
        };
        reader.canonical.end()?;
        reader.places.end()?;
        Ok(node)
    }
}

impl Node {
    /// Visits everything that it names: kind, id, and where it lies.
    pub(crate) fn references(&self, mut visit: impl FnMut(FrameKind, &[u8; ID], Place)) {
        let chunks = |extents: &[Extent], visit: &mut dyn FnMut(FrameKind, &[u8; ID], Place)| {
            for extent in extents {
                if let Extent::Data { chunk, .. } = extent {
                    visit(FrameKind::Chunk, chunk.id.as_bytes(), chunk.place);
                }
            }
        };
        match self {
            Self::Extents(extents) => chunks(extents, &mut visit),
            Self::Branch(pages) => {
                for Page { node, .. } in pages {
                    visit(FrameKind::Node, node.id.as_bytes(), node.place);
                }
            }
            Self::Leaf(entries) => {
                for entry in entries {
                    match &entry.kind {
                        EntryKind::Directory { node, .. } => {
                            visit(FrameKind::Node, node.id.as_bytes(), node.place);
                        }
                        EntryKind::File { content: FileContent::Extents(extents), .. } => {
                            chunks(extents, &mut visit);
                        }
                        EntryKind::File { content: FileContent::Lists(lists), .. } => {
                            for (list, _) in lists {
                                visit(FrameKind::Node, list.id.as_bytes(), list.place);
                            }
                        }
                        EntryKind::File { content: FileContent::Inline(_), .. }
                        | EntryKind::SymbolicLink { .. } => {}
                    }
                }
            }
        }
    }
}

pub(crate) fn encode_metadata(encoder: &mut Encoder, metadata: &Metadata) {
    encoder.number(u64::from(metadata.mode));
    encoder.signed(metadata.modified_ns);
    encoder.count(metadata.xattrs.len());
    for xattr in &metadata.xattrs {
        encoder.text(&xattr.name);
        encoder.text(&xattr.value);
    }
}

pub(crate) fn decode_metadata(decoder: &mut Decoder<'_>) -> Result<Metadata, Malformed> {
    let mode = u16::try_from(decoder.number()?).map_err(|_| Malformed("a mode is too large"))?;
    let modified_ns = decoder.signed()?;
    let count = decoder.count(2)?;
    let xattrs = (0..count)
        .map(|_| {
            let name = decoder.text(MAX_XATTR_NAME)?.to_vec();
            Ok(Xattr { name, value: decoder.text(MAX_XATTR_BYTES)?.to_vec() })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let metadata = Metadata { mode, modified_ns, xattrs };
    match metadata.problem() {
        Some(problem) => Err(Malformed(problem)),
        None => Ok(metadata),
    }
}

impl Metadata {
    /// Says what keeps it from being stored.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let bytes: usize = self.xattrs.iter().map(|x| x.name.len() + x.value.len()).sum();
        if self.mode > 0o7777 {
            Some("a mode has more than permission bits")
        } else if self.xattrs.len() > MAX_XATTRS || bytes > MAX_XATTR_BYTES {
            Some("there are too many attributes")
        } else if self
            .xattrs
            .iter()
            .any(|x| x.name.is_empty() || x.name.len() > MAX_XATTR_NAME || x.name.contains(&0))
        {
            Some("an attribute has an unusable name")
        } else if !self.xattrs.windows(2).all(|pair| pair[0].name < pair[1].name) {
            Some("attributes are not in order")
        } else {
            None
        }
    }
}

pub(crate) fn encode_totals(encoder: &mut Encoder, totals: &Totals) {
    for number in [totals.files, totals.directories, totals.symbolic_links, totals.bytes] {
        encoder.number(number);
    }
}

pub(crate) fn decode_totals(decoder: &mut Decoder<'_>) -> Result<Totals, Malformed> {
    /// No tree has so many entries; sums of many stay far from the end of the numbers.
    const MOST: u64 = 1 << 48;
    let totals = Totals {
        files: decoder.number()?,
        directories: decoder.number()?,
        symbolic_links: decoder.number()?,
        bytes: decoder.number()?,
    };
    if totals.files.max(totals.directories).max(totals.symbolic_links) > MOST {
        return Err(Malformed("a count is too large"));
    }
    Ok(totals)
}

struct NodeReader<'a> {
    canonical: Decoder<'a>,
    places: Places<'a>,
}

impl NodeReader<'_> {
    fn tree(&mut self) -> Result<Stored<TreeId>, Malformed> {
        let id = TreeId::from_bytes(self.canonical.array()?);
        Ok(Stored { id, place: self.places.next()? })
    }

    fn extents(&mut self, most: usize) -> Result<Vec<Extent>, Malformed> {
        let count = self.canonical.count(2)?;
        if count == 0 || count > most {
            return Err(Malformed("a list of pieces is empty or too long"));
        }
        let mut extents: Vec<Extent> = Vec::with_capacity(count);
        for _ in 0..count {
            let extent = match self.canonical.byte()? {
                0 => {
                    let length = self.canonical.number_u32()?;
                    let id = ChunkId::from_bytes(self.canonical.array()?);
                    Extent::Data { chunk: Stored { id, place: self.places.next()? }, length }
                }
                1 => Extent::Hole { length: self.canonical.number()? },
                _ => return Err(Malformed("a piece is of an unknown kind")),
            };
            let again = matches!(
                (extents.last(), &extent),
                (Some(Extent::Hole { .. }), Extent::Hole { .. })
            );
            if extent.length() == 0 || again {
                return Err(Malformed("a piece is empty, or a hole follows a hole"));
            }
            extents.push(extent);
        }
        Ok(extents)
    }

    fn entries(&mut self) -> Result<Vec<Entry>, Malformed> {
        let count = self.canonical.count(6)?;
        let mut entries: Vec<Entry> = Vec::with_capacity(count);
        for _ in 0..count {
            let entry = self.entry()?;
            if entries.last().is_some_and(|last| last.name >= entry.name) {
                return Err(Malformed("names are not in ascending order"));
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn name(&mut self) -> Result<Name, Malformed> {
        Name::new(self.canonical.text(Name::MAX_BYTES)?)
            .map_err(|_| Malformed("a name cannot be one"))
    }

    fn entry(&mut self) -> Result<Entry, Malformed> {
        let name = self.name()?;
        let metadata = decode_metadata(&mut self.canonical)?;
        let kind = match self.canonical.byte()? {
            1 => {
                let size = self.canonical.number()?;
                let link_group = match self.canonical.flag()? {
                    true => Some(u64::from_le_bytes(self.canonical.array()?)),
                    false => None,
                };
                EntryKind::File { size, link_group, content: self.content(size)? }
            }
            2 => {
                let node = self.tree()?;
                EntryKind::Directory { node, totals: decode_totals(&mut self.canonical)? }
            }
            3 => {
                let target = self.canonical.text(MAX_TARGET_BYTES)?.to_vec();
                if target.is_empty() || target.contains(&0) {
                    return Err(Malformed("a link leads nowhere"));
                }
                EntryKind::SymbolicLink { target }
            }
            _ => return Err(Malformed("an entry is of an unknown kind")),
        };
        Ok(Entry { name, metadata, kind })
    }

    fn content(&mut self, size: u64) -> Result<FileContent, Malformed> {
        let form = self.canonical.byte()?;
        if form == 0 {
            let length = usize::try_from(size).ok().filter(|length| *length <= MAX_INLINE_FILE);
            let length = length.ok_or(Malformed("a file is too large to lie in its directory"))?;
            return Ok(FileContent::Inline(Bytes::copy_from_slice(self.canonical.raw(length)?)));
        }
        if size <= MAX_INLINE_FILE as u64 {
            return Err(Malformed("a file is too small not to lie in its directory"));
        }
        let (content, lengths) = match form {
            1 => {
                let extents = self.extents(MAX_ENTRY_EXTENTS)?;
                let lengths = sum(extents.iter().map(Extent::length));
                (FileContent::Extents(extents), lengths)
            }
            2 => {
                let count = self.canonical.count(ID + 1)?;
                let lists = (0..count)
                    .map(|_| Ok((self.tree()?, self.canonical.number()?)))
                    .collect::<Result<Vec<_>, Malformed>>()?;
                let lengths = sum(lists.iter().map(|(_, length)| *length));
                (FileContent::Lists(lists), lengths)
            }
            _ => return Err(Malformed("content is of an unknown form")),
        };
        if lengths == Some(size) {
            Ok(content)
        } else {
            Err(Malformed("the pieces of a file are not its size"))
        }
    }

    fn pages(&mut self) -> Result<Vec<Page>, Malformed> {
        let count = self.canonical.count(ID + 2)?;
        let mut pages: Vec<Page> = Vec::with_capacity(count);
        for _ in 0..count {
            let page = Page { first: self.name()?, node: self.tree()? };
            if pages.last().is_some_and(|last| last.first >= page.first) {
                return Err(Malformed("pages are not in ascending order"));
            }
            pages.push(page);
        }
        if pages.len() < 2 {
            Err(Malformed("a directory of one page is in pages"))
        } else {
            Ok(pages)
        }
    }
}

fn sum(mut lengths: impl Iterator<Item = u64>) -> Option<u64> {
    lengths.try_fold(0_u64, u64::checked_add)
}
