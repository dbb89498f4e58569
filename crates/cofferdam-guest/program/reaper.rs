//! The reaper: a small process between the guest and one command.
//!
//! It starts the command and waits. Since it adopts orphans, every process that the command leaves behind stays below
//! it, whatever session or group it moved to. It ends when nothing is left; if the guest dies, it kills the tree.
//!
//! It shares the guest's memory: copying even a small one costs more than all else that a start takes. So it keeps to
//! [`raw`] calls, its own stack and its plan. Descriptors, working directory and signals are its own.
#![expect(
    unsafe_code,
    reason = "a process in the memory of another needs promises that no type can make"
)]

use std::{
    cell::UnsafeCell,
    ffi::CString,
    mem::ManuallyDrop,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    process,
    sync::atomic::{AtomicI32, Ordering},
    thread,
    time::Duration,
};

use cofferdam_guest::ResourceLimit;

use crate::{
    process_tree,
    sys::{
        self,
        raw::{self, Stack},
    },
};

/// All that the reaper needs, made ready by the guest.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The paths to try, in order.
    pub(crate) programs: Vec<CString>,
    pub(crate) argv: sys::StringList,
    pub(crate) environment: sys::StringList,
    /// Whether descriptor 0 is a terminal to control.
    pub(crate) terminal: bool,
    pub(crate) limits: Vec<ResourceLimit>,
}

/// Descriptors that the reaper gets copies of.
#[derive(Debug)]
pub(crate) struct Descriptors {
    /// Descriptors 0, 1 and 2 of the command.
    pub(crate) stdio: [OwnedFd; 3],
    /// The working directory.
    pub(crate) directory: OwnedFd,
    /// Where reports go.
    pub(crate) report: OwnedFd,
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

/// A reaper that was started, and the memory that it uses, which is kept until [`Reaper::free`].
#[derive(Debug)]
pub(crate) struct Reaper {
    pub(crate) pid: sys::Pid,
    memory: ManuallyDrop<(Box<Memory>, Box<UnsafeCell<Stack>>)>,
    freed: bool,
}

/// What the reaper and the starting command read.
#[derive(Debug)]
struct Memory {
    plan: Plan,
    guest: sys::Pid,
    stdio: [RawFd; 3],
    directory: RawFd,
    report: RawFd,
    /// Why the command could not be started; 0 if it could.
    failure: AtomicI32,
    command_stack: Box<UnsafeCell<Stack>>,
}

impl Reaper {
    /// Starts a reaper, which starts the command.
    pub(crate) fn start(plan: Plan, descriptors: &Descriptors) -> std::io::Result<Self> {
        let memory = Box::new(Memory {
            plan,
            guest: own_pid(),
            stdio: descriptors.stdio.each_ref().map(AsRawFd::as_raw_fd),
            directory: descriptors.directory.as_raw_fd(),
            report: descriptors.report.as_raw_fd(),
            failure: AtomicI32::new(0),
            command_stack: Stack::new(),
        });
        let stack = Stack::new();
        // SAFETY: `reap` never returns and keeps to raw calls; memory and stack stay as long as this value, which its
        // owner keeps until the reaper is gone.
        let pid = unsafe { raw::spawn(reap, &raw const *memory, &stack, false) };
        let pid = pid.map_err(sys::error)?;
        Ok(Self { pid, memory: ManuallyDrop::new((memory, stack)), freed: false })
    }

