//! Processes: their children, their limits, and the signals sent to them.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_long, c_uint, c_void},
    io,
    os::fd::{AsRawFd, OwnedFd},
    ptr,
};

use super::{Pid, check, owned, raw, syscall};

unsafe extern "C" {
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn geteuid() -> c_uint;
    fn prctl(option: c_int, ...) -> c_int;
}

const SYS_PIDFD_SEND_SIGNAL: c_long = 424;
const SYS_PIDFD_OPEN: c_long = 434;

/// How a child ended, as `waitpid` tells.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wait {
    /// A child ended with this raw status.
    Ended(c_int),
    /// This child was stopped by a signal.
    Stopped(Pid),
    /// There are children, and nothing has happened to them.
    Running,
    /// There are no children.
    NoChildren,
}

/// Looks for a child that has ended or was stopped, without waiting.
pub(crate) fn reap_child() -> Wait {
    const WNOHANG: c_int = 1;
    const WUNTRACED: c_int = 2;
    const ALL_THREADS_AND_CLONES: c_int = 0x4000_0000;
    let mut status = 0;
    // SAFETY: `status` is valid for writing.
    match unsafe { waitpid(-1, &raw mut status, WNOHANG | WUNTRACED | ALL_THREADS_AND_CLONES) } {
        0 => Wait::Running,
        pid if pid > 0 && status & 0xff == 0x7f => Wait::Stopped(pid),
        pid if pid > 0 => Wait::Ended(status),
        _ => Wait::NoChildren,
    }
}

/// Sends a signal to a process, or to a process group if `pid` is negative.
pub(crate) fn send_signal(pid: Pid, number: c_int) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { kill(pid, number) }).map(drop)
}

/// Opens a handle that keeps naming one process, even after its number is used again.
pub(crate) fn open_pid(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; the kernel checks them.
    owned(unsafe { syscall(SYS_PIDFD_OPEN, c_long::from(pid), 0 as c_long) } as c_int)
}

/// Sends a signal through a handle of [`open_pid`].
pub(crate) fn send_signal_to(process: &OwnedFd, number: c_int) -> io::Result<()> {
    // SAFETY: plain numbers and a null pointer, which the call allows.
    let result = unsafe {
        syscall(
            SYS_PIDFD_SEND_SIGNAL,
            c_long::from(process.as_raw_fd()),
            c_long::from(number),
            std::ptr::null::<c_void>(),
            0 as c_long,
        )
    };
    check(result as c_int).map(drop)
}

pub(crate) fn user_id() -> u32 {
    // SAFETY: no memory is involved; cannot fail.
    unsafe { geteuid() }
}

/// Keeps other processes of the same user from reading or tracing this one.
pub(crate) fn hide_from_tracers() -> io::Result<()> {
    const PR_SET_DUMPABLE: c_int = 4;
    // SAFETY: plain numbers.
    check(unsafe { prctl(PR_SET_DUMPABLE, 0 as c_long, 0 as c_long, 0 as c_long, 0 as c_long) })
        .map(drop)
}

/// Makes orphans below this process its children.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    const PR_SET_CHILD_SUBREAPER: c_int = 36;
    // SAFETY: plain numbers.
    let result = unsafe {
        prctl(PR_SET_CHILD_SUBREAPER, 1 as c_long, 0 as c_long, 0 as c_long, 0 as c_long)
    };
    check(result).map(drop)
}

/// A list of C strings that ends with a null pointer, for `execve`.
#[derive(Debug)]
pub(crate) struct StringList {
    pointers: Vec<*const c_char>,
    // Owns what `pointers` point to.
    _strings: Vec<CString>,
}

impl StringList {
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        let mut pointers: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Self { pointers, _strings: strings }
    }
}

/// Replaces this process by a program; returns the error number if it cannot. Makes only a raw system call.
pub(crate) fn execute(path: &CStr, argv: &StringList, environment: &StringList) -> i32 {
    // SAFETY: all strings end with NUL, both lists with a null pointer, and they outlive the call.
    unsafe { raw::execute(path.as_ptr(), argv.pointers.as_ptr(), environment.pointers.as_ptr()) }
}

/// As [`execute`], without variables, for a process that has no memory of its own to make lists in.
pub(crate) fn execute_plain<const N: usize>(path: &CStr, argument: [&CStr; N]) -> i32 {
    let mut argv = [ptr::null(); 4];
    for (place, argument) in argv[..3].iter_mut().zip(argument) {
        *place = argument.as_ptr();
    }
    let environment = [ptr::null()];
    // SAFETY: as above; at most three strings were put before the null pointer at the end.
    unsafe { raw::execute(path.as_ptr(), argv.as_ptr(), environment.as_ptr()) }
}
