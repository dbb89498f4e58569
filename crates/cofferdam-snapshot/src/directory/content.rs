//! Reading what files hold: whole, as of one moment, with their holes.

use std::{
    fs::File,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::FileExt as _,
    },
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::BytesMut;
use rustix::{fs::SeekFrom, io::Errno};
use tokio::sync::mpsc;

use super::{
    attributes, confined,
    confined::Found,
    source::{Shared, lock},
};
use crate::{
    path::TreePath,
    source::{Content, FileEnd, SkipReason, SourceError, Wanted},
    stat_cache::Note,
};

/// Bytes of a large file in one piece.
const PIECE: usize = 256 << 10;

/// Bytes and pieces that are put together before they are handed on.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_PIECES: usize = 256;

/// How often a file that changes is read, and how long the reader waits before each time but the first.
const PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(5), Duration::from_millis(25)];

type Sender = mpsc::Sender<Result<Vec<Content>, SourceError>>;

/// Reads files one after the other and hands on what is in them.
pub(super) struct Reader {
    root: Arc<OwnedFd>,
    shared: Arc<Mutex<Shared>>,
    sender: Sender,
    batch: Vec<Content>,
    batch_bytes: usize,
}

/// Why reading stops.
enum Stop {
    /// Nobody takes it any more.
    Dropped,
    /// The file is not as it was when it was opened.
    Changed,
    Failed(Errno),
}

impl From<Errno> for Stop {
    fn from(error: Errno) -> Self {
        Self::Failed(error)
    }
}

impl Reader {
    pub(super) fn new(root: Arc<OwnedFd>, shared: Arc<Mutex<Shared>>, sender: Sender) -> Self {
        Self { root, shared, sender, batch: Vec::new(), batch_bytes: 0 }
    }

    /// Reads files until all are read or nobody takes them.
    pub(super) fn run(&mut self, files: &[Wanted]) {
        for wanted in files {
            match self.file(&wanted.path) {
                Ok(()) => {}
                Err(Stop::Failed(error)) => {
                    let path = wanted.path.clone();
                    let failure = SourceError::Read { path, source: error.into() };
                    let sent = self.flush().is_ok();
                    if sent {
                        // Nobody may be there to hear it.
                        let _ = self.sender.blocking_send(Err(failure));
                    }
                    return;
                }
                Err(_) => return,
            }
        }
        // As above.
        let _ = self.flush();
    }

    fn file(&mut self, path: &TreePath) -> Result<(), Stop> {
        for (attempt, pause) in PAUSES.into_iter().enumerate() {
            if attempt > 0 {
                self.push(Content::Again, 0)?;
                self.flush()?;
                std::thread::sleep(pause);
            }
            match self.attempt(path) {
                Err(Stop::Changed) => {}
                Err(Stop::Failed(error)) => match why_skipped(error) {
                    Some(reason) => return self.skip(path, reason),
                    None => return Err(error.into()),
                },
                result => return result,
            }
        }
        self.push(Content::Again, 0)?;
        self.skip(path, SkipReason::Unstable)
    }

    /// Reads a file once.
    fn attempt(&mut self, path: &TreePath) -> Result<(), Stop> {
        let (file, before) = match confined::open_file(self.root.as_fd(), path.as_bytes()) {
            Ok(opened) => opened,
            // A directory, pipe or device has taken the name of the file that was listed.
            Err(None) => return Err(Errno::NOENT.into()),
            Err(Some(error)) => return Err(error.into()),
        };
        let file = File::from(file);
        let xattrs = match attributes::read(&file) {
            Ok(xattrs) => xattrs,
            Err(None) => {
                let why = "it has more extended attributes than are kept".to_owned();
                return self.skip(path, SkipReason::Unsupported(why));
            }
            Err(Some(error)) => return Err(error.into()),
        };
        if before.occupied < before.size && before.size > PIECE as u64 {
            self.pieces_between_holes(&file, &before)?;
        } else {
            self.pieces(&file, 0, before.size)?;
        }
        let after = confined::describe(&file)?;
        if !after.is_same(&before) {
            return Err(Stop::Changed);
        }
        let mut metadata = after.metadata();
        metadata.xattrs.clone_from(&xattrs);
        {
            let mut shared = lock(&self.shared);
            if !shared.pending.take(path.as_bytes(), &after) {
                shared.notes.push((path.as_bytes().to_vec(), Note::Distrust));
            } else if !xattrs.is_empty() {
                shared.notes.push((path.as_bytes().to_vec(), Note::Xattrs(xattrs)));
            }
        }
        self.push(Content::End(FileEnd::Whole(metadata)), 0)
    }

    fn skip(&mut self, path: &TreePath, reason: SkipReason) -> Result<(), Stop> {
        // It is not in the snapshot, so that the next may not say that it is as there.
        lock(&self.shared).notes.push((path.as_bytes().to_vec(), Note::Distrust));
        self.push(Content::End(FileEnd::Skipped(reason)), 0)
    }

    /// Reads from one place to another.
    fn pieces(&mut self, file: &File, from: u64, to: u64) -> Result<(), Stop> {
        let mut at = from;
        while at < to {
            let length = usize::try_from(to - at).map_or(PIECE, |left| left.min(PIECE));
            let mut piece = BytesMut::zeroed(length);
            match file.read_exact_at(&mut piece, at) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Err(Stop::Changed);
                }
                Err(error) => {
                    let number = error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
                    return Err(number.into());
                }
            }
            at += length as u64;
            self.push(Content::Data(piece.freeze()), length)?;
        }
        Ok(())
    }

    fn pieces_between_holes(&mut self, file: &File, found: &Found) -> Result<(), Stop> {
        let mut at = 0;
        while at < found.size {
            let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
                Ok(data) => data.min(found.size),
                // Nothing but a hole up to the end.
                Err(Errno::NXIO) => found.size,
                // This file system cannot tell.
                Err(Errno::INVAL) => return self.pieces(file, at, found.size),
                Err(error) => return Err(error.into()),
            };
            if data > at {
                self.push(Content::Hole(data - at), 0)?;
            }
            if data == found.size {
                break;
            }
            let hole = rustix::fs::seek(file, SeekFrom::Hole(data))?.min(found.size);
            self.pieces(file, data, hole)?;
            at = hole;
        }
        Ok(())
    }

    fn push(&mut self, content: Content, bytes: usize) -> Result<(), Stop> {
        self.batch.push(content);
        self.batch_bytes += bytes;
        if self.batch_bytes >= BATCH_BYTES || self.batch.len() >= BATCH_PIECES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Stop> {
        self.batch_bytes = 0;
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        self.sender.blocking_send(Ok(batch)).map_err(|_| Stop::Dropped)
    }
}

/// Says why one file cannot be read; `None` if the failure concerns more than one.
fn why_skipped(error: Errno) -> Option<SkipReason> {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ISDIR | Errno::NXIO | Errno::STALE => {
            Some(SkipReason::Vanished)
        }
        Errno::XDEV => Some(SkipReason::Mount),
        Errno::ACCESS | Errno::PERM => Some(SkipReason::Unreadable(error.to_string())),
        Errno::NAMETOOLONG => Some(SkipReason::Unsupported(error.to_string())),
        _ => None,
    }
}
