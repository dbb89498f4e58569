//! Making a tree in a fresh directory, by several threads.
//!
//! One thread makes directories and links and hands files to workers. A directory is there before what is in it; its mode,
//! attributes and time wait for the end, as do hard links. The files of one directory go to one worker, since a kernel makes
//! them one after the other anyway, and two that wait for each other take longer than one.

use std::{
    fs::File,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::FileExt as _,
    },
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{Scope, ScopedJoinHandle},
};

use bytes::Bytes;
use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid},
    io::Errno,
};

use super::{attributes, confined, confined::MAX_PATH, target::TargetOptions};
use crate::{
    node::{Metadata, Totals},
    path::TreePath,
    target::{RestorePlan, TargetEntry, TargetError},
};

/// Files and bytes that go to a worker at once.
const GROUP_FILES: usize = 64;
const GROUP_BYTES: usize = 256 << 10;

/// Groups that wait for one worker.
const WAITING_GROUPS: usize = 4;

/// Hard links that wait at a time.
const MAX_LINKS: usize = 1 << 14;

/// What a directory may be given: no set-id bits.
const DIRECTORY_MODE: u16 = 0o1777;

/// What a file may be given: nor the sticky bit, which means nothing there.
const FILE_MODE: u16 = 0o777;

/// One step of a worker.
enum Step {
    File(FileStep),
    Data(Bytes),
    Hole(u64),
    /// Tells that everything before is done.
    Reached(mpsc::SyncSender<()>),
}

struct FileStep {
    parent: Arc<OwnedFd>,
    path: TreePath,
    metadata: Metadata,
    size: u64,
}

type Group = Vec<Step>;

/// The first failure of any worker.
type Failure = Mutex<Option<TargetError>>;

/// Makes a tree below `root`. It takes batches of entries until it is told that all have come.
pub(super) struct Maker<'scope, 'env> {
    root: &'env OwnedFd,
    options: &'env TargetOptions,
    expected: Totals,
    made: Totals,
    /// The directory of the last entry, since those of one directory come together.
    parent: Option<(TreePath, Arc<OwnedFd>)>,
    directories: Vec<(TreePath, Metadata)>,
    links: Vec<(TreePath, TreePath)>,
    workers: Vec<mpsc::SyncSender<Group>>,
    threads: Vec<ScopedJoinHandle<'scope, ()>>,
    turn: usize,
    group: Group,
    group_bytes: usize,
    /// The directory of the file that was pushed last.
    group_parent: Option<Arc<OwnedFd>>,
    /// What the file that began last still lacks.
    left: u64,
    file: TreePath,
    failure: &'env Failure,
}

/// What went wrong and where.
fn failed(path: &TreePath, error: Errno) -> TargetError {
    TargetError::Make { path: path.clone(), source: error.into() }
}

fn refused(path: &TreePath, reason: &'static str) -> TargetError {
    TargetError::Refused { path: path.clone(), reason }
}

/// Returns why something could not be made at a path: the entry's own fault, or that of the place.
fn not_made(path: &TreePath, error: Errno) -> TargetError {
    match error {
        Errno::EXIST => refused(path, "its name is taken"),
        Errno::NOENT => refused(path, "no directory came before that it lies in"),
        Errno::NOTDIR | Errno::LOOP | Errno::XDEV => {
            refused(path, "what it lies in is no directory")
        }
        error => failed(path, error),
    }
}

impl<'scope, 'env> Maker<'scope, 'env> {
    pub(super) fn new(
        scope: &'scope Scope<'scope, 'env>,
        root: &'env OwnedFd,
        options: &'env TargetOptions,
        expected: Totals,
        failure: &'env Failure,
    ) -> Self {
        let (mut workers, mut threads) = (Vec::new(), Vec::new());
        for _ in 0..options.workers.max(1) {
            let (sender, receiver) = mpsc::sync_channel(WAITING_GROUPS);
            workers.push(sender);
            threads.push(scope.spawn(move || work(options, &receiver, failure)));
        }
        Self {
            root,
            options,
            expected,
            made: Totals::default(),
            parent: None,
            directories: Vec::new(),
            links: Vec::new(),
            workers,
            threads,
            turn: 0,
            group: Vec::new(),
            group_bytes: 0,
            group_parent: None,
            left: 0,
            file: TreePath::root(),
            failure,
        }
    }

