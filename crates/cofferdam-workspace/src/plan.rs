//! [`Plan`]: everything that will be uploaded, checked before the first byte is sent, and then sent as one stream.

use std::{
    collections::HashMap,
    fs::File,
    io::Read,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{SandboxError, TreeEntry, TreeEntryKind, TreeEvent};
use rustix::io::Errno;
use tokio::sync::mpsc;

use crate::{HostFileError, MaterializeError, MaterializedEntry, beneath, host_file::shown};

/// Bytes of one piece of content.
const PIECE_BYTES: usize = 128 << 10;

/// What is sent, in order.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    steps: Vec<Step>,
    /// What each path of the workspace will be, and the entry that says so.
    places: HashMap<Vec<u8>, (Kind, usize)>,
    receipts: Vec<MaterializedEntry>,
    /// Directories that get their true mode last, since they do not let their owner write.
    closing: Vec<(Vec<u8>, u32)>,
}

#[derive(Debug)]
struct Step {
    /// Index of the receipt; `None` for a directory between entries.
    receipt: Option<usize>,
    /// Path in the workspace.
    path: Vec<u8>,
    /// Path relative to the entry, for the digest.
    relative: usize,
    mode: u32,
    modified_ns: Option<i64>,
    content: Content,
}

/// What an item is and where its content comes from.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    Directory,
    Link {
        target: Vec<u8>,
    },
    Inline(Bytes),
    /// A file of the host beneath a directory, read when its turn comes; `follow` tells whether links that stay
    /// beneath it are followed on the way.
    Host {
        root: Arc<OwnedFd>,
        path: Vec<u8>,
        size: u64,
        follow: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Link,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::File => "file",
            Self::Link => "link",
        }
    }
}

impl Content {
    fn kind(&self) -> Kind {
        match self {
            Self::Directory => Kind::Directory,
            Self::Link { .. } => Kind::Link,
            Self::Inline(_) | Self::Host { .. } => Kind::File,
        }
    }

    fn size(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Host { size, .. } => *size,
            Self::Directory | Self::Link { .. } => 0,
        }
    }
}

/// One item of an entry, with its path relative to the entry.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) path: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) modified_ns: Option<i64>,
    pub(crate) content: Content,
}

impl Plan {
    /// Adds an entry with its items, parents before what is in them; an empty item path is the entry itself.
    pub(crate) fn add(
        &mut self,
        mut receipt: MaterializedEntry,
        items: Vec<Item>,
    ) -> Result<(), MaterializeError> {
        let place = receipt.path.clone();
        let index = self.receipts.len();
        self.add_parents(&place, index)?;
        for item in items {
            match item.content.kind() {
                Kind::Directory => receipt.directories += 1,
                Kind::File => receipt.files += 1,
                Kind::Link => receipt.links += 1,
            }
            receipt.bytes += item.content.size();
            let path = join(&place, &item.path);
            self.claim(&path, item.content.kind(), index, &place)?;
            let mut mode = item.mode;
            if item.content.kind() == Kind::Directory && mode & 0o700 != 0o700 {
                self.closing.push((path.clone(), mode));
                mode |= 0o700;
            }
            self.steps.push(Step {
                receipt: Some(index),
                relative: path.len() - item.path.len(),
                path,
                mode,
                modified_ns: item.modified_ns,
                content: item.content,
            });
        }
        self.receipts.push(receipt);
        Ok(())
    }

    /// Adds the directories above an entry that no entry has made.
    fn add_parents(&mut self, place: &WorkspacePath, index: usize) -> Result<(), MaterializeError> {
        let mut above = Vec::new();
        let mut next = place.parent();
        while let Some(parent) = next.filter(|parent| !parent.is_root()) {
            next = parent.parent();
            above.push(parent);
        }
        for parent in above.into_iter().rev() {
            let path = parent.as_str().as_bytes().to_vec();
            if self.places.get(&path).is_some_and(|(kind, _)| *kind == Kind::Directory) {
                continue;
            }
            self.claim(&path, Kind::Directory, index, place)?;
            self.steps.push(Step {
                receipt: None,
                relative: path.len(),
                path,
                mode: 0o755,
                modified_ns: None,
                content: Content::Directory,
            });
        }
        Ok(())
    }

    /// Notes what a path will be. A file or link may be replaced by another; a directory only by a directory.
    fn claim(
        &mut self,
        path: &[u8],
        kind: Kind,
        index: usize,
        entry: &WorkspacePath,
    ) -> Result<(), MaterializeError> {
        if let Some((found, other)) = self.places.get(path)
            && (*found == Kind::Directory) != (kind == Kind::Directory)
        {
            let other = self.receipts.get(*other).map_or_else(|| entry.clone(), |r| r.path.clone());
            return Err(MaterializeError::Conflict {
                entry: entry.clone(),
                other,
                path: shown(path),
                found: found.name(),
                wanted: kind.name(),
            });
        }
        self.places.insert(path.to_vec(), (kind, index));
        Ok(())
    }

