//! Landlock: the second wall, which holds even if a path into another mount were found; and the first, for a sandbox without
//! namespaces.

use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::AsFd,
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
};

use crate::{
    plan::{LandlockAccess, Plan},
    report::Step,
    step::{Failure, Steps},
    sys,
};

// Bits of `handled_access_fs`, from `linux/landlock.h`.
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
const MAKE_SOCK: u64 = 1 << 9;
const MAKE_FIFO: u64 = 1 << 10;
const MAKE_SYM: u64 = 1 << 12;
/// The first 13 rights, which every version has; 6 and 11, device nodes, are handled and never granted.
const ALL_OF_ABI_1: u64 = (1 << 13) - 1;
/// To rename and link between directories; from ABI 2.
const REFER: u64 = 1 << 13;
/// From ABI 3.
const TRUNCATE: u64 = 1 << 14;
/// From ABI 5.
const IOCTL_DEV: u64 = 1 << 15;

/// `scoped`, from ABI 6: abstract Unix sockets and signals end at the sandbox's border.
const SCOPED: u64 = 0b11;

/// `handled_access_net`, from ABI 4: binding and connecting TCP sockets.
const TCP: u64 = 0b11;

/// The oldest ABI with which a sandbox can do without namespaces. Before it, commands could signal every process of their
/// user, and reach abstract sockets; and the keeper could not end all that it keeps and nothing else.
const CONFINES: i64 = 6;

/// That this process and all that it starts can signal nobody outside: what [`sys::kill_all`] is safe with.
pub(crate) struct OutOfReach(());

/// Puts this process, a keeper, into a domain whose processes can signal only each other, and makes sure that it holds:
/// `outside` is a process that it could signal otherwise.
pub(crate) fn keep_signals_in(outside: i32, steps: &Steps) -> Result<OutOfReach, Failure> {
    const EPERM: i32 = 1;
    steps.run(Step::Landlock, b"version", || match sys::landlock::version() {
        Ok(CONFINES..) => Ok(()),
        // It is too old, was not built in, or was not started.
        Ok(_) => Err(io::Error::from_raw_os_error(EOPNOTSUPP)),
        Err(error) if error.raw_os_error() == Some(ENOSYS) => {
            Err(io::Error::from_raw_os_error(EOPNOTSUPP))
        }
        Err(error) => Err(error),
    })?;
    steps.run(Step::Landlock, b"signals", || {
        // A domain that says nothing of moving files between directories forbids it.
        let ruleset = sys::landlock::ruleset(&[REFER, 0, SCOPED])?;
        let everywhere = OpenOptions::new().read(true).custom_flags(O_PATH).open("/")?;
        sys::landlock::allow(ruleset.as_fd(), everywhere.as_fd(), REFER)?;
        sys::landlock::restrict(ruleset.as_fd())?;
        match sys::signal_process(outside, 0) {
            Err(error) if error.raw_os_error() == Some(EPERM) => Ok(OutOfReach(())),
            Err(error) => Err(error),
            // It says that it does what it does not.
            Ok(()) => Err(io::Error::from_raw_os_error(EOPNOTSUPP)),
        }
    })
}

const O_PATH: i32 = 0o10_000_000;
const ENOSYS: i32 = 38;
const EOPNOTSUPP: i32 = 95;

/// Puts the process under the plan's rules and returns the ABI, or 0 if this kernel has no Landlock.
///
/// A missing Landlock is no failure here: the host reports it as a missing wall, and refuses if it was asked for. A sandbox
/// without namespaces has come through [`keep_signals_in`] before.
pub(crate) fn restrict(plan: &Plan, steps: &Steps) -> Result<i32, Failure> {
    let abi = steps.run(Step::Landlock, b"version", || match sys::landlock::version() {
        Err(error) if matches!(error.raw_os_error(), Some(ENOSYS | EOPNOTSUPP)) => Ok(0),
        other => other,
    })?;
    if abi == 0 {
        return Ok(0);
    }
    let handled = ALL_OF_ABI_1
        | if abi >= 2 { REFER } else { 0 }
        | if abi >= 3 { TRUNCATE } else { 0 }
        | if abi >= 5 { IOCTL_DEV } else { 0 };
    // `struct landlock_ruleset_attr`: handled_access_fs, handled_access_net, scoped. Older kernels know less of it.
    let tcp = if plan.confined.is_some() && plan.own_network { TCP } else { 0 };
    let attributes = [handled, tcp, SCOPED];
    let known = if abi >= 6 { &attributes[..] } else { &attributes[..1] };
    let ruleset = steps.run(Step::Landlock, b"ruleset", || sys::landlock::ruleset(known))?;
    for rule in &plan.landlock {
        let access = handled
            & match rule.access {
                LandlockAccess::Read => EXECUTE | READ_FILE | READ_DIR,
                LandlockAccess::ReadFile => EXECUTE | READ_FILE,
                LandlockAccess::Write => {
                    EXECUTE
                        | WRITE_FILE
                        | READ_FILE
                        | READ_DIR
                        | REMOVE_DIR
                        | REMOVE_FILE
                        | MAKE_DIR
                        | MAKE_REG
                        | MAKE_SOCK
                        | MAKE_FIFO
                        | MAKE_SYM
                        | REFER
                        | TRUNCATE
                }
                LandlockAccess::Device => WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV,
            };
        steps.run(Step::Landlock, rule.path.to_bytes(), || {
            let name = std::ffi::OsStr::from_bytes(rule.path.to_bytes());
            let path = OpenOptions::new().read(true).custom_flags(O_PATH).open(name)?;
            sys::landlock::allow(ruleset.as_fd(), path.as_fd(), access)
        })?;
    }
    steps.run(Step::Landlock, b"restrict", || sys::landlock::restrict(ruleset.as_fd()))?;
    Ok(i32::try_from(abi).unwrap_or(i32::MAX))
}
