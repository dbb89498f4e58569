//! [`HostTree`]: a directory of the host that takes trees as a sandbox does, for workspaces to begin with.

use std::{
    ffi::OsStr,
    fs::{DirBuilder, File},
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::DirBuilderExt},
    },
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::{
    WorkspacePath,
    workspace_path::{MAX_COMPONENT_BYTES, MAX_PATH_BYTES},
};
use cofferdam_sandbox::{DownloadOptions, SandboxError, Tree, TreeEntry, TreeEntryKind, TreeEvent};
use futures::{StreamExt, stream::BoxStream};
use rustix::{
    fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT},
    io::Errno,
};
use tokio::sync::mpsc;

use crate::{HostFileError, beneath, host_file::shown};

/// Pieces of a stream that wait for a slow disk.
const WAITING_PIECES: usize = 8;
/// What a mode may hold; set-id bits are dropped.
const MODE_BITS: u32 = 0o1777;

/// A private directory of the host that trees are uploaded into, with the rules of [`Tree::upload`]. It takes nothing out
/// again: whoever made it reads it as what it is, a directory.
///
/// Nothing leaves the directory, whatever a path says: each is opened beneath it, through no link.
#[derive(Debug)]
pub struct HostTree {
    directory: PathBuf,
    limits: HostTreeLimits,
}

/// Bounds on what a [`HostTree`] takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostTreeLimits {
    /// Bytes of content. Default 1 GiB.
    pub max_bytes: u64,
    /// Entries. Default 200 000.
    pub max_entries: u64,
}

impl Default for HostTreeLimits {
    fn default() -> Self {
        Self { max_bytes: 1 << 30, max_entries: 200_000 }
    }
}

impl HostTree {
    /// Makes the directory, for nobody but the user of this process; it must not be there.
    ///
    /// # Errors
    ///
    /// [`HostFileError`] if it cannot be made.
    pub fn create(
        directory: impl Into<PathBuf>,
        limits: HostTreeLimits,
    ) -> Result<Self, HostFileError> {
        let directory = directory.into();
        DirBuilder::new().mode(0o700).create(&directory).map_err(|source| HostFileError {
            operation: "make",
            path: directory.display().to_string(),
            source,
        })?;
        Ok(Self { directory, limits })
    }