    /// Makes what a batch says.
    pub(super) fn take(&mut self, entries: Vec<TargetEntry>) -> Result<(), TargetError> {
        for entry in entries {
            self.entry(entry)?;
        }
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    fn entry(&mut self, entry: TargetEntry) -> Result<(), TargetError> {
        match entry {
            TargetEntry::Data(bytes) => {
                self.fill(bytes.len() as u64)?;
                self.push(bytes.len(), Step::Data(bytes))
            }
            TargetEntry::Hole(length) => {
                self.fill(length)?;
                self.push(0, Step::Hole(length))
            }
            _ if self.left > 0 => {
                Err(refused(&self.file, "the next entry came before all of its content"))
            }
            TargetEntry::File { path, metadata, size } => {
                self.made.files += 1;
                self.made.bytes = self.made.bytes.saturating_add(size);
                let parent = self.parent_of(&path)?;
                self.turn_to(&parent);
                self.left = size;
                self.file = path.clone();
                self.push(0, Step::File(FileStep { parent, path, metadata, size }))
            }
            TargetEntry::Directory { path, metadata } => {
                self.made.directories += 1;
                let parent = self.parent_of(&path)?;
                rustix::fs::mkdirat(&*parent, name(&path)?, Mode::RWXU)
                    .map_err(|error| not_made(&path, error))?;
                self.directories.push((path, metadata));
                Ok(())
            }
            TargetEntry::SymbolicLink { path, metadata, target } => {
                self.made.symbolic_links += 1;
                let parent = self.parent_of(&path)?;
                let name = name(&path)?;
                rustix::fs::symlinkat(target, &*parent, name)
                    .map_err(|error| not_made(&path, error))?;
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                if let Some((user, group)) = self.options.owner {
                    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
                    rustix::fs::chownat(&*parent, name, Some(user), Some(group), flags)
                        .map_err(|error| failed(&path, error))?;
                }
                rustix::fs::utimensat(&*parent, name, &times(&metadata), flags)
                    .map_err(|error| failed(&path, error))
            }
            TargetEntry::HardLink { path, to } => {
                name(&path)?;
                self.made.files += 1;
                self.links.push((path, to));
                if self.links.len() < MAX_LINKS { self.count() } else { self.make_links() }
            }
        }
    }

    /// Takes so many bytes for the file that began last.
    fn fill(&mut self, length: u64) -> Result<(), TargetError> {
        self.left = self
            .left
            .checked_sub(length)
            .ok_or_else(|| refused(&self.file, "it has more content than its size"))?;
        Ok(())
    }

    /// Demands that there is no more than was announced: a stream without end stops here.
    fn count(&self) -> Result<(), TargetError> {
        let (made, expected) = (self.made, self.expected);
        let above = made.files > expected.files
            || made.directories > expected.directories
            || made.symbolic_links > expected.symbolic_links;
        if above { Err(TargetError::Incomplete { expected, made }) } else { Ok(()) }
    }

    /// Opens the directory of an entry.
    fn parent_of(&mut self, path: &TreePath) -> Result<Arc<OwnedFd>, TargetError> {
        self.count()?;
        let parent = path.parent().ok_or_else(|| refused(path, "it is the root itself"))?;
        if path.as_bytes().len() > MAX_PATH {
            return Err(refused(path, "its path is longer than 4095 bytes"));
        }
        if let Some((last, open)) = &self.parent
            && *last == parent
        {
            return Ok(Arc::clone(open));
        }
        let open = confined::open_directory(self.root.as_fd(), parent.as_bytes())
            .map_err(|error| not_made(path, error))?;
        let open = Arc::new(open);
        self.parent = Some((parent, Arc::clone(&open)));
        Ok(open)
    }

    /// Takes the next worker for the files of another directory, if this one has enough to do.
    fn turn_to(&mut self, parent: &Arc<OwnedFd>) {
        let same = self.group_parent.as_ref().is_some_and(|last| Arc::ptr_eq(last, parent));
        if !same && self.group.len() >= GROUP_FILES {
            self.send();
            self.turn = (self.turn + 1) % self.workers.len();
        }
        self.group_parent = Some(Arc::clone(parent));
    }

    /// Adds a step to the group, and hands the group on when it is large enough. A file stays with one worker.
    fn push(&mut self, bytes: usize, step: Step) -> Result<(), TargetError> {
        self.group.push(step);
        self.group_bytes += bytes;
        if self.group.len() >= 2 * GROUP_FILES || self.group_bytes >= GROUP_BYTES {
            self.send();
        }
        Ok(())
    }

    fn send(&mut self) {
        self.group_bytes = 0;
        let group = std::mem::take(&mut self.group);
        // A worker that is gone has left its failure.
        let _ = self.workers[self.turn].send(group);
    }

    /// Makes the hard links that wait, when all files are there.
    fn make_links(&mut self) -> Result<(), TargetError> {
        if self.links.is_empty() {
            return Ok(());
        }
        self.send();
        let (sender, receiver) = mpsc::sync_channel(self.workers.len());
        for worker in &self.workers {
            let _ = worker.send(vec![Step::Reached(sender.clone())]);
        }
        drop(sender);
        while receiver.recv().is_ok() {}
        self.take(Vec::new())?;
        for (path, to) in std::mem::take(&mut self.links) {
            let from = self.parent_of(&to)?;
            let old = name(&to)?;
            match confined::describe_name(from.as_fd(), old) {
                // Each name counts as a file, with all its bytes.
                Ok(found) if found.kind == FileType::RegularFile => {
                    self.made.bytes = self.made.bytes.saturating_add(found.size);
                }
                _ => return Err(refused(&path, "it is another name of something that is no file")),
            }
            let parent = self.parent_of(&path)?;
            rustix::fs::linkat(&*from, old, &*parent, name(&path)?, AtFlags::empty())
                .map_err(|error| not_made(&path, error))?;
        }
        Ok(())
    }

    /// Makes what had to wait, and returns what was made.
    pub(super) fn finish(mut self, plan: &RestorePlan) -> Result<Totals, TargetError> {
        if self.left > 0 {
            return Err(refused(&self.file, "the stream ended before all of its content"));
        }
        self.make_links()?;
        self.send();
        self.workers.clear();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                return Err(failed(&TreePath::root(), Errno::IO));
            }
        }
        self.parent = None;
        self.take(Vec::new())?;
        for (path, metadata) in self.directories.iter().rev() {
            let directory = confined::open_directory(self.root.as_fd(), path.as_bytes())
                .map_err(|error| failed(path, error))?;
            dress(&directory, metadata, DIRECTORY_MODE, self.options, 0o700)
                .map_err(|error| failed(path, error))?;
        }
        dress(self.root, &plan.root, DIRECTORY_MODE, self.options, 0o700)
            .map_err(|error| failed(&TreePath::root(), error))?;
        Ok(self.made)
    }
}