    /// Frees its memory. The caller has seen the end of the pipe of its reports: the kernel closes the descriptors of a
    /// process after it has taken the memory from it.
    ///
    /// A reaper that is dropped without it keeps its memory.
    pub(crate) fn free(&mut self) {
        if !self.freed {
            self.freed = true;
            // SAFETY: once, as `freed` tells, and nobody else uses it any more, as the caller says.
            unsafe { ManuallyDrop::drop(&mut self.memory) };
        }
    }
}

/// The reaper's whole life. Makes only raw system calls.
extern "C" fn reap(memory: &Memory) -> ! {
    let settled = raw::adopt_orphans().and_then(|()| raw::signal_on_parent_death(sys::SIGHUP));
    // The guest may have died before the kernel knew that the reaper wants to hear of it.
    if settled.is_err() || raw::parent_pid() != memory.guest {
        raw::exit(1);
    }
    // SAFETY: `become_command` never returns and keeps to raw calls, and this process stands still until the command has
    // left this memory. If this process is killed meanwhile, the command still holds the pipe of the reports.
    let started = unsafe { raw::spawn(become_command, memory, &memory.command_stack, true) };
    let command = match (started, memory.failure.load(Ordering::Relaxed)) {
        (Ok(pid), 0) => pid,
        (Err(errno), _) | (Ok(_), errno) => {
            tell(memory, Report::Failed(errno));
            raw::exit(1);
        }
    };
    tell(memory, Report::Started(command));
    // Only the command and its descendants hold its pipes now, so that the guest sees their end.
    let _ = raw::close_range(0, memory.report - 1, false);
    let _ = raw::close_range(memory.report + 1, i32::MAX, false);
    wait_for_all(memory, command);
    raw::exit(0)
}

/// Becomes the command, or leaves the reason why not. Makes only raw system calls.
extern "C" fn become_command(memory: &Memory) -> ! {
    let errno = prepare(memory).err().unwrap_or_else(|| execute(&memory.plan));
    memory.failure.store(errno, Ordering::Relaxed);
    raw::exit(127)
}

fn prepare(memory: &Memory) -> raw::Result<()> {
    raw::new_session()?;
    raw::set_umask(0o022);
    raw::change_directory(memory.directory)?;
    // The guest's own 0, 1 and 2 are open, so none of these is among them and overwritten.
    for (from, to) in memory.stdio.iter().zip(0..) {
        raw::place(*from, to)?;
    }
    raw::close_range(3, i32::MAX, true)?;
    if memory.plan.terminal {
        raw::take_terminal()?;
    }
    for limit in &memory.plan.limits {
        raw::set_limit(limit.resource, limit.soft, limit.hard)?;
    }
    // The actions are the default ones since the guest's start.
    raw::unblock_signals();
    Ok(())
}

fn execute(plan: &Plan) -> i32 {
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

fn wait_for_all(memory: &Memory, command: sys::Pid) {
    loop {
        match raw::reap_child() {
            Ok(Some((pid, status))) if pid == command => tell(memory, Report::Ended(status)),
            Ok(Some(_)) => {}
            Err(_no_children) => return,
            Ok(None) => {
                if raw::parent_pid() != memory.guest {
                    // The guest is dead: nothing may outlive it. Finding all that is left takes more than raw calls.
                    become_undertaker();
                }
                raw::wait_for_signal(&[sys::SIGCHLD, sys::SIGHUP]);
            }
        }
    }
}

/// Becomes a guest that does nothing but [`end_tree`], with the same children. Returns only if it cannot.
fn become_undertaker() {
    sys::execute_plain(c"/proc/self/exe", [c"cofferdam-guest", END_TREE]);
}

/// The argument that makes the program kill its children and all below them.
pub(crate) const END_TREE: &std::ffi::CStr = c"--end-tree";

/// Kills all that is below this process, until nothing is left.
pub(crate) fn end_tree() {
    loop {
        match sys::reap_child() {
            sys::Wait::NoChildren => return,
            sys::Wait::Ended(_) | sys::Wait::Stopped(_) => {}
            sys::Wait::Running => {
                process_tree::kill_below(own_pid(), &[]);
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

fn tell(memory: &Memory, what: Report) {
    // If the guest is gone there is nobody to tell, and the signal of its death will come.
    let _ = raw::write(memory.report, &what.to_bytes());
}

fn own_pid() -> sys::Pid {
    sys::Pid::try_from(process::id()).unwrap_or(sys::Pid::MAX)
}
