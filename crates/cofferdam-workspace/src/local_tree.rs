//! [`scan`]: walks a directory of the host by descriptors, and lists what is to be copied.
//!
//! Each directory is opened relative to the one above it, without following links, so a rename during the walk leads to
//! an error and never to a file elsewhere. Content is read later; what is listed here is checked again then.

use std::{
    ffi::{CString, OsStr},
    io::Read,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
    sync::Arc,
};

use cofferdam_core::WorkspacePath;
use ignore::{
    Match,
    gitignore::{Gitignore, GitignoreBuilder},
};
use rustix::fs::{AtFlags, Dir, FileType, Stat};

use crate::{
    HostFileError, MaterializeError, beneath,
    host_file::shown,
    links,
    plan::{Content, Item},
};

/// Directories that a source may nest.
const MAX_DEPTH: usize = 128;
/// Bytes of a `.gitignore` file that are read.
const MAX_GITIGNORE_BYTES: u64 = 1 << 20;
/// Permission bits that are kept: no set-id bits.
const MODE_BITS: u32 = 0o1777;

/// What to copy of a directory.
#[derive(Debug)]
pub(crate) struct ScanOptions<'a> {
    /// The entry, for messages.
    pub(crate) entry: &'a WorkspacePath,
    /// The source as the manifest has it, for messages.
    pub(crate) source: &'a str,
    /// Patterns of what is left out.
    pub(crate) ignore: &'a [String],
    /// Leave out `.git` and what `.gitignore` files name.
    pub(crate) gitignore: bool,
    /// Leave out the `.git` at the top.
    pub(crate) skip_git: bool,
    /// Files, directories and links at most.
    pub(crate) max_files: u64,
    /// Bytes at most.
    pub(crate) max_bytes: u64,
    /// Permission bits of the directory itself; `None` keeps its own.
    pub(crate) mode: Option<u32>,
    /// Keep the times of last change.
    pub(crate) keep_times: bool,
}

/// What a directory holds.
#[derive(Debug)]
pub(crate) struct Scan {
    /// What is copied, each directory before what is in it, names sorted.
    pub(crate) items: Vec<Item>,
    /// How many names were ignored.
    pub(crate) ignored: u64,
}

/// Lists what is to be copied of an open directory.
pub(crate) fn scan(root: OwnedFd, options: &ScanOptions<'_>) -> Result<Scan, MaterializeError> {
    let root = Arc::new(root);
    let mut walk = Walk {
        options,
        root: Arc::clone(&root),
        patterns: patterns(options)?,
        gitignores: Vec::new(),
        items: Vec::new(),
        ignored: 0,
        files: 0,
        bytes: 0,
    };
    let stat = rustix::fs::fstat(&*root).map_err(|error| walk.failed("read", b"", error))?;
    walk.items.push(Item {
        path: Vec::new(),
        mode: options.mode.unwrap_or(stat.st_mode & MODE_BITS),
        modified_ns: None,
        content: Content::Directory,
    });
    walk.directory(&root, &[], 0)?;
    Ok(Scan { items: walk.items, ignored: walk.ignored })
}

fn patterns(options: &ScanOptions<'_>) -> Result<Gitignore, MaterializeError> {
    let mut builder = GitignoreBuilder::new("");
    let refuse = |pattern: &str, error: ignore::Error| MaterializeError::Pattern {
        entry: options.entry.clone(),
        pattern: pattern.to_owned(),
        reason: error.to_string(),
    };
    for pattern in options.ignore {
        builder.add_line(None, pattern).map_err(|error| refuse(pattern, error))?;
    }
    builder.build().map_err(|error| refuse(&options.ignore.join(" "), error))
}

struct Walk<'a> {
    options: &'a ScanOptions<'a>,
    root: Arc<OwnedFd>,
    patterns: Gitignore,
    /// Those of the directories from the top to the one being walked.
    gitignores: Vec<Gitignore>,
    items: Vec<Item>,
    ignored: u64,
    files: u64,
    bytes: u64,
}

