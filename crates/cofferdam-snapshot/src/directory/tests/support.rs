//! What the tests share: a collector in the place of a store, and programs that change trees.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tempfile::TempDir;

use crate::{
    DirectoryOptions, DirectorySource, DirectoryTarget, Metadata, Previous, RestorePlan,
    Target as _, TargetEntry, TargetError, TargetOptions, Totals, TreeId,
    directory::confined,
    path::{Name, TreePath},
    source::{Content, Coverage, FileEnd, SkipReason, Source, SourceError, SourceKind, Wanted},
    stat_cache::walk_order,
};

/// What a source tells, kept in memory.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) coverage: Option<Coverage>,
    pub(super) root: Metadata,
    pub(super) entries: BTreeMap<TreePath, (Metadata, Kept)>,
    pub(super) removed: Vec<String>,
    /// Directories of which everything is listed.
    pub(super) complete: Vec<String>,
    pub(super) skipped: Vec<(String, SkipReason)>,
    /// What was read, in order.
    pub(super) read: Vec<String>,
    pub(super) again: usize,
    pub(super) holes: u64,
}

impl Collected {
    /// Gives what was read under one name of a file to the others.
    fn share_content(&mut self) {
        let mut read = BTreeMap::new();
        for (_, kept) in self.entries.values() {
            if let Kept::File { content: Some(content), group: Some(group) } = kept {
                read.insert(*group, content.clone());
            }
        }
        for (_, kept) in self.entries.values_mut() {
            if let Kept::File { content: content @ None, group: Some(group) } = kept {
                *content = read.get(group).cloned();
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kept {
    Directory,
    File { content: Option<Vec<u8>>, group: Option<u64> },
    Link(Vec<u8>),
}

/// Takes everything of a source, and holds it against the rules of the seam.
pub(super) async fn collect(
    source: &dyn Source,
    previous: Option<&Previous>,
) -> Result<Collected, SourceError> {
    let mut found = Collected::default();
    let mut walk = source.begin(previous).await?;
    found.coverage = Some(walk.coverage.clone());
    found.root = walk.root.clone();
    let mut wanted = Vec::new();
    let mut groups = std::collections::HashSet::new();
    let mut last: Option<TreePath> = None;
    let mut awaited = vec![TreePath::root()];
    while let Some(listing) = walk.listings.next().await {
        let listing = listing?;
        assert_eq!(awaited.pop().as_ref(), Some(&listing.path), "a listing that nobody awaits");
        if let Some(last) = last.replace(listing.path.clone()) {
            assert!(walk_order(last.as_bytes(), listing.path.as_bytes()).is_lt());
        }
        assert!(listing.entries.is_sorted_by(|a, b| a.name < b.name));
        let path_of = |name: &Name| listing.path.join(name);
        if listing.complete {
            assert_eq!(listing.removed, []);
            found.complete.push(listing.path.to_string());
        }
        found.removed.extend(listing.removed.iter().map(|name| path_of(name).to_string()));
        let skipped = listing.skipped.iter();
        found
            .skipped
            .extend(skipped.map(|(name, reason)| (path_of(name).to_string(), reason.clone())));
        let mut below = Vec::new();
        for entry in &listing.entries {
            let path = path_of(&entry.name);
            let kept = match &entry.kind {
                SourceKind::Directory => {
                    below.push(path.clone());
                    Kept::Directory
                }
                SourceKind::File { size, unchanged, link_group } => {
                    if !unchanged && link_group.is_none_or(|group| groups.insert(group)) {
                        wanted.push(Wanted { path: path.clone(), size: *size });
                    }
                    Kept::File { content: None, group: *link_group }
                }
                SourceKind::SymbolicLink { target } => Kept::Link(target.clone()),
            };
            found.entries.insert(path, (entry.metadata.clone(), kept));
        }
        awaited.extend(below.into_iter().rev());
    }
    assert_eq!(awaited, [], "listings that did not come");
    drop(walk);
    for batch in wanted.chunks(100) {
        read(source, batch, &mut found).await?;
    }
    found.share_content();
    Ok(found)
}

async fn read(
    source: &dyn Source,
    batch: &[Wanted],
    found: &mut Collected,
) -> Result<(), SourceError> {
    let mut contents = source.read(batch.to_vec());
    for Wanted { path, .. } in batch {
        found.read.push(path.to_string());
        let mut content = Vec::new();
        let mut holes = 0;
        loop {
            match contents.next().await.expect("an end of every file")? {
                Content::Data(bytes) => content.extend_from_slice(&bytes),
                Content::Hole(length) => {
                    holes += length;
                    content.resize(content.len() + usize::try_from(length).unwrap(), 0);
                }
                Content::Again => {
                    found.again += 1;
                    holes = 0;
                    content.clear();
                }
                Content::End(FileEnd::Whole(metadata)) => {
                    let (kept, file) = found.entries.get_mut(path).unwrap();
                    *kept = metadata;
                    if let Kept::File { content: kept, .. } = file {
                        *kept = Some(content);
                    }
                    found.holes += holes;
                    break;
                }
                Content::End(FileEnd::Skipped(reason)) => {
                    found.entries.remove(path);
                    found.skipped.push((path.to_string(), reason));
                    break;
                }
            }
        }
    }
    assert!(contents.next().await.is_none(), "more than was asked for");
    Ok(())
}

/// A tree, and a place for what is remembered of it.
pub(super) struct Place {
    pub(super) directory: TempDir,
    previous: Option<Previous>,
    snapshots: u8,
}

impl Place {
    pub(super) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        std::fs::create_dir(directory.path().join("tree")).unwrap();
        Self { directory, previous: None, snapshots: 0 }
    }

    pub(super) fn tree(&self) -> PathBuf {
        self.directory.path().join("tree")
    }

    pub(super) fn options(&self) -> DirectoryOptions {
        let cache = Some(self.directory.path().join("cache"));
        DirectoryOptions { cache, ..DirectoryOptions::default() }
    }

    /// Runs a script in the tree.
    pub(super) fn sh(&self, script: &str) {
        sh(&self.tree(), script);
    }

    pub(super) async fn take(&mut self) -> Collected {
        let source = DirectorySource::open(&self.tree(), self.options()).unwrap();
        self.take_of(&source).await
    }

    /// Takes everything as a snapshot that becomes durable.
    pub(super) async fn take_of(&mut self, source: &DirectorySource) -> Collected {
        let found = collect(source, self.previous.as_ref()).await.unwrap();
        self.commit(source).await;
        found
    }

    /// Says that what a source told is durable.
    pub(super) async fn commit(&mut self, source: &DirectorySource) {
        self.snapshots += 1;
        let previous = Previous {
            snapshot: format!("line@{}", self.snapshots).parse().unwrap(),
            tree: TreeId::from_bytes([self.snapshots; 32]),
        };
        source.committed(&previous.snapshot, &previous.tree).await;
        self.previous = Some(previous);
    }

    pub(super) fn previous(&self) -> Option<&Previous> {
        self.previous.as_ref()
    }

    /// Lets the newest snapshot be another than the one that is remembered.
    pub(super) fn forget_one(&mut self) {
        if let Some(previous) = &mut self.previous {
            previous.tree = TreeId::from_bytes([0xff; 32]);
        }
    }

    /// Waits until what is made from now on is later than what was made before, by the file system's clock.
    pub(super) fn settle(&self) {
        let stamp = |name: &str| {
            let path = self.directory.path().join(name);
            std::fs::write(&path, "").unwrap();
            confined::describe(std::fs::File::open(path).unwrap()).unwrap().changed_ns
        };
        let first = stamp("settle-first");
        while stamp("settle-later") <= first {}
    }
}

pub(super) fn sh(directory: &Path, script: &str) {
    let output = Command::new("sh").args(["-euc", script]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(super) fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

/// Makes the stream that restores what was collected.
pub(super) fn stream_of(found: &Collected) -> (RestorePlan, Vec<TargetEntry>) {
    let mut totals = Totals::default();
    let mut entries = Vec::new();
    let mut first_names = BTreeMap::<u64, TreePath>::new();
    let mut sizes = BTreeMap::<u64, u64>::new();
    for (path, (metadata, kept)) in &found.entries {
        let (path, metadata) = (path.clone(), metadata.clone());
        match kept {
            Kept::Directory => {
                totals.directories += 1;
                entries.push(TargetEntry::Directory { path, metadata });
            }
            Kept::Link(target) => {
                totals.symbolic_links += 1;
                entries.push(TargetEntry::SymbolicLink { path, metadata, target: target.clone() });
            }
            Kept::File { content, group } => {
                totals.files += 1;
                if let Some(to) = group.and_then(|group| first_names.get(&group)) {
                    totals.bytes += sizes[&group.unwrap()];
                    entries.push(TargetEntry::HardLink { path, to: to.clone() });
                    continue;
                }
                let content = content.as_deref().expect("content that was read");
                totals.bytes += content.len() as u64;
                if let Some(group) = group {
                    first_names.insert(*group, path.clone());
                    sizes.insert(*group, content.len() as u64);
                }
                entries.push(TargetEntry::File { path, metadata, size: content.len() as u64 });
                for piece in content.chunks(64 << 10) {
                    entries.push(if piece.iter().all(|byte| *byte == 0) {
                        TargetEntry::Hole(piece.len() as u64)
                    } else {
                        TargetEntry::Data(Bytes::copy_from_slice(piece))
                    });
                }
            }
        }
    }
    (RestorePlan { totals, root: found.root.clone() }, entries)
}

/// Restores a stream to a place.
pub(super) async fn restore(
    place: &Path,
    plan: &RestorePlan,
    entries: Vec<TargetEntry>,
) -> Result<Totals, TargetError> {
    let mut target = DirectoryTarget::new(place, TargetOptions::default());
    target.restore(plan, stream::iter(entries.into_iter().map(Ok)).boxed()).await
}
