//! Privileges: what the process may become.

use std::fs;

use super::probe_table;
use crate::{
    numbers as n,
    outcome::Outcome,
    sys::{structure, sys},
    targets::Targets,
};

probe_table! { "privileges":
    new_privileges "no-new-privs" "run with no_new_privs off",
    capabilities "capabilities" "have a capability in any set",
    raise_capabilities "capset" "raise a capability",
    filter "seccomp" "run without a system call filter",
    root "host-root" "be user 0 of the host",
    become_root "setuid-0" "become user 0",
    groups "setgroups" "change supplementary groups",
    owner "chown" "give a file to another user",
    core_files "core-files" "leave core files",
    segment "sysv-shm" "find a shared memory segment of the host",
}

/// A line of `/proc/self/status`.
fn status(field: &str) -> Result<String, Outcome> {
    let text = fs::read_to_string("/proc/self/status")
        .map_err(|error| Outcome::broken(format!("cannot read /proc/self/status: {error}")))?;
    text.lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .map(|value| value.trim().to_owned())
        .ok_or_else(|| Outcome::broken(format!("no {field} in /proc/self/status")))
}

/// Calls of `prctl` that read; none of them is filtered anywhere.
fn prctl(option: i32) -> Outcome {
    match sys!(n::PRCTL, option, 0, 0, 0, 0) {
        Ok(0) => Outcome::open("off"),
        Ok(value) => Outcome::denied(format!("on ({value})")),
        Err(error) => Outcome::refused(&error),
    }
}

fn new_privileges(_: &Targets) -> Outcome {
    const PR_GET_NO_NEW_PRIVS: i32 = 39;
    prctl(PR_GET_NO_NEW_PRIVS)
}

fn filter(_: &Targets) -> Outcome {
    const PR_GET_SECCOMP: i32 = 21;
    prctl(PR_GET_SECCOMP)
}

fn capabilities(_: &Targets) -> Outcome {
    let mut seen = Vec::new();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        match status(set) {
            Ok(value) if value.bytes().any(|digit| digit != b'0') => {
                seen.push(format!("{set} {value}"));
            }
            Ok(_) => {}
            Err(outcome) => return outcome,
        }
    }
    if seen.is_empty() {
        Outcome::denied("all five sets are empty")
    } else {
        Outcome::open(seen.join(", "))
    }
}

fn raise_capabilities(_: &Targets) -> Outcome {
    const VERSION_3: u32 = 0x2008_0522;
    const CAP_SYS_ADMIN: u32 = 1 << 21;
    let header = structure!(8; VERSION_3, 0_i32);
    let data = structure!(24; CAP_SYS_ADMIN, CAP_SYS_ADMIN, 0_u32);
    Outcome::of(sys!(n::CAPSET, &header[..], &data[..]), "CAP_SYS_ADMIN was set")
}

fn root(_: &Targets) -> Outcome {
    use std::os::unix::fs::MetadataExt as _;
    // What the kernel shows of users who do not exist in this namespace.
    const NOBODY: u32 = 65534;
    let own: u32 = match status("Uid").map(|it| it.split_whitespace().next()?.parse().ok()) {
        Ok(Some(own)) => own,
        Ok(None) => return Outcome::broken("no user in /proc/self/status"),
        Err(outcome) => return outcome,
    };
    // The kernel's settings belong to user 0 of the host, whatever it is called here.
    match fs::metadata("/proc/sys/kernel/ostype").map(|it| it.uid()) {
        Ok(root) if root == own && own != NOBODY => {
            Outcome::open(format!("user {own} here owns the kernel's settings"))
        }
        Ok(root) => {
            Outcome::denied(format!("user {own} here, and the settings are of user {root}"))
        }
        Err(error) => Outcome::refused(&error),
    }
}

fn become_root(_: &Targets) -> Outcome {
    match sys!(n::SETUID, 0) {
        Ok(_) => Outcome::open("it did"),
        // User 0 is not mapped, so it does not exist here.
        Err(error) if error.raw_os_error() == Some(22) => Outcome::denied("there is no user 0"),
        Err(error) => Outcome::refused(&error),
    }
}

fn groups(_: &Targets) -> Outcome {
    Outcome::of(sys!(n::SETGROUPS, 0, 0), "dropped all groups")
}

fn owner(_: &Targets) -> Outcome {
    let given = fs::write("given", "x").and_then(|()| sys!(n::CHOWN, c"given", 12345, 12345));
    match given {
        Err(error) if error.raw_os_error() == Some(22) => Outcome::denied("there is no other user"),
        given => Outcome::of(given, "gave a file to user 12345"),
    }
}

fn core_files(_: &Targets) -> Outcome {
    const RLIMIT_CORE: i32 = 4;
    let mut limit = [0_u8; 16];
    match sys!(n::PRLIMIT64, 0, RLIMIT_CORE, 0, &mut limit[..]) {
        Ok(_) if limit[8..].iter().any(|byte| *byte != 0) => {
            Outcome::open("the hard limit is not 0")
        }
        Ok(_) => Outcome::denied("the hard limit is 0"),
        Err(error) => Outcome::refused(&error),
    }
}

fn segment(targets: &Targets) -> Outcome {
    Outcome::of(sys!(n::SHMGET, targets.shm_key, 0, 0), "found it")
}
