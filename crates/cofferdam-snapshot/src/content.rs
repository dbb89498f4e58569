//! [`ContentWriter`]: from bytes that a source sends to extents, with reading, hashing, compressing and putting at the same
//! time, and a bound on what is in memory.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::{
    chunk::{Chunker, Piece},
    error::SnapshotError,
    frame::{Codec, FrameKey, FrameKind},
    id::ChunkId,
    index::{Index, Known, prefix},
    node::{
        Extent, FileContent, MAX_ENTRY_EXTENTS, MAX_INLINE_FILE, MAX_NODE_EXTENTS, Node, Place,
        Stored,
    },
    packer::Packer,
    store::Env,
    wire::Malformed,
};

/// A job is given to a thread when it has this many bytes.
const JOB_BYTES: usize = 1 << 20;
/// Or this many chunks.
const JOB_CHUNKS: usize = 128;
/// Bytes of content that wait to be hashed and compressed.
const MAX_WAITING_BYTES: usize = 8 << 20;
/// Ids that are known to be there, in this snapshot, beyond those of the index.
const MAX_KNOWN: usize = 1 << 18;

/// Names a file while its content is being written.
pub(crate) type FileKey = u64;

/// A file whose content is complete.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) file: FileKey,
    pub(crate) size: u64,
    pub(crate) content: FileContent,
}

#[derive(Debug)]
struct OpenFile {
    extents: Vec<Option<Extent>>,
    missing: usize,
    ended: bool,
}

struct Part {
    file: FileKey,
    at: usize,
    content: Bytes,
}

struct Hashed {
    part: Part,
    id: ChunkId,
    /// Made already, because nothing suggested that the chunk is there.
    frame: Option<Vec<u8>>,
}

type JobResult = Result<Vec<Hashed>, Malformed>;

/// Writes the content of files.
pub(crate) struct ContentWriter {
    env: Env,
    files: HashMap<FileKey, OpenFile>,
    next_file: FileKey,
    current: Option<(FileKey, Chunker)>,
    job: Vec<Part>,
    job_bytes: usize,
    /// In the order of the content, so that what lies together in the tree lies together in a pack.
    jobs: VecDeque<JoinHandle<(usize, JobResult)>>,
    waiting_bytes: usize,
    /// What the index knows.
    indexed: Arc<Known>,
    /// Halves of further ids that may be there; only a guess.
    seen: Arc<Mutex<HashSet<u64>>>,
    /// What was met in this snapshot: written, or named by an earlier one.
    known: HashMap<FrameKey, Place>,
    done: Vec<Written>,
}

impl ContentWriter {
    pub(crate) fn new(env: Env) -> Self {
        Self {
            env,
            files: HashMap::new(),
            next_file: 0,
            current: None,
            job: Vec::new(),
            job_bytes: 0,
            jobs: VecDeque::new(),
            waiting_bytes: 0,
            indexed: Arc::default(),
            seen: Arc::default(),
            known: HashMap::new(),
            done: Vec::new(),
        }
    }

    /// Says what the index knows.
    pub(crate) fn expect_indexed(&mut self, known: Arc<Known>) {
        self.indexed = known;
    }

