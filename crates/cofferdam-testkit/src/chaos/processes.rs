//! The processes of this host as `/proc` shows them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
};

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// The id of its parent.
    pub parent: u32,
    /// The name of its program, at most 15 characters.
    pub name: String,
    /// When it started, in ticks since the host did.
    pub started: u64,
    /// Whether it has ended, and its parent has not asked for its status.
    pub zombie: bool,
}

fn read(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold blanks and parentheses.
    let (start, end) = (stat.find('(')?, stat.rfind(')')?);
    let mut fields = stat.get(end + 2..)?.split(' ');
    let zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some(Process { pid, parent, name: stat.get(start + 1..end)?.to_owned(), started, zombie })
}

fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| read(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
}

/// Returns the children of a process.
#[must_use]
pub fn children(parent: u32) -> Vec<Process> {
    all().into_iter().filter(|process| process.parent == parent).collect()
}

/// Returns the processes below a process, the nearest first; not itself.
#[must_use]
pub fn descendants(ancestor: u32) -> Vec<Process> {
    let mut by_parent: BTreeMap<u32, Vec<Process>> = BTreeMap::new();
    for process in all() {
        by_parent.entry(process.parent).or_default().push(process);
    }
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![ancestor];
    while !parents.is_empty() {
        let generation: Vec<Process> =
            parents.iter().filter_map(|parent| by_parent.remove(parent)).flatten().collect();
        parents = generation.iter().map(|process| process.pid).collect();
        found.extend(generation);
    }
    found
}

/// The kinds of namespaces of which a sandbox may have its own.
const KINDS: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// Namespaces, as the numbers of their files.
pub(super) type Namespaces = BTreeSet<u64>;

/// Returns the namespaces of a process; none if it has ended.
fn namespaces_of(process: &str) -> Namespaces {
    KINDS
        .iter()
        .filter_map(|kind| fs::metadata(format!("/proc/{process}/ns/{kind}")).ok())
        .map(|namespace| namespace.ino())
        .collect()
}

/// Returns the namespaces that a process's descendants have and this process has not.
pub(super) fn foreign_namespaces(ancestor: u32) -> Namespaces {
    let own = namespaces_of("self");
    let theirs = descendants(ancestor)
        .into_iter()
        .flat_map(|process| namespaces_of(&process.pid.to_string()));
    theirs.filter(|namespace| !own.contains(namespace)).collect()
}

/// A moment, in the ticks of `/proc`; processes that start after it have a later one.
pub(super) type Moment = u64;

/// Returns this moment.
pub(super) fn now() -> Moment {
    // Seconds with two digits behind the point, which are ticks.
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = uptime.split(' ').next().unwrap_or_default();
    seconds.replace('.', "").parse().unwrap_or(0)
}

/// Returns the processes that are in one of these namespaces since before a moment at which they were in use.
///
/// The kernel gives the number of a namespace that is gone to a new one, and who started later is in that.
pub(super) fn holders(namespaces: &Namespaces, since_before: Moment) -> Vec<String> {
    let holds = |process: &Process| {
        process.started < since_before
            && !namespaces_of(&process.pid.to_string()).is_disjoint(namespaces)
    };
    let tell = |process: Process| {
        format!("process {} ({}) is in a namespace of the round", process.pid, process.name)
    };
    all().into_iter().filter(holds).map(tell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_a_child_of_its_parent() {
        let own = read(std::process::id()).expect("it lives");
        assert!(!own.zombie);
        assert!(children(own.parent).contains(&own));
        assert!(descendants(own.parent).contains(&own));
        assert!(!descendants(own.pid).contains(&own));
        let own_namespaces = namespaces_of("self");
        let held = |namespaces, moment| {
            let line = format!("process {} ", own.pid);
            holders(namespaces, moment).iter().any(|holder| holder.contains(&line))
        };
        assert!(own.started <= now());
        assert!(held(&own_namespaces, now() + 1));
        // It started later, or the namespaces are not there.
        assert!(!held(&own_namespaces, own.started));
        assert!(!held(&Namespaces::from([1]), now() + 1));
    }
}
