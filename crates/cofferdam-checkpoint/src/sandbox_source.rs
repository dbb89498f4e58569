//! [`SandboxSource`]: a live sandbox's workspace as a tree that a snapshot is taken of, asked of the guest.
//!
//! One scan inside tells every file's inode, size and times; what this process remembers of the last snapshot tells which of
//! them are unchanged. Only the rest is read. The memory is here, where nobody inside can touch it; after a restart of the
//! process it is empty, and everything is read once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use cofferdam_core::{BoxError, WorkspacePath};
use cofferdam_sandbox::{
    DownloadOptions, FileMetadata, Sandbox, SandboxError, ScanEntry, ScanEvent, ScanKind,
    ScanOptions, TreeEntryKind, TreeEvent,
};
use cofferdam_snapshot::{
    Content, Coverage, Detection, FileEnd, Listing, Metadata, Name, Previous, SkipReason,
    SnapshotId, Source, SourceEntry, SourceError, SourceFacts, SourceKind, TreeId, TreePath, Walk,
    Wanted,
};
use futures::{Stream, StreamExt, TryStreamExt, stream, stream::BoxStream};

/// Bytes of one read.
const PIECE_BYTES: u64 = 1 << 20;
/// Files that are read at the same time, each no longer than a piece.
const READS_AT_A_TIME: usize = 16;
/// How often a file that changes while it is read is begun anew.
const ATTEMPTS: u32 = 3;
/// A file that changed so short a time before the newest change of all may change again without another time.
const FRESH_NS: i64 = 50_000_000;

/// The workspace of a sandbox, read through its guest.
///
/// It believes nothing of what the guest says but that it is what is in the sandbox: names and sizes are checked by whoever
/// takes the snapshot, and all of it is bounded.
#[derive(Debug)]
pub struct SandboxSource {
    sandbox: Arc<dyn Sandbox>,
    exclude: Vec<WorkspacePath>,
    memory: Arc<ScanMemory>,
    /// What this walk saw, to be remembered.
    seen: Mutex<Seen>,
}

/// What is remembered of the last snapshot of one sandbox. Bounded by what a scan tells.
#[derive(Debug, Default)]
pub struct ScanMemory(Mutex<Option<Remembered>>);

#[derive(Debug)]
struct Remembered {
    tree: TreeId,
    files: HashMap<Vec<u8>, Fingerprint>,
}

/// What tells that a file is the same as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    mode: u32,
    modified_ns: i64,
    changed_ns: i64,
}

#[derive(Debug, Default)]
struct Seen {
    files: HashMap<Vec<u8>, Fingerprint>,
    newest_ns: i64,
}

impl SandboxSource {
    /// Makes one for one snapshot. `memory` is what all snapshots of this sandbox share; what is at or below a path of
    /// `exclude` is left out.
    #[must_use]
    pub fn new(
        sandbox: Arc<dyn Sandbox>,
        exclude: Vec<WorkspacePath>,
        memory: Arc<ScanMemory>,
    ) -> Self {
        Self { sandbox, exclude, memory, seen: Mutex::default() }
    }

    fn is_excluded(&self, path: &[u8]) -> bool {
        self.exclude.iter().any(|excluded| {
            let excluded = excluded.as_str().as_bytes();
            path.strip_prefix(excluded)
                .is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
        })
    }

    /// Scans the whole workspace.
    async fn scan(&self) -> Result<Scan, SourceError> {
        let root = WorkspacePath::root();
        let mut events = self
            .sandbox
            .tree()
            .scan(&root, &ScanOptions::default())
            .await
            .map_err(listing_failed)?;
        let mut scan = Scan::default();
        while let Some(event) = events.next().await {
            match event.map_err(listing_failed)? {
                ScanEvent::Entry(entry) if entry.path.is_empty() => {
                    scan.root = metadata(entry.mode, entry.modified_ns);
                    scan.directories.entry(TreePath::root()).or_default();
                }
                ScanEvent::Entry(entry) => self.add(&mut scan, entry)?,
                ScanEvent::Skipped(skipped) => {
                    // What is in a directory cannot be told: without it the snapshot would lack it in silence.
                    let path = tree_path(skipped.path)?;
                    return Err(SourceError::List { path, source: skipped.reason.into() });
                }
                _ => {}
            }
        }
        Ok(scan)
    }

