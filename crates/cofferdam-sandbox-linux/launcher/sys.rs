//! The system calls of the launcher: one thin safe function each, and all of its `unsafe`.
//!
//! The launcher is compiled with the standard library alone, so the C library's functions are declared here.

use std::{
    ffi::{CStr, c_char, c_int, c_long, c_short, c_uint, c_ulong, c_void},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

use crate::numbers;

pub(crate) const CLONE_PIDFD: u64 = 0x1000;
pub(crate) const CLONE_NEWNS: u64 = 0x0002_0000;
pub(crate) const CLONE_NEWCGROUP: u64 = 0x0200_0000;
pub(crate) const CLONE_NEWUTS: u64 = 0x0400_0000;
pub(crate) const CLONE_NEWIPC: u64 = 0x0800_0000;
pub(crate) const CLONE_NEWUSER: u64 = 0x1000_0000;
pub(crate) const CLONE_NEWPID: u64 = 0x2000_0000;
pub(crate) const CLONE_NEWNET: u64 = 0x4000_0000;

pub(crate) const MS_RDONLY: c_ulong = 1;
pub(crate) const MS_NOSUID: c_ulong = 2;
pub(crate) const MS_NODEV: c_ulong = 4;
pub(crate) const MS_NOEXEC: c_ulong = 8;
pub(crate) const MS_BIND: c_ulong = 4096;
pub(crate) const MS_REC: c_ulong = 16384;
pub(crate) const MS_PRIVATE: c_ulong = 1 << 18;

pub(crate) const MOUNT_ATTR_RDONLY: u64 = 1;
pub(crate) const MOUNT_ATTR_NOSUID: u64 = 2;
pub(crate) const MOUNT_ATTR_NODEV: u64 = 4;
pub(crate) const MOUNT_ATTR_NOEXEC: u64 = 8;

pub(crate) const PR_SET_PDEATHSIG: c_int = 1;
pub(crate) const PR_SET_DUMPABLE: c_int = 4;
pub(crate) const PR_SET_SECCOMP: c_int = 22;
pub(crate) const PR_CAPBSET_DROP: c_int = 24;
pub(crate) const PR_SET_SECUREBITS: c_int = 28;
pub(crate) const PR_SET_NO_NEW_PRIVS: c_int = 38;
pub(crate) const PR_CAP_AMBIENT: c_int = 47;

pub(crate) const SIGKILL: c_int = 9;
pub(crate) const EINTR: c_int = 4;
pub(crate) const EINVAL: c_int = 22;

pub(crate) const POLLIN: c_short = 1;
pub(crate) const POLLHUP: c_short = 0x10;
pub(crate) const POLLRDHUP: c_short = 0x2000;

const SIGCHLD: u64 = 17;
const AT_FDCWD: c_int = -100;
const AT_EMPTY_PATH: c_uint = 0x1000;
const AT_RECURSIVE: c_uint = 0x8000;
const OPEN_TREE_CLONE: c_uint = 1;
const O_CLOEXEC: c_int = 0o2_000_000;
const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 4;
const MNT_DETACH: c_int = 2;
const F_DUPFD_CLOEXEC: c_int = 1030;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn prctl(option: c_int, ...) -> c_int;
    fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
    fn umount2(target: *const c_char, flags: c_int) -> c_int;
    fn unshare(flags: c_int) -> c_int;
    fn setsid() -> c_int;
    fn setgroups(size: usize, list: *const u32) -> c_int;
    fn setresgid(real: u32, effective: u32, saved: u32) -> c_int;
    fn setresuid(real: u32, effective: u32, saved: u32) -> c_int;
    fn setrlimit(resource: c_uint, limit: *const [u64; 2]) -> c_int;
    fn getrlimit(resource: c_uint, limit: *mut [u64; 2]) -> c_int;
    fn sethostname(name: *const c_char, length: usize) -> c_int;
    fn signal(number: c_int, handler: usize) -> usize;
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
    fn pipe2(fds: *mut [c_int; 2], flags: c_int) -> c_int;
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

/// Starts a copy of this process in new namespaces.
pub(crate) fn clone_process(namespaces: u64) -> io::Result<Side> {
    let mut pidfd: c_int = -1;
    let flags = namespaces | CLONE_PIDFD | SIGCHLD;
    // SAFETY: without CLONE_VM and with a null stack this is `fork` with namespaces: the child has its own copy of the
    // memory. The launcher has one thread, so no lock is held by a thread that the child lacks. `pidfd` outlives the
    // call.
    let pid = unsafe {
        syscall(numbers::CLONE, flags, ptr::null::<c_void>(), &raw mut pidfd, 0_usize, 0_usize)
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

/// Mounts a file system, or binds `source`; null pointers stand for `None`.
pub(crate) fn mount_at(
    source: &CStr,
    target: &CStr,
    kind: Option<&CStr>,
    flags: c_ulong,
    data: Option<&CStr>,
) -> io::Result<()> {
    let kind = kind.map_or(ptr::null(), CStr::as_ptr);
    let data = data.map_or(ptr::null(), CStr::as_ptr).cast();
    // SAFETY: all pointers are null or NUL-terminated strings that outlive the call.
    check(unsafe { mount(source.as_ptr(), target.as_ptr(), kind, flags, data) }).map(drop)
}

/// Takes a mount out of the tree; it is gone when nothing uses it any more.
pub(crate) fn detach(target: &CStr) -> io::Result<()> {
    // SAFETY: `target` is a NUL-terminated string that outlives the call.
    check(unsafe { umount2(target.as_ptr(), MNT_DETACH) }).map(drop)
}

/// Clones the mount at `path` and all mounts below it into a tree that is not attached anywhere.
pub(crate) fn open_tree(path: &CStr) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | O_CLOEXEC.cast_unsigned() | AT_RECURSIVE;
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    own(unsafe { syscall(numbers::OPEN_TREE, AT_FDCWD, path.as_ptr(), flags) })
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Adds attributes to a tree of [`open_tree`], also to the mounts below it.
pub(crate) fn restrict_tree(tree: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    set_attributes(tree.as_raw_fd(), c"", AT_EMPTY_PATH | AT_RECURSIVE, attributes)
}

/// Adds attributes to the one mount at `path`.
pub(crate) fn restrict_mount(path: &CStr, attributes: u64) -> io::Result<()> {
    set_attributes(AT_FDCWD, path, 0, attributes)
}

fn set_attributes(fd: c_int, path: &CStr, flags: c_uint, attributes: u64) -> io::Result<()> {
    let attr = MountAttr { set: attributes, clear: 0, propagation: 0, user_namespace: 0 };
    // SAFETY: `path` is a NUL-terminated string and `attr` has the size that is passed; both outlive the call.
    check_long(unsafe {
        syscall(
            numbers::MOUNT_SETATTR,
            fd,
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// Attaches a tree of [`open_tree`].
pub(crate) fn attach_tree(tree: BorrowedFd<'_>, target: &CStr) -> io::Result<()> {
    // SAFETY: both strings are NUL-terminated and outlive the call; the descriptor is borrowed.
    check_long(unsafe {
        syscall(
            numbers::MOVE_MOUNT,
            tree.as_raw_fd(),
            c"".as_ptr(),
            AT_FDCWD,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Makes the working directory the root and puts the old root on top of it.
pub(crate) fn pivot_root_here() -> io::Result<()> {
    // SAFETY: both strings are NUL-terminated and static.
    check_long(unsafe { syscall(numbers::PIVOT_ROOT, c".".as_ptr(), c".".as_ptr()) }).map(drop)
}

/// Moves this process to new namespaces.
pub(crate) fn unshare_namespaces(flags: u64) -> io::Result<()> {
    let flags = c_int::try_from(flags).map_err(|_| io::Error::from_raw_os_error(EINVAL))?;
    // SAFETY: takes a number; the launcher has one thread.
    check(unsafe { unshare(flags) }).map(drop)
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
pub(crate) fn become_user(id: u32) -> io::Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { setresgid(id, id, id) })?;
    // SAFETY: takes numbers.
    check(unsafe { setresuid(id, id, id) }).map(drop)
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

/// Sets every signal to its default action.
pub(crate) fn reset_signals() {
    const SIG_DFL: usize = 0;
    for number in 1..=64 {
        // SAFETY: no handler is installed. Numbers that cannot be set fail, which is as well.
        unsafe { signal(number, SIG_DFL) };
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

/// Makes a pipe whose ends close on exec: reading end first.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds: [c_int; 2] = [-1; 2];
    // SAFETY: `fds` outlives the call.
    check(unsafe { pipe2(&raw mut fds, O_CLOEXEC) })?;
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
    // SAFETY: `standard` is 0, 1 or 2, which no owned value of the launcher refers to.
    check(unsafe { dup2(source.as_raw_fd(), standard) }).map(drop)
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: c_uint) -> io::Result<()> {
    // SAFETY: called at the very start, before the launcher owns any descriptor above 2.
    check_long(unsafe { syscall(numbers::CLOSE_RANGE, first, c_uint::MAX, 0) }).map(drop)
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

/// Kills the process of a pidfd.
pub(crate) fn kill_process(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed; the information pointer may be null.
    check_long(unsafe {
        syscall(numbers::PIDFD_SEND_SIGNAL, pidfd.as_raw_fd(), SIGKILL, ptr::null::<c_void>(), 0)
    })
    .map(drop)
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

/// Returns the version of Landlock that the kernel has.
pub(crate) fn landlock_abi() -> io::Result<c_long> {
    const LANDLOCK_CREATE_RULESET_VERSION: c_uint = 1;
    // SAFETY: with this flag the attribute pointer must be null.
    check_long(unsafe {
        syscall(
            numbers::LANDLOCK_CREATE_RULESET,
            ptr::null::<c_void>(),
            0_usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    })
}

/// Makes a Landlock ruleset from `struct landlock_ruleset_attr`, as long as the kernel's version knows it.
pub(crate) fn landlock_ruleset(attributes: &[u64]) -> io::Result<OwnedFd> {
    // SAFETY: pointer and size are of one slice that outlives the call.
    own(unsafe {
        syscall(
            numbers::LANDLOCK_CREATE_RULESET,
            attributes.as_ptr(),
            size_of_val(attributes),
            0_u32,
        )
    })
}

/// Adds a grant beneath an open path to a ruleset.
pub(crate) fn landlock_allow(
    ruleset: BorrowedFd<'_>,
    path: BorrowedFd<'_>,
    access: u64,
) -> io::Result<()> {
    #[repr(C, packed)]
    struct PathBeneath {
        access: u64,
        fd: c_int,
    }
    const LANDLOCK_RULE_PATH_BENEATH: c_uint = 1;
    let rule = PathBeneath { access, fd: path.as_raw_fd() };
    // SAFETY: `rule` has the form of this rule type and outlives the call; both descriptors are borrowed.
    check_long(unsafe {
        syscall(
            numbers::LANDLOCK_ADD_RULE,
            ruleset.as_raw_fd(),
            LANDLOCK_RULE_PATH_BENEATH,
            &raw const rule,
            0_u32,
        )
    })
    .map(drop)
}

/// Puts this process under a ruleset for ever.
pub(crate) fn landlock_restrict(ruleset: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed.
    check_long(unsafe { syscall(numbers::LANDLOCK_RESTRICT_SELF, ruleset.as_raw_fd(), 0_u32) })
        .map(drop)
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
