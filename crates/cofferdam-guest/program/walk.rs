//! Walking a tree: listing, downloading and removing, each a task that the server advances piece by piece.
//!
//! Every step goes from an open directory to one name in it, and follows no link.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
};

use cofferdam_guest::{
    DownloadTree, FileKind, ListDirectory, MAX_PATH, SkipReason, encode_end, encode_entry,
    encode_skipped,
};

use crate::{
    outcome::{Outcome, limit, refused},
    sys,
    workspace::{Workspace, metadata_of},
};

/// Directories open at a time in one walk.
const MAX_DEPTH: usize = 256;

/// Names of one directory held at a time.
const MAX_NAMES: usize = 1 << 18;

/// Bytes made ready ahead of what is sent.
const READY: usize = 64 * 1024;

/// A tree being sent as a tree stream: a listing, or a download with content.
#[derive(Debug)]
pub(crate) struct Sending {
    levels: Vec<Level>,
    /// Path of the innermost level, relative to the root of the walk.
    path: Vec<u8>,
    ready: Vec<u8>,
    content: Option<(File, u64)>,
    bounds: Bounds,
    finished: bool,
}

#[derive(Debug)]
struct Level {
    directory: OwnedFd,
    /// What is left to visit, the next one last.
    names: Vec<CString>,
    path_length: usize,
}