    /// Sends everything in order; blocks on a slow reader. Returns the receipts with their digests.
    ///
    /// Stops quietly when the reader is gone: the reader knows why.
    pub(crate) fn send(
        self,
        events: &mpsc::Sender<Result<TreeEvent, SandboxError>>,
    ) -> Result<Vec<MaterializedEntry>, MaterializeError> {
        let mut receipts = self.receipts;
        let mut digests: Vec<blake3::Hasher> =
            receipts.iter().map(|_| blake3::Hasher::new()).collect();
        for step in self.steps {
            let entry = step.receipt.map(|index| receipts[index].path.clone());
            let hasher = step.receipt.map(|index| &mut digests[index]);
            if step.send(entry.as_ref(), hasher, events)?.is_none() {
                return Ok(receipts);
            }
        }
        for (path, mode) in self.closing.into_iter().rev() {
            let kind = TreeEntryKind::Directory;
            let entry = TreeEntry { path, mode, modified_ns: None, kind };
            if events.blocking_send(Ok(TreeEvent::Entry(entry))).is_err() {
                return Ok(receipts);
            }
        }
        for (receipt, digest) in receipts.iter_mut().zip(digests) {
            receipt.digest = digest.finalize().to_hex().to_string();
        }
        Ok(receipts)
    }
}

impl Step {
    /// Sends one item; `None` if the reader is gone.
    fn send(
        self,
        entry: Option<&WorkspacePath>,
        mut hasher: Option<&mut blake3::Hasher>,
        events: &mpsc::Sender<Result<TreeEvent, SandboxError>>,
    ) -> Result<Option<()>, MaterializeError> {
        let send = |event| events.blocking_send(Ok(event)).ok();
        let mut digest = |bytes: &[u8]| {
            if let Some(hasher) = &mut hasher {
                hasher.update(bytes);
            }
        };
        let (mark, size, kind) = match &self.content {
            Content::Directory => (b"d", 0, TreeEntryKind::Directory),
            Content::Link { target } => {
                (b"l", target.len() as u64, TreeEntryKind::Link { target: target.clone() })
            }
            file => (b"f", file.size(), TreeEntryKind::File { size: file.size() }),
        };
        let relative = &self.path[self.relative..];
        digest(mark);
        digest(&u64::from(self.mode).to_le_bytes());
        digest(&(relative.len() as u64).to_le_bytes());
        digest(relative);
        digest(&size.to_le_bytes());
        let name = shown(relative);
        let tree_entry =
            TreeEntry { path: self.path, mode: self.mode, modified_ns: self.modified_ns, kind };
        if send(TreeEvent::Entry(tree_entry)).is_none() {
            return Ok(None);
        }
        match self.content {
            Content::Directory => {}
            Content::Link { target } => digest(&target),
            Content::Inline(bytes) => {
                digest(&bytes);
                for start in (0..bytes.len()).step_by(PIECE_BYTES) {
                    let piece = bytes.slice(start..bytes.len().min(start + PIECE_BYTES));
                    if send(TreeEvent::Content(piece)).is_none() {
                        return Ok(None);
                    }
                }
            }
            Content::Host { root, path, size, follow } => {
                let changed = || MaterializeError::Changed {
                    entry: entry.cloned().unwrap_or_else(WorkspacePath::root),
                    path: name.clone(),
                };
                let failed =
                    |source| HostFileError { operation: "read", path: shown(&path), source };
                let path = Path::new(std::ffi::OsStr::from_bytes(&path));
                let mut file = if follow {
                    beneath::open_following(&*root, path).map(File::from)
                } else {
                    beneath::open_strict(&*root, path)
                }
                .map_err(|error| match error.raw_os_error() {
                    Some(errno) if errno == Errno::ACCESS.raw_os_error() => failed(error).into(),
                    _ => changed(),
                })?;
                let metadata = file.metadata().map_err(failed)?;
                if !metadata.is_file() || metadata.len() != size {
                    return Err(changed());
                }
                let mut rest = size;
                while rest > 0 {
                    let piece = read_piece(&mut file, rest).map_err(failed)?;
                    if piece.is_empty() {
                        return Err(changed());
                    }
                    rest -= piece.len() as u64;
                    digest(&piece);
                    if send(TreeEvent::Content(piece)).is_none() {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(Some(()))
    }
}

/// Reads the next piece of a file, at most `rest` bytes; an empty piece is its end.
fn read_piece(file: &mut File, rest: u64) -> std::io::Result<Bytes> {
    let size = usize::try_from(rest).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
    let mut piece = Vec::with_capacity(size);
    file.take(size as u64).read_to_end(&mut piece)?;
    Ok(piece.into())
}

fn join(place: &WorkspacePath, relative: &[u8]) -> Vec<u8> {
    let mut path = if place.is_root() { Vec::new() } else { place.as_str().as_bytes().to_vec() };
    if !path.is_empty() && !relative.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(relative);
    path
}
