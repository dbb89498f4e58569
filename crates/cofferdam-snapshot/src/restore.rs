//! The way from a snapshot to a stream of [`TargetEntry`]s: a walk that reads nodes, batches of neighbouring chunks that are
//! read with one request each, several at the same time, and their content, verified.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};

use crate::{
    error::SnapshotError,
    id::{ChunkId, PackName, TreeId},
    node::{Entry, EntryKind, Extent, FileContent, Place, Stored},
    path::TreePath,
    reader::{MAX_DEPTH, Reader, holds_chunk},
    target::TargetEntry,
};

/// The most bytes of one request, and about the most content of one batch.
const BATCH_BYTES: u64 = 4 << 20;
/// The most steps of one batch.
const BATCH_STEPS: usize = 2048;
/// Bytes between two chunks that are rather read than asked around.
const GAP: u64 = 64 << 10;
/// Batches at the same time.
const PARALLEL: usize = 4;

/// One step of a restore, before content is read.
#[derive(Debug)]
enum Step {
    Entry(TargetEntry),
    Chunk { chunk: Stored<ChunkId>, length: u32, of: Arc<TreePath> },
    List { list: Stored<TreeId>, length: u64, of: Arc<TreePath> },
}

/// Walks a tree, one step after the other.
struct Walker {
    reader: Reader,
    stack: Vec<(TreePath, std::vec::IntoIter<Entry>)>,
    ready: VecDeque<Step>,
    links: HashMap<u64, TreePath>,
    /// The only paths that are gone to, if not all are; the directories on the way to them are made as well.
    wanted: Option<Arc<BTreeSet<TreePath>>>,
}

impl Walker {
    async fn next(&mut self) -> Result<Option<Step>, SnapshotError> {
        loop {
            match self.ready.pop_front() {
                Some(Step::List { list, length, of }) => {
                    let extents = self.reader.extents(list, length, &of).await?;
                    for extent in extents.into_iter().rev() {
                        self.ready.push_front(step(extent, &of));
                    }
                    continue;
                }
                Some(step) => return Ok(Some(step)),
                None => {}
            }
            let Some((parent, entries)) = self.stack.last_mut() else { return Ok(None) };
            match entries.next() {
                None => {
                    self.stack.pop();
                }
                Some(entry) => {
                    let path = parent.join(&entry.name);
                    self.enter(path, entry).await?;
                }
            }
        }
    }

    async fn enter(&mut self, path: TreePath, entry: Entry) -> Result<(), SnapshotError> {
        let Entry { metadata, kind, .. } = entry;
        let wanted = self.wanted.as_deref();
        let is_wanted = wanted.is_none_or(|wanted| wanted.contains(&path));
        let leads_on = wanted.is_none_or(|wanted| path.is_above_one_of(wanted));
        match kind {
            EntryKind::Directory { .. } if !leads_on => {
                if is_wanted {
                    let made = TargetEntry::Directory { path, metadata };
                    self.ready.push_back(Step::Entry(made));
                }
            }
            EntryKind::SymbolicLink { .. } | EntryKind::File { .. } if !is_wanted => {}
            EntryKind::Directory { node, .. } => {
                if self.stack.len() > MAX_DEPTH {
                    return Err(SnapshotError::TooLarge {
                        what: "the depth of a tree",
                        limit: MAX_DEPTH as u64,
                    });
                }
                let entries = self.reader.directory(node, &path).await?.entries;
                let made = TargetEntry::Directory { path: path.clone(), metadata };
                self.ready.push_back(Step::Entry(made));
                self.stack.push((path, entries.into_iter()));
            }
            EntryKind::SymbolicLink { target } => {
                let made = TargetEntry::SymbolicLink { path, metadata, target };
                self.ready.push_back(Step::Entry(made));
            }
            EntryKind::File { size, link_group, content } => {
                if let Some(group) = link_group {
                    if let Some(to) = self.links.get(&group) {
                        let made = TargetEntry::HardLink { path, to: to.clone() };
                        self.ready.push_back(Step::Entry(made));
                        return Ok(());
                    }
                    self.links.insert(group, path.clone());
                }
                let of = Arc::new(path.clone());
                self.ready.push_back(Step::Entry(TargetEntry::File { path, metadata, size }));
                match content {
                    FileContent::Inline(bytes) if bytes.is_empty() => {}
                    FileContent::Inline(bytes) => {
                        self.ready.push_back(Step::Entry(TargetEntry::Data(bytes)));
                    }
                    FileContent::Extents(extents) => {
                        self.ready.extend(extents.into_iter().map(|extent| step(extent, &of)));
                    }
                    FileContent::Lists(lists) => {
                        self.ready.extend(lists.into_iter().map(|(list, length)| Step::List {
                            list,
                            length,
                            of: Arc::clone(&of),
                        }));
                    }
                }
            }
        }
        Ok(())
    }
}

fn step(extent: Extent, of: &Arc<TreePath>) -> Step {
    match extent {
        Extent::Hole { length } => Step::Entry(TargetEntry::Hole(length)),
        Extent::Data { chunk, length } => Step::Chunk { chunk, length, of: Arc::clone(of) },
    }
}

