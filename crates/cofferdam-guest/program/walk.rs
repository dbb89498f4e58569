//! Walking a tree: listing, downloading and removing, each a task that the server advances piece by piece.
//!
//! Every step goes from an open directory to one name in it, and follows no link.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString},
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use cofferdam_guest::{
    DownloadTree, FileKind, ListDirectory, MAX_PATH, Metadata, ScanEntry, ScanTree, SkipReason,
    encode_end, encode_entry, encode_hard_link, encode_scanned, encode_skipped,
};

use crate::{
    outcome::{Outcome, limit, refused},
    sys,
    trail::Trail,
    workspace::{Workspace, metadata_of},
};

/// Names of one directory held at a time.
const MAX_NAMES: usize = 1 << 18;

/// Bytes of names that are remembered of files with more than one. Beyond, a second name is sent as a file of its own.
const MAX_LINKED_BYTES: usize = 8 << 20;

/// Bytes made ready ahead of what is sent.
const READY: usize = 64 * 1024;

/// A tree being sent as a tree stream: a listing, or a download with content.
#[derive(Debug)]
pub(crate) struct Sending {
    /// Where the walk is; `None` if it is of a single file.
    trail: Option<Trail>,
    /// What is left to visit, from the root of the walk to where it is.
    levels: Vec<Level>,
    /// Path of the innermost level, relative to the root of the walk.
    path: Vec<u8>,
    ready: Vec<u8>,
    content: Option<(File, u64)>,
    /// First names of files that have more; `None` if nobody wants to know.
    linked: Option<Linked>,
    bounds: Bounds,
    finished: bool,
}

#[derive(Debug)]
struct Level {
    /// The next one last.
    names: Vec<CString>,
    path_length: usize,
}

/// The first name of each file that has several, by its file system and number.
#[derive(Debug, Default)]
struct Linked {
    names: BTreeMap<(u64, u64), Vec<u8>>,
    bytes: usize,
}

#[derive(Debug)]
enum Bounds {
    /// Stop quietly at so many entries, and go down so many levels.
    Listing { entries: u64, depth: usize },
    /// Fail at so many entries or bytes.
    Download { entries: u64, bytes: u64 },
    /// Fail at so many entries.
    Scan { entries: u64 },
}

impl Sending {
    pub(crate) fn list(workspace: &Workspace, request: &ListDirectory) -> Outcome<Self> {
        let bounds = Bounds::Listing {
            entries: u64::from(request.max_entries),
            depth: usize::try_from(request.depth).unwrap_or(usize::MAX),
        };
        let directory =
            workspace.open_directory(&request.path).map_err(refused("list", &request.path))?;
        let mut sending = Self::new(bounds);
        sending.begin(directory)?;
        Ok(sending)
    }

    pub(crate) fn download(workspace: &Workspace, request: &DownloadTree) -> Outcome<Self> {
        let fail = || refused("download", &request.path);
        let bounds = Bounds::Download { entries: request.max_entries, bytes: request.max_bytes };
        let mut sending = Self::new(bounds);
        sending.linked = request.hard_links.then(Linked::default);
        let root = workspace.open_as(&request.path, sys::O_PATH, 0).map_err(fail())?;
        let found = sys::stat_open(root.as_fd()).map_err(fail())?;
        if found.is(sys::S_IFDIR) {
            let metadata = metadata_of(&found, root.as_fd(), c"").map_err(fail())?;
            encode_entry(b"", &metadata, &mut sending.ready);
            let directory = workspace.open_directory(&request.path).map_err(fail())?;
            sending.begin(directory)?;
        } else {
            let (file, found) = workspace.open_file(&request.path).map_err(fail())?;
            sending.count(found.size)?;
            let metadata = metadata_of(&found, file.as_fd(), c"").map_err(fail())?;
            encode_entry(b"", &metadata, &mut sending.ready);
            sending.content = Some((File::from(file), found.size));
        }
        Ok(sending)
    }

