//! Pseudo-terminals.

use std::{
    ffi::{c_char, c_int, c_long},
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use super::{AT_FDCWD, O_CLOEXEC, O_NOCTTY, O_RDWR, check, owned};

unsafe extern "C" {
    fn openat(directory: c_int, path: *const c_char, flags: c_int, ...) -> c_int;
    fn ioctl(fd: c_int, request: u64, ...) -> c_int;
}

/// Opens a new pseudo-terminal: the controlling side and the side of the command.
pub(crate) fn open_terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    const TIOCSPTLCK: u64 = 0x4004_5431;
    const TIOCGPTPEER: u64 = 0x5441;
    // SAFETY: the path is a C string.
    let controller =
        owned(unsafe { openat(AT_FDCWD, c"/dev/ptmx".as_ptr(), O_RDWR | O_NOCTTY | O_CLOEXEC) })?;
    let unlocked: c_int = 0;
    // SAFETY: the request reads one `int`.
    check(unsafe { ioctl(controller.as_raw_fd(), TIOCSPTLCK, &raw const unlocked) })?;
    // SAFETY: the request takes flags as its argument and returns a new descriptor.
    let peer = owned(unsafe {
        ioctl(controller.as_raw_fd(), TIOCGPTPEER, c_long::from(O_RDWR | O_NOCTTY | O_CLOEXEC))
    })?;
    Ok((controller, peer))
}

pub(crate) fn set_terminal_size(fd: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    const TIOCSWINSZ: u64 = 0x5414;
    let size = [rows, columns, 0, 0];
    // SAFETY: the request reads four `unsigned short`s.
    check(unsafe { ioctl(fd.as_raw_fd(), TIOCSWINSZ, size.as_ptr()) }).map(drop)
}
