//! The system calls of the launcher: one thin safe function each, and all of its `unsafe`.
//!
//! The launcher is compiled with the standard library alone, so the C library's functions are declared here.

pub(crate) mod epoll;
pub(crate) mod landlock;
pub(crate) mod message;
pub(crate) mod mount;

use std::{
    ffi::{CStr, c_char, c_int, c_long, c_short, c_uint, c_ulong, c_void},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

use crate::{landlock::OutOfReach, numbers};

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
pub(crate) const CLONE_NEWNS: u64 = 0x0002_0000;
pub(crate) const CLONE_NEWCGROUP: u64 = 0x0200_0000;
pub(crate) const CLONE_NEWUTS: u64 = 0x0400_0000;
pub(crate) const CLONE_NEWIPC: u64 = 0x0800_0000;
pub(crate) const CLONE_NEWUSER: u64 = 0x1000_0000;
pub(crate) const CLONE_NEWPID: u64 = 0x2000_0000;
pub(crate) const CLONE_NEWNET: u64 = 0x4000_0000;

pub(crate) const PR_SET_PDEATHSIG: c_int = 1;
const PR_SET_DUMPABLE: c_int = 4;
const PR_SET_SECCOMP: c_int = 22;
pub(crate) const PR_CAPBSET_DROP: c_int = 24;
pub(crate) const PR_SET_SECUREBITS: c_int = 28;
pub(crate) const PR_SET_NO_NEW_PRIVS: c_int = 38;
pub(crate) const PR_CAP_AMBIENT: c_int = 47;

pub(crate) const SIGKILL: c_int = 9;
pub(crate) const EINTR: c_int = 4;
pub(crate) const EINVAL: c_int = 22;

pub(crate) const POLLIN: c_short = 1;
pub(crate) const POLLHUP: c_short = 0x10;

const SIGCHLD: u64 = 17;
const AT_FDCWD: c_int = -100;
const AT_EMPTY_PATH: c_uint = 0x1000;
const O_CLOEXEC: c_int = 0o2_000_000;
const F_DUPFD_CLOEXEC: c_int = 1030;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn prctl(option: c_int, ...) -> c_int;
    fn unshare(flags: c_int) -> c_int;
    fn setns(fd: c_int, kind: c_int) -> c_int;
    fn fchdir(fd: c_int) -> c_int;
    fn chroot(path: *const c_char) -> c_int;
    fn socketpair(domain: c_int, kind: c_int, protocol: c_int, fds: *mut [c_int; 2]) -> c_int;
    fn setsid() -> c_int;
    fn getppid() -> c_int;
    fn getpid() -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn geteuid() -> u32;
    fn getegid() -> u32;
    fn setgroups(size: usize, list: *const u32) -> c_int;
    fn setresgid(real: u32, effective: u32, saved: u32) -> c_int;
    fn setresuid(real: u32, effective: u32, saved: u32) -> c_int;
    fn setrlimit(resource: c_uint, limit: *const [u64; 2]) -> c_int;
    fn getrlimit(resource: c_uint, limit: *mut [u64; 2]) -> c_int;
    fn sethostname(name: *const c_char, length: usize) -> c_int;
    fn signal(number: c_int, handler: usize) -> usize;
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
    fn dup2(old: c_int, new: c_int) -> c_int;
    fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    fn poll(fds: *mut PollFd, count: c_ulong, timeout_ms: c_int) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn umask(mask: c_uint) -> c_uint;
    fn _exit(code: c_int) -> !;
}

/// One entry of [`poll_all`].
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct PollFd {
    pub(crate) fd: RawFd,
    pub(crate) events: c_short,
    pub(crate) ready: c_short,
}

fn check(result: c_int) -> io::Result<c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_long(result: c_long) -> io::Result<c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Makes an owned descriptor of the result of a system call.
fn own(result: c_long) -> io::Result<OwnedFd> {
    let fd = check_long(result)?;
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from_raw_os_error(EINVAL))?;
    // SAFETY: the kernel has just returned this new descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Which side of [`clone_process`] this is.
pub(crate) enum Side {
    /// The one that called, with the child's pid and pidfd.
    Parent(c_int, OwnedFd),
    /// The new process.
    Child,
}