    pub(crate) fn scan(workspace: &Workspace, request: &ScanTree) -> Outcome<Self> {
        let fail = || refused("scan", &request.path);
        let mut sending = Self::new(Bounds::Scan { entries: request.max_entries });
        let root = workspace.open_as(&request.path, sys::O_PATH, 0).map_err(fail())?;
        let found = sys::stat_open(root.as_fd()).map_err(fail())?;
        let metadata = metadata_of(&found, root.as_fd(), c"").map_err(fail())?;
        sending.scanned(&found, metadata);
        if found.is(sys::S_IFDIR) {
            sending.begin(workspace.open_directory(&request.path).map_err(fail())?)?;
        }
        Ok(sending)
    }

    fn new(bounds: Bounds) -> Self {
        Self {
            trail: None,
            levels: Vec::new(),
            path: Vec::new(),
            ready: Vec::new(),
            content: None,
            linked: None,
            bounds,
            finished: false,
        }
    }

    /// Makes bytes ready, and returns those that may be sent now; empty is the end.
    pub(crate) fn ready(&mut self) -> Outcome<&[u8]> {
        while self.ready.len() < READY && !self.finished {
            self.step()?;
        }
        Ok(&self.ready)
    }

    /// Forgets bytes that were sent.
    pub(crate) fn sent(&mut self, length: usize) {
        self.ready.drain(..length);
    }

