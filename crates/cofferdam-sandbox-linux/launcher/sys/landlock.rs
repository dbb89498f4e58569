//! Landlock.

use std::{
    ffi::{c_int, c_long, c_uint, c_void},
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    ptr,
};

use super::{check_long, own, syscall};
use crate::numbers;

/// Returns the version of Landlock that the kernel has.
pub(crate) fn version() -> io::Result<c_long> {
    const LANDLOCK_CREATE_RULESET_VERSION: c_uint = 1;
    // SAFETY: with this flag the attribute pointer must be null.
    check_long(unsafe {
        syscall(
            numbers::LANDLOCK_CREATE_RULESET,
            ptr::null::<c_void>(),
            0_usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    })
}

/// Makes a Landlock ruleset from `struct landlock_ruleset_attr`, as long as the kernel's version knows it.
pub(crate) fn ruleset(attributes: &[u64]) -> io::Result<OwnedFd> {
    // SAFETY: pointer and size are of one slice that outlives the call.
    own(unsafe {
        syscall(
            numbers::LANDLOCK_CREATE_RULESET,
            attributes.as_ptr(),
            size_of_val(attributes),
            0_u32,
        )
    })
}

/// Adds a grant beneath an open path to a ruleset.
pub(crate) fn allow(ruleset: BorrowedFd<'_>, path: BorrowedFd<'_>, access: u64) -> io::Result<()> {
    #[repr(C, packed)]
    struct PathBeneath {
        access: u64,
        fd: c_int,
    }
    const LANDLOCK_RULE_PATH_BENEATH: c_uint = 1;
    let rule = PathBeneath { access, fd: path.as_raw_fd() };
    // SAFETY: `rule` has the form of this rule type and outlives the call; both descriptors are borrowed.
    check_long(unsafe {
        syscall(
            numbers::LANDLOCK_ADD_RULE,
            ruleset.as_raw_fd(),
            LANDLOCK_RULE_PATH_BENEATH,
            &raw const rule,
            0_u32,
        )
    })
    .map(drop)
}

/// Puts this process under a ruleset for ever.
pub(crate) fn restrict(ruleset: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed.
    check_long(unsafe { syscall(numbers::LANDLOCK_RESTRICT_SELF, ruleset.as_raw_fd(), 0_u32) })
        .map(drop)
}
