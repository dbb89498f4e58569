//! Descriptors: pipes, flags, and waiting for them.

use std::{
    ffi::{c_int, c_long},
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use super::{O_CLOEXEC, O_NONBLOCK, check, owned, syscall};

unsafe extern "C" {
    fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    fn pipe2(fds: *mut c_int, flags: c_int) -> c_int;
    fn poll(fds: *mut PollFd, count: u64, timeout: c_int) -> c_int;
    fn ioctl(fd: c_int, request: u64, ...) -> c_int;
}

const SYS_CLOSE_RANGE: c_long = 436;

pub(crate) const POLLIN: i16 = 1;
pub(crate) const POLLOUT: i16 = 4;

/// An entry of `poll`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct PollFd {
    pub(crate) fd: RawFd,
    pub(crate) events: i16,
    pub(crate) ready: i16,
}

/// Makes a pipe: the reading end and the writing end.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: `fds` has room for two descriptors.
    check(unsafe { pipe2(fds.as_mut_ptr(), O_CLOEXEC) })?;
    Ok((owned(fds[0])?, owned(fds[1])?))
}

/// Takes over a descriptor that this process was started with.
pub(crate) fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    const F_GETFD: c_int = 1;
    // SAFETY: the command takes no argument and changes nothing.
    check(unsafe { fcntl(fd, F_GETFD) })?;
    owned(fd)
}
/// Returns a copy of a descriptor with a number of at least `minimum`, closed when a program is started.
pub(crate) fn copy_above(fd: RawFd, minimum: RawFd) -> io::Result<RawFd> {
    const F_DUPFD_CLOEXEC: c_int = 1030;
    // SAFETY: plain numbers.
    check(unsafe { fcntl(fd, F_DUPFD_CLOEXEC, minimum) })
}

/// Closes all descriptors from `first` to `last`.
pub(crate) fn close_range(first: RawFd, last: u32) -> io::Result<()> {
    // SAFETY: the callers own no value that still counts on one of these descriptors.
    let result =
        unsafe { syscall(SYS_CLOSE_RANGE, c_long::from(first), c_long::from(last), 0 as c_long) };
    check(result as c_int).map(drop)
}

pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    const F_GETFL: c_int = 3;
    const F_SETFL: c_int = 4;
    // SAFETY: the first command takes no argument, the second a number.
    unsafe {
        let flags = check(fcntl(fd.as_raw_fd(), F_GETFL))?;
        check(fcntl(fd.as_raw_fd(), F_SETFL, flags | O_NONBLOCK)).map(drop)
    }
}

/// Lets a pipe hold this many bytes. The kernel refuses what is no pipe, and a user that has too much in pipes already.
pub(crate) fn set_pipe_size(fd: BorrowedFd<'_>, bytes: c_int) -> io::Result<()> {
    const F_SETPIPE_SZ: c_int = 1031;
    // SAFETY: plain numbers.
    check(unsafe { fcntl(fd.as_raw_fd(), F_SETPIPE_SZ, bytes) }).map(drop)
}

pub(crate) fn set_close_on_exec(fd: BorrowedFd<'_>) -> io::Result<()> {
    const F_SETFD: c_int = 2;
    const FD_CLOEXEC: c_int = 1;
    // SAFETY: plain numbers.
    check(unsafe { fcntl(fd.as_raw_fd(), F_SETFD, FD_CLOEXEC) }).map(drop)
}

/// Waits until a descriptor is ready, or `timeout_ms` have passed (for ever if negative).
pub(crate) fn wait_ready(fds: &mut [PollFd], timeout_ms: c_int) -> io::Result<()> {
    // SAFETY: the pointer and the count describe `fds`.
    match check(unsafe { poll(fds.as_mut_ptr(), fds.len() as u64, timeout_ms) }) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

/// Returns how many bytes can be read without waiting.
pub(crate) fn readable_bytes(fd: BorrowedFd<'_>) -> io::Result<u64> {
    const FIONREAD: u64 = 0x541b;
    let mut count: c_int = 0;
    // SAFETY: the request writes one `int` to `count`.
    check(unsafe { ioctl(fd.as_raw_fd(), FIONREAD, &raw mut count) })?;
    Ok(count as u64)
}
