//! The walk over a directory: listings, sorted, parents first, of what is kept, what is left out and what is gone.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher as _, RandomState},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex},
};

use rustix::{
    fs::{FileType, Mode, OFlags},
    io::Errno,
};
use tokio::sync::mpsc;

use super::{
    attributes, confined,
    confined::{Found, MAX_PATH},
    source::{Shared, lock},
};
use crate::{
    path::{Name, TreePath},
    reader::MAX_DEPTH,
    source::{Listing, SkipReason, SourceEntry, SourceError, SourceKind},
    stat_cache::{CacheReader, CachedFile, Fingerprint},
};

/// The most names of one directory, which is listed whole.
const MAX_NAMES: usize = 1 << 21;

/// Directories that stay open until the walk comes to them; others are opened again.
const MAX_OPEN: usize = 128;

/// Files that were listed and will be read: what the file system told of them, as short hashes.
#[derive(Debug, Default)]
pub(super) struct Pending {
    hasher: RandomState,
    files: HashMap<u64, u64>,
}

impl Pending {
    fn insert(&mut self, path: &[u8], found: &Found) {
        let state = self.state(found);
        self.files.insert(self.hasher.hash_one(path), state);
    }

    /// Returns whether a file is what was listed under this path, and forgets it.
    pub(super) fn take(&mut self, path: &[u8], found: &Found) -> bool {
        let state = self.state(found);
        self.files.remove(&self.hasher.hash_one(path)) == Some(state)
    }

    fn state(&self, found: &Found) -> u64 {
        self.hasher.hash_one((found.device, fingerprint(found)))
    }
}

/// One walk.
pub(super) struct Walker {
    pub(super) root: Arc<OwnedFd>,
    /// What makes numbers of hard links the source's own; `None` if the tree is whole.
    pub(super) seed: Option<String>,
    pub(super) exclude: BTreeSet<TreePath>,
    pub(super) entries_left: u64,
    pub(super) max_entries: u64,
    pub(super) cache: Option<CacheReader>,
    pub(super) shared: Arc<Mutex<Shared>>,
    pub(super) kept_open: usize,
}

/// A directory that was listed in its parent and is to be walked.
struct Below {
    path: TreePath,
    open: Option<OwnedFd>,
    complete: bool,
}

/// What becomes of one name.
enum Fate {
    Kept(SourceKind, Found, Option<Below>),
    Removed,
    Skipped(SkipReason),
}

type Sender = mpsc::Sender<Result<Vec<Listing>, SourceError>>;

/// Names in the listings that are put together before they are handed on: to wake who takes them costs more than to list a
/// small directory.
const BATCH_NAMES: usize = 256;

impl Walker {
    /// Walks from an open root and sends the listings, until all is sent or nobody takes them.
    pub(super) fn run(mut self, root: OwnedFd, sender: &Sender) {
        let complete = self.seed.is_none() || attributes::is_opaque(&root);
        // The next one last.
        let mut stack = vec![Below { path: TreePath::root(), open: Some(root), complete }];
        self.kept_open = 1;
        let (mut batch, mut names) = (Vec::new(), 0);
        while let Some(below) = stack.pop() {
            let listed = self.list(below, &mut stack).map(|listing| {
                names += 1 + listing.entries.len();
                batch.push(listing);
            });
            if listed.is_ok() && names < BATCH_NAMES && !stack.is_empty() {
                continue;
            }
            names = 0;
            // Nobody may be there to take it.
            let mut sent = sender.blocking_send(Ok(std::mem::take(&mut batch))).is_ok();
            if let Err(error) = listed {
                // It may go unheard, for the same reason.
                let _ = sender.blocking_send(Err(error));
                sent = false;
            }
            if !sent {
                // A memory of half a tree is none.
                lock(&self.shared).writer = None;
                return;
            }
        }
    }

    fn is_upper(&self) -> bool {
        self.seed.is_some()
    }