    fn add(&self, scan: &mut Scan, entry: ScanEntry) -> Result<(), SourceError> {
        let path = tree_path(entry.path.clone())?;
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else { return Ok(()) };
        let name = Name::new(name)
            .map_err(|error| SourceError::List { path: path.clone(), source: error.into() })?;
        if self.is_excluded(path.as_bytes()) {
            // Only what is excluded itself is named, and not all that is below.
            if !self.is_excluded(parent.as_bytes()) {
                scan.directory(parent).skipped.push((name, SkipReason::Excluded));
            }
            return Ok(());
        }
        let kind = match entry.kind {
            ScanKind::Directory => {
                scan.directories.entry(path).or_default();
                SourceKind::Directory
            }
            ScanKind::Link { target } => SourceKind::SymbolicLink { target },
            ScanKind::File => {
                let fingerprint = Fingerprint {
                    device: entry.device,
                    inode: entry.inode,
                    size: entry.size,
                    mode: entry.mode,
                    modified_ns: entry.modified_ns,
                    changed_ns: entry.changed_ns,
                };
                scan.newest_ns = scan.newest_ns.max(entry.changed_ns);
                scan.files.insert(entry.path, fingerprint);
                SourceKind::File {
                    size: entry.size,
                    unchanged: false,
                    link_group: (entry.links > 1).then(|| link_group(entry.device, entry.inode)),
                }
            }
            _ => {
                scan.directory(parent).skipped.push((name, SkipReason::Special));
                return Ok(());
            }
        };
        let metadata = metadata(entry.mode, entry.modified_ns);
        scan.directory(parent).entries.push(SourceEntry { name, metadata, kind });
        Ok(())
    }

    /// Reads one file that is not longer than a piece and whose name is text, beginning anew if it changes.
    async fn read_small(&self, wanted: Wanted) -> Result<Vec<Content>, SourceError> {
        let mut contents = Vec::new();
        let Some(path) = workspace_path(&wanted.path) else { return Ok(contents) };
        for attempt in 1..=ATTEMPTS {
            let Some(now) = self.stat(&path, &wanted).await? else {
                return Ok(vec![Content::End(FileEnd::Skipped(SkipReason::Vanished))]);
            };
            if attempt > 1 {
                contents.push(Content::Again);
            }
            let read = self.sandbox.files().read(&path, 0, now.size.saturating_add(1)).await;
            let bytes = match read {
                Ok(bytes) => bytes,
                Err(error) => return unreadable(&wanted, error).map(|end| vec![end]),
            };
            let Some(after) = self.stat(&path, &wanted).await? else {
                return Ok(vec![Content::End(FileEnd::Skipped(SkipReason::Vanished))]);
            };
            if bytes.len() as u64 == after.size && now == after {
                self.unless_as_listed(&wanted, &after);
                contents.extend((!bytes.is_empty()).then_some(Content::Data(bytes)));
                contents.push(Content::End(whole(&after)));
                return Ok(contents);
            }
        }
        self.forget(&wanted.path);
        contents.push(Content::End(FileEnd::Skipped(SkipReason::Unstable)));
        Ok(contents)
    }

    /// Reads a long file piece by piece. If it changes meanwhile, it is begun anew.
    fn read_large(
        &self,
        wanted: Wanted,
    ) -> impl Stream<Item = Result<Content, SourceError>> + Send {
        let begin = Reading { wanted, attempt: 1, offset: 0, before: None, over: false };
        stream::try_unfold(begin, move |reading| self.read_piece(reading))
    }

    async fn read_piece(
        &self,
        mut reading: Reading,
    ) -> Result<Option<(Content, Reading)>, SourceError> {
        if reading.over {
            return Ok(None);
        }
        let wanted = &reading.wanted;
        let Some(path) = workspace_path(&wanted.path) else { return Ok(None) };
        let end = |mut reading: Reading, reason| {
            reading.over = true;
            Ok(Some((Content::End(FileEnd::Skipped(reason)), reading)))
        };
        if reading.offset == 0 {
            reading.before = self.stat(&path, wanted).await?;
            if reading.before.is_none() {
                return end(reading, SkipReason::Vanished);
            }
        }
        let bytes = match self.sandbox.files().read(&path, reading.offset, PIECE_BYTES).await {
            Ok(bytes) => bytes,
            Err(error) => {
                let content = unreadable(wanted, error)?;
                reading.over = true;
                return Ok(Some((content, reading)));
            }
        };
        if !bytes.is_empty() {
            reading.offset += bytes.len() as u64;
            return Ok(Some((Content::Data(bytes), reading)));
        }
        let after = self.stat(&path, wanted).await?;
        match after {
            None => end(reading, SkipReason::Vanished),
            Some(after)
                if reading.before.as_ref() == Some(&after) && after.size == reading.offset =>
            {
                self.unless_as_listed(wanted, &after);
                reading.over = true;
                Ok(Some((Content::End(whole(&after)), reading)))
            }
            Some(_) if reading.attempt < ATTEMPTS => {
                reading.attempt += 1;
                reading.offset = 0;
                Ok(Some((Content::Again, reading)))
            }
            Some(_) => {
                self.forget(&reading.wanted.path);
                end(reading, SkipReason::Unstable)
            }
        }
    }