    fn step(&mut self) -> Outcome<()> {
        if let Some((file, left)) = &mut self.content {
            let start = self.ready.len();
            let wanted = usize::try_from(*left).map_or(READY, |left| left.min(READY));
            self.ready.resize(start + wanted, 0);
            // A file that shrinks while it is read keeps the size that was announced, and ends in zero bytes.
            let length =
                file.read(&mut self.ready[start..]).map_err(refused("read", &self.path))?;
            let sent = if length == 0 { wanted } else { length };
            self.ready.truncate(start + sent);
            *left -= sent as u64;
            if *left == 0 {
                self.content = None;
            }
            return Ok(());
        }
        let Some(level) = self.levels.last_mut() else {
            self.finish(false);
            return Ok(());
        };
        self.path.truncate(level.path_length);
        let Some(name) = level.names.pop() else {
            self.levels.pop();
            if let Some(trail) = &mut self.trail {
                trail.leave();
            }
            return Ok(());
        };
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name.as_bytes());
        self.visit(&name)
    }

    fn visit(&mut self, name: &CStr) -> Outcome<()> {
        if self.path.len() >= MAX_PATH {
            // Nobody could name it in a request.
            return Err(limit("path too long", &self.path[..MAX_PATH - 1], sys::ENAMETOOLONG));
        }
        let Some(trail) = &mut self.trail else {
            return Ok(());
        };
        let found = trail.innermost().and_then(|directory| {
            let found = sys::stat_name(directory, name)?;
            Ok((found, metadata_of(&found, directory, name)?, directory))
        });
        let (found, mut metadata, directory) = match found {
            Ok(found) => found,
            // It was removed since the directory was read, or the directory was.
            Err(error) if error.raw_os_error() == Some(sys::ENOENT) => return Ok(()),
            Err(error) => return Err(refused("describe", &self.path)(error)),
        };
        if let Bounds::Listing { entries, depth } = &mut self.bounds {
            if *entries == 0 {
                self.finish(true);
                return Ok(());
            }
            *entries -= 1;
            encode_entry(&self.path, &metadata, &mut self.ready);
            if metadata.kind == FileKind::Directory && self.levels.len() < *depth {
                // One that cannot be read is listed without what is in it.
                if let Ok(below) = open_below(directory, name) {
                    self.enter(name, below)?;
                }
            }
            return Ok(());
        }
        if let Bounds::Scan { .. } = &self.bounds {
            let is_directory = metadata.kind == FileKind::Directory;
            let below = is_directory.then(|| open_below(directory, name));
            self.count(0)?;
            self.scanned(&found, metadata);
            match below {
                Some(Ok(below)) => self.enter(name, below)?,
                // One that cannot be read is told, and that nothing of what is in it is.
                Some(Err(_)) => self.skip(SkipReason::Unreadable),
                None => {}
            }
            return Ok(());
        }
        match metadata.kind {
            FileKind::Directory => match open_below(directory, name) {
                Ok(below) => {
                    self.count(0)?;
                    encode_entry(&self.path, &metadata, &mut self.ready);
                    self.enter(name, below)?;
                }
                Err(_) => self.skip(SkipReason::Unreadable),
            },
            FileKind::Symlink => {
                self.count(0)?;
                encode_entry(&self.path, &metadata, &mut self.ready);
            }
            FileKind::Regular => match open_regular(directory, name) {
                Ok((file, found)) => {
                    if let Some(first) =
                        self.linked.as_mut().and_then(|linked| linked.first(&found, &self.path))
                    {
                        encode_hard_link(&self.path, first, &mut self.ready);
                        return self.count(0);
                    }
                    self.count(found.size)?;
                    metadata.size = found.size;
                    encode_entry(&self.path, &metadata, &mut self.ready);
                    self.content = (found.size > 0).then_some((file, found.size));
                }
                Err(_) => self.skip(SkipReason::Unreadable),
            },
            FileKind::Fifo => self.skip(SkipReason::Fifo),
            FileKind::Socket => self.skip(SkipReason::Socket),
            _ => self.skip(SkipReason::Device),
        }
        Ok(())
    }

    fn scanned(&mut self, found: &sys::Stat, metadata: Metadata) {
        let entry = ScanEntry {
            path: self.path.clone(),
            kind: metadata.kind,
            mode: metadata.mode,
            size: found.size,
            device: found.device,
            inode: found.inode,
            modified_ns: found.modified_ns,
            changed_ns: found.changed_ns,
            links: found.links,
            link_target: metadata.link_target,
        };
        encode_scanned(&entry, &mut self.ready);
    }

    fn skip(&mut self, reason: SkipReason) {
        encode_skipped(&self.path, reason, &mut self.ready);
    }

    /// Takes one entry and so many bytes from the bounds of a download or a scan.
    fn count(&mut self, size: u64) -> Outcome<()> {
        let (entries, bytes) = match &mut self.bounds {
            Bounds::Download { entries, bytes } => (entries, Some(bytes)),
            Bounds::Scan { entries } => (entries, None),
            Bounds::Listing { .. } => return Ok(()),
        };
        *entries =
            entries.checked_sub(1).ok_or_else(|| limit("too many entries", &self.path, 0))?;
        if let Some(bytes) = bytes {
            *bytes =
                bytes.checked_sub(size).ok_or_else(|| limit("too many bytes", &self.path, 0))?;
        }
        Ok(())
    }

    fn begin(&mut self, root: OwnedFd) -> Outcome<()> {
        self.read_level(root.as_fd())?;
        self.trail = Some(Trail::new(root));
        Ok(())
    }

    fn enter(&mut self, name: &CStr, directory: OwnedFd) -> Outcome<()> {
        self.read_level(directory.as_fd())?;
        match &mut self.trail {
            Some(trail) => {
                trail.enter(name.to_owned(), directory).map_err(refused("enter", &self.path))
            }
            None => Ok(()),
        }
    }

    /// Notes what is to be visited in a directory.
    fn read_level(&mut self, directory: BorrowedFd<'_>) -> Outcome<()> {
        let (mut names, complete) =
            sys::read_names(directory, MAX_NAMES).map_err(refused("list", &self.path))?;
        if !complete {
            return Err(limit("too many names in one directory", &self.path, 0));
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        self.levels.push(Level { names, path_length: self.path.len() });
        Ok(())
    }

    fn finish(&mut self, truncated: bool) {
        encode_end(truncated, &mut self.ready);
        self.levels.clear();
        self.trail = None;
        self.finished = true;
    }
}

