//! Verification: everything that snapshots name is read and held against its id, and what is wrong is listed.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{Hash, Hasher},
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};

use crate::{
    error::SnapshotError,
    id::{ChunkId, PackName, SnapshotId, TreeId},
    node::{Entry, EntryKind, Extent, FileContent, Place, Stored, Totals},
    path::TreePath,
    reader::{MAX_DEPTH, Reader, holds_chunk, holds_node},
    store::SnapshotStore,
    wire::Malformed,
};

/// What verification has found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Snapshots that were looked at.
    pub snapshots: u64,
    /// Nodes that were read.
    pub nodes: u64,
    /// Chunks that were read.
    pub chunks: u64,
    /// Bytes of content that were read.
    pub bytes: u64,
    /// How many problems there are.
    pub problem_count: u64,
    /// The first [`Self::MAX_PROBLEMS`] of them.
    pub problems: Vec<Problem>,
}

impl VerifyReport {
    /// The most problems that are listed.
    pub const MAX_PROBLEMS: usize = 100;

    /// Returns true if everything is there and right.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problem_count == 0
    }
}

/// Something that is missing or wrong.
#[derive(Debug)]
#[non_exhaustive]
pub struct Problem {
    /// The first snapshot that it was met in; others may need the same object.
    pub snapshot: SnapshotId,
    /// What is wrong: which object, and what it holds.
    pub error: SnapshotError,
}

/// Chunks that are read at the same time: their content is at most 16 MiB.
const BATCH_BYTES: u64 = 4 << 20;
const BATCH_CHUNKS: usize = 1024;
const PARALLEL: usize = 4;
/// Chunks that are known to be right; beyond, they are read again.
const MAX_SEEN: usize = 4 << 20;

impl SnapshotStore {
    /// Reads all of a snapshot.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NotFound`] if it is not there, [`SnapshotError::Storage`] if the storage fails. What is missing or
    /// corrupt is in the report.
    pub async fn verify(&self, snapshot: &SnapshotId) -> Result<VerifyReport, SnapshotError> {
        let mut verifier = Verifier::default();
        verifier.snapshot(self, snapshot).await?;
        Ok(verifier.report)
    }

    /// Reads all of all snapshots; what several have in common is read once.
    ///
    /// # Errors
    ///
    /// As [`Self::verify`].
    pub async fn verify_all(&self) -> Result<VerifyReport, SnapshotError> {
        let mut verifier = Verifier::default();
        for lineage in self.lineages().await? {
            for snapshot in self.snapshots(&lineage).await? {
                verifier.snapshot(self, &snapshot).await?;
            }
        }
        Ok(verifier.report)
    }
}

#[derive(Debug)]
struct Wanted {
    chunk: Stored<ChunkId>,
    length: u32,
    of: TreePath,
}

#[derive(Debug, Default)]
struct Verifier {
    report: VerifyReport,
    nodes: HashSet<(PackName, u32)>,
    chunks: HashSet<u64>,
    wanted: Vec<Wanted>,
    wanted_bytes: u64,
}

impl Verifier {
    async fn snapshot(
        &mut self,
        store: &SnapshotStore,
        snapshot: &SnapshotId,
    ) -> Result<(), SnapshotError> {
        let head = match store.head(snapshot).await {
            Ok(read) => read.head,
            Err(error) => return self.problem(snapshot, error),
        };
        self.report.snapshots += 1;
        let reader = store.reader(head);
        let mut in_head = HashSet::new();
        let (tree, totals) = (reader.head.tree, reader.head.totals);
        let mut open = vec![(TreePath::root(), tree, totals, 0)];
        while let Some((path, node, totals, depth)) = open.pop() {
            let new = match node.place {
                Place::Head => in_head.insert(node.id),
                Place::Pack { pack, offset, .. } => self.nodes.insert((pack, offset)),
            };
            if !new {
                continue;
            }
            if depth > MAX_DEPTH {
                let error = SnapshotError::TooLarge {
                    what: "the depth of a tree",
                    limit: MAX_DEPTH as u64,
                };
                self.problem(snapshot, error)?;
                continue;
            }
            let read = match reader.directory(node, &path).await {
                Ok(read) => read,
                Err(error) => {
                    self.problem(snapshot, error)?;
                    continue;
                }
            };
            self.report.nodes += read.nodes.len() as u64;
            let mut counted = Totals::default();
            for entry in read.entries {
                counted.add(&entry.kind);
                self.entry(snapshot, &reader, &path, entry, depth, &mut open).await?;
            }
            if counted != totals {
                let wrong = Malformed("what is in it is not what its parent says");
                let error = reader.corrupt(&node.place, holds_node(&node.id, &path), wrong);
                self.problem(snapshot, error)?;
            }
        }
        self.read(snapshot, &reader).await
    }

    async fn entry(
        &mut self,
        snapshot: &SnapshotId,
        reader: &Reader,
        directory: &TreePath,
        entry: Entry,
        depth: usize,
        open: &mut Vec<(TreePath, Stored<TreeId>, Totals, usize)>,
    ) -> Result<(), SnapshotError> {
        let path = directory.join(&entry.name);
        match entry.kind {
            EntryKind::Directory { node, totals } => open.push((path, node, totals, depth + 1)),
            EntryKind::SymbolicLink { .. }
            | EntryKind::File { content: FileContent::Inline(_), .. } => {}
            EntryKind::File { content: FileContent::Extents(extents), .. } => {
                self.want(snapshot, reader, extents, &path).await?;
            }
            EntryKind::File { content: FileContent::Lists(lists), .. } => {
                for (list, length) in lists {
                    self.report.nodes += 1;
                    match reader.extents(list, length, &path).await {
                        Ok(extents) => self.want(snapshot, reader, extents, &path).await?,
                        Err(error) => self.problem(snapshot, error)?,
                    }
                }
            }
        }
        Ok(())
    }

