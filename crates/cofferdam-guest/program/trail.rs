//! The way down into a tree: as deep as commands can make one, with a bounded number of open directories.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use cofferdam_guest::MAX_PATH;

use crate::{
    sys::{self, O_DIRECTORY, O_RDONLY},
    workspace::c_string,
};

/// Directories that are open at a time in one walk, besides its root.
const OPEN: usize = 64;

/// Levels of one walk. No path of a request names more than half of `MAX_PATH`; commands that step down one by one can
/// make more, which are removed up to this.
const MAX_LEVELS: usize = 1 << 16;

/// Directories from the root of a walk to the innermost one.
///
/// Only the innermost ones are open; an outer one is opened again when the walk comes back to it, through no link. If it was
/// moved away meanwhile, it is not found.
#[derive(Debug)]
pub(crate) struct Trail {
    root: OwnedFd,
    below: Vec<(CString, Option<OwnedFd>)>,
}

impl Trail {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self { root, below: Vec::new() }
    }

    /// Goes down to a directory in the innermost one.
    pub(crate) fn enter(&mut self, name: CString, directory: OwnedFd) -> io::Result<()> {
        if self.below.len() == MAX_LEVELS {
            return Err(sys::error(sys::ELOOP));
        }
        if let Some(outer) = self.below.len().checked_sub(OPEN) {
            self.below[outer].1 = None;
        }
        self.below.push((name, Some(directory)));
        Ok(())
    }

    /// Goes up, and returns the name of the directory that was left; `None` at the root.
    pub(crate) fn leave(&mut self) -> Option<CString> {
        self.below.pop().map(|(name, _)| name)
    }

    /// Returns the innermost directory.
    pub(crate) fn innermost(&mut self) -> io::Result<BorrowedFd<'_>> {
        if let Some((_, None)) = self.below.last() {
            let again = self.open_again()?;
            if let Some((_, closed)) = self.below.last_mut() {
                *closed = Some(again);
            }
        }
        Ok(match self.below.last() {
            Some((_, Some(open))) => open.as_fd(),
            _ => self.root.as_fd(),
        })
    }

    /// Opens the innermost directory from the root, in as many steps as the length of a path asks for.
    fn open_again(&self) -> io::Result<OwnedFd> {
        let mut current: Option<OwnedFd> = None;
        let mut path = Vec::new();
        for (at, (name, _)) in self.below.iter().enumerate() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            let next = self.below.get(at + 1).map_or(MAX_PATH, |(next, _)| next.count_bytes());
            if path.len() + next + 2 > MAX_PATH {
                let from = current.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
                current = Some(open_directory(from, &c_string(&path)?)?);
                path.clear();
            }
        }
        current.ok_or(sys::error(sys::ENOENT))
    }
}

fn open_directory(from: BorrowedFd<'_>, path: &CStr) -> io::Result<OwnedFd> {
    sys::open_beneath(from, path, O_RDONLY | O_DIRECTORY, 0, sys::RESOLVE_NO_SYMLINKS)
}
