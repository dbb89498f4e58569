//! Watching a file, a directory, or a tree of them.
//!
//! The kernel tells of names in directories that are watched. A directory that appears is watched and then read, since
//! something may have been made in it before it was watched. No link is followed.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use cofferdam_guest::{Change, GuestMessage, MAX_PATH, ProtocolError, Watch};

use crate::{
    changes::Changes,
    flow::Sender,
    outcome::{Outcome, refused},
    poll::Waiting,
    sys::{self, Note},
    workspace::Workspace,
};

/// Directories that one watch may follow; those beyond are told as unwatched.
const MAX_DIRECTORIES: usize = 8192;

/// Directories that wait to be read; those beyond are told as unwatched.
const MAX_TO_READ: usize = 64 * 1024;

/// Names of one directory that are told of when it appears.
const MAX_NAMES: usize = 64 * 1024;

/// Directories that are read in one turn.
const READ_AT_A_TIME: usize = 16;

/// How long the second half of a move is awaited. The kernel tells both one after the other.
const MOVE_TIME: Duration = Duration::from_millis(10);

const MASK: u32 = sys::IN_MODIFY
    | sys::IN_ATTRIB
    | sys::IN_MOVED_FROM
    | sys::IN_MOVED_TO
    | sys::IN_CREATE
    | sys::IN_DELETE
    | sys::IN_DELETE_SELF
    | sys::IN_MOVE_SELF;

#[derive(Debug)]
pub(crate) struct Watching {
    root: Root,
    recursive: bool,
    queue: File,
    /// Watched directories by the kernel's number: paths relative to the root.
    directories: HashMap<i32, Vec<u8>>,
    to_read: VecDeque<ToRead>,
    moving: Option<Moving>,
    changes: Changes,
    /// Set once the tree has been read for the first time.
    stands: bool,
    /// Names of unfinished files that this program writes.
    own_names: Vec<u8>,
}

#[derive(Debug)]
enum Root {
    Directory(Workspace),
    /// Only the file itself is watched.
    File,
}

/// A directory to watch and to read.
#[derive(Debug)]
struct ToRead {
    path: Vec<u8>,
    /// Whether what is in it is new, and told.
    tell: bool,
}

/// The first half of a move.
#[derive(Debug)]
struct Moving {
    cookie: u32,
    path: Vec<u8>,
    directory: bool,
    until: Instant,
}

impl Watching {
    pub(crate) fn open(workspace: &Workspace, request: &Watch) -> Outcome<Self> {
        Self::start(workspace, request).map_err(refused("watch", &request.path))
    }

    fn start(workspace: &Workspace, request: &Watch) -> io::Result<Self> {
        let queue = sys::open_queue()?;
        let place = workspace.open_as(&request.path, sys::O_PATH | sys::O_NOFOLLOW, 0)?;
        let mut watching = Self {
            root: Root::File,
            recursive: request.recursive,
            queue: File::from(queue),
            directories: HashMap::new(),
            to_read: VecDeque::new(),
            moving: None,
            changes: Changes::default(),
            stands: false,
            own_names: format!(".cofferdam-{}-", std::process::id()).into_bytes(),
        };
        let number = watching.add(&place)?;
        watching.directories.insert(number, Vec::new());
        if sys::stat_open(place.as_fd())?.is(sys::S_IFDIR) {
            watching.root = Root::Directory(Workspace::at(place));
            if request.recursive {
                watching.to_read.push_back(ToRead { path: Vec::new(), tell: false });
            }
        }
        Ok(watching)
    }

    fn add(&self, place: &OwnedFd) -> io::Result<i32> {
        sys::add_watch(self.queue.as_fd(), place.as_fd(), MASK)
    }

    /// Adds what is to be waited for, given that it will have its turn. `credit` tells whether changes can be sent.
    pub(crate) fn wait_for(&self, waiting: &mut Waiting, credit: bool) {
        // Also without credit: what is read here is put together, and what the kernel holds is not.
        waiting.readable(self.queue.as_raw_fd());
        waiting.busy |= !self.to_read.is_empty() || (credit && !self.changes.is_empty());
        waiting.until(self.moving.as_ref().map(|moving| moving.until));
    }

    /// Notes what changed, and sends what fits.
    pub(crate) fn turn(&mut self, sender: &mut Sender<'_>) -> Result<bool, ProtocolError> {
        self.read_notes(sender.buffer);
        for _ in 0..READ_AT_A_TIME {
            let Some(next) = self.to_read.pop_front() else {
                break;
            };
            self.read_directory(next);
        }
        if !self.stands {
            if !self.to_read.is_empty() {
                return Ok(false);
            }
            self.stands = true;
            sender.send(&GuestMessage::Opened)?;
        }
        let records = self.changes.take(sender.piece().len());
        sender.send_data(&records)?;
        Ok(!records.is_empty())
    }

    fn read_notes(&mut self, buffer: &mut [u8]) {
        // A bounded number of times, so that other channels get their turns beside a storm of changes.
        for _ in 0..4 {
            let Ok(length @ 1..) = self.queue.read(buffer) else {
                break;
            };
            for note in sys::notes(&buffer[..length]) {
                self.note(note);
            }
        }
        if self.moving.as_ref().is_some_and(|moving| moving.until <= Instant::now()) {
            self.moved_away();
        }
    }

