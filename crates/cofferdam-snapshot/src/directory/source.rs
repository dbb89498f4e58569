//! [`DirectorySource`]: the seam's side of a walk; the work is done by threads that may block.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use rustix::fs::{Mode, OFlags};
use tokio::sync::mpsc;

use super::{attributes, confined, content::Reader, walk::Walker};
use crate::{
    id::{SnapshotId, TreeId},
    path::TreePath,
    source::{
        Content, Coverage, Detection, Previous, Source, SourceError, SourceFacts, Walk, Wanted,
    },
    stat_cache::{CacheReader, CacheWriter, Note},
};

/// Batches of listings made ahead of what is taken; each has one directory or some 256 entries.
const WAITING_LISTINGS: usize = 16;

/// Batches of content read ahead of what is taken; each has some 256 KiB.
const WAITING_BATCHES: usize = 8;

/// How a directory is walked.
#[derive(Debug, Clone)]
pub struct DirectoryOptions {
    /// The file in which the source remembers what it saw of the last snapshot, so that the next reads only what may have
    /// changed. It must lie outside the tree, where nobody of the sandbox gets at it, and belong to one source at a time.
    /// Default none: everything is read each time.
    pub cache: Option<PathBuf>,
    /// Whether to read everything also if there is a memory. What is seen is remembered all the same. Default false.
    pub read_all: bool,
    /// Paths that are left out, with all that is below them. Default none.
    pub exclude: BTreeSet<TreePath>,
    /// Whether nobody can write to the tree while this source is used; told in the receipt. Default false.
    pub frozen: bool,
    /// The most entries of the whole tree. Default 10 000 000.
    pub max_entries: u64,
}

impl Default for DirectoryOptions {
    fn default() -> Self {
        Self {
            cache: None,
            read_all: false,
            exclude: BTreeSet::new(),
            frozen: false,
            max_entries: 10_000_000,
        }
    }
}

/// A directory of this host as a source of snapshots.
///
/// Kept are regular files, directories and symbolic links, with names of any bytes, modes, times of change, holes, hard links and
/// the extended attributes `user.*`. Left out, and told: sockets, pipes, devices, what is mounted, and what cannot be
/// read. Owners are not kept.
///
/// A file that changes while it is read is read again, four times at most, and then left out and told.
#[derive(Debug)]
pub struct DirectorySource {
    root: Arc<OwnedFd>,
    /// What the upper directory of an overlay lies over.
    base: Option<SnapshotId>,
    options: DirectoryOptions,
    shared: Arc<Mutex<Shared>>,
}

/// What the walk and the reader find out.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Whether the memory was of the snapshot before.
    remembered: bool,
    pub(super) writer: Option<CacheWriter>,
    pub(super) pending: super::walk::Pending,
    pub(super) notes: Vec<(Vec<u8>, Note)>,
}

pub(super) fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DirectorySource {
    /// Opens a directory by its path, following links on the way to it.
    ///
    /// # Errors
    ///
    /// [`SourceError::Gone`] if there is no such directory.
    pub fn open(path: &Path, options: DirectoryOptions) -> Result<Self, SourceError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| {
            SourceError::Gone { what: path.display().to_string(), source: Some(error.into()) }
        })?;
        Ok(Self::new(root, None, options))
    }

    /// Takes an open directory that is the whole tree. It may be open with `O_PATH`.
    #[must_use]
    pub fn whole(directory: OwnedFd, options: DirectoryOptions) -> Self {
        Self::new(directory, None, options)
    }

    /// Takes the upper directory of an overlay whose lower layer is what `base` holds.
    ///
    /// Whiteouts are devices 0:0; directories with `user.overlay.opaque` or `trusted.overlay.opaque` hide what is below. The
    /// overlay must be mounted without redirected directories and without `metacopy`.
    #[must_use]
    pub fn upper(directory: OwnedFd, base: SnapshotId, options: DirectoryOptions) -> Self {
        Self::new(directory, Some(base), options)
    }

    fn new(root: OwnedFd, base: Option<SnapshotId>, options: DirectoryOptions) -> Self {
        Self { root: Arc::new(root), base, options, shared: Arc::default() }
    }

    /// Opens the memory of the last walk, and begins that of this one.
    fn remember(&self, previous: Option<&Previous>) -> Option<CacheReader> {
        let path = self.options.cache.as_ref()?;
        let reader = previous
            .filter(|_| !self.options.read_all)
            .and_then(|previous| CacheReader::open(path, &previous.tree));
        let writer = CacheWriter::create(path);
        if let Err(error) = &writer {
            tracing::warn!(%error, path = %path.display(), "cannot remember what a walk sees");
        }
        let mut shared = lock(&self.shared);
        shared.remembered = reader.is_some();
        shared.writer = writer.ok();
        reader
    }
}