/// Starts a copy of this process in new namespaces, and in a cgroup of version 2 if one is given.
pub(crate) fn clone_process(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
    /// `struct clone_args`, as far as it had come with `CLONE_INTO_CGROUP` (Linux 5.7).
    #[repr(C)]
    #[derive(Default)]
    struct Arguments {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    let mut pidfd: c_int = -1;
    let flags = namespaces | CLONE_PIDFD;
    let pid = match cgroup {
        Some(cgroup) => {
            let arguments = Arguments {
                flags: flags | CLONE_INTO_CGROUP,
                pidfd: (&raw mut pidfd).expose_provenance() as u64,
                exit_signal: SIGCHLD,
                cgroup: u64::from(cgroup.as_raw_fd().cast_unsigned()),
                ..Arguments::default()
            };
            // SAFETY: without CLONE_VM and with a null stack this is `fork` with namespaces: the child has its own copy
            // of the memory. The launcher has one thread, so no lock is held by a thread that the child lacks. The
            // arguments and `pidfd` outlive the call.
            unsafe { syscall(numbers::CLONE3, &raw const arguments, size_of::<Arguments>()) }
        }
        // The older call, since containers allow it by its flags, and refuse the other, whose flags no filter sees.
        None => {
            let flags = flags | SIGCHLD;
            // SAFETY: as above.
            unsafe {
                syscall(
                    numbers::CLONE,
                    flags,
                    ptr::null::<c_void>(),
                    &raw mut pidfd,
                    0_usize,
                    0_usize,
                )
            }
        }
    };
    match check_long(pid)? {
        0 => Ok(Side::Child),
        pid => {
            let pid = c_int::try_from(pid).map_err(|_| io::Error::from_raw_os_error(EINVAL))?;
            // SAFETY: CLONE_PIDFD has just stored this new descriptor, and nothing else owns it.
            Ok(Side::Parent(pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
        }
    }
}

/// Calls `prctl` with number arguments only.
pub(crate) fn process_control(option: c_int, arguments: [c_ulong; 4]) -> io::Result<()> {
    let [a, b, c, d] = arguments;
    // SAFETY: the options that the launcher uses here take numbers, no pointers.
    check(unsafe { prctl(option, a, b, c, d) }).map(drop)
}

/// Says whether others of the same user may look into this process; its entries in `/proc` belong to that user or to root
/// accordingly. A child inherits it.
pub(crate) fn set_dumpable(dumpable: bool) -> io::Result<()> {
    process_control(PR_SET_DUMPABLE, [dumpable.into(), 0, 0, 0])
}

/// Names this process, as `ps` shows it.
pub(crate) fn set_name(name: &CStr) -> io::Result<()> {
    const PR_SET_NAME: c_int = 15;
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    check(unsafe { prctl(PR_SET_NAME, name.as_ptr()) }).map(drop)
}

/// Installs a seccomp program; each instruction is 8 bytes.
pub(crate) fn install_filter(program: &[u8]) -> io::Result<()> {
    #[repr(C)]
    struct SockFprog {
        length: u16,
        filter: *const u64,
    }
    // Instructions need the alignment of their `u32` field.
    let instructions: Vec<u64> =
        program.as_chunks::<8>().0.iter().map(|bytes| u64::from_ne_bytes(*bytes)).collect();
    let length =
        u16::try_from(instructions.len()).map_err(|_| io::Error::from_raw_os_error(EINVAL))?;
    let fprog = SockFprog { length, filter: instructions.as_ptr() };
    const SECCOMP_MODE_FILTER: c_ulong = 2;
    // SAFETY: `fprog` and the instructions it points to outlive the call; the kernel checks and copies them.
    check(unsafe { prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &raw const fprog) }).map(drop)
}

/// Moves this process to new namespaces.
pub(crate) fn unshare_namespaces(flags: u64) -> io::Result<()> {
    let flags = c_int::try_from(flags).map_err(|_| io::Error::from_raw_os_error(EINVAL))?;
    // SAFETY: takes a number; the launcher has one thread.
    check(unsafe { unshare(flags) }).map(drop)
}

/// Moves this process to the namespaces of `namespace`, which is one of `/proc/<pid>/ns`.
pub(crate) fn enter_namespace(namespace: BorrowedFd<'_>, kind: u64) -> io::Result<()> {
    let kind = c_int::try_from(kind).map_err(|_| io::Error::from_raw_os_error(EINVAL))?;
    // SAFETY: the descriptor is borrowed; the launcher has one thread.
    check(unsafe { setns(namespace.as_raw_fd(), kind) }).map(drop)
}

/// Makes an open directory the root and the working directory.
pub(crate) fn set_root(directory: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed.
    check(unsafe { fchdir(directory.as_raw_fd()) })?;
    // SAFETY: the string is NUL-terminated and static.
    check(unsafe { chroot(c".".as_ptr()) }).map(drop)
}

/// Starts a session without a terminal.
pub(crate) fn new_session() -> io::Result<()> {
    // SAFETY: takes no arguments.
    check(unsafe { setsid() }).map(drop)
}

/// Gives up all supplementary groups.
pub(crate) fn drop_groups() -> io::Result<()> {
    // SAFETY: no list is read when its size is 0.
    check(unsafe { setgroups(0, ptr::null()) }).map(drop)
}

/// Becomes a user and group, all three ids of each.
pub(crate) fn become_user(user: u32, group: u32) -> io::Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { setresgid(group, group, group) })?;
    // SAFETY: takes numbers.
    check(unsafe { setresuid(user, user, user) }).map(drop)
}

