//! [`Writer`]: from a source's listings to the root of a tree.
//!
//! Directories wait until all that is in them is known, and are then encoded, children before parents. What waits is the
//! way from the root to the present listing, and the files of one batch; a directory that is the same as before, or that was
//! not listed because nothing in it changed, costs nothing but its name.

mod directories;
mod files;

use std::collections::{HashMap, HashSet, VecDeque};

use futures::StreamExt as _;

use self::{
    directories::{Directory, DirectoryKey, Slot},
    files::{Asked, Group},
};
use crate::{
    content::ContentWriter,
    error::SnapshotError,
    head::IndexRefs,
    id::TreeId,
    index::Index,
    node::{Entry, EntryKind, Metadata, Stored, Totals},
    packer::Packer,
    pages::MAX_PAGE_ENTRIES,
    path::{Name, TreePath},
    reader::{MAX_DEPTH, MAX_DIRECTORY_ENTRIES, ReadDirectory, Reader},
    receipt::Skipped,
    source::{Coverage, Listing, Source, SourceEntry, SourceKind},
    store::Env,
};

/// Files that are read in one batch.
const BATCH_FILES: usize = 256;
/// About the bytes that are read in one batch.
const BATCH_BYTES: u64 = 16 << 20;

/// The root of a tree that was written.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) metadata: Metadata,
    pub(crate) node: Stored<TreeId>,
    pub(crate) totals: Totals,
}

/// A directory whose listing is to come.
#[derive(Debug)]
struct Expected {
    slot: usize,
    path: TreePath,
    base: Option<(Stored<TreeId>, Totals)>,
    previous: Option<Stored<TreeId>>,
}

#[derive(Debug)]
struct Level {
    key: DirectoryKey,
    expected: VecDeque<Expected>,
}

