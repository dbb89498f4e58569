//! [`Writer`]: from a source's listings to the root of a tree.
//!
//! Directories wait until all that is in them is known, and are then encoded, children before parents. What waits is the
//! way from the root to the present listing, and the files of one batch; a directory that is the same as before, or that was
//! not listed because nothing in it changed, costs nothing but its name.

mod directories;
mod files;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use futures::StreamExt as _;

use self::{
    directories::{Directory, DirectoryKey, Kept, Slot},
    files::{Asked, Group},
};
use crate::{
    content::ContentWriter,
    error::SnapshotError,
    head::IndexRefs,
    id::TreeId,
    index::Index,
    node::{Entry, EntryKind, MAX_INLINE_FILE, Metadata, Stored, Totals},
    packer::Packer,
    path::{Name, TreePath},
    reader::{MAX_DEPTH, MAX_DIRECTORY_ENTRIES, PartOfDirectory, Reader},
    receipt::Skipped,
    source::{Coverage, Listing, Source, SourceEntry, SourceKind},
    store::Env,
};

/// Files that are read in one batch.
const BATCH_FILES: usize = 256;
/// About the bytes that are read in one batch.
const BATCH_BYTES: u64 = 16 << 20;

/// The most entries of one directory.
const MAX_ENTRIES: u64 = MAX_DIRECTORY_ENTRIES as u64;

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
            kept: Totals::default(),
        };
        let mut children = VecDeque::new();
        let mut kept = Kept::new(if complete { Vec::new() } else { known.base.pages.clone() });
        let removed: BTreeSet<&Name> = removed.iter().collect();
        let mut removed = removed.into_iter().peekable();
        for entry in &entries {
            while let Some(gone) = removed.next_if(|gone| **gone < entry.name) {
                kept.up_to(gone, &mut directory.slots);
            }
            kept.up_to(&entry.name, &mut directory.slots);
            let of_base = known.base.find(&entry.name);
            let of_previous = match &known.previous {
                Some(previous) => previous.find(&entry.name),
                None => of_base,
            };
            let slot = directory.slots.len();
            if is_directory(entry) {
                children.push_back(Expected {
                    slot,
                    path: directory.path.join(&entry.name),
                    base: of_base.and_then(directory_node),
                    previous: of_previous.and_then(directory_node).map(|(node, _)| node),
                });
            }
            let made = self.entry(key, slot, &directory.path, entry, of_previous)?;
            directory.missing += usize::from(matches!(made, Slot::Waiting { .. }));
            directory.slots.push(made);
        }
        removed.for_each(|gone| kept.up_to(gone, &mut directory.slots));
        kept.rest(&mut directory.slots);
        directory.kept = match known.kept {
            Some(kept) => kept,
            None => directory.totals_of_runs(),
        };
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
            names.dedup();
        }
        let path = &expected.path;
        let base_node = expected.base.map(|(node, _)| node);
        let mut kept = complete.then(Totals::default);
        let mut base = PartOfDirectory::default();
        if let (Some((node, totals)), Some(reader)) = (expected.base, &self.base)
            && (!complete || entries.iter().any(is_directory))
        {
            base = reader.part_of_directory(node, Some(&names), path).await?;
            if !complete {
                kept = rest(&totals, &base, &names);
                let most = (base.most_entries() as u64).min(totals.names());
                let may_be_large = most.saturating_add(entries.len() as u64) > MAX_ENTRIES;
                if !base.is_whole() && (kept.is_none() || may_be_large) {
                    base = reader.part_of_directory(node, None, path).await?;
                }
            }
        }
        let stays = match complete || !base.is_whole() {
            true => 0,
            false => {
                let gone = names.iter().filter(|name| base.find(name).is_some()).count();
                base.most_entries().saturating_sub(gone)
            }
        };
        if (stays + entries.len()) as u64 > MAX_ENTRIES {
            return Err(SnapshotError::TooLarge {
                what: "the number of entries of a directory",
                limit: MAX_ENTRIES,
            });
        }
        let same = base_node == expected.previous && !base.nodes.is_empty();
        let previous = match (expected.previous, &self.previous) {
            (Some(node), Some(reader)) if !same && entries.iter().any(has_a_past) => {
                reader.part_of_directory(node, Some(&names), path).await?
            }
            _ => PartOfDirectory::default(),
        };
        let mut nodes = previous.nodes.clone();
        nodes.extend(base.nodes.iter().chain(&expected.previous).chain(&base_node));
        Ok(Known { base, kept, previous: (!same).then_some(previous), nodes })
    }
}

/// What is known of a directory that was listed.
struct Known {
    base: PartOfDirectory,
    /// How much of the base stays; `None` if that is to be counted, and all of it was read.
    kept: Option<Totals>,
    /// What the snapshot before has; `None` if that is the same as what the base has.
    previous: Option<PartOfDirectory>,
    /// Nodes that the directory and its pages were before.
    nodes: Vec<Stored<TreeId>>,
}

/// Returns how much is in a directory without these names; `None` if that cannot be told.
fn rest(totals: &Totals, base: &PartOfDirectory, names: &[&Name]) -> Option<Totals> {
    let mut gone = Totals::default();
    for entry in names.iter().filter_map(|name| base.find(name)) {
        gone.add(&entry.kind);
    }
    totals.without(&gone)
}

fn is_directory(entry: &SourceEntry) -> bool {
    entry.kind == SourceKind::Directory
}

/// Returns whether what the snapshot before has of an entry is of use: the content of a file that lies in its directory is not, if it
/// is read anew.
fn has_a_past(entry: &SourceEntry) -> bool {
    match &entry.kind {
        SourceKind::Directory => true,
        SourceKind::SymbolicLink { .. } => false,
        SourceKind::File { size, unchanged, .. } => *unchanged || *size > MAX_INLINE_FILE as u64,
    }
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