    async fn want(
        &mut self,
        snapshot: &SnapshotId,
        reader: &Reader,
        extents: Vec<Extent>,
        of: &TreePath,
    ) -> Result<(), SnapshotError> {
        for extent in extents {
            let Extent::Data { chunk, length } = extent else { continue };
            if self.chunks.len() >= MAX_SEEN {
                self.chunks.clear();
            }
            if !self.chunks.insert(key(snapshot, &chunk)) {
                continue;
            }
            self.wanted.push(Wanted { chunk, length, of: of.clone() });
            self.wanted_bytes += u64::from(length);
            if self.wanted_bytes >= BATCH_BYTES * 4 || self.wanted.len() >= BATCH_CHUNKS {
                self.read(snapshot, reader).await?;
            }
        }
        Ok(())
    }

    /// Reads the chunks that are wanted, neighbours together.
    async fn read(&mut self, snapshot: &SnapshotId, reader: &Reader) -> Result<(), SnapshotError> {
        self.wanted_bytes = 0;
        let mut in_head = Vec::new();
        let mut by_pack: BTreeMap<PackName, Vec<(u32, u32, Wanted)>> = BTreeMap::new();
        for wanted in std::mem::take(&mut self.wanted) {
            match wanted.chunk.place {
                Place::Head => in_head.push(wanted),
                Place::Pack { pack, offset, length } => {
                    by_pack.entry(pack).or_default().push((offset, length, wanted));
                }
            }
        }
        let mut parts: Vec<(PackName, u64, u64, Vec<Wanted>)> = Vec::new();
        for (pack, mut wanted) in by_pack {
            wanted.sort_by_key(|(offset, ..)| *offset);
            for (offset, length, wanted) in wanted {
                let (from, to) = (u64::from(offset), u64::from(offset) + u64::from(length));
                match parts.last_mut() {
                    Some((same, start, end, list))
                        if *same == pack && to.max(*end) - *start <= BATCH_BYTES =>
                    {
                        *end = to.max(*end);
                        list.push(wanted);
                    }
                    _ => parts.push((pack, from, to, vec![wanted])),
                }
            }
        }
        let mut results = stream::iter(parts)
            .map(|(pack, from, to, wanted)| {
                let reader = reader.clone();
                async move {
                    let part = reader.packs.range(pack, from..to).await?;
                    let work = move || check(&reader, wanted, from, part.as_ref());
                    let checked = tokio::task::spawn_blocking(work).await;
                    checked.map_err(|error| SnapshotError::Worker { reason: error.to_string() })
                }
            })
            .buffer_unordered(PARALLEL);
        let mut all = vec![check(reader, in_head, 0, None)];
        while let Some(checked) = results.next().await {
            all.push(checked?);
        }
        drop(results);
        for result in all.into_iter().flatten() {
            match result {
                Ok(bytes) => {
                    self.report.chunks += 1;
                    self.report.bytes += bytes;
                }
                Err(error) => self.problem(snapshot, error)?,
            }
        }
        Ok(())
    }

    /// Lists what is wrong with what is stored; that storage fails ends the verification.
    fn problem(
        &mut self,
        snapshot: &SnapshotId,
        error: SnapshotError,
    ) -> Result<(), SnapshotError> {
        match error {
            SnapshotError::Missing { .. }
            | SnapshotError::Corrupt { .. }
            | SnapshotError::Version { .. }
            | SnapshotError::TooLarge { .. } => {
                self.report.problem_count += 1;
                if self.report.problems.len() < VerifyReport::MAX_PROBLEMS {
                    self.report.problems.push(Problem { snapshot: snapshot.clone(), error });
                }
                Ok(())
            }
            other => Err(other),
        }
    }
}

/// Where a chunk lies, shortened: two that fall together are read once, which 64 bits make unlikely enough.
fn key(snapshot: &SnapshotId, chunk: &Stored<ChunkId>) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    match chunk.place {
        Place::Head => (snapshot, chunk.id).hash(&mut hasher),
        Place::Pack { .. } => chunk.hash(&mut hasher),
    }
    hasher.finish()
}

fn check(
    reader: &Reader,
    wanted: Vec<Wanted>,
    start: u64,
    part: Option<&Bytes>,
) -> Vec<Result<u64, SnapshotError>> {
    wanted
        .into_iter()
        .map(|Wanted { chunk, length, of }| {
            let frame = match chunk.place {
                Place::Head => reader.head_chunk(&chunk, &of)?,
                Place::Pack { offset, length, .. } => {
                    let missing = || reader.missing(&chunk.place, &holds_chunk(&chunk.id, &of));
                    let part = part.ok_or_else(missing)?;
                    let from = usize::try_from(u64::from(offset) - start).unwrap_or(usize::MAX);
                    let to = from.saturating_add(length as usize).min(part.len());
                    part.slice(from.min(to)..to)
                }
            };
            reader.open_chunk(&chunk, length, &frame, &of).map(|content| content.len() as u64)
        })
        .collect()
}
