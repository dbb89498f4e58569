//! Processes of the host: seeing, signalling, tracing, reading them.

use std::{fs, os::fd::OwnedFd};

use super::{
    probe_table,
    sight::{first, is_the_probe, process_ids},
};
use crate::{
    numbers as n,
    outcome::{EINVAL, Outcome},
    sys::{self, structure, sys},
    targets::{Targets, holds},
};

probe_table! { "processes":
    environments "environ" "find a secret in the environment of a host process",
    arguments "cmdline" "find a secret in the arguments of a host process",
    own_environment "inherited-environ" "find the launcher's secret in the own environment",
    launcher_environment "launcher-environ" "find the launcher's secret in another process's environment",
    signal "signal" "signal a host process",
    signal_by_pidfd "signal-pidfd" "signal a host process by descriptor",
    take_descriptor "pidfd-getfd" "take a descriptor out of a host process",
    read_memory "process-vm-readv" "read the memory of a host process",
    write_memory "process-vm-writev" "reach the memory of a host process for writing",
    memory_file "proc-mem" "open the memory file of a host process",
    trace "ptrace-host" "trace a host process",
    trace_child "ptrace-child" "trace an own child",
    trace_first "ptrace-init" "trace the first process of the sandbox",
    first_memory "init-mem" "open the memory of the first process of the sandbox",
    compare "kcmp" "compare kernel objects of processes (kcmp)",
    limits "prlimit" "change limits of a host process",
    priority "priority" "change the priority of a host process",
    real_time "sched-fifo" "run with real-time priority",
    real_time_io "ioprio-rt" "use the disk with real-time priority",
    raise "nice" "raise the own priority",
    orphans "zombies" "leave zombies behind",
}

/// Looks for a canary in a file of every process but this one and its parent, which prints the answers.
fn search(file: &str, canary: &str) -> Outcome {
    let own = [std::process::id(), std::os::unix::process::parent_id()];
    let others = process_ids().into_iter().filter(|pid| !own.contains(&pid.unsigned_abs()));
    let mut read = 0;
    for pid in others {
        let Ok(bytes) = fs::read(format!("/proc/{pid}/{file}")) else { continue };
        read += 1;
        if holds(&bytes, canary) {
            return Outcome::open(format!("found it in /proc/{pid}/{file}"));
        }
    }
    Outcome::denied(format!("not in the {read} that can be read"))
}

fn environments(targets: &Targets) -> Outcome {
    search("environ", &targets.canary("environ"))
}

fn arguments(targets: &Targets) -> Outcome {
    search("cmdline", &targets.canary("argv"))
}

fn launcher_environment(targets: &Targets) -> Outcome {
    search("environ", &targets.canary("inherited"))
}

fn own_environment(targets: &Targets) -> Outcome {
    let found = std::env::vars_os()
        .find(|(_, value)| holds(value.as_encoded_bytes(), &targets.canary("inherited")));
    match found {
        Some((name, _)) => Outcome::open(format!("it is in {}", name.display())),
        None => Outcome::denied("not in the environment"),
    }
}

fn signal(targets: &Targets) -> Outcome {
    Outcome::of(sys::kill(targets.victim, 0), "signal 0 was sent")
}

fn pidfd(pid: i32) -> std::io::Result<OwnedFd> {
    sys::descriptor(n::PIDFD_OPEN, &[pid.into(), 0.into()])
}

fn signal_by_pidfd(targets: &Targets) -> Outcome {
    let sent = pidfd(targets.victim).and_then(|fd| sys!(n::PIDFD_SEND_SIGNAL, &fd, 0, 0, 0));
    Outcome::of(sent, "signal 0 was sent")
}

fn take_descriptor(targets: &Targets) -> Outcome {
    let taken = pidfd(targets.victim).and_then(|fd| sys!(n::PIDFD_GETFD, &fd, 0, 0));
    Outcome::of(taken, "took its standard input")
}

/// Where a static program of ours begins in memory.
const BASE: u64 = 0x40_0000;

fn transfer(number: i64, pid: i32) -> Outcome {
    let mut bytes = [0_u8; 4];
    let local = structure!(16; bytes.as_mut_ptr() as u64, 4_u64);
    // For writing the address is one that nothing can be at: past the check it is a fault.
    let at = if number == n::PROCESS_VM_WRITEV { 0x10 } else { BASE };
    let remote = structure!(16; at, 4_u64);
    let done = sys!(number, pid, &local[..], 1, &remote[..], 1, 0);
    Outcome::past_the_check(done, &[14])
}

fn read_memory(targets: &Targets) -> Outcome {
    transfer(n::PROCESS_VM_READV, targets.victim)
}

fn write_memory(targets: &Targets) -> Outcome {
    transfer(n::PROCESS_VM_WRITEV, targets.victim)
}

fn memory_file(targets: &Targets) -> Outcome {
    let path = format!("/proc/{}/mem", targets.victim);
    Outcome::of(fs::OpenOptions::new().read(true).write(true).open(path), "opened it")
}

