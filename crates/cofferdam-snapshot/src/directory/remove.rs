//! Removing a tree that this crate has made, however deep it is and whatever modes its directories have.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, fchmod, openat, renameat, unlinkat},
    io::Errno,
};

use super::confined;

/// Levels below which a directory is moved up before it is emptied, so that few are open at a time.
const DEPTH: usize = 32;

/// Names of one directory that are held at a time.
const NAMES: usize = 1 << 21;

/// Removes a directory with all that is in it; one that is not there is removed already.
///
/// Nobody else may change the tree meanwhile. No link is followed.
///
/// # Errors
///
/// What the system answered; what was removed until then is gone.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    let above = File::open(above)?;
    match open(above.as_fd(), name.as_bytes()) {
        Ok(top) => {
            let mut moved = 0;
            // Each pass moves what is deep to the top, until nothing is.
            while empty(&top, top.as_fd(), 0, &mut moved)? {}
            unlinkat(&above, name, AtFlags::REMOVEDIR)?;
            Ok(())
        }
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn open(directory: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || openat(directory, name, flags, Mode::empty());
    match open() {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(directory, name, Mode::RWXU, AtFlags::empty())?;
            open()
        }
        result => result,
    }
}

/// Empties a directory; returns whether something was moved to the top.
fn empty(
    directory: &OwnedFd,
    top: BorrowedFd<'_>,
    depth: usize,
    moved: &mut u64,
) -> Result<bool, Errno> {
    let mut again = false;
    let found = confined::describe(directory)?;
    if found.mode & 0o700 != 0o700 {
        fchmod(directory, Mode::RWXU)?;
    }
    let names = confined::names(directory, NAMES)?.ok_or(Errno::TOOBIG)?;
    for name in names {
        let name = OsStr::from_bytes(&name);
        match unlinkat(directory, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) if depth >= DEPTH => {
                *moved += 1;
                // Longer than a name of a tree made of random ones is likely to be; a clash is an error, not a loss.
                renameat(directory, name, top, format!(".removed-{moved}-{depth}"))?;
                again = true;
            }
            Err(Errno::ISDIR | Errno::PERM) => {
                let inner = open(directory.as_fd(), name.as_bytes())?;
                again |= empty(&inner, top, depth + 1, moved)?;
                unlinkat(directory, name, AtFlags::REMOVEDIR)?;
            }
            result => result?,
        }
    }
    Ok(again)
}
