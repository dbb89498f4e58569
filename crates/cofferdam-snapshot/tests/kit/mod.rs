//! A tree in memory that is a source and a target, and a store in memory: what the tests of the store have in common.

#![allow(dead_code, reason = "each test uses a part of it")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

pub(crate) mod generated;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::{Clock, Entropy, Timestamp};
use cofferdam_snapshot::{
    Content, Coverage, FileEnd, Lineage, Listing, Metadata, Name, Previous, Receipt, RestorePlan,
    SnapshotError, SnapshotId, SnapshotOptions, SnapshotStore, Source, SourceEntry, SourceError,
    SourceFacts, SourceKind, StorageRetry, StoreOptions, Target, TargetEntry, TargetError, Totals,
    TreePath, Walk, Wanted,
};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use object_store::{ObjectStore, memory::InMemory};

/// A clock that is set by hand.
#[derive(Debug, Default)]
pub(crate) struct HandClock(AtomicU64);

impl HandClock {
    pub(crate) fn advance(&self, millis: u64) {
        self.0.fetch_add(millis, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_800_000_000_000 + self.0.load(Ordering::Relaxed))
    }
}

/// Numbers that count, hashed, so that names differ as random ones do.
#[derive(Debug, Default)]
pub(crate) struct Counted(AtomicU64);

impl Entropy for Counted {
    fn next_u64(&self) -> u64 {
        let count = self.0.fetch_add(1, Ordering::Relaxed);
        let hash = blake3::hash(&count.to_le_bytes());
        u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap())
    }
}

/// A store in memory, with what it stands on.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) clock: Arc<HandClock>,
    pub(crate) entropy: Arc<Counted>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::over(Arc::new(InMemory::new()))
    }

    pub(crate) fn over(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects, clock: Arc::default(), entropy: Arc::default() }
    }

    pub(crate) fn options(&self) -> StoreOptions {
        let mut options = StoreOptions::new(self.clock.clone(), self.entropy.clone());
        options.retry = StorageRetry::without_pause();
        options
    }

    pub(crate) async fn open(&self) -> SnapshotStore {
        SnapshotStore::open(self.objects.clone(), "store", self.options()).await.unwrap()
    }

    /// Returns every object below a directory of the store, with its size.
    pub(crate) async fn objects(&self, directory: &str) -> Vec<(String, u64)> {
        let prefix = object_store::path::Path::from(format!("store/{directory}"));
        let mut found: Vec<_> = self
            .objects
            .list(Some(&prefix))
            .map(|meta| meta.map(|meta| (meta.location.to_string(), meta.size)).unwrap())
            .collect()
            .await;
        found.sort();
        found
    }
}

pub(crate) fn lineage(name: &str) -> Lineage {
    name.parse().unwrap()
}

pub(crate) fn snapshot(name: &str) -> SnapshotId {
    name.parse().unwrap()
}

pub(crate) fn path(path: &str) -> TreePath {
    TreePath::new(path).unwrap()
}

/// Bytes that follow from a seed and do not repeat.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Thing {
    Directory { mode: u16 },
    File { mode: u16, content: Bytes, link: Option<u64> },
    Link { target: Vec<u8> },
}

impl Thing {
    pub(crate) fn file(content: impl Into<Bytes>) -> Self {
        Self::File { mode: 0o644, content: content.into(), link: None }
    }

    pub(crate) fn linked(content: impl Into<Bytes>, link: u64) -> Self {
        Self::File { mode: 0o644, content: content.into(), link: Some(link) }
    }

    pub(crate) fn directory() -> Self {
        Self::Directory { mode: 0o755 }
    }

    pub(crate) fn link(target: &str) -> Self {
        Self::Link { target: target.into() }
    }

    fn metadata(&self) -> Metadata {
        let mode = match self {
            Self::Directory { mode } | Self::File { mode, .. } => *mode,
            Self::Link { .. } => 0o777,
        };
        Metadata { mode, modified_ns: 7, xattrs: Vec::new() }
    }
}

/// A tree: what is at each path, without the root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tree(pub(crate) BTreeMap<TreePath, Thing>);

impl Tree {
    /// Puts something there, and the directories on the way.
    pub(crate) fn put(&mut self, at: &str, thing: Thing) -> &mut Self {
        self.put_at(&path(at), thing);
        self
    }

    pub(crate) fn put_at(&mut self, at: &TreePath, thing: Thing) {
        self.remove_at(at);
        let mut parent = at.parent();
        while let Some(directory) = parent.filter(|parent| !parent.is_root()) {
            if !matches!(self.0.get(&directory), Some(Thing::Directory { .. })) {
                self.0.insert(directory.clone(), Thing::directory());
            }
            parent = directory.parent();
        }
        self.0.insert(at.clone(), thing);
    }

    /// Removes something and all below it.
    pub(crate) fn remove(&mut self, at: &str) -> &mut Self {
        self.remove_at(&path(at));
        self
    }

