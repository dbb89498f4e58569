//! The signals of this process: all blocked, and children's ends told by a descriptor.

use std::{
    ffi::{c_int, c_long, c_void},
    io,
    os::fd::OwnedFd,
};

use super::{O_CLOEXEC, O_NONBLOCK, owned, syscall};

unsafe extern "C" {
    fn sigfillset(set: *mut SignalSet) -> c_int;
    fn sigemptyset(set: *mut SignalSet) -> c_int;
    fn sigaddset(set: *mut SignalSet, number: c_int) -> c_int;
    fn sigprocmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int;
    fn signalfd(fd: c_int, set: *const SignalSet, flags: c_int) -> c_int;
}

#[cfg(target_arch = "x86_64")]
const SYS_RT_SIGACTION: c_long = 13;
#[cfg(not(target_arch = "x86_64"))]
const SYS_RT_SIGACTION: c_long = 134;
const SIG_SETMASK: c_int = 2;

pub(crate) const SIGKILL: c_int = 9;
pub(crate) const SIGCHLD: c_int = 17;
pub(crate) const SIGCONT: c_int = 18;
pub(crate) const SIGSTOP: c_int = 19;
/// What the kernel sends a reaper when the guest dies.
pub(crate) const SIGHUP: c_int = 1;

#[repr(C)]
struct SignalSet([u64; 16]);

fn signal_set(numbers: &[c_int]) -> SignalSet {
    let mut set = SignalSet([0; 16]);
    // SAFETY: `set` is valid for writing, and as large as the C library's type.
    unsafe {
        sigemptyset(&raw mut set);
        for &number in numbers {
            sigaddset(&raw mut set, number);
        }
    }
    set
}

/// Blocks every signal that can be blocked.
pub(crate) fn block_signals() {
    let mut set = SignalSet([0; 16]);
    // SAFETY: `set` is valid; a null pointer for the old set is allowed.
    unsafe {
        sigfillset(&raw mut set);
        sigprocmask(SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Gives all signals their default action.
pub(crate) fn reset_signal_actions() {
    // The kernel's structure with the default action, no flags and an empty mask: all zero bits, whatever the order of
    // its fields. The C library's own function refuses the two signals that it keeps for itself, which may have been
    // inherited as ignored.
    let default = [0_u64; 4];
    // SAFETY: the default action is no code of ours, and `default` is at least as large as the kernel's structure;
    // SIGKILL and SIGSTOP answer with an error, which changes nothing.
    unsafe {
        for number in 1..=64 as c_long {
            syscall(
                SYS_RT_SIGACTION,
                number,
                default.as_ptr(),
                std::ptr::null_mut::<c_void>(),
                size_of::<u64>(),
            );
        }
    }
}
/// Opens a descriptor that becomes readable when a child ends.
pub(crate) fn child_signals() -> io::Result<OwnedFd> {
    let set = signal_set(&[SIGCHLD]);
    // SAFETY: `set` is valid for reading.
    owned(unsafe { signalfd(-1, &raw const set, O_CLOEXEC | O_NONBLOCK) })
}
