//! [`OutputWriter`]: writes a tree that a sandbox sends, believing nothing of it.
//!
//! All paths are opened beneath the directory of outputs without following links, content goes to a file in a private
//! directory first and is moved to its place without replacing anything, and links are made last.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use bytes::Bytes;
use cofferdam_core::{
    WorkspacePath,
    workspace_path::{MAX_COMPONENT_BYTES, MAX_PATH_BYTES},
};
use cofferdam_sandbox::{TreeEntry, TreeEntryKind, TreeEvent};
use rustix::{
    fs::{Mode, OFlags, RenameFlags},
    io::Errno,
};
use tempfile::TempDir;

use crate::{
    CollectError, CollectLimits, Collected, HostFileError, SkippedOutput, beneath,
    host_file::shown, links,
};

/// Items that were left out and are listed one by one.
const MAX_SKIPPED: usize = 1000;
/// Name of the file in the private directory.
const PARTIAL: &str = "partial";

/// Writes outputs to a directory of the host.
#[derive(Debug)]
pub(crate) struct OutputWriter {
    root: OwnedFd,
    /// Where content is until it is whole; its name cannot be guessed, and it is removed at the end.
    private: TempDir,
    private_fd: OwnedFd,
    limits: CollectLimits,
    exclude: Vec<WorkspacePath>,
    collected: Collected,
    entries: u64,
    /// Every path written, with the mode of each directory.
    written: BTreeMap<Vec<u8>, Option<u32>>,
    /// Links and their targets, made at the end.
    links: BTreeMap<Vec<u8>, Vec<u8>>,
    output: WorkspacePath,
    open: Option<Open>,
}

/// A file whose content is arriving.
#[derive(Debug)]
struct Open {
    /// Where it goes; `None` if it is left out.
    file: Option<File>,
    path: Vec<u8>,
    mode: u32,
    rest: u64,
}

impl OutputWriter {
    /// Makes the directory, or takes it if it is empty.
    pub(crate) fn create(
        directory: &Path,
        limits: CollectLimits,
        exclude: Vec<WorkspacePath>,
    ) -> Result<Self, CollectError> {
        let refuse =
            |reason: String| CollectError::Destination { path: directory.to_owned(), reason };
        let failed = |error: io::Error| refuse(error.to_string());
        std::fs::create_dir_all(directory).map_err(failed)?;
        if std::fs::read_dir(directory).map_err(failed)?.next().is_some() {
            return Err(refuse("it is not empty".to_owned()));
        }
        let root = beneath::open_root(directory).map_err(failed)?;
        let private =
            tempfile::Builder::new().prefix(".partial-").tempdir_in(directory).map_err(failed)?;
        let private_fd = beneath::open_root(private.path()).map_err(failed)?;
        Ok(Self {
            root,
            private,
            private_fd,
            limits,
            exclude,
            collected: Collected { directory: directory.to_owned(), ..Collected::default() },
            entries: 0,
            written: BTreeMap::new(),
            links: BTreeMap::new(),
            output: WorkspacePath::root(),
            open: None,
        })
    }

    /// Begins an output: makes the directories above it.
    pub(crate) fn begin(&mut self, output: WorkspacePath) -> Result<(), CollectError> {
        let mut above = Vec::new();
        let mut next = output.parent();
        while let Some(parent) = next.filter(|parent| !parent.is_root()) {
            next = parent.parent();
            above.push(parent);
        }
        self.output = output;
        for parent in above.iter().rev() {
            let path = parent.as_str().as_bytes();
            if !self.written.contains_key(path) {
                self.make_directory(path, 0o755)?;
            }
        }
        Ok(())
    }

    /// Takes the next event of the output's tree.
    pub(crate) fn take(&mut self, event: TreeEvent) -> Result<(), CollectError> {
        match event {
            TreeEvent::Entry(entry) => self.entry(entry),
            TreeEvent::Content(bytes) => self.content(&bytes),
            TreeEvent::Skipped(skipped) => {
                let place = self.place(&skipped.path)?;
                self.skip(&place, shown(skipped.reason.as_bytes()));
                Ok(())
            }
            _ => Err(self.hostile("an event that is not known here")),
        }
    }

    /// Ends the output: its last file must be whole.
    pub(crate) fn end(&mut self) -> Result<(), CollectError> {
        match self.open.take() {
            None => Ok(()),
            Some(open) => {
                Err(self.hostile(format!("{} ends {} bytes early", shown(&open.path), open.rest)))
            }
        }
    }

