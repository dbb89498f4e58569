//! Numbers of the system calls for which the C library has no function. A test of the host side compares them with
//! those of the `libc` crate.

#[cfg(target_arch = "x86_64")]
mod arch {
    pub(crate) const CLONE: i64 = 56;
    pub(crate) const CAPSET: i64 = 126;
    pub(crate) const PIVOT_ROOT: i64 = 155;
    pub(crate) const EXECVEAT: i64 = 322;
}

#[cfg(target_arch = "aarch64")]
mod arch {
    pub(crate) const CLONE: i64 = 220;
    pub(crate) const CAPSET: i64 = 91;
    pub(crate) const PIVOT_ROOT: i64 = 41;
    pub(crate) const EXECVEAT: i64 = 281;
}

pub(crate) use arch::{CAPSET, CLONE, EXECVEAT, PIVOT_ROOT};

// From 424 on the numbers are the same on all architectures.
pub(crate) const PIDFD_SEND_SIGNAL: i64 = 424;
pub(crate) const OPEN_TREE: i64 = 428;
pub(crate) const MOVE_MOUNT: i64 = 429;
pub(crate) const PIDFD_OPEN: i64 = 434;
pub(crate) const CLONE3: i64 = 435;
pub(crate) const CLOSE_RANGE: i64 = 436;
pub(crate) const MOUNT_SETATTR: i64 = 442;
pub(crate) const LANDLOCK_CREATE_RULESET: i64 = 444;
pub(crate) const LANDLOCK_ADD_RULE: i64 = 445;
pub(crate) const LANDLOCK_RESTRICT_SELF: i64 = 446;
