//! The launcher after `clone`: lets the child go, waits for whatever ends it, and cleans up.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    plan::Plan,
    report::{self, EndCause, Step},
    silence_standard,
    step::{self, Failure, Steps},
    sys,
};

/// The first process of the sandbox, as the launcher sees it.
pub(crate) struct Child {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    /// Writing a byte lets it go on; it must stay open while the child lives.
    pub(crate) go: OwnedFd,
    /// What the guest writes to its descriptor 2.
    pub(crate) said: OwnedFd,
}

/// The bytes of the guest's diagnostics that are kept.
const MAX_SAID: usize = 4096;

/// Sees the sandbox through to its end.
pub(crate) fn run(plan: &Plan, steps: &Steps, child: Child, report: &File) -> Result<(), Failure> {
    let Child { pid, pidfd, go, said } = child;
    let mut go = File::from(go);
    let started = admit(plan, steps, pid, &mut go);
    let outcome = started.and_then(|()| {
        steps.run(Step::Descriptors, b"wait", || wait_for_end(plan, &pidfd, said, report))
    });
    // Whatever happened: nothing of the sandbox outlives this point. A child that has ended cannot be killed again,
    // which is the only way for the call to fail.
    let _ = sys::kill_process(pidfd.as_fd());
    let status = sys::wait_for(pid);
    let out_of_memory = plan.oom_counter.as_deref().is_some_and(|file| oom_kills(file) > 0);
    plan.cgroup_directories.iter().for_each(|directory| remove_cgroup(directory));
    // Last, so that nothing is left when the host hears of the end.
    if let (Ok((cause, said)), Ok(status)) = (&outcome, status) {
        let (cause, number) = match cause {
            Some(cause) => (*cause, 0),
            None if status & 0x7f == 0 => (EndCause::Exited, (status >> 8) & 0xff),
            None if status & 0x7f == sys::SIGKILL && out_of_memory => (EndCause::OutOfMemory, 0),
            None => (EndCause::Signalled, status & 0x7f),
        };
        step::send(report, report::ENDED, cause as u8, number, said);
    }
    outcome.map(drop)
}

/// Maps the child's user and lets it go.
fn admit(plan: &Plan, steps: &Steps, pid: i32, go: &mut File) -> Result<(), Failure> {
    let identity = &plan.identity;
    let write = |name: &str, content: String| {
        steps.run(Step::MapUser, name.as_bytes(), || {
            fs::write(format!("/proc/{pid}/{name}"), &content)
        })
    };
    write("uid_map", format!("{} {} 1", identity.inner, identity.outer_user))?;
    // Without this an unprivileged launcher may not map a group, since dropping a group can also gain access.
    write("setgroups", "deny".to_owned())?;
    write("gid_map", format!("{} {} 1", identity.inner, identity.outer_group))?;
    // When the host runs out of memory, sandboxes go first. It also undoes a host's protection from being killed,
    // with which a sandbox at its memory limit would hang.
    write("oom_score_adj", "500".to_owned())?;
    steps.run(Step::Descriptors, b"silence", || {
        silence_standard(&OwnedFd::from(
            File::options().read(true).write(true).open("/dev/null")?,
        ))?;
        // Others of the same user may not look into this process or steal its descriptors.
        sys::process_control(sys::PR_SET_DUMPABLE, [0, 0, 0, 0])
    })?;
    steps.run(Step::MapUser, b"go", || go.write_all(b"g"))
}

/// Waits until the child ends (`None`), or until there is a reason to end it; and collects what the guest says.
fn wait_for_end(
    plan: &Plan,
    pidfd: &OwnedFd,
    said: OwnedFd,
    report: &File,
) -> io::Result<(Option<EndCause>, Vec<u8>)> {
    let deadline = Instant::now().checked_add(Duration::from_millis(plan.wall_time_ms));
    let mut said = Some(File::from(said));
    let mut kept = Vec::new();
    loop {
        let timeout = deadline.map_or(-1, |deadline| {
            // Rounded up, so that the deadline is over when the wait is.
            let left = deadline.saturating_duration_since(Instant::now()).as_millis() + 1;
            i32::try_from(left).unwrap_or(i32::MAX)
        });
        let mut fds = [
            sys::PollFd { fd: pidfd.as_raw_fd(), events: sys::POLLIN, ready: 0 },
            sys::PollFd { fd: report.as_raw_fd(), events: sys::POLLIN | sys::POLLRDHUP, ready: 0 },
            sys::PollFd {
                fd: said.as_ref().map_or(-1, AsRawFd::as_raw_fd),
                events: sys::POLLIN,
                ready: 0,
            },
        ];
        sys::poll_all(&mut fds, timeout)?;
        if fds[2].ready != 0 {
            let mut piece = [0; MAX_SAID];
            match said.as_mut().map(|said| said.read(&mut piece)) {
                Some(Ok(length)) if length > 0 => {
                    let room = MAX_SAID - kept.len();
                    kept.extend_from_slice(&piece[..length.min(room)]);
                }
                _ => said = None,
            }
        }
        if fds[0].ready != 0 {
            return Ok((None, kept));
        }
        if fds[1].ready != 0 {
            return Ok((Some(EndCause::HostClosed), kept));
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok((Some(EndCause::WallTime), kept));
        }
    }
}

/// Reads the `oom_kill` line of `memory.events` (v2) or `memory.oom_control` (v1).
fn oom_kills(file: &[u8]) -> u64 {
    let Ok(text) = fs::read_to_string(path(file)) else { return 0 };
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

/// Removes an empty cgroup. The last process may still be on its way out of it.
fn remove_cgroup(directory: &[u8]) {
    const EBUSY: i32 = 16;
    for _ in 0..50 {
        match fs::remove_dir(path(directory)) {
            Err(error) if error.raw_os_error() == Some(EBUSY) => {
                thread::sleep(Duration::from_millis(2));
            }
            // Gone, or nothing that waiting would change: the host sweeps what is left.
            _ => return,
        }
    }
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}