/// Writes one tree.
pub(crate) struct Writer<'a> {
    env: Env,
    source: &'a dyn Source,
    previous: Option<Reader>,
    base: Option<Reader>,
    whole: bool,
    directories: HashMap<DirectoryKey, Directory>,
    next_directory: DirectoryKey,
    levels: Vec<Level>,
    asked: Vec<Asked>,
    asked_bytes: u64,
    groups: HashMap<u64, Group>,
    content: ContentWriter,
    pub(crate) packer: Packer,
    pub(crate) index: Index,
    /// What the index is loaded from, when it is first needed.
    index_refs: Option<(IndexRefs, HashSet<crate::id::PackName>)>,
    pub(crate) skipped: Skipped,
    root: Option<Root>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(
        env: Env,
        source: &'a dyn Source,
        previous: Option<Reader>,
        base: Option<Reader>,
        hints: (IndexRefs, HashSet<crate::id::PackName>),
    ) -> Self {
        let is_first = previous.is_none() && base.is_none();
        let mut frames = HashMap::new();
        for reader in [&previous, &base].into_iter().flatten() {
            frames.extend(reader.head.frames.iter().map(|(key, frame)| (*key, frame.clone())));
        }
        Self {
            packer: Packer::new(env.clone(), is_first, frames),
            content: ContentWriter::new(env.clone()),
            env,
            source,
            previous,
            base,
            whole: true,
            directories: HashMap::new(),
            next_directory: 0,
            levels: Vec::new(),
            asked: Vec::new(),
            asked_bytes: 0,
            groups: HashMap::new(),
            index: Index::default(),
            index_refs: Some(hints),
            skipped: Skipped::default(),
            root: None,
        }
    }

    /// Takes all listings and contents.
    pub(crate) async fn write(
        &mut self,
        walk: crate::source::Walk<'_>,
    ) -> Result<Root, SnapshotError> {
        self.whole = walk.coverage == Coverage::Whole;
        if let Some(problem) = walk.root.problem() {
            return Err(listing(&TreePath::root(), problem));
        }
        let mut listings = walk.listings;
        while let Some(next) = listings.next().await {
            self.listing(next?).await?;
            if self.asked.len() >= BATCH_FILES || self.asked_bytes >= BATCH_BYTES {
                self.read().await?;
            }
        }
        drop(listings);
        self.read().await?;
        let mut root = self
            .root
            .take()
            .ok_or_else(|| listing(&TreePath::root(), "listings are missing at the end"))?;
        root.metadata = walk.root;
        Ok(root)
    }

    /// Returns the directory that the next listing has to be of.
    fn expected(&mut self, path: &TreePath) -> Result<Expected, SnapshotError> {
        if self.next_directory == 0 {
            if !path.is_root() {
                return Err(listing(path, "the first listing is not that of the root"));
            }
            return Ok(Expected {
                slot: 0,
                path: TreePath::root(),
                base: self.base.as_ref().map(|reader| (reader.head.tree, reader.head.totals)),
                previous: self.previous.as_ref().map(|reader| reader.head.tree),
            });
        }
        while let Some(level) = self.levels.last_mut() {
            match level.expected.pop_front() {
                None => drop(self.levels.pop()),
                Some(expected) if expected.path == *path => return Ok(expected),
                Some(_) => break,
            }
        }
        Err(listing(path, "it is not the next directory, depth first and in the order of names"))
    }

    async fn listing(&mut self, listed: Listing) -> Result<(), SnapshotError> {
        let Listing { path, entries, removed, complete, skipped } = listed;
        let expected = self.expected(&path)?;
        let parent = self.levels.last().map(|level| (level.key, expected.slot));
        if self.levels.len() > MAX_DEPTH {
            return Err(SnapshotError::TooLarge {
                what: "the depth of the tree",
                limit: MAX_DEPTH as u64,
            });
        }
        if self.whole && !complete {
            return Err(listing(
                &path,
                "a walk of the whole tree has a listing that is not complete",
            ));
        }
        if !entries.windows(2).all(|pair| pair[0].name < pair[1].name) {
            return Err(listing(&path, "names are not in ascending order"));
        }
        for (name, reason) in skipped {
            self.skipped.add(&path.join(&name), reason);
        }
        if let Some((node, totals)) = expected.base
            && !complete
            && entries.is_empty()
            && removed.is_empty()
        {
            self.next_directory += 1;
            return self.closed(parent, node, totals).await;
        }
        let known = self.known(&expected, &entries, &removed, complete).await?;

        let key = self.next_directory;
        self.next_directory += 1;
        let mut directory = Directory {
            path,
            parent,
            slots: Vec::new(),
            missing: 0,
            before: known.nodes,
            unread: known.unread,
        };
        let mut children = VecDeque::new();
        let removed: HashSet<&Name> = removed.iter().collect();
        let mut kept = known.base.into_iter().peekable();
        let mut before = known.previous.map(|entries| entries.into_iter().peekable());
        let stays = |slot: &Slot| !slot.name().is_some_and(|name| removed.contains(name));
        for entry in &entries {
            while let Some(kept) = kept.next_if(|kept| kept.name() < Some(&entry.name)) {
                directory.slots.extend((!complete && stays(&kept)).then_some(kept));
            }
            let of_base = kept.next_if(|kept| kept.name() == Some(&entry.name));
            let of_base = of_base.and_then(Slot::ready);
            let of_previous = before.as_mut().and_then(|before| {
                while before.next_if(|before| before.name < entry.name).is_some() {}
                before.next_if(|before| before.name == entry.name)
            });
            let of_previous = match &before {
                Some(_) => of_previous.as_ref(),
                None => of_base.as_ref(),
            };
            let slot = directory.slots.len();
            if is_directory(entry) {
                children.push_back(Expected {
                    slot,
                    path: directory.path.join(&entry.name),
                    base: of_base.as_ref().and_then(directory_node),
                    previous: of_previous.and_then(directory_node).map(|(node, _)| node),
                });
            }
            let made = self.entry(key, slot, &directory.path, entry, of_previous)?;
            directory.missing += usize::from(matches!(made, Slot::Waiting { .. }));
            directory.slots.push(made);
        }
        if !complete {
            directory.slots.extend(kept.filter(stays));
        }
        if directory.slots.len() > MAX_DIRECTORY_ENTRIES {
            return Err(SnapshotError::TooLarge {
                what: "the number of entries of a directory",
                limit: MAX_DIRECTORY_ENTRIES as u64,
            });
        }
        let complete = directory.missing == 0;
        self.directories.insert(key, directory);
        self.levels.push(Level { key, expected: children });
        if complete { self.close(key).await } else { Ok(()) }
    }

    /// Reads what is known of a directory that was listed: the pages in which something was.
    async fn known(
        &self,
        expected: &Expected,
        entries: &[SourceEntry],
        removed: &[Name],
        complete: bool,
    ) -> Result<Known, SnapshotError> {
        let mut names: Vec<&Name> = entries.iter().map(|entry| &entry.name).collect();
        if !removed.is_empty() {
            names.extend(removed);
            names.sort_unstable();
        }
        let path = &expected.path;
        let base_node = expected.base.map(|(node, _)| node);
        let mut unread = Totals::default();
        let mut base = ReadDirectory::default();
        if let (Some((node, totals)), Some(reader)) = (expected.base, &self.base)
            && (!complete || entries.iter().any(is_directory))
        {
            base = reader.part_of_directory(node, Some(&names), path).await?;
            if complete {
                base.unread.clear();
            } else if !base.unread.is_empty() {
                match rest(&totals, &base, entries.len()) {
                    Some(rest) => unread = rest,
                    None => base = reader.directory(node, path).await?,
                }
            }
        }
        let same = base_node == expected.previous && !base.nodes.is_empty();
        let previous = match (expected.previous, &self.previous) {
            (Some(node), Some(reader)) if !same && !entries.is_empty() => {
                reader.part_of_directory(node, Some(&names), path).await?
            }
            _ => ReadDirectory::default(),
        };
        let mut nodes = previous.nodes;
        nodes.extend(base.nodes.iter().chain(&expected.previous).chain(&base_node));
        Ok(Known {
            base: Slot::all(base.entries, base.unread),
            unread,
            previous: (!same).then_some(previous.entries),
            nodes,
        })
    }
}

