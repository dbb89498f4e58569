//! Which processes a probe attacks.
//!
//! In a sandbox that is every one in sight, and there are few. Where there are many, no wall is between the probe and the
//! host: then only processes of the suite are looked at, so that a control run leaves those of other people alone.

use std::{fs, path::Path};

/// More processes than any sandbox of the suite has.
const MANY: usize = 64;

/// How many processes above the probe are taken for those that started it.
const ANCESTORS: usize = 4;

fn numbers() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The processes to attack.
pub(super) fn process_ids() -> Vec<i32> {
    let all = numbers();
    if all.len() <= MANY {
        return all;
    }
    let above = ancestors();
    all.into_iter().filter(|pid| is_of_the_suite(*pid) || above.contains(pid)).collect()
}

/// Its programs begin with this word, and the neighbour with `nb`.
fn is_of_the_suite(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .is_ok_and(|comm| comm.starts_with("cofferdam") || comm.starts_with("nb"))
}

fn parent(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok().filter(|pid| *pid > 0)
}

/// The processes that started this program, nearest first: those of the suite and what it started a sandbox with.
fn ancestors() -> Vec<i32> {
    let printer = i32::try_from(std::os::unix::process::parent_id()).ok();
    let above = std::iter::successors(printer.and_then(parent), |pid| parent(*pid));
    let above = above.take(ANCESTORS).collect::<Vec<_>>();
    let last = above.iter().rposition(|pid| is_of_the_suite(*pid));
    above[..last.map_or(0, |last| last + 1)].to_vec()
}

/// The process that set the sandbox up: the first in sight, or outside of any sandbox the one that started the probe.
pub(super) fn first() -> i32 {
    if numbers().len() <= MANY { 1 } else { ancestors().first().copied().unwrap_or(1) }
}

/// Whether a process is this program or the one that prints its answers.
pub(super) fn is_the_probe(pid: i32) -> bool {
    let own = [std::process::id(), std::os::unix::process::parent_id()];
    own.contains(&pid.unsigned_abs()) || {
        // Where the program is the first process of its sandbox, nothing else started it.
        pid == 1
            && Path::new("/proc/1/exe").read_link().is_ok_and(|first| {
                Path::new("/proc/self/exe").read_link().is_ok_and(|own| own == first)
            })
    }
}
