//! Opening files of the host beneath a directory, in one system call that no concurrent rename can fool.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, openat2};

/// Opens the directory that others are opened beneath; links on the way to it are followed.
pub(crate) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Describes what is at `path` beneath `root`, following links that stay beneath it, without opening it for reading.
pub(crate) fn stat_following(root: impl AsFd, path: &Path) -> io::Result<Stat> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let fd = openat2(root, here(path), flags, Mode::empty(), resolve)?;
    Ok(rustix::fs::fstat(fd)?)
}

/// Opens for reading what is at `path` beneath `root`, following links that stay beneath it.
///
/// Never blocks on a fifo.
pub(crate) fn open_following(root: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(root, here(path), flags, Mode::empty(), resolve)?)
}

/// Opens for reading what is at `path` beneath `root`; any link is an error (`ELOOP`).
pub(crate) fn open_strict(root: impl AsFd, path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(openat2(root, here(path), flags, Mode::empty(), strict())?.into())
}

/// Opens a directory beneath `root`; any link is an error (`ELOOP` or `ENOTDIR`).
pub(crate) fn open_directory(root: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat2(root, here(path), flags, Mode::empty(), strict())?)
}

fn strict() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS
}

fn here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// Says what kind of file this is.
pub(crate) fn kind_of(stat: &Stat) -> &'static str {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symbolic link",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        _ => "special file",
    }
}