fn name(path: &TreePath) -> Result<&[u8], TargetError> {
    path.name().ok_or_else(|| refused(path, "it is the root itself"))
}

/// Gives a file or directory its attributes, owner, mode and time, the last of which all others would change.
fn dress(
    file: &OwnedFd,
    metadata: &Metadata,
    mask: u16,
    options: &TargetOptions,
    made_with: u16,
) -> Result<(), Errno> {
    attributes::write(file, &metadata.xattrs)?;
    if let Some((user, group)) = options.owner {
        rustix::fs::fchown(file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
    }
    let mode = metadata.mode & mask;
    if mode != made_with {
        rustix::fs::fchmod(file, Mode::from_bits_truncate(mode.into()))?;
    }
    rustix::fs::futimens(file, &times(metadata))
}

fn times(metadata: &Metadata) -> Timestamps {
    let nanoseconds = metadata.modified_ns;
    let modified = Timespec {
        tv_sec: nanoseconds.div_euclid(1_000_000_000),
        tv_nsec: nanoseconds.rem_euclid(1_000_000_000),
    };
    let omitted = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    Timestamps { last_access: omitted, last_modification: modified }
}

/// A file that is being filled.
struct Filling {
    file: File,
    path: TreePath,
    metadata: Metadata,
    size: u64,
    at: u64,
    /// Where what was written ends.
    written: u64,
}

/// Makes files until no more come.
fn work(options: &TargetOptions, groups: &mpsc::Receiver<Group>, failure: &Failure) {
    let mut filling = None;
    let mut broken = false;
    for group in groups {
        for step in group {
            if let Step::Reached(waiting) = step {
                // Who waits is there: the maker gives up only after this.
                let _ = waiting.send(());
                continue;
            }
            if broken {
                continue;
            }
            if let Err(error) = advance(&mut filling, step, options) {
                broken = true;
                let mut first = failure.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(error);
            }
        }
    }
}

fn advance(
    filling: &mut Option<Filling>,
    step: Step,
    options: &TargetOptions,
) -> Result<(), TargetError> {
    match step {
        Step::File(FileStep { parent, path, metadata, size }) => {
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&*parent, name(&path)?, flags, Mode::RUSR | Mode::WUSR)
                .map_err(|error| not_made(&path, error))?;
            let file = File::from(file);
            *filling = Some(Filling { file, path, metadata, size, at: 0, written: 0 });
        }
        Step::Data(bytes) => {
            if let Some(filling) = filling {
                filling.file.write_all_at(&bytes, filling.at).map_err(|error| {
                    TargetError::Make { path: filling.path.clone(), source: error.into() }
                })?;
                filling.at += bytes.len() as u64;
                filling.written = filling.at;
            }
        }
        Step::Hole(length) => {
            if let Some(filling) = filling {
                filling.at = filling.at.saturating_add(length);
            }
        }
        Step::Reached(_) => {}
    }
    match filling.take_if(|filling| filling.at >= filling.size) {
        Some(whole) => {
            let path = whole.path;
            if whole.written < whole.size {
                rustix::fs::ftruncate(&whole.file, whole.size)
                    .map_err(|error| failed(&path, error))?;
            }
            dress(&whole.file.into(), &whole.metadata, FILE_MODE, options, 0o600)
                .map_err(|error| failed(&path, error))
        }
        None => Ok(()),
    }
}
