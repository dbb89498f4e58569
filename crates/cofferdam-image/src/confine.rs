//! Making and opening files beneath a directory, never through a link: the kernel walks the path, not this program.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, openat2, statat},
    io::Errno,
};

/// Opens a directory of the host; links on the way to it are followed, since the path is the caller's own.
pub(crate) fn open_host_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens a directory beneath `root`; a link on the way is an error (`ELOOP`, `ENOTDIR`).
pub(crate) fn open_directory(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(root, here(path), flags, Mode::empty(), strict())
}

/// Opens a file beneath `root` for reading, following links that stay beneath it; never blocks on a fifo.
pub(crate) fn open_following(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    openat2(root, here(path), flags, Mode::empty(), resolve)
}

/// Makes a file that was not there, readable and writable for its owner.
pub(crate) fn create_file(parent: impl AsFd, name: &OsStr) -> Result<File, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    Ok(openat2(parent, Path::new(name), flags, mode, strict())?.into())
}

/// Makes a directory that was not there, which all may enter and only its owner change, whatever the umask is.
pub(crate) fn make_directory(parent: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::mkdirat(&parent, Path::new(name), mode)?;
    let made = open_directory(parent, Path::new(name))?;
    rustix::fs::fchmod(&made, mode)?;
    Ok(made)
}

/// Makes the mark by which an overlay knows that a name of the layers below is gone.
pub(crate) fn make_whiteout(parent: impl AsFd, name: &OsStr) -> Result<(), Errno> {
    rustix::fs::mknodat(parent, Path::new(name), FileType::CharacterDevice, Mode::empty(), 0)
}

/// Describes what is at `name`, not following a link; `None` if nothing is there.
pub(crate) fn stat_here(parent: impl AsFd, name: &OsStr) -> Result<Option<Stat>, Errno> {
    match statat(parent, Path::new(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns what kind of file this is.
pub(crate) fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Returns true for the mark of [`make_whiteout`].
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    kind_of(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn strict() -> ResolveFlags {
    ResolveFlags::BENEATH
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_XDEV
}

fn here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}