    /// Reads a file whose name is no text, out of a download of the nearest directory whose name is.
    async fn read_by_download(
        &self,
        wanted: Wanted,
    ) -> Result<BoxStream<'static, Result<Content, SourceError>>, SourceError> {
        self.forget(&wanted.path);
        let mut above = wanted.path.clone();
        let directory = loop {
            above = above.parent().unwrap_or_default();
            if let Some(path) = workspace_path(&above) {
                break path;
            }
        };
        let prefix = if above.is_root() { 0 } else { above.as_bytes().len() + 1 };
        let relative = wanted.path.as_bytes()[prefix..].to_vec();
        let options =
            DownloadOptions { max_bytes: u64::MAX, max_entries: u64::MAX, ..Default::default() };
        let events = self.sandbox.tree().download(&directory, &options).await;
        let events = events.map_err(|error| read_failed(&wanted.path, error))?;
        let begin = Downloading { path: wanted.path, relative, events, file: None, over: false };
        Ok(stream::try_unfold(begin, Downloading::next).boxed())
    }

    async fn stat(
        &self,
        path: &WorkspacePath,
        wanted: &Wanted,
    ) -> Result<Option<FileMetadata>, SourceError> {
        match self.sandbox.files().stat(path).await {
            Ok(found) if found.kind == cofferdam_sandbox::FileKind::File => Ok(Some(found)),
            Ok(_) | Err(SandboxError::File { .. }) => {
                self.forget(&wanted.path);
                Ok(None)
            }
            Err(error) => Err(read_failed(&wanted.path, error)),
        }
    }

    /// Remembers nothing of a file that was read as another than it was listed.
    fn unless_as_listed(&self, wanted: &Wanted, read: &FileMetadata) {
        let mut seen = self.seen();
        let place = wanted.path.as_bytes();
        let listed = seen.files.get(place).map(|listed| (listed.size, listed.modified_ns));
        if listed != Some((read.size, read.modified_ns)) {
            seen.files.remove(place);
        }
    }

    fn forget(&self, path: &TreePath) {
        self.seen().files.remove(path.as_bytes());
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that is looked for in a download.
struct Downloading {
    path: TreePath,
    /// The file's path in the download.
    relative: Vec<u8>,
    events: BoxStream<'static, Result<TreeEvent, SandboxError>>,
    /// The file's mode and time, once it has begun.
    file: Option<Metadata>,
    over: bool,
}

impl Downloading {
    async fn next(mut self) -> Result<Option<(Content, Self)>, SourceError> {
        while !self.over {
            let event = self.events.next().await.transpose();
            let event = event.map_err(|error| read_failed(&self.path, error))?;
            match event {
                Some(TreeEvent::Content(bytes)) if self.file.is_some() => {
                    return Ok(Some((Content::Data(bytes), self)));
                }
                Some(TreeEvent::Entry(entry)) if self.file.is_none() => {
                    let is_file = matches!(entry.kind, TreeEntryKind::File { .. });
                    if is_file && entry.path == self.relative {
                        let modified_ns = entry.modified_ns.unwrap_or_default();
                        self.file = Some(metadata(entry.mode, modified_ns));
                    }
                }
                Some(TreeEvent::Entry(_)) | None => {
                    self.over = true;
                    let end = self.file.take().map(FileEnd::Whole);
                    let end = end.unwrap_or(FileEnd::Skipped(SkipReason::Vanished));
                    return Ok(Some((Content::End(end), self)));
                }
                Some(_) => {}
            }
        }
        Ok(None)
    }
}

/// Where the reading of a long file is.
#[derive(Debug)]
struct Reading {
    wanted: Wanted,
    attempt: u32,
    offset: u64,
    before: Option<FileMetadata>,
    over: bool,
}

/// All that a scan told.
#[derive(Debug, Default)]
struct Scan {
    root: Metadata,
    directories: BTreeMap<TreePath, Directory>,
    files: HashMap<Vec<u8>, Fingerprint>,
    newest_ns: i64,
}

#[derive(Debug, Default)]
struct Directory {
    entries: Vec<SourceEntry>,
    skipped: Vec<(Name, SkipReason)>,
}

impl Scan {
    fn directory(&mut self, path: TreePath) -> &mut Directory {
        self.directories.entry(path).or_default()
    }

    /// Puts the listings into the order of a walk, and says which files are as they are remembered.
    fn listings(mut self, remembered: &HashMap<Vec<u8>, Fingerprint>) -> Vec<Listing> {
        let mut listings = Vec::with_capacity(self.directories.len());
        let mut waiting = vec![TreePath::root()];
        while let Some(path) = waiting.pop() {
            let Directory { mut entries, skipped } =
                self.directories.remove(&path).unwrap_or_default();
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            for entry in &mut entries {
                let SourceKind::File { unchanged, .. } = &mut entry.kind else { continue };
                let place = path.join(&entry.name);
                let place = place.as_bytes();
                *unchanged =
                    self.files.get(place).is_some_and(|now| remembered.get(place) == Some(now));
            }
            // The last to wait is the next to be taken.
            let below = entries.iter().rev().filter(|entry| entry.kind == SourceKind::Directory);
            waiting.extend(below.map(|entry| path.join(&entry.name)));
            listings.push(Listing { path, entries, removed: Vec::new(), complete: true, skipped });
        }
        listings
    }
}

#[async_trait]
impl Source for SandboxSource {
    async fn begin<'a>(&'a self, previous: Option<&Previous>) -> Result<Walk<'a>, SourceError> {
        let mut scan = self.scan().await?;
        *self.seen() = Seen { files: scan.files.clone(), newest_ns: scan.newest_ns };
        let root = std::mem::take(&mut scan.root);
        let remembered = {
            let memory = self.memory.0.lock().unwrap_or_else(PoisonError::into_inner);
            match (&*memory, previous) {
                (Some(known), Some(previous)) if known.tree == previous.tree => known.files.clone(),
                _ => HashMap::new(),
            }
        };
        let listings = scan.listings(&remembered).into_iter().map(Ok);
        Ok(Walk { coverage: Coverage::Whole, root, listings: stream::iter(listings).boxed() })
    }

    fn read<'a>(&'a self, files: Vec<Wanted>) -> BoxStream<'a, Result<Content, SourceError>> {
        stream::iter(files)
            .map(move |wanted| async move {
                // A long file is read when its turn comes, so that no more than a few pieces wait.
                if workspace_path(&wanted.path).is_none() {
                    return self.read_by_download(wanted).await;
                }
                if wanted.size < PIECE_BYTES {
                    let contents = self.read_small(wanted).await?;
                    return Ok(stream::iter(contents.into_iter().map(Ok)).boxed());
                }
                Ok::<_, SourceError>(self.read_large(wanted).boxed())
            })
            .buffered(READS_AT_A_TIME)
            .try_flatten()
            .boxed()
    }

    fn facts(&self) -> SourceFacts {
        SourceFacts { detection: Detection::Stat, frozen: false }
    }

    async fn committed(&self, _: &SnapshotId, tree: &TreeId) {
        let Seen { mut files, newest_ns } = std::mem::take(&mut *self.seen());
        let fresh = newest_ns.saturating_sub(FRESH_NS);
        files.retain(|_, file| file.changed_ns < fresh);
        let mut memory = self.memory.0.lock().unwrap_or_else(PoisonError::into_inner);
        *memory = Some(Remembered { tree: *tree, files });
    }
}

