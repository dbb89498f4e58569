//! [`Owner`]: who made a directory.

use std::{fs, os::unix::fs::MetadataExt};

/// Prefix of the directories of all sandboxes.
const PREFIX: &str = "cofferdam-";

/// The process that made a directory: its id, its start time, and the pid namespace in which the id is meant. Together
/// they are never used twice until the next boot, when the directories are gone too.
///
/// The name of a directory is `cofferdam-<pid>.<start time>.<pid namespace>-<sandbox>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(super) pid: u32,
    pub(super) start_time: u64,
    pub(super) namespace: u64,
}

impl Owner {
    /// Returns this process.
    pub(crate) fn current() -> Self {
        Self::of_process(std::process::id())
    }

    /// Returns a process that this one sees.
    pub(crate) fn of_process(pid: u32) -> Self {
        Self {
            pid,
            start_time: start_time(pid).unwrap_or(0),
            namespace: own_namespace().unwrap_or(0),
        }
    }

    /// Returns the name for the directories of a sandbox.
    pub(crate) fn directory_name(self, sandbox: &str) -> String {
        format!("{PREFIX}{}.{}.{}-{sandbox}", self.pid, self.start_time, self.namespace)
    }

    /// Returns the owner that a directory's name tells of.
    pub(crate) fn of_directory(name: &str) -> Option<Self> {
        let (owner, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
        let mut numbers = owner.split('.');
        let found = Self {
            pid: numbers.next()?.parse().ok()?,
            start_time: numbers.next()?.parse().ok()?,
            namespace: numbers.next()?.parse().ok()?,
        };
        numbers.next().is_none().then_some(found)
    }

    /// Returns a process that had the id before, and so has ended.
    #[cfg(test)]
    pub(crate) fn before(owner: Self) -> Self {
        Self { start_time: owner.start_time.saturating_sub(1), ..owner }
    }

    /// Returns true if the owner is known to be dead. An id of another pid namespace says nothing here.
    pub(crate) fn is_dead(self) -> bool {
        own_namespace() == Some(self.namespace) && start_time(self.pid) != Some(self.start_time)
    }
}

/// Returns the number of this process's pid namespace.
fn own_namespace() -> Option<u64> {
    fs::metadata("/proc/self/ns/pid").ok().map(|namespace| namespace.ino())
}

/// Returns field 22 of `/proc/<pid>/stat`. The second field is a name that may hold spaces and parentheses.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace();
    // A process that nobody has waited for is dead all the same.
    let dead = matches!(fields.next()?, "Z" | "X");
    (!dead).then(|| fields.nth(18)?.parse().ok()).flatten()
}