/// What is known of a directory that was listed.
struct Known {
    /// What the base has, in order.
    base: Vec<Slot>,
    /// How much of it was not read.
    unread: Totals,
    /// What the snapshot before has; `None` if that is the same as what the base has.
    previous: Option<Vec<Entry>>,
    /// Nodes that the directory and its pages were before.
    nodes: Vec<Stored<TreeId>>,
}

/// Returns how much is in what was not read of a directory; `None` if that cannot be told, or could be more than a directory holds.
fn rest(totals: &Totals, read: &ReadDirectory, listed: usize) -> Option<Totals> {
    let mut known = Totals::default();
    read.entries.iter().for_each(|entry| known.add(&entry.kind));
    let rest = totals.without(&known)?;
    let pages = read.unread.len().saturating_mul(MAX_PAGE_ENTRIES) as u64;
    let most = rest.names().min(pages).saturating_add((read.entries.len() + listed) as u64);
    (most <= MAX_DIRECTORY_ENTRIES as u64).then_some(rest)
}

fn is_directory(entry: &SourceEntry) -> bool {
    entry.kind == SourceKind::Directory
}

fn directory_node(entry: &Entry) -> Option<(Stored<TreeId>, Totals)> {
    match entry.kind {
        EntryKind::Directory { node, totals } => Some((node, totals)),
        _ => None,
    }
}

fn listing(path: &TreePath, reason: impl Into<String>) -> SnapshotError {
    SnapshotError::Listing { path: path.clone(), reason: reason.into() }
}