    /// Notes whether a declared output has come.
    pub(crate) fn note(&mut self, output: WorkspacePath, optional: bool) {
        let is_there = if output.is_root() {
            true
        } else {
            let path = output.as_str().as_bytes();
            self.written.contains_key(path) || self.links.contains_key(path)
        };
        if is_there {
            self.collected.found.push(output);
        } else if !optional {
            self.collected.missing.push(output);
        }
    }

    /// Makes the links, gives the directories their modes, and returns the receipt.
    pub(crate) fn finish(mut self) -> Result<Collected, CollectError> {
        for (path, target) in std::mem::take(&mut self.links) {
            let (parent, name) = self.parent(&path)?;
            rustix::fs::symlinkat(OsStr::from_bytes(&target), &parent, name)
                .map_err(|error| self.failed("make the link", &path, error.into()))?;
        }
        for (path, mode) in self.written.iter().rev() {
            if let Some(mode) = mode {
                let directory = Path::new(OsStr::from_bytes(path));
                beneath::open_directory(&self.root, directory)
                    .and_then(|fd| Ok(rustix::fs::fchmod(fd, Mode::from_bits_truncate(*mode))?))
                    .map_err(|error| self.failed("set the mode of", path, error))?;
            }
        }
        let private = self.private.path().display().to_string();
        self.private.close().map_err(|source| HostFileError {
            operation: "remove",
            path: private,
            source,
        })?;
        Ok(self.collected)
    }

    fn entry(&mut self, entry: TreeEntry) -> Result<(), CollectError> {
        self.end()?;
        let path = self.place(&entry.path)?;
        self.entries += 1;
        if self.entries > self.limits.max_files {
            return Err(self.over_cap(self.limits.max_files, "files"));
        }
        if self.written.contains_key(&path) || self.links.contains_key(&path) {
            return Err(self.hostile(format!("{} comes twice", shown(&path))));
        }
        if let Some(root) = self.excluded(&path) {
            if path == root {
                self.skip(&path, "an ephemeral entry".to_owned());
            }
            if let TreeEntryKind::File { size } = entry.kind {
                self.open =
                    Some(Open { file: None, path, mode: 0, rest: size }).filter(|_| size > 0);
            }
            return Ok(());
        }
        match entry.kind {
            // The directory of outputs stands for the workspace.
            TreeEntryKind::Directory if path.is_empty() => Ok(()),
            _ if path.is_empty() => Err(self.hostile("the workspace is no directory")),
            // Others may not change what the owner of the host looks at; the owner may always remove it.
            TreeEntryKind::Directory => self.make_directory(&path, (entry.mode & 0o755) | 0o700),
            TreeEntryKind::File { size } => {
                let total = self.collected.bytes.saturating_add(size);
                if total > self.limits.max_bytes {
                    return Err(self.over_cap(self.limits.max_bytes, "bytes"));
                }
                self.open_file(path, (entry.mode & 0o755) | 0o600, size)
            }
            TreeEntryKind::Link { target } => {
                let depth = entry.path.split(|byte| *byte == b'/').count() - 1;
                if !entry.path.is_empty() && links::stays_inside(depth, &target) {
                    self.links.insert(path, target);
                } else {
                    let reason = format!("a link that leads out, to {}", shown(&target));
                    self.skip(&path, reason);
                }
                Ok(())
            }
            _ => Err(self.hostile("an entry of a kind that is not known here")),
        }
    }

    /// Returns the excluded path that this path is or is below.
    fn excluded(&self, path: &[u8]) -> Option<Vec<u8>> {
        let path = WorkspacePath::new(std::str::from_utf8(path).ok()?).ok()?;
        let root = self.exclude.iter().find(|root| root.contains(&path))?;
        Some(root.as_str().as_bytes().to_vec())
    }

