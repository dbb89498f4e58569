//! Ways into a tree that nobody who works in it can bend: every path is resolved beneath an open directory, through no link,
//! into no other file system.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Statx, StatxAttributes, StatxFlags,
        StatxTimestamp,
    },
    io::Errno,
};

use crate::{node::Metadata, path::TreePath};

/// The most bytes of a path that one call resolves, without the NUL at its end.
pub(super) const MAX_PATH: usize = TreePath::MAX_BYTES - 1;

/// What a file is called by itself.
const SELF: &str = ".";

/// A file as its file system tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) kind: FileType,
    /// The lower twelve bits.
    pub(super) mode: u16,
    pub(super) size: u64,
    pub(super) device: (u32, u32),
    pub(super) inode: u64,
    pub(super) links: u32,
    pub(super) modified_ns: i64,
    pub(super) changed_ns: i64,
    /// Bytes that it occupies.
    pub(super) occupied: u64,
    /// The number of a device.
    pub(super) special: (u32, u32),
    /// Something is mounted here.
    pub(super) is_mount: bool,
}

impl Found {
    fn new(found: &Statx) -> Self {
        Self {
            kind: FileType::from_raw_mode(found.stx_mode.into()),
            mode: found.stx_mode & 0o7777,
            size: found.stx_size,
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            links: found.stx_nlink,
            modified_ns: nanoseconds(found.stx_mtime),
            changed_ns: nanoseconds(found.stx_ctime),
            occupied: found.stx_blocks.saturating_mul(512),
            special: (found.stx_rdev_major, found.stx_rdev_minor),
            is_mount: found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        }
    }

    /// Returns whether nothing was changed between two looks at an open file.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let shown = |found: &Self| {
            (found.inode, found.device, found.size, found.modified_ns, found.changed_ns)
        };
        shown(self) == shown(other)
    }

    /// Returns what a snapshot keeps of it, but for attributes.
    pub(super) fn metadata(&self) -> Metadata {
        Metadata { mode: self.mode, modified_ns: self.modified_ns, xattrs: Vec::new() }
    }
}

fn nanoseconds(time: StatxTimestamp) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.into())
}

/// Describes an open file.
pub(super) fn describe(file: impl AsFd) -> Result<Found, Errno> {
    rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
        .map(|found| Found::new(&found))
}

/// Describes one name in a directory; a link is not followed, and nothing is mounted by looking.
pub(super) fn describe_name(
    directory: BorrowedFd<'_>,
    name: impl rustix::path::Arg,
) -> Result<Found, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(directory, name, flags, StatxFlags::BASIC_STATS)
        .map(|found| Found::new(&found))
}

/// Opens what is at a path beneath a directory.
pub(super) fn open(
    root: BorrowedFd<'_>,
    path: impl rustix::path::Arg + Copy,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    // The kernel answers EAGAIN when a rename elsewhere kept it from proving that the path stays beneath.
    let mut attempts = 64;
    loop {
        match rustix::fs::openat2(root, path, flags, mode, resolve) {
            Err(Errno::AGAIN) if attempts > 0 => attempts -= 1,
            result => return result,
        }
    }
}

/// Opens a directory for listing; an empty path is the root.
pub(super) fn open_directory(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
    if path.is_empty() {
        return open(root, SELF, flags, Mode::empty());
    }
    open(root, path, flags, Mode::empty())
}

/// Opens a regular file for reading. Something else of this name is not read: it answers as `Err(None)`.
pub(super) fn open_file(
    root: BorrowedFd<'_>,
    path: &[u8],
) -> Result<(OwnedFd, Found), Option<Errno>> {
    // It was a regular file when it was listed. Whatever is there by now, opening it does not wait.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = open(root, path, flags, Mode::empty()).map_err(Some)?;
    let found = describe(&file).map_err(Some)?;
    if found.kind == FileType::RegularFile { Ok((file, found)) } else { Err(None) }
}

/// Returns the names in a directory in ascending order, or `None` if there are more than `limit`.
pub(super) fn names(directory: &OwnedFd, limit: usize) -> Result<Option<Vec<Box<[u8]>>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        if names.len() == limit {
            return Ok(None);
        }
        names.push(Box::from(name));
    }
    names.sort_unstable();
    Ok(Some(names))
}
