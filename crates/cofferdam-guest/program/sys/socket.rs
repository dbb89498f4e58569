//! Sockets, as far as the standard library lacks them.

use std::{
    ffi::{c_int, c_void},
    os::fd::RawFd,
};

unsafe extern "C" {
    fn getsockopt(
        socket: c_int,
        level: c_int,
        option: c_int,
        value: *mut c_void,
        length: *mut u32,
    ) -> c_int;
}

/// Returns whether a descriptor is an open socket that accepts connections.
pub(crate) fn is_listening(fd: RawFd) -> bool {
    const SO_ACCEPTCONN: c_int = 30;
    option(fd, SO_ACCEPTCONN) == Some(1)
}

fn option(fd: RawFd, option: c_int) -> Option<c_int> {
    const SOL_SOCKET: c_int = 1;
    let mut value: c_int = 0;
    let mut length = size_of::<c_int>() as u32;
    // SAFETY: `value` is valid for writing and has the length given.
    let result =
        unsafe { getsockopt(fd, SOL_SOCKET, option, (&raw mut value).cast(), &raw mut length) };
    (result == 0).then_some(value)
}