impl Walk<'_> {
    fn directory(
        &mut self,
        fd: &OwnedFd,
        path: &[u8],
        depth: usize,
    ) -> Result<(), MaterializeError> {
        if depth > MAX_DEPTH {
            return Err(MaterializeError::TooDeep {
                entry: self.options.entry.clone(),
                path: shown(path),
                cap: MAX_DEPTH,
            });
        }
        if self.options.gitignore {
            let gitignore = self.read_gitignore(fd, path)?;
            self.gitignores.push(gitignore);
        }
        for name in self.names(fd, path)? {
            let mut path = path.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            let stat = rustix::fs::statat(fd, &name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| self.failed("read", &path, error))?;
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if self.is_ignored(&path, is_directory) {
                self.ignored += 1;
                continue;
            }
            self.item(fd, &name, path, &stat, depth)?;
        }
        self.gitignores.truncate(depth);
        Ok(())
    }

    /// Reads the names in a directory, sorted. Reading stops at a number that only a directory over the cap has.
    fn names(&self, fd: &OwnedFd, path: &[u8]) -> Result<Vec<CString>, MaterializeError> {
        // Ignored names do not count towards the cap, so there may be more names than it allows.
        let most = self.options.max_files.saturating_mul(4).max(10_000);
        let mut names = Vec::new();
        for entry in Dir::read_from(fd).map_err(|error| self.failed("list", path, error))? {
            let entry = entry.map_err(|error| self.failed("list", path, error))?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            names.push(name.to_owned());
            if names.len() as u64 > most {
                return Err(self.over_cap(path, most, names.len() as u64, "files"));
            }
        }
        names.sort();
        Ok(names)
    }

    fn item(
        &mut self,
        parent: &OwnedFd,
        name: &CString,
        path: Vec<u8>,
        stat: &Stat,
        depth: usize,
    ) -> Result<(), MaterializeError> {
        self.files += 1;
        if self.files > self.options.max_files {
            return Err(self.over_cap(&path, self.options.max_files, self.files, "files"));
        }
        let mode = stat.st_mode & MODE_BITS;
        let modified_ns = self.options.keep_times.then(|| modified_ns(stat));
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let size = u64::try_from(stat.st_size).unwrap_or_default();
                self.bytes = self.bytes.saturating_add(size);
                if self.bytes > self.options.max_bytes {
                    return Err(self.over_cap(&path, self.options.max_bytes, self.bytes, "bytes"));
                }
                let root = Arc::clone(&self.root);
                let content = Content::Host { root, path: path.clone(), size, follow: false };
                self.items.push(Item { path, mode, modified_ns, content });
            }
            FileType::Directory => {
                let content = Content::Directory;
                self.items.push(Item { path: path.clone(), mode, modified_ns: None, content });
                let opened =
                    beneath::open_directory(parent, Path::new(OsStr::from_bytes(name.as_bytes())));
                let fd = opened.map_err(|source| self.failed_io("open", &path, source))?;
                self.directory(&fd, &path, depth + 1)?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new())
                    .map_err(|error| self.failed("read the link", &path, error))?
                    .into_bytes();
                if !links::stays_inside(depth, &target) {
                    return Err(MaterializeError::LinkEscapes {
                        entry: self.options.entry.clone(),
                        link: shown(&path),
                        target: shown(&target),
                    });
                }
                let content = Content::Link { target };
                self.items.push(Item { path, mode: 0o777, modified_ns: None, content });
            }
            _ => {
                return Err(MaterializeError::Special {
                    entry: self.options.entry.clone(),
                    path: shown(&path),
                    kind: beneath::kind_of(stat),
                });
            }
        }
        Ok(())
    }

    /// The manifest's own patterns decide first, then the `.gitignore` that is nearest.
    fn is_ignored(&self, path: &[u8], is_directory: bool) -> bool {
        if self.options.skip_git && path == b".git" {
            return true;
        }
        let is_git = path == b".git" || path.ends_with(b"/.git");
        let path = Path::new(OsStr::from_bytes(path));
        match self.patterns.matched(path, is_directory) {
            Match::Ignore(_) => return true,
            Match::Whitelist(_) => return false,
            Match::None => {}
        }
        if self.options.gitignore && is_git {
            return true;
        }
        let decided = self
            .gitignores
            .iter()
            .rev()
            .map(|gitignore| gitignore.matched(path, is_directory))
            .find(|matched| !matched.is_none());
        matches!(decided, Some(Match::Ignore(_)))
    }

    /// Reads the `.gitignore` of a directory; none if it is not there. Lines that cannot be read are left out, as git
    /// does.
    fn read_gitignore(&self, fd: &OwnedFd, path: &[u8]) -> Result<Gitignore, MaterializeError> {
        let mut builder = GitignoreBuilder::new(OsStr::from_bytes(path));
        if let Ok(file) = beneath::open_strict(fd, Path::new(".gitignore"))
            && file.metadata().is_ok_and(|metadata| metadata.is_file())
        {
            let mut text = Vec::new();
            file.take(MAX_GITIGNORE_BYTES)
                .read_to_end(&mut text)
                .map_err(|source| self.failed_io("read .gitignore of", path, source))?;
            for line in String::from_utf8_lossy(&text).lines() {
                let _ = builder.add_line(None, line);
            }
        }
        builder.build().map_err(|error| MaterializeError::Pattern {
            entry: self.options.entry.clone(),
            pattern: format!("{}/.gitignore", shown(path)),
            reason: error.to_string(),
        })
    }

    fn over_cap(&self, path: &[u8], cap: u64, found: u64, unit: &'static str) -> MaterializeError {
        MaterializeError::OverCap {
            entry: self.options.entry.clone(),
            source_path: self.options.source.to_owned(),
            cap,
            unit,
            found,
            field: if unit == "files" { "max_files" } else { "max_bytes" },
            path: shown(path),
        }
    }

    fn failed(
        &self,
        operation: &'static str,
        path: &[u8],
        error: rustix::io::Errno,
    ) -> MaterializeError {
        self.failed_io(operation, path, error.into())
    }

    fn failed_io(
        &self,
        operation: &'static str,
        path: &[u8],
        source: std::io::Error,
    ) -> MaterializeError {
        let path = format!("{}: {}", self.options.source, shown(path));
        HostFileError { operation, path, source }.into()
    }
}

/// Nanoseconds since the Unix epoch of the last change of content.
pub(crate) fn modified_ns(stat: &Stat) -> i64 {
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
    stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}