    /// Returns the directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

#[async_trait]
impl Tree for HostTree {
    async fn upload(
        &self,
        target: &WorkspacePath,
        mut entries: BoxStream<'static, Result<TreeEvent, SandboxError>>,
    ) -> Result<u64, SandboxError> {
        let (sender, mut receiver) = mpsc::channel::<TreeEvent>(WAITING_PIECES);
        let (directory, limits, target) = (self.directory.clone(), self.limits, target.clone());
        let writing = tokio::task::spawn_blocking(move || {
            let mut writer = Writer::open(&directory, &target, limits)?;
            while let Some(event) = receiver.blocking_recv() {
                writer.take(event)?;
            }
            Ok::<_, SandboxError>(writer)
        });
        let mut outcome = Ok(());
        while let Some(event) = entries.next().await {
            match event {
                // A writer that is gone says why below.
                Ok(event) => {
                    if sender.send(event).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        drop(sender);
        let writer = writing.await.map_err(|error| SandboxError::Host {
            operation: "write a tree to a directory",
            source: Box::new(error),
        })??;
        outcome?;
        // Only now: a stream that failed has not ended.
        tokio::task::spawn_blocking(move || writer.finish()).await.map_err(|error| {
            SandboxError::Host { operation: "finish a tree", source: Box::new(error) }
        })?
    }

    async fn download(
        &self,
        _: &WorkspacePath,
        _: &DownloadOptions,
    ) -> Result<BoxStream<'static, Result<TreeEvent, SandboxError>>, SandboxError> {
        Err(SandboxError::Unsupported { backend: "host directory's", operation: "downloads" })
    }
}

/// A tree being made.
#[derive(Debug)]
struct Writer {
    root: OwnedFd,
    limits: HostTreeLimits,
    entries: u64,
    bytes: u64,
    open: Option<OpenFile>,
    /// The directory of the last entry, since files of one directory come together.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Set at the end: a directory may be read-only, and filling it changes its time.
    directories: Vec<(Vec<u8>, u32, Option<i64>)>,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    path: Vec<u8>,
    mode: u32,
    modified_ns: Option<i64>,
    rest: u64,
}

impl Writer {
    fn open(
        directory: &Path,
        target: &WorkspacePath,
        limits: HostTreeLimits,
    ) -> Result<Self, SandboxError> {
        let path = target.as_str().as_bytes();
        let root = beneath::open_root(directory).map_err(refused("open", path))?;
        let mut writer = Self {
            root,
            limits,
            entries: 0,
            bytes: 0,
            open: None,
            parent: None,
            directories: Vec::new(),
        };
        if !target.is_root() {
            writer.make_path(path)?;
            writer.root = beneath::open_directory(&writer.root, Path::new(OsStr::from_bytes(path)))
                .map_err(refused("open", path))?;
        }
        Ok(writer)
    }

    fn take(&mut self, event: TreeEvent) -> Result<(), SandboxError> {
        match event {
            TreeEvent::Entry(entry) => {
                self.whole()?;
                self.entries += 1;
                if self.entries > self.limits.max_entries {
                    return Err(full(&entry.path, "more entries than it may have"));
                }
                check(&entry.path)?;
                self.make(entry)
            }
            TreeEvent::Content(bytes) => self.content(&bytes),
            _ => Ok(()),
        }
    }

    /// Sets what had to wait, and returns the number of entries.
    fn finish(mut self) -> Result<u64, SandboxError> {
        self.whole()?;
        for (path, mode, modified_ns) in std::mem::take(&mut self.directories).into_iter().rev() {
            let place = Path::new(OsStr::from_bytes(&path));
            let set = || -> io::Result<()> {
                let directory = beneath::open_directory(&self.root, place)?;
                rustix::fs::fchmod(&directory, Mode::from_bits_truncate(mode & MODE_BITS))?;
                Ok(rustix::fs::futimens(&directory, &times(modified_ns))?)
            };
            set().map_err(refused("set the mode of", &path))?;
        }
        Ok(self.entries)
    }

    /// Demands that the last file has all of its content.
    fn whole(&self) -> Result<(), SandboxError> {
        match &self.open {
            None => Ok(()),
            Some(open) => Err(unsound(&open.path, "it ends before its size")),
        }
    }

    fn make(&mut self, entry: TreeEntry) -> Result<(), SandboxError> {
        let TreeEntry { path, mode, modified_ns, kind } = entry;
        match kind {
            TreeEntryKind::Directory => {
                self.make_path(&path)?;
                self.directories.push((path, mode, modified_ns));
                Ok(())
            }
            TreeEntryKind::File { size } => {
                self.bytes = self.bytes.saturating_add(size);
                if self.bytes > self.limits.max_bytes {
                    return Err(full(&path, "more bytes than it may have"));
                }
                let (parent, name) = self.free_name(&path)?;
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let file = rustix::fs::openat(parent, name, flags, Mode::from_bits_truncate(0o600))
                    .map_err(|error| refused("make", &path)(error.into()))?;
                self.open =
                    Some(OpenFile { file: file.into(), path, mode, modified_ns, rest: size });
                if size == 0 { self.close() } else { Ok(()) }
            }
            TreeEntryKind::Link { target } => {
                let (parent, name) = self.free_name(&path)?;
                rustix::fs::symlinkat(OsStr::from_bytes(&target), &parent, name)
                    .and_then(|()| {
                        let flags = AtFlags::SYMLINK_NOFOLLOW;
                        rustix::fs::utimensat(&parent, name, &times(modified_ns), flags)
                    })
                    .map_err(|error| refused("make", &path)(error.into()))
            }
            TreeEntryKind::HardLink { to } => {
                check(&to)?;
                let (above, name) = split(&to);
                let from = self.parent_directory(above)?;
                let (parent, new) = self.free_name(&path)?;
                rustix::fs::linkat(&from, name, &parent, new, AtFlags::empty())
                    .map_err(|error| refused("link", &path)(error.into()))
            }
            _ => Err(unsound(&path, "it is of a kind that is not known here")),
        }
    }

    fn content(&mut self, bytes: &Bytes) -> Result<(), SandboxError> {
        let Some(open) = &mut self.open else {
            return if bytes.is_empty() { Ok(()) } else { Err(unsound(b"", "content of no file")) };
        };
        open.rest = open
            .rest
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| unsound(&open.path, "it goes on after its size"))?;
        open.file.write_all(bytes).map_err(refused("write", &open.path))?;
        if open.rest == 0 { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> Result<(), SandboxError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let mode = Mode::from_bits_truncate(open.mode & MODE_BITS);
        rustix::fs::fchmod(&open.file, mode)
            .and_then(|()| rustix::fs::futimens(&open.file, &times(open.modified_ns)))
            .map_err(|error| refused("write", &open.path)(error.into()))
    }

    /// Opens the directory that a path belongs into, and removes the file or link that is in its place.
    fn free_name<'p>(&mut self, path: &'p [u8]) -> Result<(OwnedFd, &'p OsStr), SandboxError> {
        let (above, name) = split(path);
        let parent = self.parent_directory(above)?;
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok((parent, name)),
            Err(error) => Err(refused("replace", path)(error.into())),
        }
    }

