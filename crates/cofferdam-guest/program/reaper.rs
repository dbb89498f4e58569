//! The reaper: a small copy of the guest between the guest and one command.
//!
//! It starts the command and waits. Since it adopts orphans, every process that the command leaves behind stays below
//! it, whatever session or group it moved to. It ends when nothing is left; if the guest dies, it kills the tree.

use std::{
    cell::Cell,
    ffi::CString,
    fs::File,
    io::Write,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    process, thread,
    time::Duration,
};

use cofferdam_guest::ResourceLimit;

use crate::{process_tree, sys};

/// All that the reaper needs, made ready by the guest.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Descriptors 0, 1 and 2 of the command.
    pub(crate) stdio: [OwnedFd; 3],
    /// The working directory.
    pub(crate) directory: OwnedFd,
    /// The paths to try, in order.
    pub(crate) programs: Vec<CString>,
    pub(crate) argv: sys::StringList,
    pub(crate) environment: sys::StringList,
    /// Whether descriptor 0 is a terminal to control.
    pub(crate) terminal: bool,
    pub(crate) limits: Vec<ResourceLimit>,
}

/// What the reaper tells the guest, each in one write of [`Report::LENGTH`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// The command runs under this number.
    Started(i32),
    /// The command could not be started, with this error number.
    Failed(i32),
    /// The command ended with this raw status.
    Ended(i32),
}

impl Report {
    pub(crate) const LENGTH: usize = 8;

    fn to_bytes(self) -> [u8; Self::LENGTH] {
        let (tag, value) = match self {
            Self::Started(pid) => (0_u32, pid),
            Self::Failed(errno) => (1, errno),
            Self::Ended(status) => (2, status),
        };
        let mut bytes = [0; Self::LENGTH];
        bytes[..4].copy_from_slice(&tag.to_le_bytes());
        bytes[4..].copy_from_slice(&value.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        let [t0, t1, t2, t3, v0, v1, v2, v3] = bytes;
        let value = i32::from_le_bytes([v0, v1, v2, v3]);
        match u32::from_le_bytes([t0, t1, t2, t3]) {
            0 => Self::Started(value),
            1 => Self::Failed(value),
            _ => Self::Ended(value),
        }
    }
}

/// Where the pipe to the guest is in the reaper, above the command's own descriptors.
const REPORT_FD: RawFd = 3;

/// Runs the reaper in the process that was just forked; never returns.
pub(crate) fn run(plan: &Plan, report: &OwnedFd, guest: sys::Pid) -> ! {
    // Ending without unwinding keeps the destructors of the guest's copy from running.
    let Ok(report) = settle(plan, report) else {
        sys::exit_now(1);
    };
    // The guest may have died before the kernel knew that the reaper wants to hear of it.
    if sys::parent_pid() != guest {
        sys::exit_now(1);
    }
    let command = match start(plan) {
        Ok(pid) => {
            tell(&report, Report::Started(pid));
            pid
        }
        Err(errno) => {
            tell(&report, Report::Failed(errno));
            sys::exit_now(1);
        }
    };
    // Only the command and its descendants hold its pipes now, so that the guest sees their end.
    let _ = sys::close_range(0, 2);
    wait_for_all(command, &report, guest);
    sys::exit_now(0);
}

/// Puts descriptors in their places and drops everything that is the guest's.
fn settle(plan: &Plan, report: &OwnedFd) -> std::io::Result<File> {
    sys::adopt_orphans()?;
    sys::signal_on_parent_death(sys::SIGHUP)?;
    sys::set_umask(0o022);
    sys::change_directory(plan.directory.as_fd())?;
    // First above all places, so that no placing overwrites what another still needs.
    let mut sources = [0; 4];
    for (source, fd) in sources.iter_mut().zip(plan.stdio.iter().chain([report])) {
        *source = sys::copy_above(fd.as_raw_fd(), 16)?;
    }
    for (source, place) in sources[..3].iter().zip(0..) {
        sys::place(*source, place)?;
    }
    sys::place_private(sources[3], REPORT_FD)?;
    sys::close_range(REPORT_FD + 1, u32::MAX)?;
    Ok(File::from(sys::inherited(REPORT_FD)?))
}

fn start(plan: &Plan) -> Result<sys::Pid, i32> {
    let failure = Cell::new(0);
    let child = || {
        failure.set(become_command(plan));
        // The parent, which shares this memory, reads `failure`.
        sys::exit_now(127)
    };
    let pid = sys::vfork_process(&child).map_err(|error| errno_of(&error))?;
    match failure.get() {
        0 => Ok(pid),
        errno => Err(errno),
    }
}

/// Becomes the command; returns the error number if it cannot. Makes only system calls.
fn become_command(plan: &Plan) -> i32 {
    let prepared = sys::new_session().and_then(|()| {
        if plan.terminal {
            sys::take_terminal()?;
        }
        plan.limits
            .iter()
            .try_for_each(|limit| sys::set_limit(limit.resource, limit.soft, limit.hard))
    });
    if let Err(error) = prepared {
        return errno_of(&error);
    }
    // The actions are the default ones since the guest's start.
    sys::unblock_signals();
    // As a shell does: look further when a program is not there, and remember one that may not be run.
    let mut answer = sys::ENOENT;
    for program in &plan.programs {
        match sys::execute(program, &plan.argv, &plan.environment) {
            sys::ENOENT | sys::ENOTDIR => {}
            sys::EACCES => answer = sys::EACCES,
            errno => return errno,
        }
    }
    answer
}

fn wait_for_all(command: sys::Pid, report: &File, guest: sys::Pid) {
    loop {
        match sys::reap_child() {
            sys::Wait::Ended(pid, status) if pid == command => tell(report, Report::Ended(status)),
            sys::Wait::Ended(..) => {}
            sys::Wait::NoChildren => return,
            // The guest is dead: nothing may outlive it.
            sys::Wait::Running if sys::parent_pid() != guest => {
                process_tree::kill_below(own_pid(), &[]);
                thread::sleep(Duration::from_millis(1));
            }
            sys::Wait::Running => {
                // Which of the two it is shows above; an error cannot be.
                let _ = sys::wait_for_signal(&[sys::SIGCHLD, sys::SIGHUP]);
            }
        }
    }
}

fn tell(mut report: &File, what: Report) {
    // If the guest is gone there is nobody to tell, and the signal of its death will come.
    let _ = report.write_all(&what.to_bytes());
}

fn own_pid() -> sys::Pid {
    sys::Pid::try_from(process::id()).unwrap_or(sys::Pid::MAX)
}

fn errno_of(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(sys::EINVAL)
}
