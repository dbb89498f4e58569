//! Sockets, as far as the standard library lacks them.

use std::{
    ffi::{c_int, c_void},
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use super::{O_CLOEXEC, O_NONBLOCK, check, error, owned};

unsafe extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn connect(socket: c_int, address: *const c_void, length: u32) -> c_int;
    fn getpeername(socket: c_int, address: *mut c_void, length: *mut u32) -> c_int;
    fn shutdown(socket: c_int, how: c_int) -> c_int;
    fn getsockopt(
        socket: c_int,
        level: c_int,
        option: c_int,
        value: *mut c_void,
        length: *mut u32,
    ) -> c_int;
}

pub(crate) const ECONNREFUSED: i32 = 111;
const EINPROGRESS: i32 = 115;
const ENOTCONN: i32 = 107;
const ENAMETOOLONG: i32 = 36;

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const SOCK_STREAM: c_int = 1;

/// Returns whether a descriptor is an open socket that accepts connections.
pub(crate) fn is_listening(fd: RawFd) -> bool {
    const SO_ACCEPTCONN: c_int = 30;
    option(fd, SO_ACCEPTCONN) == Ok(1)
}

fn option(fd: RawFd, option: c_int) -> Result<c_int, i32> {
    const SOL_SOCKET: c_int = 1;
    let mut value: c_int = 0;
    let mut length = size_of::<c_int>() as u32;
    // SAFETY: `value` is valid for writing and has the length given.
    let result =
        unsafe { getsockopt(fd, SOL_SOCKET, option, (&raw mut value).cast(), &raw mut length) };
    if result == 0 { Ok(value) } else { Err(super::EINVAL) }
}

/// Starts to connect to a TCP port of the loopback, without waiting.
pub(crate) fn connect_loopback(port: u16) -> io::Result<OwnedFd> {
    let mut address = [0_u8; 16];
    address[..2].copy_from_slice(&AF_INET.to_ne_bytes());
    address[2..4].copy_from_slice(&port.to_be_bytes());
    address[4..8].copy_from_slice(&[127, 0, 0, 1]);
    start(c_int::from(AF_INET), &address)
}

/// Connects to a Unix socket at a path, without waiting.
pub(crate) fn connect_unix(path: &str) -> io::Result<OwnedFd> {
    let mut address = [0_u8; 110];
    address[..2].copy_from_slice(&AF_UNIX.to_ne_bytes());
    // One zero byte is left at the end.
    let place = address.get_mut(2..2 + path.len()).filter(|_| path.len() < 108);
    place.ok_or(error(ENAMETOOLONG))?.copy_from_slice(path.as_bytes());
    start(c_int::from(AF_UNIX), &address)
}

fn start(domain: c_int, address: &[u8]) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers.
    let made = owned(unsafe { socket(domain, SOCK_STREAM | O_CLOEXEC | O_NONBLOCK, 0) })?;
    // SAFETY: the pointer and the length describe `address`, which has the layout of its domain.
    let result =
        unsafe { connect(made.as_raw_fd(), address.as_ptr().cast(), address.len() as u32) };
    match check(result) {
        Err(error) if error.raw_os_error() != Some(EINPROGRESS) => Err(error),
        _ => Ok(made),
    }
}

/// Returns whether a connection that was started stands.
///
/// # Errors
///
/// Why it failed.
pub(crate) fn connection_stands(socket: BorrowedFd<'_>) -> io::Result<bool> {
    const SO_ERROR: c_int = 4;
    match option(socket.as_raw_fd(), SO_ERROR) {
        Ok(0) => {}
        Ok(errno) | Err(errno) => return Err(error(errno)),
    }
    let mut address = [0_u8; 128];
    let mut length = address.len() as u32;
    // SAFETY: `address` is valid for writing and has the length given.
    let result =
        unsafe { getpeername(socket.as_raw_fd(), address.as_mut_ptr().cast(), &raw mut length) };
    match check(result) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(ENOTCONN) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Tells the other end that no more comes.
pub(crate) fn end_writing(socket: BorrowedFd<'_>) -> io::Result<()> {
    const SHUT_WR: c_int = 1;
    // SAFETY: plain numbers.
    check(unsafe { shutdown(socket.as_raw_fd(), SHUT_WR) }).map(drop)
}