fn metadata(mode: u32, modified_ns: i64) -> Metadata {
    let mode = u16::try_from(mode & 0o7777).unwrap_or_default();
    Metadata { mode, modified_ns, xattrs: Vec::new() }
}

fn whole(file: &FileMetadata) -> FileEnd {
    FileEnd::Whole(metadata(file.mode, file.modified_ns))
}

/// One number for one file of one workspace.
fn link_group(device: u64, inode: u64) -> u64 {
    inode ^ device.rotate_left(40)
}

fn tree_path(path: Vec<u8>) -> Result<TreePath, SourceError> {
    TreePath::new(path)
        .map_err(|error| SourceError::List { path: TreePath::root(), source: error.into() })
}

/// Returns a path as the sandbox takes it; `None` if it is no text.
fn workspace_path(path: &TreePath) -> Option<WorkspacePath> {
    if path.is_root() {
        return Some(WorkspacePath::root());
    }
    WorkspacePath::new(std::str::from_utf8(path.as_bytes()).ok()?).ok()
}

fn gone(error: SandboxError) -> SourceError {
    SourceError::Gone { what: "of a sandbox".to_owned(), source: Some(error.into()) }
}

fn listing_failed(error: SandboxError) -> SourceError {
    if error.is_loss() {
        return gone(error);
    }
    SourceError::List { path: TreePath::root(), source: BoxError::from(error) }
}

fn read_failed(path: &TreePath, error: SandboxError) -> SourceError {
    if error.is_loss() {
        return gone(error);
    }
    SourceError::Read { path: path.clone(), source: error.into() }
}

/// Says that one file cannot be read; anything but a failure of the file itself is a failure of the whole.
fn unreadable(wanted: &Wanted, error: SandboxError) -> Result<Content, SourceError> {
    match error {
        SandboxError::File { reason, .. } => {
            Ok(Content::End(FileEnd::Skipped(SkipReason::Unreadable(reason))))
        }
        error => Err(read_failed(&wanted.path, error)),
    }
}