    fn note(&mut self, note: Note) {
        if note.mask & sys::IN_Q_OVERFLOW != 0 {
            // Directories may have appeared unseen.
            self.changes.push(Change::Overflow);
            self.to_read.clear();
            if self.recursive {
                self.read_later(Vec::new(), false);
            }
            return;
        }
        let Some(directory) = self.directories.get(&note.watch) else {
            return;
        };
        if note.mask & sys::IN_IGNORED != 0 {
            self.directories.remove(&note.watch);
            return;
        }
        let at_root = directory.is_empty();
        let path = join(directory, &note.name);
        if note.name.starts_with(&self.own_names) {
            // A file of the host in the making: only that it takes its place is told.
            if note.mask & sys::IN_MOVED_FROM != 0 {
                self.moved_away();
                self.moving = Some(self.moving(note.cookie, Vec::new(), false));
            }
            return;
        }
        let is_directory = note.mask & sys::IN_ISDIR != 0;
        if note.mask & sys::IN_MOVED_TO != 0 {
            self.moved_to(note.cookie, path, is_directory);
            return;
        }
        if note.mask & sys::IN_MOVED_FROM != 0 {
            self.moved_away();
            self.moving = Some(self.moving(note.cookie, path, is_directory));
        } else if note.mask & sys::IN_CREATE != 0 {
            self.created(path, is_directory);
        } else if note.mask & sys::IN_DELETE != 0 {
            self.changes.push(Change::Removed { path });
        } else if note.mask & (sys::IN_DELETE_SELF | sys::IN_MOVE_SELF) != 0 {
            // The directory above tells of the others.
            if at_root {
                self.changes.push(Change::Removed { path });
            }
        } else if note.mask & (sys::IN_MODIFY | sys::IN_ATTRIB) != 0 {
            self.changes.push(Change::Modified { path });
        }
    }

    fn moving(&self, cookie: u32, path: Vec<u8>, directory: bool) -> Moving {
        Moving { cookie, path, directory, until: Instant::now() + MOVE_TIME }
    }

    /// Notes that what was moved has left what is watched.
    fn moved_away(&mut self) {
        if let Some(moving) = self.moving.take()
            && !moving.path.is_empty()
        {
            if moving.directory {
                self.forget_below(&moving.path);
            }
            self.changes.push(Change::Removed { path: moving.path });
        }
    }

    fn moved_to(&mut self, cookie: u32, to: Vec<u8>, directory: bool) {
        match self.moving.take_if(|moving| moving.cookie == cookie) {
            Some(Moving { path: from, .. }) if from.is_empty() => {
                self.changes.push(Change::Modified { path: to });
            }
            Some(Moving { path: from, directory, .. }) => {
                if directory {
                    for path in self.directories.values_mut() {
                        if let Some(rest) = below(path, &from) {
                            *path = join(&to, rest);
                        }
                    }
                }
                self.changes.push(Change::Moved { from, to });
            }
            None => self.created(to, directory),
        }
    }

    fn created(&mut self, path: Vec<u8>, directory: bool) {
        self.changes.push(Change::Created { path: path.clone() });
        if directory && self.recursive {
            self.read_later(path, true);
        }
    }

    fn read_later(&mut self, path: Vec<u8>, tell: bool) {
        if self.to_read.len() < MAX_TO_READ {
            self.to_read.push_back(ToRead { path, tell });
        } else {
            self.unwatched(path, sys::ENOSPC);
        }
    }

    fn unwatched(&mut self, path: Vec<u8>, errno: i32) {
        self.changes.push(Change::Unwatched { path, errno });
    }

    /// Ends the watches of a directory that has left, and of those below it.
    fn forget_below(&mut self, gone: &[u8]) {
        let queue = self.queue.as_fd();
        self.directories.retain(|&number, path| {
            let stays = below(path, gone).is_none();
            if !stays {
                sys::remove_watch(queue, number);
            }
            stays
        });
    }

    /// Watches a directory, and then looks at what is in it.
    fn read_directory(&mut self, ToRead { path, tell }: ToRead) {
        match self.enter(&path, tell) {
            // It has gone meanwhile, or is a directory no more, and the kernel tells so.
            Err(error) if matches!(error.raw_os_error(), Some(sys::ENOENT | sys::ENOTDIR)) => {}
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(sys::EINVAL);
                self.unwatched(path, errno);
            }
            Ok(()) => {}
        }
    }

    fn enter(&mut self, path: &[u8], tell: bool) -> io::Result<()> {
        let Root::Directory(root) = &self.root else {
            return Ok(());
        };
        let flags = sys::O_RDONLY | sys::O_DIRECTORY;
        let directory = root.open_as(path, flags, sys::RESOLVE_NO_SYMLINKS)?;
        if self.directories.len() >= MAX_DIRECTORIES {
            return Err(sys::error(sys::ENOSPC));
        }
        let number = self.add(&directory)?;
        self.directories.insert(number, path.to_vec());
        let (names, complete) = sys::read_names(directory.as_fd(), MAX_NAMES)?;
        for name in names {
            let inner = join(path, name.as_bytes());
            let is_directory =
                sys::stat_name(directory.as_fd(), &name).is_ok_and(|found| found.is(sys::S_IFDIR));
            if tell && !name.as_bytes().starts_with(&self.own_names) {
                self.changes.push(Change::Created { path: inner.clone() });
            }
            if is_directory && inner.len() < MAX_PATH {
                self.read_later(inner, tell);
            }
        }
        if complete { Ok(()) } else { Err(sys::error(sys::ENOSPC)) }
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if directory.is_empty() || name.is_empty() { b"" } else { b"/" };
    [directory, slash, name].concat()
}

/// Returns what is left of a path at or below a directory.
fn below<'a>(path: &'a [u8], directory: &[u8]) -> Option<&'a [u8]> {
    match path.strip_prefix(directory)? {
        [] => Some(b""),
        [b'/', rest @ ..] => Some(rest),
        _ => None,
    }
}