    /// Says that content with such ids may be there.
    pub(crate) fn expect(&self, prefixes: impl Iterator<Item = u64>) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).extend(prefixes);
    }

    /// Says where something lies that is surely there.
    pub(crate) fn know(&mut self, key: FrameKey, place: Place) {
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.expect(std::iter::once(prefix(&key.1)));
        self.known.insert(key, place);
    }

    pub(crate) fn known(&self, key: &FrameKey) -> Option<Place> {
        self.known.get(key).copied()
    }

    /// Begins a file of about this size.
    pub(crate) fn begin(&mut self, size: u64) -> FileKey {
        let file = self.next_file;
        self.next_file += 1;
        self.files.insert(file, OpenFile { extents: Vec::new(), missing: 0, ended: false });
        self.current = Some((file, Chunker::new(size)));
        file
    }

    /// Forgets the file that was begun last.
    pub(crate) fn abandon(&mut self) {
        if let Some((file, _)) = self.current.take() {
            self.files.remove(&file);
        }
    }

    pub(crate) fn data(&mut self, bytes: &[u8]) {
        let Some((key, chunker)) = &mut self.current else { return };
        let (key, mut pieces) = (*key, Vec::new());
        chunker.data(bytes, &mut pieces);
        self.pieces(key, pieces);
    }

    pub(crate) fn hole(&mut self, length: u64) {
        let Some((key, chunker)) = &mut self.current else { return };
        let (key, mut pieces) = (*key, Vec::new());
        chunker.hole(length, &mut pieces);
        self.pieces(key, pieces);
    }

    fn pieces(&mut self, key: FileKey, pieces: Vec<Piece>) {
        for piece in pieces {
            let Some(file) = self.files.get_mut(&key) else { return };
            match piece {
                Piece::Hole(length) => file.extents.push(Some(Extent::Hole { length })),
                Piece::Data(content) => {
                    let at = file.extents.len();
                    file.extents.push(None);
                    file.missing += 1;
                    self.job_bytes += content.len();
                    self.job.push(Part { file: key, at, content });
                }
            }
            if self.job_bytes >= JOB_BYTES || self.job.len() >= JOB_CHUNKS {
                self.start_job();
            }
        }
    }

    /// Ends the file that was begun last; it turns up among the finished ones. Returns its size.
    pub(crate) fn end(&mut self) -> u64 {
        let Some((key, chunker)) = self.current.take() else { return 0 };
        let size = chunker.total();
        let mut pieces = Vec::new();
        if size <= MAX_INLINE_FILE as u64 {
            chunker.finish(&mut pieces);
            self.files.remove(&key);
            let bytes = match pieces.pop() {
                Some(Piece::Data(bytes)) => bytes,
                _ => Bytes::new(),
            };
            self.done.push(Written { file: key, size, content: FileContent::Inline(bytes) });
            return size;
        }
        chunker.finish(&mut pieces);
        self.pieces(key, pieces);
        if let Some(file) = self.files.get_mut(&key) {
            file.ended = true;
            if file.missing == 0 {
                self.complete(key);
            }
        }
        size
    }

    fn complete(&mut self, key: FileKey) {
        let Some(file) = self.files.remove(&key) else { return };
        let extents: Vec<Extent> = file.extents.into_iter().flatten().collect();
        let size = extents.iter().map(Extent::length).sum();
        self.done.push(Written { file: key, size, content: FileContent::Extents(extents) });
    }

    fn start_job(&mut self) {
        if self.job.is_empty() {
            return;
        }
        let parts = std::mem::take(&mut self.job);
        let bytes = std::mem::take(&mut self.job_bytes);
        self.waiting_bytes += bytes;
        let codec = self.env.codec.clone();
        let (indexed, seen) = (Arc::clone(&self.indexed), Arc::clone(&self.seen));
        let job = move || (bytes, hash(&codec, &indexed, &seen, parts));
        self.jobs.push_back(tokio::task::spawn_blocking(job));
    }

    /// Waits until there is room for more content.
    pub(crate) async fn make_room(
        &mut self,
        packer: &mut Packer,
        index: &mut Index,
    ) -> Result<(), SnapshotError> {
        while let Some(job) = self.jobs.front() {
            if !job.is_finished() && self.waiting_bytes <= MAX_WAITING_BYTES {
                break;
            }
            self.take_first(packer, index).await?;
        }
        packer.put_full(index).await
    }

    /// Waits until all content is written.
    pub(crate) async fn flush(
        &mut self,
        packer: &mut Packer,
        index: &mut Index,
    ) -> Result<(), SnapshotError> {
        self.start_job();
        while !self.jobs.is_empty() {
            self.take_first(packer, index).await?;
        }
        packer.put_full(index).await
    }

    /// Returns the files that are complete.
    pub(crate) fn finished(&mut self) -> Vec<Written> {
        std::mem::take(&mut self.done)
    }

    /// Waits for the first job, and stores what is new of it.
    async fn take_first(
        &mut self,
        packer: &mut Packer,
        index: &mut Index,
    ) -> Result<(), SnapshotError> {
        let worker = |reason: String| SnapshotError::Worker { reason };
        let Some(job) = self.jobs.pop_front() else { return Ok(()) };
        let (bytes, hashed) = job.await.map_err(|error| worker(error.to_string()))?;
        self.waiting_bytes -= bytes;
        for Hashed { part, id, frame } in hashed.map_err(|error| worker(error.to_string()))? {
            let length = u32::try_from(part.content.len()).unwrap_or(u32::MAX);
            let key = (FrameKind::Chunk, *id.as_bytes());
            let there = match self.known.get(&key).copied().or_else(|| packer.find(&key)) {
                Some(place) => Some(place),
                None => index.find(&self.env, &key).await?,
            };
            let place = match there {
                Some(place) => place,
                None => {
                    let frame = match frame {
                        Some(frame) => frame,
                        None => self
                            .env
                            .codec
                            .frame(key.0, &key.1, &part.content)
                            .map_err(|error| worker(error.to_string()))?,
                    };
                    packer.stored.new_chunks += 1;
                    packer.stored.new_bytes += u64::from(length);
                    packer.append(key, frame)
                }
            };
            self.know(key, place);
            let Some(file) = self.files.get_mut(&part.file) else { continue };
            if let Some(extent) = file.extents.get_mut(part.at) {
                *extent = Some(Extent::Data { chunk: Stored { id, place }, length });
                file.missing -= 1;
                if file.ended && file.missing == 0 {
                    self.complete(part.file);
                }
            }
        }
        packer.put_full(index).await
    }
}

/// Hashes, and compresses what is probably new.
fn hash(codec: &Codec, indexed: &Known, seen: &Mutex<HashSet<u64>>, parts: Vec<Part>) -> JobResult {
    parts
        .into_iter()
        .map(|part| {
            let id = codec.chunk_id(&part.content);
            let new = !indexed.may_hold(id.as_bytes()) && {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                if seen.len() > MAX_KNOWN * 4 {
                    seen.clear();
                }
                seen.insert(prefix(id.as_bytes()))
            };
            let frame = if new {
                let id = id.as_bytes();
                Some(codec.frame(FrameKind::Chunk, id, &part.content)?)
            } else {
                None
            };
            Ok(Hashed { part, id, frame })
        })
        .collect()
}

/// Cuts the pieces of a large file into nodes; what is left in the entry is short.
pub(crate) fn lists(extents: Vec<Extent>) -> Result<Vec<Extent>, Vec<(Node, u64)>> {
    if extents.len() <= MAX_ENTRY_EXTENTS {
        return Ok(extents);
    }
    Err(extents
        .chunks(MAX_NODE_EXTENTS)
        .map(|part| (Node::Extents(part.to_vec()), part.iter().map(Extent::length).sum()))
        .collect())
}