    pub(crate) fn remove_at(&mut self, at: &TreePath) {
        let below = [at.as_bytes(), b"/"].concat();
        self.0.retain(|path, _| path != at && !path.as_bytes().starts_with(&below));
    }

    /// Returns what is directly in a directory, by name.
    fn children(&self, directory: &TreePath) -> BTreeMap<Name, &Thing> {
        self.0
            .iter()
            .filter(|(path, _)| path.parent().as_ref() == Some(directory))
            .map(|(path, thing)| (Name::new(path.name().unwrap()).unwrap(), thing))
            .collect()
    }

    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for thing in self.0.values() {
            match thing {
                Thing::Directory { .. } => totals.directories += 1,
                Thing::Link { .. } => totals.symbolic_links += 1,
                Thing::File { content, .. } => {
                    totals.files += 1;
                    totals.bytes += content.len() as u64;
                }
            }
        }
        totals
    }

    /// Files that share a link group, by the paths that do.
    pub(crate) fn normal(&self) -> Self {
        let mut first: BTreeMap<u64, u64> = BTreeMap::new();
        let mut tree = self.clone();
        for (at, thing) in tree.0.values_mut().enumerate() {
            if let Thing::File { link: Some(link), .. } = thing {
                *link = *first.entry(*link).or_insert(at as u64);
            }
        }
        let counts = tree.0.values().fold(BTreeMap::<u64, u64>::new(), |mut counts, thing| {
            if let Thing::File { link: Some(link), .. } = thing {
                *counts.entry(*link).or_default() += 1;
            }
            counts
        });
        for thing in tree.0.values_mut() {
            if let Thing::File { link, .. } = thing {
                *link = link.filter(|link| counts[link] > 1);
            }
        }
        tree
    }
}

/// A source of a tree in memory.
#[derive(Debug)]
pub(crate) struct MemorySource {
    tree: Tree,
    /// What the last snapshot was of, if changes are to be found by comparing.
    before: Option<Tree>,
    /// The snapshot and the tree that listed changes refer to.
    base: Option<(SnapshotId, Tree)>,
    /// Bytes of each piece of content.
    step: usize,
    pub(crate) reads: Mutex<BTreeSet<TreePath>>,
}

impl MemorySource {
    /// A walk of everything, that reads everything.
    pub(crate) fn whole(tree: &Tree) -> Self {
        let reads = Mutex::default();
        Self { tree: tree.clone(), before: None, base: None, step: 100_000, reads }
    }

    /// A walk of everything that knows which files are as they were.
    pub(crate) fn since(tree: &Tree, before: &Tree) -> Self {
        Self { before: Some(before.clone()), ..Self::whole(tree) }
    }

    /// A walk of what differs from the tree of a snapshot.
    pub(crate) fn changes(tree: &Tree, before: &Tree, base: &SnapshotId, base_tree: &Tree) -> Self {
        let base = Some((base.clone(), base_tree.clone()));
        Self { base, ..Self::since(tree, before) }
    }

    fn listings(&self, directory: &TreePath, out: &mut Vec<Listing>) {
        let there = self.tree.children(directory);
        let base = self.base.as_ref().map(|(_, tree)| tree);
        let old = base.map(|base| base.children(directory)).unwrap_or_default();
        let was_directory = directory.is_root()
            || base
                .is_some_and(|base| matches!(base.0.get(directory), Some(Thing::Directory { .. })));
        let complete = base.is_none() || !was_directory;
        let mut entries = Vec::new();
        let mut below = Vec::new();
        for (name, thing) in &there {
            let path = directory.join(name);
            let is_directory = matches!(thing, Thing::Directory { .. });
            // As the kernel does, a directory is listed if anything below it was touched.
            let differs = is_directory && base.is_some_and(|base| differs(&self.tree, base, &path));
            if !complete && old.get(name) == Some(thing) && !differs {
                continue;
            }
            let kind = match thing {
                Thing::Directory { .. } => {
                    below.push(path);
                    SourceKind::Directory
                }
                Thing::Link { target } => SourceKind::SymbolicLink { target: target.clone() },
                Thing::File { content, link, .. } => SourceKind::File {
                    size: content.len() as u64,
                    unchanged: self.before.as_ref().is_some_and(|before| {
                        matches!(before.0.get(&path), Some(Thing::File { content: old, .. }) if old == content)
                    }),
                    link_group: *link,
                },
            };
            entries.push(SourceEntry { name: name.clone(), metadata: thing.metadata(), kind });
        }
        let removed = match complete {
            true => Vec::new(),
            false => old.into_keys().filter(|name| !there.contains_key(name)).collect(),
        };
        let path = directory.clone();
        out.push(Listing { path, entries, removed, complete, skipped: Vec::new() });
        below.iter().for_each(|directory| self.listings(directory, out));
    }
}