fn first_memory(_: &Targets) -> Outcome {
    if is_the_probe(first()) {
        return Outcome::denied(OURS);
    }
    let path = format!("/proc/{}/mem", first());
    Outcome::of(fs::File::open(&path), format!("opened {path}"))
}

/// Why attacks on the first process say nothing.
pub(super) const OURS: &str = "the first process is the probe itself";

const PTRACE_SEIZE: i32 = 0x4206;
const PTRACE_DETACH: i32 = 17;

/// Traces a process for an instant.
pub(super) fn seize(pid: i32) -> Outcome {
    let seized = sys!(n::PTRACE, PTRACE_SEIZE, pid, 0, 0);
    if seized.is_ok() {
        let _ = sys!(n::PTRACE, PTRACE_DETACH, pid, 0, 0);
    }
    Outcome::of(seized, format!("traced process {pid}"))
}

fn trace(targets: &Targets) -> Outcome {
    seize(targets.victim)
}

fn trace_first(_: &Targets) -> Outcome {
    if is_the_probe(first()) { Outcome::denied(OURS) } else { seize(first()) }
}

fn trace_child(_: &Targets) -> Outcome {
    match sys::fork_process() {
        Ok(None) => {
            let _ = sys!(n::PAUSE);
            sys::exit_now(0)
        }
        Ok(Some(child)) => {
            let outcome = seize(child);
            let _ = sys::kill(child, 9);
            let _ = sys::wait_child(child, true);
            outcome
        }
        Err(error) => Outcome::broken(format!("no child: {error}")),
    }
}

fn compare(targets: &Targets) -> Outcome {
    const KCMP_VM: i32 = 1;
    let own = std::process::id();
    Outcome::any([targets.victim, i32::try_from(own).unwrap_or(1)].map(|other| {
        Outcome::of(sys!(n::KCMP, own, other, KCMP_VM, 0, 0), format!("compared with {other}"))
    }))
}

fn limits(targets: &Targets) -> Outcome {
    const RLIMIT_CORE: i32 = 4;
    let mut old = [0_u8; 16];
    if let Err(error) = sys!(n::PRLIMIT64, targets.victim, RLIMIT_CORE, 0, &mut old[..]) {
        return Outcome::refused(&error);
    }
    // The same values again.
    let set = sys!(n::PRLIMIT64, targets.victim, RLIMIT_CORE, &old[..], 0);
    Outcome::of(set, "set its limit of core files")
}

fn priority(targets: &Targets) -> Outcome {
    Outcome::of(sys!(n::SETPRIORITY, 0, targets.victim, 0), "set it to 0")
}

fn real_time(_: &Targets) -> Outcome {
    const SCHED_FIFO: i32 = 1;
    let priority = 1_i32.to_ne_bytes();
    let set = sys!(n::SCHED_SETSCHEDULER, 0, SCHED_FIFO, &priority[..]);
    if set.is_ok() {
        let normal = 0_i32.to_ne_bytes();
        let _ = sys!(n::SCHED_SETSCHEDULER, 0, 0, &normal[..]);
    }
    Outcome::of(set, "SCHED_FIFO was set")
}

fn real_time_io(_: &Targets) -> Outcome {
    const OWN_PROCESS: i32 = 1;
    const REAL_TIME: i32 = 1 << 13;
    Outcome::of(sys!(n::IOPRIO_SET, OWN_PROCESS, 0, REAL_TIME), "it was set")
}

fn raise(_: &Targets) -> Outcome {
    match sys!(n::SETPRIORITY, 0, 0, -10) {
        Err(error) if error.raw_os_error() == Some(EINVAL) => Outcome::broken("EINVAL"),
        set => Outcome::of(set, "priority -10 was set"),
    }
}

fn orphans(_: &Targets) -> Outcome {
    // A child whose child is orphaned and ends: somebody must take its result.
    let orphan = match orphan() {
        Ok(pid) => pid,
        Err(error) => return Outcome::broken(format!("no orphan: {error}")),
    };
    let started = std::time::Instant::now();
    while started.elapsed() < std::time::Duration::from_secs(2) {
        if sys::kill(orphan, 0).is_err() {
            return Outcome::denied("it was reaped");
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Outcome::open("it stayed as a zombie for 2 s")
}

/// Makes a process whose parent has ended, and that ends; returns its number.
fn orphan() -> std::io::Result<i32> {
    use std::io::{Read as _, Write as _};
    let (reading, writing) = sys::pipe()?;
    match sys::fork_process()? {
        None => {
            if let Ok(Some(orphan)) = sys::fork_process() {
                let _ = fs::File::from(writing).write_all(orphan.to_string().as_bytes());
            }
            sys::exit_now(0)
        }
        Some(child) => {
            drop(writing);
            sys::wait_child(child, true)?;
            let mut text = String::new();
            fs::File::from(reading).take(16).read_to_string(&mut text)?;
            text.parse().map_err(std::io::Error::other)
        }
    }
}
