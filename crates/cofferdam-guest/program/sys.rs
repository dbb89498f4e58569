//! System calls, and the only `unsafe` code of the program.
//!
//! The functions are those of the C library that the static program is linked with; the few that it may not wrap yet
//! go through `syscall` with numbers above 423, which are the same on every 64-bit architecture.
//!
//! - `process`: processes, their limits, and the signals sent to them.
//! - `signal`: the signals of this process.
//! - `descriptor`: descriptors, pipes and waiting for them.
//! - `socket`: sockets.
//! - `terminal`: pseudo-terminals.
//! - `file`: files, named by an open directory and a name in it.
//! - `notify`: notes of changes to files.
//! - `raw`: calls without the C library, for processes that share the guest's memory.
#![expect(
    unsafe_code,
    reason = "the guest has no dependency, so it declares the system calls that std lacks"
)]
// Results of the C library are `int`s whose sign was checked.
#![expect(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "sizes and numbers of the C interface"
)]

mod descriptor;
mod file;
mod notify;
mod process;
pub(crate) mod raw;
mod signal;
mod socket;
mod terminal;

use std::{
    ffi::{c_int, c_long},
    io,
    os::fd::{FromRawFd, OwnedFd},
};

pub(crate) use self::{
    descriptor::*, file::*, notify::*, process::*, signal::*, socket::*, terminal::*,
};

#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
)))]
compile_error!("the guest knows the constants of x86_64, aarch64 and riscv64 Linux only");

/// A process id.
pub(crate) type Pid = i32;
unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

pub(crate) const EPERM: i32 = 1;
pub(crate) const ENOENT: i32 = 2;
pub(crate) const ESRCH: i32 = 3;
pub(crate) const EACCES: i32 = 13;
pub(crate) const EEXIST: i32 = 17;
pub(crate) const ENOTDIR: i32 = 20;
pub(crate) const EISDIR: i32 = 21;
pub(crate) const EINVAL: i32 = 22;
pub(crate) const EMFILE: i32 = 24;
pub(crate) const ENOSPC: i32 = 28;
pub(crate) const ENAMETOOLONG: i32 = 36;
pub(crate) const ELOOP: i32 = 40;
const EAGAIN: i32 = 11;

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(result: c_int) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the descriptor was just made by the kernel for this call and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Returns an error with this number.
pub(crate) fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}
