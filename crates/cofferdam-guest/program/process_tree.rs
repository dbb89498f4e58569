//! Finding and killing all descendants of a process, also those in other sessions.
//!
//! Orphans become children of the nearest sub-reaper, so whatever a command does, its processes stay below its reaper:
//! the tree is what `/proc` tells at a moment, and the work is repeated until nothing is left.

use std::{collections::HashMap, fs, io::Read};

use crate::sys::{self, Pid};

/// A process at a moment: its number, and its start time, which tells it from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: Pid,
    parent: Pid,
    started: u64,
    dead: bool,
}

/// Kills all that is below `root` now, but not `root` itself nor what is below one of `spared`.
///
/// Returns the number of live processes found. The caller repeats until it is zero or `root` is gone: a process may
/// have been born while the list was read.
pub(crate) fn kill_below(root: Pid, spared: &[Pid]) -> usize {
    let mut stopped: Vec<Pid> = Vec::new();
    // Stopping first keeps a process that forks all the time from outrunning the killing.
    for _ in 0..8 {
        let fresh: Vec<Process> = below(root, spared)
            .into_iter()
            .filter(|process| !stopped.contains(&process.pid))
            .collect();
        if fresh.is_empty() {
            break;
        }
        for process in fresh {
            signal_exactly(process, sys::SIGSTOP);
            stopped.push(process.pid);
        }
    }
    let found = below(root, spared);
    for process in &found {
        signal_exactly(*process, sys::SIGKILL);
    }
    found.len()
}

/// Sends a signal only if the number still names the same process.
fn signal_exactly(process: Process, number: i32) {
    let Ok(handle) = sys::open_pid(process.pid) else {
        return;
    };
    // The handle names one process for good; if that is the one which was listed, the signal cannot go astray.
    if read_process(process.pid).is_some_and(|now| now.started == process.started) {
        // It may have ended meanwhile, which is what was wanted.
        let _ = sys::send_signal_to(&handle, number);
    }
}

/// Lists the live processes below `root`.
fn below(root: Pid, spared: &[Pid]) -> Vec<Process> {
    let mut children: HashMap<Pid, Vec<Process>> = HashMap::new();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    for entry in entries.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(process) = pid.and_then(read_process) {
            children.entry(process.parent).or_default().push(process);
        }
    }
    let mut found = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for process in children.remove(&parent).unwrap_or_default() {
            if !spared.contains(&process.pid) {
                parents.push(process.pid);
                if !process.dead {
                    found.push(process);
                }
            }
        }
    }
    found
}

fn read_process(pid: Pid) -> Option<Process> {
    let mut text = Vec::with_capacity(512);
    fs::File::open(format!("/proc/{pid}/stat")).ok()?.read_to_end(&mut text).ok()?;
    // `pid (name) state parent ...`: the name may hold anything, so look for the last bracket.
    let end = text.iter().rposition(|&byte| byte == b')')?;
    let text = std::str::from_utf8(text.get(end + 1..)?).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    // The start time is field 22 of the line; the parent is field 4.
    let started = fields.nth(17)?.parse().ok()?;
    Some(Process { pid, parent, started, dead: matches!(state, "Z" | "X") })
}