/// Steps whose content is one part of one pack, or in the head.
#[derive(Debug, Default)]
struct Batch {
    steps: Vec<Step>,
    range: Option<(PackName, u64, u64)>,
    content: u64,
}

impl Batch {
    /// Takes a step, or gives it back if it belongs to the next batch.
    fn take(&mut self, step: Step) -> Option<Step> {
        let length = match &step {
            Step::Chunk { length, .. } => u64::from(*length),
            Step::Entry(TargetEntry::Data(bytes)) => bytes.len() as u64,
            Step::Entry(_) | Step::List { .. } => 0,
        };
        let full = self.steps.len() >= BATCH_STEPS || self.content + length > BATCH_BYTES;
        if full && !self.steps.is_empty() {
            return Some(step);
        }
        if let Step::Chunk {
            chunk: Stored { place: Place::Pack { pack, offset, length }, .. },
            ..
        } = &step
        {
            let (from, to) = (u64::from(*offset), u64::from(*offset) + u64::from(*length));
            match &mut self.range {
                None => self.range = Some((*pack, from, to)),
                Some((same, start, end))
                    if same == pack
                        && from >= *start
                        && from <= *end + GAP
                        && to.max(*end) - *start <= BATCH_BYTES.max(to - from) =>
                {
                    *end = to.max(*end);
                }
                Some(_) => return Some(step),
            }
        }
        self.content += length;
        self.steps.push(step);
        None
    }
}

struct Batcher {
    walker: Walker,
    next: Option<Step>,
}

impl Batcher {
    async fn next(&mut self) -> Result<Option<Batch>, SnapshotError> {
        let mut batch = Batch::default();
        loop {
            let step = match self.next.take() {
                Some(step) => step,
                None => match self.walker.next().await? {
                    Some(step) => step,
                    None if batch.steps.is_empty() => return Ok(None),
                    None => return Ok(Some(batch)),
                },
            };
            if let Some(step) = batch.take(step) {
                self.next = Some(step);
                return Ok(Some(batch));
            }
        }
    }
}

/// Reads what a batch needs, and verifies it away from the threads of the runtime.
async fn fetch(reader: Reader, batch: Batch) -> Result<Vec<TargetEntry>, SnapshotError> {
    let part = match &batch.range {
        None => None,
        Some((pack, from, to)) => reader.packs.range(*pack, *from..*to).await?,
    };
    let work = move || open(&reader, batch, part.as_ref());
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| SnapshotError::Worker { reason: error.to_string() })?
}

fn open(
    reader: &Reader,
    batch: Batch,
    part: Option<&Bytes>,
) -> Result<Vec<TargetEntry>, SnapshotError> {
    let start = batch.range.map_or(0, |(_, start, _)| start);
    let mut entries = Vec::with_capacity(batch.steps.len());
    for step in batch.steps {
        let (chunk, length, of) = match step {
            Step::Entry(entry) => {
                entries.push(entry);
                continue;
            }
            Step::Chunk { chunk, length, of } => (chunk, length, of),
            // The walker takes lists apart.
            Step::List { .. } => continue,
        };
        let frame = match chunk.place {
            Place::Head => reader.head_chunk(&chunk, &of)?,
            Place::Pack { offset, length, .. } => {
                let holds = || holds_chunk(&chunk.id, &of);
                let part = part.ok_or_else(|| reader.missing(&chunk.place, &holds()))?;
                let from = usize::try_from(u64::from(offset) - start).unwrap_or(usize::MAX);
                let to = from.saturating_add(length as usize).min(part.len());
                part.slice(from.min(to)..to)
            }
        };
        entries.push(TargetEntry::Data(reader.open_chunk(&chunk, length, &frame, &of)?));
    }
    Ok(entries)
}

/// Returns everything in a snapshot, in the order in which it is made.
pub(crate) fn entries(reader: Reader) -> BoxStream<'static, Result<TargetEntry, SnapshotError>> {
    entries_of(reader, None)
}

/// Returns what is at some paths of a snapshot (`None`: at all), and the directories on the way to them.
pub(crate) fn entries_of(
    reader: Reader,
    wanted: Option<Arc<BTreeSet<TreePath>>>,
) -> BoxStream<'static, Result<TargetEntry, SnapshotError>> {
    let begin = async move {
        let root = TreePath::root();
        let entries = reader.directory(reader.head.tree, &root).await?.entries;
        let walker = Walker {
            reader: reader.clone(),
            stack: vec![(root, entries.into_iter())],
            ready: VecDeque::new(),
            links: HashMap::new(),
            wanted,
        };
        let batches = stream::try_unfold(Batcher { walker, next: None }, |mut batcher| async {
            Ok::<_, SnapshotError>(batcher.next().await?.map(|batch| (batch, batcher)))
        });
        let entries = batches
            .map_ok(move |batch| fetch(reader.clone(), batch))
            .try_buffered(PARALLEL)
            .map_ok(|entries| stream::iter(entries.into_iter().map(Ok)))
            .try_flatten();
        Ok::<_, SnapshotError>(entries)
    };
    stream::once(begin).try_flatten().boxed()
}