#[derive(Debug)]
enum Bounds {
    /// Stop quietly at so many entries, and go down so many levels.
    Listing { entries: u64, depth: usize },
    /// Fail at so many entries or bytes.
    Download { entries: u64, bytes: u64 },
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
        sending.enter(directory, 0)?;
        Ok(sending)
    }

    pub(crate) fn download(workspace: &Workspace, request: &DownloadTree) -> Outcome<Self> {
        let fail = || refused("download", &request.path);
        let bounds = Bounds::Download { entries: request.max_entries, bytes: request.max_bytes };
        let mut sending = Self::new(bounds);
        let root = workspace.open_as(&request.path, sys::O_PATH, 0).map_err(fail())?;
        let found = sys::stat_open(root.as_fd()).map_err(fail())?;
        if found.is(sys::S_IFDIR) {
            let metadata = metadata_of(&found, root.as_fd(), c"").map_err(fail())?;
            encode_entry(b"", &metadata, &mut sending.ready);
            let directory = workspace.open_directory(&request.path).map_err(fail())?;
            sending.enter(directory, 0)?;
        } else {
            let (file, found) = workspace.open_file(&request.path).map_err(fail())?;
            sending.count(found.size)?;
            let metadata = metadata_of(&found, file.as_fd(), c"").map_err(fail())?;
            encode_entry(b"", &metadata, &mut sending.ready);
            sending.content = Some((File::from(file), found.size));
        }
        Ok(sending)
    }

    fn new(bounds: Bounds) -> Self {
        Self {
            levels: Vec::new(),
            path: Vec::new(),
            ready: Vec::new(),
            content: None,
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
        let Some(level) = self.levels.last() else {
            return Ok(());
        };
        let found = sys::stat_name(level.directory.as_fd(), name)
            .and_then(|found| metadata_of(&found, level.directory.as_fd(), name));
        let mut metadata = match found {
            Ok(metadata) => metadata,
            // It was removed since the directory was read.
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
                if let Ok(directory) = open_below(level, name) {
                    self.enter(directory, self.path.len())?;
                }
            }
            return Ok(());
        }
        match metadata.kind {
            FileKind::Directory => match open_below(level, name) {
                Ok(directory) => {
                    self.count(0)?;
                    encode_entry(&self.path, &metadata, &mut self.ready);
                    self.enter(directory, self.path.len())?;
                }
                Err(_) => self.skip(SkipReason::Unreadable),
            },
            FileKind::Symlink => {
                self.count(0)?;
                encode_entry(&self.path, &metadata, &mut self.ready);
            }
            FileKind::Regular => match open_regular(level, name) {
                Ok((file, found)) => {
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

    fn skip(&mut self, reason: SkipReason) {
        encode_skipped(&self.path, reason, &mut self.ready);
    }

    /// Takes one entry and so many bytes from the bounds of a download.
    fn count(&mut self, size: u64) -> Outcome<()> {
        if let Bounds::Download { entries, bytes } = &mut self.bounds {
            *entries =
                entries.checked_sub(1).ok_or_else(|| limit("too many entries", &self.path, 0))?;
            *bytes =
                bytes.checked_sub(size).ok_or_else(|| limit("too many bytes", &self.path, 0))?;
        }
        Ok(())
    }

    fn enter(&mut self, directory: OwnedFd, path_length: usize) -> Outcome<()> {
        if self.levels.len() == MAX_DEPTH {
            return Err(limit("too many levels", &self.path, sys::ELOOP));
        }
        let (mut names, complete) =
            sys::read_names(directory.as_fd(), MAX_NAMES).map_err(refused("list", &self.path))?;
        if !complete {
            return Err(limit("too many names in one directory", &self.path, 0));
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        self.levels.push(Level { directory, names, path_length });
        Ok(())
    }

    fn finish(&mut self, truncated: bool) {
        encode_end(truncated, &mut self.ready);
        self.levels.clear();
        self.finished = true;
    }
}

fn open_below(level: &Level, name: &CStr) -> io::Result<OwnedFd> {
    sys::open_name(level.directory.as_fd(), name, sys::O_RDONLY | sys::O_DIRECTORY, 0)
}

fn open_regular(level: &Level, name: &CStr) -> io::Result<(File, sys::Stat)> {
    // It was a regular file a moment ago; without blocking, and refused if it no longer is one.
    let flags = sys::O_RDONLY | sys::O_NONBLOCK | sys::O_NOCTTY;
    let file = sys::open_name(level.directory.as_fd(), name, flags, 0)?;
    let found = sys::stat_open(file.as_fd())?;
    crate::workspace::require_regular(&found)?;
    Ok((File::from(file), found))
}

/// A directory being removed with all that is in it.
#[derive(Debug)]
pub(crate) struct Removing {
    /// Directories from the outermost to the innermost, each with its name in the one before.
    levels: Vec<(OwnedFd, CString)>,
    parent: OwnedFd,
    path: Vec<u8>,
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
        let directory = sys::open_name(parent.as_fd(), &name, sys::O_RDONLY | sys::O_DIRECTORY, 0)?;
        Ok(Some(Self { levels: vec![(directory, name)], parent, path: path.to_vec() }))
    }

    /// Removes some entries; returns whether all is gone.
    pub(crate) fn advance(&mut self) -> Outcome<bool> {
        let path = std::mem::take(&mut self.path);
        let result = self.remove_some().map_err(refused("remove", &path));
        self.path = path;
        result
    }

    fn remove_some(&mut self) -> io::Result<bool> {
        const BATCH: usize = 256;
        let Some((directory, name)) = self.levels.last() else {
            return Ok(true);
        };
        let (names, complete) = sys::read_names(directory.as_fd(), BATCH)?;
        for inner in &names {
            match sys::remove_name(directory.as_fd(), inner, false) {
                Err(error) if error.raw_os_error() == Some(sys::ENOENT) => {}
                Err(error) if sys::stat_name(directory.as_fd(), inner)?.is(sys::S_IFDIR) => {
                    if self.levels.len() == MAX_DEPTH {
                        return Err(error);
                    }
                    let flags = sys::O_RDONLY | sys::O_DIRECTORY;
                    let below = sys::open_name(directory.as_fd(), inner, flags, 0)?;
                    self.levels.push((below, inner.clone()));
                    return Ok(false);
                }
                result => result?,
            }
        }
        if complete {
            let name = name.clone();
            self.levels.pop();
            let parent = self.levels.last().map_or(self.parent.as_fd(), |(above, _)| above.as_fd());
            match sys::remove_name(parent, &name, true) {
                // Something was made in it meanwhile: look again.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    let flags = sys::O_RDONLY | sys::O_DIRECTORY;
                    let again = sys::open_name(parent, &name, flags, 0)?;
                    self.levels.push((again, name));
                }
                Err(error) if error.raw_os_error() == Some(sys::ENOENT) => {}
                result => result?,
            }
        }
        Ok(self.levels.is_empty())
    }
}