    fn parent_directory(&mut self, path: &[u8]) -> Result<OwnedFd, SandboxError> {
        let failed = refused("open", path);
        if let Some((last, directory)) = &self.parent
            && last == path
        {
            return directory.try_clone().map_err(failed);
        }
        let place = Path::new(OsStr::from_bytes(path));
        let directory = match beneath::open_directory(&self.root, place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_path(path)?;
                beneath::open_directory(&self.root, place).map_err(failed)?
            }
            found => found.map_err(failed)?,
        };
        self.parent = Some((path.to_vec(), directory.try_clone().map_err(refused("open", path))?));
        Ok(directory)
    }

    /// Makes a directory and those above it; one that is there is kept, a file or link in its place is replaced.
    fn make_path(&mut self, path: &[u8]) -> Result<(), SandboxError> {
        let mut above = rustix::io::dup(self.root.as_fd())
            .map_err(|error| refused("open", path)(error.into()))?;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let name = Path::new(OsStr::from_bytes(name));
            let made = |parent: &OwnedFd| match rustix::fs::mkdirat(
                parent,
                name,
                Mode::from_bits_truncate(0o755),
            ) {
                Ok(()) | Err(Errno::EXIST) => Ok(beneath::open_directory(parent, name)?),
                Err(error) => Err(io::Error::from(error)),
            };
            above = match made(&above) {
                Err(error)
                    if matches!(
                        Errno::from_io_error(&error),
                        Some(Errno::NOTDIR | Errno::LOOP)
                    ) =>
                {
                    rustix::fs::unlinkat(&above, name, AtFlags::empty())
                        .map_err(|error| refused("replace", path)(error.into()))?;
                    made(&above)
                }
                result => result,
            }
            .map_err(refused("make", path))?;
        }
        Ok(())
    }
}

/// Splits a path into the directory and the name in it.
fn split(path: &[u8]) -> (&[u8], &OsStr) {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    let (above, name) = slash.map_or((&[][..], path), |at| (&path[..at], &path[at + 1..]));
    (above, OsStr::from_bytes(name))
}

/// Refuses what is no plain path inside.
fn check(path: &[u8]) -> Result<(), SandboxError> {
    let sound = path.split(|byte| *byte == b'/').all(|name| {
        !matches!(name, b"" | b"." | b"..")
            && name.len() <= MAX_COMPONENT_BYTES
            && !name.contains(&0)
    });
    if path.is_empty() || (sound && path.len() <= MAX_PATH_BYTES) {
        return Ok(());
    }
    Err(unsound(path, "it is no path inside of a workspace"))
}

fn times(modified_ns: Option<i64>) -> Timestamps {
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let modified = modified_ns.map_or(omit, |ns| Timespec {
        tv_sec: ns.div_euclid(1_000_000_000),
        tv_nsec: ns.rem_euclid(1_000_000_000),
    });
    Timestamps { last_access: omit, last_modification: modified }
}

fn refused<'p>(
    operation: &'static str,
    path: &'p [u8],
) -> impl Fn(io::Error) -> SandboxError + use<'p> {
    move |error| SandboxError::File {
        operation,
        path: shown(path),
        reason: error.to_string(),
        errno: error.raw_os_error().unwrap_or_default(),
    }
}

fn unsound(path: &[u8], reason: &str) -> SandboxError {
    let (reason, errno) = (reason.to_owned(), Errno::INVAL.raw_os_error());
    SandboxError::File { operation: "make", path: shown(path), reason, errno }
}

fn full(path: &[u8], reason: &str) -> SandboxError {
    let (reason, errno) = (reason.to_owned(), Errno::NOSPC.raw_os_error());
    SandboxError::File { operation: "make", path: shown(path), reason, errno }
}