/// Raises the soft limit of open files as far as this process may.
pub(crate) fn raise_open_files() -> io::Result<()> {
    const RLIMIT_NOFILE: c_uint = 7;
    let mut limit = [0_u64; 2];
    // SAFETY: `limit` has the form of `struct rlimit` on 64-bit Linux and outlives the call.
    check(unsafe { getrlimit(RLIMIT_NOFILE, &raw mut limit) })?;
    limit[0] = limit[1];
    // SAFETY: as above.
    check(unsafe { setrlimit(RLIMIT_NOFILE, &raw const limit) }).map(drop)
}

/// Lowers a resource limit, soft and hard; what is lower already stays.
pub(crate) fn lower_limit(resource: u32, value: u64) -> io::Result<()> {
    let mut limit = [0_u64; 2];
    // SAFETY: `limit` has the form of `struct rlimit` on 64-bit Linux and outlives the call.
    check(unsafe { getrlimit(resource, &raw mut limit) })?;
    let value = value.min(limit[1]);
    limit = [value, value];
    // SAFETY: as above.
    check(unsafe { setrlimit(resource, &raw const limit) }).map(drop)
}

/// Sets the host name of the UTS namespace.
pub(crate) fn set_hostname(name: &[u8]) -> io::Result<()> {
    // SAFETY: pointer and length are of one slice that outlives the call.
    check(unsafe { sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Sets every signal to its default action, but that of writing to somebody who is gone: that is an error of the write, and
/// must not end the launcher with all its sandboxes.
pub(crate) fn reset_signals() {
    const SIG_DFL: usize = 0;
    const SIG_IGN: usize = 1;
    const SIGPIPE: c_int = 13;
    for number in 1..=64 {
        let action = if number == SIGPIPE { SIG_IGN } else { SIG_DFL };
        // SAFETY: no handler is installed. Numbers that cannot be set fail, which is as well.
        unsafe { signal(number, action) };
    }
}

/// Gives new files no write permission for others.
pub(crate) fn set_umask(mask: u32) {
    // SAFETY: takes a number and cannot fail.
    unsafe { umask(mask) };
}

/// Brings the loopback interface of the network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    const AF_INET: c_int = 2;
    const SOCK_DGRAM_CLOEXEC: c_int = 2 | O_CLOEXEC;
    const SIOCSIFFLAGS: c_ulong = 0x8914;
    const IFF_UP_RUNNING: i16 = 0x41;
    #[repr(C)]
    struct InterfaceRequest {
        name: [u8; 16],
        flags: i16,
        rest: [u8; 22],
    }
    let mut request = InterfaceRequest { name: [0; 16], flags: IFF_UP_RUNNING, rest: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    // SAFETY: takes numbers.
    let socket = own(c_long::from(unsafe { socket(AF_INET, SOCK_DGRAM_CLOEXEC, 0) }))?;
    // SAFETY: `request` has the size and form of `struct ifreq` on 64-bit Linux and outlives the call.
    check(unsafe { ioctl(socket.as_raw_fd(), SIOCSIFFLAGS, &raw const request) }).map(drop)
}

/// Makes two connected sockets that close on exec.
pub(crate) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    const AF_UNIX: c_int = 1;
    const SOCK_STREAM_CLOEXEC: c_int = 1 | O_CLOEXEC;
    let mut fds: [c_int; 2] = [-1; 2];
    // SAFETY: `fds` outlives the call.
    check(unsafe { socketpair(AF_UNIX, SOCK_STREAM_CLOEXEC, 0, &raw mut fds) })?;
    // SAFETY: the kernel has just returned these two new descriptors, and nothing else owns them.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Duplicates a standard descriptor to one above the standard ones that closes on exec.
pub(crate) fn duplicate_standard(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers.
    own(c_long::from(unsafe { fcntl(fd, F_DUPFD_CLOEXEC, 3) }))
}

/// Makes a standard descriptor a copy of another, which stays open on exec.
pub(crate) fn set_standard(source: BorrowedFd<'_>, standard: RawFd) -> io::Result<()> {
    // SAFETY: `standard` is 0, 1 or 2, which no owned value of the launcher refers to, or the place of the door, whose owned
    // value only holds it.
    check(unsafe { dup2(source.as_raw_fd(), standard) }).map(drop)
}

/// Closes the descriptors from `first` to `last`.
pub(crate) fn close_between(first: c_uint, last: c_uint) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: called where no owned value of this process refers to one of these, or none will be used again.
    check_long(unsafe { syscall(numbers::CLOSE_RANGE, first, last, 0) }).map(drop)
}

/// Lets every descriptor from `first` on close at the next exec.
pub(crate) fn close_on_exec_from(first: c_uint) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: c_uint = 4;
    // SAFETY: only sets a flag of descriptors.
    check_long(unsafe { syscall(numbers::CLOSE_RANGE, first, c_uint::MAX, CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// Waits until one of the descriptors is ready; false means that the time is over.
pub(crate) fn poll_all(fds: &mut [PollFd], timeout_ms: c_int) -> io::Result<bool> {
    // SAFETY: pointer and length are of one slice that outlives the call.
    match check(unsafe { poll(fds.as_mut_ptr(), fds.len() as c_ulong, timeout_ms) }) {
        Ok(ready) => Ok(ready > 0),
        Err(error) if error.raw_os_error() == Some(EINTR) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Opens the process that started this one.
pub(crate) fn open_parent() -> io::Result<OwnedFd> {
    // SAFETY: takes no arguments.
    let parent = unsafe { getppid() };
    // SAFETY: takes numbers.
    own(unsafe { syscall(numbers::PIDFD_OPEN, parent, 0) })
}

/// Returns the effective user and group.
pub(crate) fn user_and_group() -> (u32, u32) {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { (geteuid(), getegid()) }
}

/// Kills the process of a pidfd.
pub(crate) fn kill_process(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed; the information pointer may be null.
    check_long(unsafe {
        syscall(numbers::PIDFD_SEND_SIGNAL, pidfd.as_raw_fd(), SIGKILL, ptr::null::<c_void>(), 0)
    })
    .map(drop)
}

/// Returns the process that started this one.
pub(crate) fn parent() -> c_int {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { getppid() }
}

/// Sends a signal to a process; with the number 0, only finds out whether it could.
pub(crate) fn signal_process(pid: c_int, number: c_int) -> io::Result<()> {
    if pid <= 0 {
        return Err(io::Error::from_raw_os_error(EINVAL));
    }
    // SAFETY: takes numbers; a number above 0 names one process.
    check(unsafe { kill(pid, number) }).map(drop)
}

/// Kills every process that this one can signal, but not itself, in one act: what forks meanwhile is killed too, or has not
/// forked yet.
pub(crate) fn kill_all(_: &OutOfReach) {
    // SAFETY: takes numbers. Whoever holds the argument can signal nothing outside of its Landlock domain. There may be
    // nobody, which is the only way for it to fail.
    unsafe { kill(-1, SIGKILL) };
}

/// Sends itself a signal.
pub(crate) fn raise(number: c_int) {
    // SAFETY: takes numbers; of a number that is none nothing comes.
    unsafe { kill(getpid(), number) };
}

/// Makes orphans below this process its children.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    const PR_SET_CHILD_SUBREAPER: c_int = 36;
    process_control(PR_SET_CHILD_SUBREAPER, [1, 0, 0, 0])
}

/// Waits for any child to end, and returns its number and wait status; `None` if there is none.
pub(crate) fn wait_for_any() -> Option<(c_int, c_int)> {
    const ALL_THREADS_AND_CLONES: c_int = 0x4000_0000;
    let mut status = 0;
    loop {
        // SAFETY: `status` outlives the call.
        match check(unsafe { waitpid(-1, &raw mut status, ALL_THREADS_AND_CLONES) }) {
            Ok(pid) => return Some((pid, status)),
            Err(error) if error.raw_os_error() == Some(EINTR) => {}
            // ECHILD is the only other answer.
            Err(_) => return None,
        }
    }
}

/// Waits for a child to end and returns its wait status.
pub(crate) fn wait_for(pid: c_int) -> io::Result<c_int> {
    let mut status = 0;
    loop {
        // SAFETY: `status` outlives the call.
        match check(unsafe { waitpid(pid, &raw mut status, 0) }) {
            Ok(_) => return Ok(status),
            Err(error) if error.raw_os_error() == Some(EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Empties the permitted, effective and inheritable capabilities.
pub(crate) fn clear_capabilities() -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let data = [0_u32; 6];
    // SAFETY: header and data have the sizes of version 3 and outlive the call.
    check_long(unsafe { syscall(numbers::CAPSET, &raw const header, data.as_ptr()) }).map(drop)
}

/// Replaces this program by the one in `program`, with one argument and an empty environment. Returns on failure only.
pub(crate) fn execute(program: BorrowedFd<'_>, name: &CStr) -> io::Error {
    let arguments = [name.as_ptr(), ptr::null()];
    let environment: [*const c_char; 1] = [ptr::null()];
    // SAFETY: both lists end with a null pointer and hold NUL-terminated strings; all outlive the call.
    unsafe {
        syscall(
            numbers::EXECVEAT,
            program.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Ends the process without running anything else.
pub(crate) fn exit_now(code: c_int) -> ! {
    // SAFETY: ends the process.
    unsafe { _exit(code) }
}