    fn open_file(&mut self, path: Vec<u8>, mode: u32, size: u64) -> Result<(), CollectError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(&self.private_fd, PARTIAL, flags, Mode::from_bits_truncate(0o600))
                .map_err(|error| self.failed("make", &path, error.into()))?;
        self.open = Some(Open { file: Some(file.into()), path, mode, rest: size });
        if size == 0 { self.close_file() } else { Ok(()) }
    }

    fn content(&mut self, bytes: &Bytes) -> Result<(), CollectError> {
        let Some(open) = &mut self.open else {
            return if bytes.is_empty() { Ok(()) } else { Err(self.hostile("content of no file")) };
        };
        let Some(rest) = open.rest.checked_sub(bytes.len() as u64) else {
            let path = shown(&open.path);
            return Err(self.hostile(format!("{path} is longer than it said")));
        };
        open.rest = rest;
        let Some(file) = &mut open.file else {
            if rest == 0 {
                self.open = None;
            }
            return Ok(());
        };
        if let Err(error) = file.write_all(bytes) {
            let path = open.path.clone();
            return Err(self.failed("write", &path, error));
        }
        self.collected.bytes += bytes.len() as u64;
        if rest == 0 { self.close_file() } else { Ok(()) }
    }

    /// Moves a whole file to its place.
    fn close_file(&mut self) -> Result<(), CollectError> {
        let Some(Open { file: Some(file), path, mode, .. }) = self.open.take() else {
            return Ok(());
        };
        rustix::fs::fchmod(&file, Mode::from_bits_truncate(mode))
            .map_err(|error| self.failed("set the mode of", &path, error.into()))?;
        let (parent, name) = self.parent(&path)?;
        rustix::fs::renameat_with(&self.private_fd, PARTIAL, &parent, name, RenameFlags::NOREPLACE)
            .map_err(|error| self.failed("make", &path, error.into()))?;
        self.written.insert(path, None);
        self.collected.files += 1;
        Ok(())
    }

    fn make_directory(&mut self, path: &[u8], mode: u32) -> Result<(), CollectError> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::mkdirat(&parent, name, Mode::from_bits_truncate(0o700))
            .map_err(|error| self.failed("make", path, error.into()))?;
        self.written.insert(path.to_vec(), Some(mode));
        Ok(())
    }

    /// Opens the directory that holds a path.
    fn parent<'p>(&self, path: &'p [u8]) -> Result<(OwnedFd, &'p OsStr), CollectError> {
        let slash = path.iter().rposition(|byte| *byte == b'/');
        let (parent, name) = slash.map_or((&[][..], path), |at| (&path[..at], &path[at + 1..]));
        let parent_path = Path::new(OsStr::from_bytes(parent));
        match beneath::open_directory(self.root.as_fd(), parent_path) {
            Ok(fd) => Ok((fd, OsStr::from_bytes(name))),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                    Err(self.hostile(format!("{} comes before its directory", shown(path))))
                }
                _ => Err(self.failed("open the directory of", path, error)),
            },
        }
    }

    /// Turns a path relative to the output into one relative to the directory, and refuses what is no plain path.
    fn place(&self, relative: &[u8]) -> Result<Vec<u8>, CollectError> {
        let mut path = match self.output.is_root() {
            true => Vec::new(),
            false => self.output.as_str().as_bytes().to_vec(),
        };
        if !relative.is_empty() {
            let sound = relative.split(|byte| *byte == b'/').all(|name| {
                !matches!(name, b"" | b"." | b"..")
                    && name.len() <= MAX_COMPONENT_BYTES
                    && !name.contains(&0)
            });
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(relative);
            if !sound || path.len() > MAX_PATH_BYTES {
                let mut name = shown(relative);
                name.truncate(name.floor_char_boundary(80));
                return Err(self.hostile(format!("`{name}` is no path inside of an output")));
            }
        }
        Ok(path)
    }

    fn skip(&mut self, path: &[u8], reason: String) {
        if self.collected.skipped.len() < MAX_SKIPPED {
            self.collected.skipped.push(SkippedOutput { path: shown(path), reason });
        } else {
            self.collected.skipped_further += 1;
        }
    }

    fn hostile(&self, detail: impl Into<String>) -> CollectError {
        CollectError::Hostile { output: self.output.clone(), detail: detail.into() }
    }

    fn over_cap(&self, cap: u64, unit: &'static str) -> CollectError {
        CollectError::OverCap { output: self.output.clone(), cap, unit }
    }

    fn failed(&self, operation: &'static str, path: &[u8], source: io::Error) -> CollectError {
        let path = PathBuf::from(OsStr::from_bytes(path));
        let path = self.collected.directory.join(path).display().to_string();
        HostFileError { operation, path, source }.into()
    }
}