fn differs(a: &Tree, b: &Tree, directory: &TreePath) -> bool {
    let below = [directory.as_bytes(), b"/"].concat();
    let part = |tree: &Tree| -> Vec<(TreePath, Thing)> {
        let inside = |path: &TreePath| path.as_bytes().starts_with(&below);
        tree.0.iter().filter(|(p, _)| inside(p)).map(|(p, t)| (p.clone(), t.clone())).collect()
    };
    part(a) != part(b)
}

#[async_trait]
impl Source for MemorySource {
    async fn begin<'a>(&'a self, _previous: Option<&Previous>) -> Result<Walk<'a>, SourceError> {
        let mut listings = Vec::new();
        self.listings(&TreePath::root(), &mut listings);
        Ok(Walk {
            coverage: match &self.base {
                None => Coverage::Whole,
                Some((snapshot, _)) => Coverage::ChangesTo(snapshot.clone()),
            },
            root: Thing::directory().metadata(),
            listings: stream::iter(listings).map(Ok).boxed(),
        })
    }

    fn read<'a>(&'a self, files: Vec<Wanted>) -> BoxStream<'a, Result<Content, SourceError>> {
        let contents = files.into_iter().flat_map(move |file| {
            self.reads.lock().unwrap().insert(file.path.clone());
            let thing = &self.tree.0[&file.path];
            let Thing::File { content, .. } = thing else { panic!("{} is no file", file.path) };
            let pieces: Vec<Content> = (0..content.len())
                .step_by(self.step)
                .map(|from| content.slice(from..content.len().min(from + self.step)))
                .map(Content::Data)
                .collect();
            pieces.into_iter().chain([Content::End(FileEnd::Whole(thing.metadata()))])
        });
        stream::iter(contents).map(Ok).boxed()
    }

    fn facts(&self) -> SourceFacts {
        SourceFacts::default()
    }
}

/// A tree that is made of a stream.
#[derive(Debug, Default)]
pub(crate) struct MemoryTarget {
    pub(crate) tree: Tree,
    groups: u64,
}

impl MemoryTarget {
    fn insert(&mut self, path: TreePath, thing: Thing) {
        let parent = path.parent().unwrap();
        let there = parent.is_root() || matches!(self.tree.0[&parent], Thing::Directory { .. });
        assert!(there, "{path} comes before its directory");
        assert_eq!(self.tree.0.insert(path, thing), None, "something is made twice");
    }
}

#[async_trait]
impl Target for MemoryTarget {
    async fn restore(
        &mut self,
        _plan: &RestorePlan,
        mut entries: BoxStream<'_, Result<TargetEntry, SnapshotError>>,
    ) -> Result<Totals, TargetError> {
        let mut open: Option<(TreePath, u16, u64, Vec<u8>)> = None;
        loop {
            let entry = entries.next().await.transpose()?;
            match &entry {
                Some(TargetEntry::Data(bytes)) => {
                    open.as_mut().unwrap().3.extend_from_slice(bytes);
                    continue;
                }
                Some(TargetEntry::Hole(length)) => {
                    let content = &mut open.as_mut().unwrap().3;
                    content.resize(content.len() + usize::try_from(*length).unwrap(), 0);
                    continue;
                }
                _ => {}
            }
            if let Some((path, mode, size, content)) = open.take() {
                assert_eq!(content.len() as u64, size, "{path}");
                self.insert(path, Thing::File { mode, content: content.into(), link: None });
            }
            match entry {
                None => return Ok(self.tree.totals()),
                Some(TargetEntry::Directory { path, metadata }) => {
                    self.insert(path, Thing::Directory { mode: metadata.mode });
                }
                Some(TargetEntry::SymbolicLink { path, target, .. }) => {
                    self.insert(path, Thing::Link { target });
                }
                Some(TargetEntry::File { path, metadata, size }) => {
                    open = Some((path, metadata.mode, size, Vec::new()));
                }
                Some(TargetEntry::HardLink { path, to }) => {
                    let next = self.groups;
                    let Some(Thing::File { link, .. }) = self.tree.0.get_mut(&to) else {
                        panic!("{to} is no file")
                    };
                    if link.is_none() {
                        *link = Some(next);
                        self.groups += 1;
                    }
                    let same = self.tree.0[&to].clone();
                    self.insert(path, same);
                }
                Some(other) => panic!("unexpected {other:?}"),
            }
        }
    }
}

/// Takes a snapshot of a whole tree.
pub(crate) async fn take(store: &SnapshotStore, name: &str, tree: &Tree) -> Receipt {
    let source = MemorySource::whole(tree);
    store.snapshot(&lineage(name), &source, SnapshotOptions::default()).await.unwrap()
}

/// Restores a snapshot into memory.
pub(crate) async fn restored(
    store: &SnapshotStore,
    snapshot: &SnapshotId,
) -> Result<Tree, TargetError> {
    let mut target = MemoryTarget::default();
    let receipt = store.restore(snapshot, &mut target).await?;
    assert_eq!(receipt.totals, target.tree.totals());
    Ok(target.tree.normal())
}