#[async_trait]
impl Source for DirectorySource {
    async fn begin<'a>(&'a self, previous: Option<&Previous>) -> Result<Walk<'a>, SourceError> {
        let gone = |error: rustix::io::Errno| SourceError::Gone {
            what: TreePath::root().to_string(),
            source: Some(error.into()),
        };
        // It may be open as a path only.
        let root = confined::open_directory(self.root.as_fd(), b"").map_err(gone)?;
        let mut metadata = confined::describe(&root).map_err(gone)?.metadata();
        metadata.xattrs = attributes::read(&root).unwrap_or_default();
        *lock(&self.shared) = Shared::default();
        let walker = Walker {
            root: Arc::clone(&self.root),
            seed: self.base.as_ref().map(ToString::to_string),
            exclude: self.options.exclude.clone(),
            entries_left: self.options.max_entries,
            max_entries: self.options.max_entries,
            // The moment of the walk is now: before anything of the tree is looked at.
            cache: self.remember(previous),
            shared: Arc::clone(&self.shared),
            kept_open: 0,
        };
        let (sender, receiver) = mpsc::channel(WAITING_LISTINGS);
        tokio::task::spawn_blocking(move || walker.run(root, &sender));
        let listings = one_by_one(receiver);
        let coverage = self.base.clone().map_or(Coverage::Whole, Coverage::ChangesTo);
        Ok(Walk { coverage, root: metadata, listings })
    }

    fn read<'a>(&'a self, files: Vec<Wanted>) -> BoxStream<'a, Result<Content, SourceError>> {
        let (sender, receiver) = mpsc::channel(WAITING_BATCHES);
        let mut reader = Reader::new(Arc::clone(&self.root), Arc::clone(&self.shared), sender);
        tokio::task::spawn_blocking(move || reader.run(&files));
        one_by_one(receiver)
    }

    fn facts(&self) -> SourceFacts {
        let detection = match &self.base {
            Some(_) => Detection::Layer,
            None if lock(&self.shared).remembered => Detection::Stat,
            None => Detection::Content,
        };
        SourceFacts { detection, frozen: self.options.frozen }
    }

    async fn committed(&self, _snapshot: &SnapshotId, tree: &TreeId) {
        let (writer, notes) = {
            let mut shared = lock(&self.shared);
            (shared.writer.take(), std::mem::take(&mut shared.notes))
        };
        let (Some(writer), tree) = (writer, *tree) else {
            return;
        };
        let written = tokio::task::spawn_blocking(move || writer.commit(&tree, &notes)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot remember what a walk saw"),
            Err(error) => tracing::warn!(%error, "cannot remember what a walk saw"),
        }
    }
}

/// Returns what a thread sends in batches as a stream; the thread ends when the stream is dropped.
fn one_by_one<T: Send + 'static>(
    receiver: mpsc::Receiver<Result<Vec<T>, SourceError>>,
) -> BoxStream<'static, Result<T, SourceError>> {
    let batches = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|batch| (batch, receiver))
    });
    batches
        .flat_map(|batch| match batch {
            Ok(batch) => stream::iter(batch).map(Ok).left_stream(),
            Err(error) => stream::iter([Err(error)]).right_stream(),
        })
        .boxed()
}
