//! Where the launcher lives: a mount namespace of its own in which it may mount, and to which it can return.
//!
//! With `CAP_SYS_ADMIN` that is a copy of the host's namespace. Without, the launcher first makes a user namespace, in
//! which every id is itself, so that all else is the same for root and for an ordinary user. Mounts that the host makes
//! or removes later arrive here too.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
};

use crate::{
    plan::{Identity, Plan},
    report::Step,
    step::{Failure, Steps},
    sys::{self, Side, mount},
};

/// A place to return to from a template.
#[derive(Debug)]
pub(crate) struct Home {
    mounts: OwnedFd,
    root: OwnedFd,
}

impl Home {
    /// Leaves the host's mount namespace.
    pub(crate) fn make(plan: &Plan, steps: &Steps) -> Result<Self, Failure> {
        const EPERM: i32 = 1;
        steps.run(Step::CreateNamespaces, b"of the launcher", || match sys::unshare_namespaces(
            sys::CLONE_NEWNS,
        ) {
            Err(error) if error.raw_os_error() == Some(EPERM) && plan.own_users => {
                own_users(&plan.identity)
            }
            other => other,
        })?;
        steps.run(Step::PrivateMounts, b"of the launcher", || {
            mount::mount_at(c"none", c"/", None, mount::MS_REC | mount::MS_SLAVE, None)
        })?;
        steps.run(Step::CreateNamespaces, b"of the launcher", || {
            const O_PATH: i32 = 0o10_000_000;
            Ok(Self {
                mounts: current_mounts()?,
                root: File::options().read(true).custom_flags(O_PATH).open("/")?.into(),
            })
        })
    }

    /// Comes back from a template.
    pub(crate) fn return_here(&self) -> io::Result<()> {
        sys::enter_namespace(self.mounts.as_fd(), sys::CLONE_NEWNS)?;
        // Not the root of the namespace, if the host has been put under another one.
        sys::set_root(self.root.as_fd())
    }
}

/// Returns the mount namespace in which this process is; needs its `/proc`.
pub(crate) fn current_mounts() -> io::Result<OwnedFd> {
    File::open("/proc/self/ns/mnt").map(OwnedFd::from)
}

/// Moves this process to new user and mount namespaces and maps all ids that it may to themselves.
///
/// The maps are written by a process that stays behind, since only there are the capabilities to map more than one id.
fn own_users(identity: &Identity) -> io::Result<()> {
    let pid = std::process::id();
    let (own, other) = sys::socket_pair()?;
    let (user, group) = sys::user_and_group();
    let map = |file: &str, id: u32| {
        if identity.drop_groups { all_ids(file) } else { Ok(format!("{id} {id} 1")) }
    };
    let maps = (map("uid_map", user)?, map("gid_map", group)?);
    let write = |name: &str, content: &str| fs::write(format!("/proc/{pid}/{name}"), content);
    let (pid_of_writer, _) = match sys::clone_process(0, None)? {
        Side::Parent(pid, pidfd) => (pid, pidfd),
        Side::Child => {
            drop(own);
            let written = File::from(other).read_exact(&mut [0]).and_then(|()| {
                if !identity.drop_groups {
                    // Without this an unprivileged process may not map a group: dropping one can also gain access.
                    write("setgroups", "deny")?;
                }
                write("uid_map", &maps.0)?;
                write("gid_map", &maps.1)
            });
            sys::exit_now(written.err().and_then(|error| error.raw_os_error()).unwrap_or(0));
        }
    };
    drop(other);
    sys::set_dumpable(true)?;
    let moved = sys::unshare_namespaces(sys::CLONE_NEWUSER | sys::CLONE_NEWNS);
    if moved.is_ok() {
        File::from(own).write_all(b"g")?;
    } else {
        // The writer finds the end of its socket.
        drop(own);
    }
    let status = sys::wait_for(pid_of_writer);
    sys::set_dumpable(false)?;
    moved?;
    exit_error(status?)
}

/// Returns the error of a helper process that exits with an error number.
pub(crate) fn exit_error(status: i32) -> io::Result<()> {
    match (status >> 8) & 0xff {
        0 if status == 0 => Ok(()),
        0 => Err(io::Error::from_raw_os_error(sys::EINVAL)),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Returns a map of all ids of this namespace to themselves.
fn all_ids(file: &str) -> io::Result<String> {
    let text = fs::read_to_string(format!("/proc/self/{file}"))?;
    let lines = text.lines().filter_map(|line| {
        let mut numbers = line.split_ascii_whitespace();
        let (first, count) = (numbers.next()?, numbers.nth(1)?);
        Some(format!("{first} {first} {count}"))
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}