    fn list(&mut self, below: Below, stack: &mut Vec<Below>) -> Result<Listing, SourceError> {
        let Below { path, open, complete } = below;
        let failed = |error: Errno| SourceError::List { path: path.clone(), source: error.into() };
        let mut listing = Listing {
            path: path.clone(),
            entries: Vec::new(),
            removed: Vec::new(),
            complete,
            skipped: Vec::new(),
        };
        self.kept_open -= usize::from(open.is_some());
        let opened = match open {
            Some(open) => Ok(open),
            None => confined::open_directory(self.root.as_fd(), path.as_bytes()),
        };
        let names = opened.and_then(|directory| {
            let names = confined::names(&directory, MAX_NAMES)?;
            Ok((directory, names))
        });
        let (directory, names) = match names {
            Ok((directory, Some(names))) => (directory, names),
            Ok((_, None)) => {
                let what = "the number of names in one directory";
                return Err(SourceError::TooLarge { what, limit: MAX_NAMES as u64 });
            }
            // Removed since it was listed: then there is nothing in it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !path.is_root() => {
                return Ok(listing);
            }
            Err(error) => return Err(failed(error)),
        };
        let mut known = match &mut self.cache {
            Some(cache) => cache.directory(path.as_bytes()),
            None => Vec::new(),
        }
        .into_iter()
        .peekable();
        let mut seen = Vec::new();
        let mut read = Vec::new();
        let mut subdirectories = Vec::new();
        listing.entries.reserve(names.len());
        for name in names {
            self.entries_left = self.entries_left.checked_sub(1).ok_or(SourceError::TooLarge {
                what: "the number of entries in the tree",
                limit: self.max_entries,
            })?;
            // The kernel gives no name that is none.
            let Ok(name) = Name::new(name) else {
                continue;
            };
            let inner = path.join(&name);
            match self.look(directory.as_fd(), &name, &inner, complete).map_err(failed)? {
                Fate::Removed if complete => {}
                Fate::Removed => listing.removed.push(name),
                Fate::Skipped(reason) => listing.skipped.push((name, reason)),
                Fate::Kept(mut kind, found, below) => {
                    let mut metadata = found.metadata();
                    if let SourceKind::File { unchanged, .. } = &mut kind {
                        let fingerprint = fingerprint(&found);
                        while known.next_if(|file| *file.name < *name.as_bytes()).is_some() {}
                        let same = known.next_if(|file| {
                            *file.name == *name.as_bytes() && file.fingerprint == fingerprint
                        });
                        *unchanged = same.is_some();
                        let file_name = Box::from(name.as_bytes());
                        let xattrs = match same {
                            Some(file) => file.xattrs,
                            None => {
                                read.push((inner, found));
                                // The reader sees them; of other names of a file nothing more is read.
                                if found.links > 1 {
                                    of_file(directory.as_fd(), &name)
                                } else {
                                    Vec::new()
                                }
                            }
                        };
                        metadata.xattrs.clone_from(&xattrs);
                        seen.push(CachedFile { name: file_name, fingerprint, xattrs });
                    }
                    if let Some(mut below) = below {
                        metadata.xattrs = below
                            .open
                            .as_ref()
                            .map(attributes::read)
                            .and_then(Result::ok)
                            .unwrap_or_default();
                        if self.kept_open < MAX_OPEN {
                            self.kept_open += 1;
                        } else {
                            below.open = None;
                        }
                        subdirectories.push(below);
                    }
                    listing.entries.push(SourceEntry { name, metadata, kind });
                }
            }
        }
        stack.extend(subdirectories.into_iter().rev());
        let mut shared = lock(&self.shared);
        for (path, found) in read {
            shared.pending.insert(path.as_bytes(), &found);
        }
        if let Some(writer) = &mut shared.writer
            && let Err(error) = writer.directory(path.as_bytes(), &seen)
        {
            tracing::warn!(%error, "cannot remember what a walk sees");
            shared.writer = None;
        }
        Ok(listing)
    }

    /// Looks at one name.
    fn look(
        &self,
        directory: BorrowedFd<'_>,
        name: &Name,
        path: &TreePath,
        complete: bool,
    ) -> Result<Fate, Errno> {
        if self.exclude.contains(path) {
            return Ok(Fate::Skipped(SkipReason::Excluded));
        }
        if path.as_bytes().len() > MAX_PATH {
            let why = format!("its path is longer than {MAX_PATH} bytes");
            return Ok(Fate::Skipped(SkipReason::Unsupported(why)));
        }
        let found = match confined::describe_name(directory, name.as_bytes()) {
            Ok(found) => found,
            Err(error) => return not_there(error),
        };
        if found.is_mount {
            return Ok(Fate::Skipped(SkipReason::Mount));
        }
        Ok(match found.kind {
            FileType::RegularFile => {
                let link_group = (found.links > 1).then(|| self.link_group(&found));
                let kind = SourceKind::File { size: found.size, unchanged: false, link_group };
                Fate::Kept(kind, found, None)
            }
            FileType::Directory if path.names().count() >= MAX_DEPTH => {
                let why = format!("it is deeper than {MAX_DEPTH} directories");
                Fate::Skipped(SkipReason::Unsupported(why))
            }
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
                let open = match confined::open(directory, name.as_bytes(), flags, Mode::empty()) {
                    Ok(open) => open,
                    Err(error) => return not_there(error),
                };
                // What is new inside a directory that hides all below has nothing below either.
                let complete = complete || attributes::is_opaque(&open);
                let below = Below { path: path.clone(), open: Some(open), complete };
                Fate::Kept(SourceKind::Directory, found, Some(below))
            }
            FileType::Symlink => {
                match rustix::fs::readlinkat(directory, name.as_bytes(), Vec::new()) {
                    Ok(target) => {
                        let target = target.into_bytes();
                        Fate::Kept(SourceKind::SymbolicLink { target }, found, None)
                    }
                    Err(error) => return not_there(error),
                }
            }
            FileType::CharacterDevice if self.is_upper() && found.special == (0, 0) => {
                Fate::Removed
            }
            _ => Fate::Skipped(SkipReason::Special),
        })
    }

    /// Returns a number that all names of a file have, and no other file of this source.
    fn link_group(&self, found: &Found) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.seed.as_deref().unwrap_or_default().as_bytes());
        for number in [found.device.0.into(), found.device.1.into(), found.inode] {
            hasher.update(&u64::to_le_bytes(number));
        }
        let mut short = [0; 8];
        short.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_le_bytes(short)
    }
}

pub(super) fn fingerprint(found: &Found) -> Fingerprint {
    Fingerprint {
        inode: found.inode,
        size: found.size,
        modified_ns: found.modified_ns,
        changed_ns: found.changed_ns,
        mode: found.mode,
    }
}

/// Says why a name cannot be kept, unless the failure is that of more than one.
fn not_there(error: Errno) -> Result<Fate, Errno> {
    Ok(Fate::Skipped(match error {
        // Renamed, removed or replaced since the directory was read.
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::INVAL => SkipReason::Vanished,
        Errno::XDEV => SkipReason::Mount,
        Errno::ACCESS | Errno::PERM => SkipReason::Unreadable(error.to_string()),
        Errno::NAMETOOLONG => SkipReason::Unsupported(error.to_string()),
        other => return Err(other),
    }))
}

/// Reads the attributes of a file by its name; of one that cannot be opened there are none.
fn of_file(directory: BorrowedFd<'_>, name: &Name) -> Vec<crate::node::Xattr> {
    confined::open_file(directory, name.as_bytes())
        .ok()
        .and_then(|(file, _)| attributes::read(file).ok())
        .unwrap_or_default()
}