impl Linked {
    /// Returns the name under which a file came before; remembers this one if it is the first of several.
    fn first(&mut self, found: &sys::Stat, path: &[u8]) -> Option<&[u8]> {
        if found.links < 2 {
            return None;
        }
        let key = (found.device, found.inode);
        if !self.names.contains_key(&key) {
            if self.bytes + path.len() <= MAX_LINKED_BYTES {
                self.bytes += path.len();
                self.names.insert(key, path.to_vec());
            }
            return None;
        }
        self.names.get(&key).map(Vec::as_slice)
    }
}

fn open_below(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    sys::open_name(directory, name, sys::O_RDONLY | sys::O_DIRECTORY, 0)
}

fn open_regular(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<(File, sys::Stat)> {
    // It was a regular file a moment ago; without blocking, and refused if it no longer is one.
    let flags = sys::O_RDONLY | sys::O_NONBLOCK | sys::O_NOCTTY;
    let file = sys::open_name(directory, name, flags, 0)?;
    let found = sys::stat_open(file.as_fd())?;
    crate::workspace::require_regular(&found)?;
    Ok((File::from(file), found))
}

/// A directory being removed with all that is in it.
#[derive(Debug)]
pub(crate) struct Removing {
    /// The directory, and where the walk is in it.
    trail: Trail,
    /// What it is in, and its name there.
    parent: OwnedFd,
    name: CString,
    path: Vec<u8>,
    gone: bool,
}

impl Removing {
    /// Starts to remove a directory; `None` if it was no directory and is gone already.
    pub(crate) fn open(workspace: &Workspace, path: &[u8]) -> Outcome<Option<Self>> {
        Self::start(workspace, path).map_err(refused("remove", path))
    }

    fn start(workspace: &Workspace, path: &[u8]) -> io::Result<Option<Self>> {
        let (parent, name) = workspace.parent(path, false)?;
        if !sys::stat_name(parent.as_fd(), &name)?.is(sys::S_IFDIR) {
            sys::remove_name(parent.as_fd(), &name, false)?;
            return Ok(None);
        }
        let trail = Trail::new(open_below(parent.as_fd(), &name)?);
        Ok(Some(Self { trail, parent, name, path: path.to_vec(), gone: false }))
    }

    /// Removes some entries; returns whether all is gone.
    pub(crate) fn advance(&mut self) -> Outcome<bool> {
        let path = std::mem::take(&mut self.path);
        let result = self.remove_some().map_err(refused("remove", &path));
        self.path = path;
        result.map(|()| self.gone)
    }

    fn remove_some(&mut self) -> io::Result<()> {
        const BATCH: usize = 256;
        let directory = match self.trail.innermost() {
            Ok(directory) => directory,
            // Somebody else has removed it, or moved it away.
            Err(error) if error.raw_os_error() == Some(sys::ENOENT) => {
                self.trail.leave();
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let (names, complete) = sys::read_names(directory, BATCH)?;
        for inner in &names {
            match sys::remove_name(directory, inner, false) {
                Err(error) if error.raw_os_error() == Some(sys::ENOENT) => {}
                Err(_) if sys::stat_name(directory, inner)?.is(sys::S_IFDIR) => {
                    let below = open_below(directory, inner)?;
                    return self.trail.enter(inner.clone(), below);
                }
                result => result?,
            }
        }
        if !complete {
            return Ok(());
        }
        let left = self.trail.leave();
        let (above, name) = match &left {
            Some(name) => (self.trail.innermost()?, name),
            None => (self.parent.as_fd(), &self.name),
        };
        match sys::remove_name(above, name, true) {
            // Something was made in it meanwhile: look again.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                if let Some(name) = left {
                    let again = open_below(above, &name)?;
                    self.trail.enter(name, again)?;
                }
                return Ok(());
            }
            Err(error) if error.raw_os_error() == Some(sys::ENOENT) => {}
            result => result?,
        }
        self.gone = left.is_none();
        Ok(())
    }
}
