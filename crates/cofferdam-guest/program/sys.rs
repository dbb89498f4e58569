//! System calls: the only file of the program with `unsafe` code.
//!
//! The functions are those of the C library that the static program is linked with; the few that it may not wrap yet
//! go through `syscall` with numbers above 423, which are the same on every 64-bit architecture.
#![expect(
    unsafe_code,
    reason = "the guest has no dependency, so it declares the system calls that std lacks"
)]
// Results of the C library are `int`s whose sign was checked.
#![expect(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "sizes and numbers of the C interface"
)]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_long, c_uint, c_void},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
)))]
compile_error!("the guest knows the constants of x86_64, aarch64 and riscv64 Linux only");

/// A process id.
pub(crate) type Pid = i32;

unsafe extern "C" {
    fn fork() -> c_int;
    fn clone(
        function: extern "C" fn(*mut c_void) -> c_int,
        stack: *mut c_void,
        flags: c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn setsid() -> c_int;
    fn getppid() -> c_int;
    fn geteuid() -> c_uint;
    fn umask(mask: c_uint) -> c_uint;
    fn fchdir(fd: c_int) -> c_int;
    fn execve(path: *const c_char, argv: *const *const c_char, envp: *const *const c_char)
    -> c_int;
    fn _exit(status: c_int) -> !;
    fn dup3(from: c_int, to: c_int, flags: c_int) -> c_int;
    fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    fn pipe2(fds: *mut c_int, flags: c_int) -> c_int;
    fn poll(fds: *mut PollFd, count: u64, timeout: c_int) -> c_int;
    fn ioctl(fd: c_int, request: u64, ...) -> c_int;
    fn prctl(option: c_int, ...) -> c_int;
    fn setrlimit(resource: c_int, limit: *const Rlimit) -> c_int;
    fn sigfillset(set: *mut SignalSet) -> c_int;
    fn sigemptyset(set: *mut SignalSet) -> c_int;
    fn sigaddset(set: *mut SignalSet, number: c_int) -> c_int;
    fn sigprocmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int;
    fn sigwaitinfo(set: *const SignalSet, info: *mut c_void) -> c_int;
    fn signalfd(fd: c_int, set: *const SignalSet, flags: c_int) -> c_int;
    fn openat(directory: c_int, path: *const c_char, flags: c_int, ...) -> c_int;
    fn unlinkat(directory: c_int, path: *const c_char, flags: c_int) -> c_int;
    fn mkdirat(directory: c_int, path: *const c_char, mode: c_uint) -> c_int;
    fn symlinkat(target: *const c_char, directory: c_int, path: *const c_char) -> c_int;
    fn readlinkat(directory: c_int, path: *const c_char, buffer: *mut c_char, size: usize)
    -> isize;
    fn renameat2(
        from: c_int,
        old: *const c_char,
        to: c_int,
        new: *const c_char,
        flags: c_uint,
    ) -> c_int;
    fn fchmod(fd: c_int, mode: c_uint) -> c_int;
    fn fchmodat(directory: c_int, path: *const c_char, mode: c_uint, flags: c_int) -> c_int;
    fn utimensat(
        directory: c_int,
        path: *const c_char,
        times: *const [Timespec; 2],
        flags: c_int,
    ) -> c_int;
    fn statx(
        directory: c_int,
        path: *const c_char,
        flags: c_int,
        mask: c_uint,
        buffer: *mut Statx,
    ) -> c_int;
    fn fdopendir(fd: c_int) -> *mut c_void;
    fn readdir64(directory: *mut c_void) -> *mut DirectoryRecord;
    fn closedir(directory: *mut c_void) -> c_int;
    fn rewinddir(directory: *mut c_void);
    fn syscall(number: c_long, ...) -> c_long;
}

#[cfg(target_arch = "x86_64")]
const SYS_RT_SIGACTION: c_long = 13;
#[cfg(not(target_arch = "x86_64"))]
const SYS_RT_SIGACTION: c_long = 134;
const SYS_PIDFD_SEND_SIGNAL: c_long = 424;
const SYS_PIDFD_OPEN: c_long = 434;
const SYS_CLOSE_RANGE: c_long = 436;
const SYS_OPENAT2: c_long = 437;

pub(crate) const O_RDONLY: c_int = 0;
pub(crate) const O_WRONLY: c_int = 1;
pub(crate) const O_RDWR: c_int = 2;
pub(crate) const O_CREAT: c_int = 0o100;
pub(crate) const O_EXCL: c_int = 0o200;
pub(crate) const O_NOCTTY: c_int = 0o400;
pub(crate) const O_NONBLOCK: c_int = 0o4000;
pub(crate) const O_CLOEXEC: c_int = 0o2_000_000;
pub(crate) const O_PATH: c_int = 0o10_000_000;
#[cfg(target_arch = "aarch64")]
pub(crate) const O_DIRECTORY: c_int = 0o40_000;
#[cfg(target_arch = "aarch64")]
pub(crate) const O_NOFOLLOW: c_int = 0o100_000;
#[cfg(not(target_arch = "aarch64"))]
pub(crate) const O_DIRECTORY: c_int = 0o200_000;
#[cfg(not(target_arch = "aarch64"))]
pub(crate) const O_NOFOLLOW: c_int = 0o400_000;

const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
pub(crate) const RESOLVE_NO_SYMLINKS: u64 = 0x04;
const RESOLVE_BENEATH: u64 = 0x08;

const AT_FDCWD: c_int = -100;
const AT_SYMLINK_NOFOLLOW: c_int = 0x100;
const AT_REMOVEDIR: c_int = 0x200;
const AT_EMPTY_PATH: c_int = 0x1000;
const RENAME_NOREPLACE: c_uint = 1;
const STATX_BASIC: c_uint = 0x7ff;

pub(crate) const ENOENT: i32 = 2;
pub(crate) const EACCES: i32 = 13;
pub(crate) const EEXIST: i32 = 17;
pub(crate) const ENOTDIR: i32 = 20;
pub(crate) const EISDIR: i32 = 21;
pub(crate) const EINVAL: i32 = 22;
pub(crate) const EMFILE: i32 = 24;
pub(crate) const ENAMETOOLONG: i32 = 36;
pub(crate) const ELOOP: i32 = 40;
const EAGAIN: i32 = 11;

pub(crate) const SIGKILL: c_int = 9;
pub(crate) const SIGCHLD: c_int = 17;
pub(crate) const SIGSTOP: c_int = 19;
/// What the kernel sends a reaper when the guest dies.
pub(crate) const SIGHUP: c_int = 1;

pub(crate) const POLLIN: i16 = 1;
pub(crate) const POLLOUT: i16 = 4;

/// An entry of `poll`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct PollFd {
    pub(crate) fd: RawFd,
    pub(crate) events: i16,
    pub(crate) ready: i16,
}

#[repr(C)]
struct Rlimit {
    soft: u64,
    hard: u64,
}

#[repr(C)]
struct SignalSet([u64; 16]);

#[repr(C)]
#[derive(Clone, Copy)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

#[repr(C)]
struct StatxTime {
    seconds: i64,
    nanoseconds: u32,
    pad: i32,
}

#[repr(C)]
struct Statx {
    mask: u32,
    block_size: u32,
    attributes: u64,
    links: u32,
    uid: u32,
    gid: u32,
    mode: u16,
    pad: u16,
    inode: u64,
    size: u64,
    blocks: u64,
    attributes_mask: u64,
    accessed: StatxTime,
    born: StatxTime,
    changed: StatxTime,
    modified: StatxTime,
    rest: [u64; 16],
}

#[repr(C)]
struct DirectoryRecord {
    inode: u64,
    offset: i64,
    length: u16,
    kind: u8,
    name: [c_char; 256],
}

/// What the program needs to know of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stat {
    pub(crate) mode: u32,
    pub(crate) size: u64,
    pub(crate) modified_ns: i64,
}

impl Stat {
    pub(crate) fn is(&self, kind: u32) -> bool {
        self.mode & S_IFMT == kind
    }
}

pub(crate) const S_IFMT: u32 = 0o170_000;
pub(crate) const S_IFREG: u32 = 0o100_000;
pub(crate) const S_IFDIR: u32 = 0o040_000;
pub(crate) const S_IFLNK: u32 = 0o120_000;
pub(crate) const S_IFIFO: u32 = 0o010_000;
pub(crate) const S_IFSOCK: u32 = 0o140_000;
pub(crate) const S_IFCHR: u32 = 0o020_000;

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(result: c_int) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the descriptor was just made by the kernel for this call and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Returns an error with this number.
pub(crate) fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

// Processes.

/// Copies this process. The program has one thread, so the copy may go on as usual.
pub(crate) fn fork_process() -> io::Result<Option<Pid>> {
    // SAFETY: no arguments; the program is single-threaded, so no lock is held by a thread that the copy lacks.
    match check(unsafe { fork() })? {
        0 => Ok(None),
        pid => Ok(Some(pid)),
    }
}

/// Runs `child` in a new process that shares this one's memory, and waits until it has replaced itself by another
/// program or has exited, as `vfork` does.
///
/// `child` must only make system calls: it runs while this process is suspended in its own memory.
pub(crate) fn vfork_process(child: &dyn Fn() -> c_int) -> io::Result<Pid> {
    const CLONE_VM: c_int = 0x100;
    const CLONE_VFORK: c_int = 0x4000;
    extern "C" fn enter(argument: *mut c_void) -> c_int {
        // SAFETY: `argument` is the pointer to `child` below, and the parent waits while this runs.
        let child = unsafe { &*argument.cast::<&dyn Fn() -> c_int>() };
        child()
    }
    #[repr(align(16))]
    struct Stack(#[expect(dead_code, reason = "only its address is used")] [u8; 32 * 1024]);
    let mut stack = std::mem::MaybeUninit::<Stack>::uninit();
    let mut child = child;
    // SAFETY: the stack grows down from the end of `stack`, which is aligned and lives until the child has left it,
    // because CLONE_VFORK suspends this process until then. Nothing reads the stack afterwards.
    let result = unsafe {
        clone(
            enter,
            stack.as_mut_ptr().add(1).cast(),
            CLONE_VM | CLONE_VFORK | SIGCHLD,
            (&raw mut child).cast(),
        )
    };
    check(result)
}

/// Ends this process at once.
pub(crate) fn exit_now(status: c_int) -> ! {
    // SAFETY: never returns and touches no memory.
    unsafe { _exit(status) }
}

/// How a child ended, as `waitpid` tells.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wait {
    /// This child ended with this raw status.
    Ended(Pid, c_int),
    /// There are children, and none has ended.
    Running,
    /// There are no children.
    NoChildren,
}

/// Looks for a child that has ended, without waiting.
pub(crate) fn reap_child() -> Wait {
    const WNOHANG: c_int = 1;
    const ALL_THREADS_AND_CLONES: c_int = 0x4000_0000;
    let mut status = 0;
    // SAFETY: `status` is valid for writing.
    match unsafe { waitpid(-1, &raw mut status, WNOHANG | ALL_THREADS_AND_CLONES) } {
        0 => Wait::Running,
        pid if pid > 0 => Wait::Ended(pid, status),
        _ => Wait::NoChildren,
    }
}

/// Sends a signal to a process, or to a process group if `pid` is negative.
pub(crate) fn send_signal(pid: Pid, number: c_int) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { kill(pid, number) }).map(drop)
}

/// Opens a handle that keeps naming one process, even after its number is used again.
pub(crate) fn open_pid(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; the kernel checks them.
    owned(unsafe { syscall(SYS_PIDFD_OPEN, c_long::from(pid), 0 as c_long) } as c_int)
}

/// Sends a signal through a handle of [`open_pid`].
pub(crate) fn send_signal_to(process: &OwnedFd, number: c_int) -> io::Result<()> {
    // SAFETY: plain numbers and a null pointer, which the call allows.
    let result = unsafe {
        syscall(
            SYS_PIDFD_SEND_SIGNAL,
            c_long::from(process.as_raw_fd()),
            c_long::from(number),
            std::ptr::null::<c_void>(),
            0 as c_long,
        )
    };
    check(result as c_int).map(drop)
}

pub(crate) fn new_session() -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { setsid() }).map(drop)
}

pub(crate) fn parent_pid() -> Pid {
    // SAFETY: no memory is involved; cannot fail.
    unsafe { getppid() }
}

pub(crate) fn user_id() -> u32 {
    // SAFETY: no memory is involved; cannot fail.
    unsafe { geteuid() }
}

pub(crate) fn set_umask(mask: u32) {
    // SAFETY: no memory is involved; cannot fail.
    let _ = unsafe { umask(mask) };
}

pub(crate) fn change_directory(directory: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    check(unsafe { fchdir(directory.as_raw_fd()) }).map(drop)
}

/// Keeps other processes of the same user from reading or tracing this one.
pub(crate) fn hide_from_tracers() -> io::Result<()> {
    const PR_SET_DUMPABLE: c_int = 4;
    // SAFETY: plain numbers.
    check(unsafe { prctl(PR_SET_DUMPABLE, 0 as c_long, 0 as c_long, 0 as c_long, 0 as c_long) })
        .map(drop)
}

/// Makes orphans below this process its children.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    const PR_SET_CHILD_SUBREAPER: c_int = 36;
    // SAFETY: plain numbers.
    let result = unsafe {
        prctl(PR_SET_CHILD_SUBREAPER, 1 as c_long, 0 as c_long, 0 as c_long, 0 as c_long)
    };
    check(result).map(drop)
}

/// Asks the kernel for this signal when the parent dies.
pub(crate) fn signal_on_parent_death(number: c_int) -> io::Result<()> {
    const PR_SET_PDEATHSIG: c_int = 1;
    // SAFETY: plain numbers.
    let result = unsafe {
        prctl(PR_SET_PDEATHSIG, c_long::from(number), 0 as c_long, 0 as c_long, 0 as c_long)
    };
    check(result).map(drop)
}

pub(crate) fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = Rlimit { soft, hard };
    // SAFETY: `limit` is valid for reading.
    check(unsafe { setrlimit(resource as c_int, &raw const limit) }).map(drop)
}

/// A list of C strings that ends with a null pointer, for `execve`.
#[derive(Debug)]
pub(crate) struct StringList {
    pointers: Vec<*const c_char>,
    // Owns what `pointers` point to.
    _strings: Vec<CString>,
}

impl StringList {
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        let mut pointers: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Self { pointers, _strings: strings }
    }
}

/// Replaces this process by a program; returns the error number if it cannot.
pub(crate) fn execute(path: &CStr, argv: &StringList, environment: &StringList) -> i32 {
    // SAFETY: all strings end with NUL, both lists with a null pointer, and they outlive the call.
    unsafe { execve(path.as_ptr(), argv.pointers.as_ptr(), environment.pointers.as_ptr()) };
    io::Error::last_os_error().raw_os_error().unwrap_or(EINVAL)
}

// Signals.

const SIG_SETMASK: c_int = 2;

fn signal_set(numbers: &[c_int]) -> SignalSet {
    let mut set = SignalSet([0; 16]);
    // SAFETY: `set` is valid for writing, and as large as the C library's type.
    unsafe {
        sigemptyset(&raw mut set);
        for &number in numbers {
            sigaddset(&raw mut set, number);
        }
    }
    set
}

/// Blocks every signal that can be blocked.
pub(crate) fn block_signals() {
    let mut set = SignalSet([0; 16]);
    // SAFETY: `set` is valid; a null pointer for the old set is allowed.
    unsafe {
        sigfillset(&raw mut set);
        sigprocmask(SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Gives all signals their default action.
pub(crate) fn reset_signal_actions() {
    // The kernel's structure with the default action, no flags and an empty mask: all zero bits, whatever the order of
    // its fields. The C library's own function refuses the two signals that it keeps for itself, which may have been
    // inherited as ignored.
    let default = [0_u64; 4];
    // SAFETY: the default action is no code of ours, and `default` is at least as large as the kernel's structure;
    // SIGKILL and SIGSTOP answer with an error, which changes nothing.
    unsafe {
        for number in 1..=64 as c_long {
            syscall(
                SYS_RT_SIGACTION,
                number,
                default.as_ptr(),
                std::ptr::null_mut::<c_void>(),
                size_of::<u64>(),
            );
        }
    }
}

/// Blocks no signal. Makes only a system call.
pub(crate) fn unblock_signals() {
    let set = SignalSet([0; 16]);
    // SAFETY: `set` is valid, and all zero bits are the empty set; a null pointer for the old set is allowed.
    unsafe { sigprocmask(SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
}

/// Waits for one of these blocked signals and returns which one came.
pub(crate) fn wait_for_signal(numbers: &[c_int]) -> io::Result<c_int> {
    let set = signal_set(numbers);
    // SAFETY: `set` is valid for reading; a null pointer for the details is allowed.
    check(unsafe { sigwaitinfo(&raw const set, std::ptr::null_mut()) })
}

/// Opens a descriptor that becomes readable when a child ends.
pub(crate) fn child_signals() -> io::Result<OwnedFd> {
    let set = signal_set(&[SIGCHLD]);
    // SAFETY: `set` is valid for reading.
    owned(unsafe { signalfd(-1, &raw const set, O_CLOEXEC | O_NONBLOCK) })
}

// Descriptors.

/// Makes a pipe: the reading end and the writing end.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: `fds` has room for two descriptors.
    check(unsafe { pipe2(fds.as_mut_ptr(), O_CLOEXEC) })?;
    Ok((owned(fds[0])?, owned(fds[1])?))
}

/// Takes over a descriptor that this process was started with.
pub(crate) fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    const F_GETFD: c_int = 1;
    // SAFETY: the command takes no argument and changes nothing.
    check(unsafe { fcntl(fd, F_GETFD) })?;
    owned(fd)
}

/// Makes `to` a copy of `from` that a program started from this process inherits.
pub(crate) fn place(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: only descriptors of a process that owns no others by then (see `reaper`).
    check(unsafe { dup3(from, to, 0) }).map(drop)
}

/// As [`place`], but a program that is started does not inherit it.
pub(crate) fn place_private(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: as in `place`.
    check(unsafe { dup3(from, to, O_CLOEXEC) }).map(drop)
}

/// Returns a copy of a descriptor with a number of at least `minimum`, closed when a program is started.
pub(crate) fn copy_above(fd: RawFd, minimum: RawFd) -> io::Result<RawFd> {
    const F_DUPFD_CLOEXEC: c_int = 1030;
    // SAFETY: plain numbers.
    check(unsafe { fcntl(fd, F_DUPFD_CLOEXEC, minimum) })
}

/// Closes all descriptors from `first` to `last`.
pub(crate) fn close_range(first: RawFd, last: u32) -> io::Result<()> {
    // SAFETY: the callers own no value that still counts on one of these descriptors.
    let result =
        unsafe { syscall(SYS_CLOSE_RANGE, c_long::from(first), c_long::from(last), 0 as c_long) };
    check(result as c_int).map(drop)
}

pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    const F_GETFL: c_int = 3;
    const F_SETFL: c_int = 4;
    // SAFETY: the first command takes no argument, the second a number.
    unsafe {
        let flags = check(fcntl(fd.as_raw_fd(), F_GETFL))?;
        check(fcntl(fd.as_raw_fd(), F_SETFL, flags | O_NONBLOCK)).map(drop)
    }
}

pub(crate) fn set_close_on_exec(fd: BorrowedFd<'_>) -> io::Result<()> {
    const F_SETFD: c_int = 2;
    const FD_CLOEXEC: c_int = 1;
    // SAFETY: plain numbers.
    check(unsafe { fcntl(fd.as_raw_fd(), F_SETFD, FD_CLOEXEC) }).map(drop)
}

/// Waits until a descriptor is ready, or `timeout_ms` have passed (for ever if negative).
pub(crate) fn wait_ready(fds: &mut [PollFd], timeout_ms: c_int) -> io::Result<()> {
    // SAFETY: the pointer and the count describe `fds`.
    match check(unsafe { poll(fds.as_mut_ptr(), fds.len() as u64, timeout_ms) }) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

/// Returns how many bytes can be read without waiting.
pub(crate) fn readable_bytes(fd: BorrowedFd<'_>) -> io::Result<u64> {
    const FIONREAD: u64 = 0x541b;
    let mut count: c_int = 0;
    // SAFETY: the request writes one `int` to `count`.
    check(unsafe { ioctl(fd.as_raw_fd(), FIONREAD, &raw mut count) })?;
    Ok(count as u64)
}

// Terminals.

/// Opens a new pseudo-terminal: the controlling side and the side of the command.
pub(crate) fn open_terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    const TIOCSPTLCK: u64 = 0x4004_5431;
    const TIOCGPTPEER: u64 = 0x5441;
    // SAFETY: the path is a C string.
    let controller =
        owned(unsafe { openat(AT_FDCWD, c"/dev/ptmx".as_ptr(), O_RDWR | O_NOCTTY | O_CLOEXEC) })?;
    let unlocked: c_int = 0;
    // SAFETY: the request reads one `int`.
    check(unsafe { ioctl(controller.as_raw_fd(), TIOCSPTLCK, &raw const unlocked) })?;
    // SAFETY: the request takes flags as its argument and returns a new descriptor.
    let peer = owned(unsafe {
        ioctl(controller.as_raw_fd(), TIOCGPTPEER, c_long::from(O_RDWR | O_NOCTTY | O_CLOEXEC))
    })?;
    Ok((controller, peer))
}

pub(crate) fn set_terminal_size(fd: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    const TIOCSWINSZ: u64 = 0x5414;
    let size = [rows, columns, 0, 0];
    // SAFETY: the request reads four `unsigned short`s.
    check(unsafe { ioctl(fd.as_raw_fd(), TIOCSWINSZ, size.as_ptr()) }).map(drop)
}

/// Makes the terminal on descriptor 0 the controlling one of this session.
pub(crate) fn take_terminal() -> io::Result<()> {
    const TIOCSCTTY: u64 = 0x540e;
    // SAFETY: plain numbers.
    check(unsafe { ioctl(0, TIOCSCTTY, 0 as c_long) }).map(drop)
}

// Files.

/// Opens `path` beneath `directory`; no link and no `..` leads out, whoever changes what meanwhile.
pub(crate) fn open_beneath(
    directory: BorrowedFd<'_>,
    path: &CStr,
    flags: c_int,
    mode: u32,
    resolve: u64,
) -> io::Result<OwnedFd> {
    let how = OpenHow {
        flags: (flags | O_CLOEXEC) as u64,
        mode: u64::from(mode),
        resolve: RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | resolve,
    };
    // The kernel answers EAGAIN when a rename elsewhere kept it from proving that `..` stays beneath.
    let mut attempts = 64;
    loop {
        // SAFETY: the path is a C string, and `how` is valid with the size given.
        let result = unsafe {
            syscall(
                SYS_OPENAT2,
                c_long::from(directory.as_raw_fd()),
                path.as_ptr(),
                &raw const how,
                size_of::<OpenHow>(),
            )
        };
        match owned(result as c_int) {
            Err(error) if error.raw_os_error() == Some(EAGAIN) && attempts > 0 => attempts -= 1,
            result => return result,
        }
    }
}

/// Opens one name in a directory; a link is not followed.
pub(crate) fn open_name(
    directory: BorrowedFd<'_>,
    name: &CStr,
    flags: c_int,
    mode: u32,
) -> io::Result<OwnedFd> {
    // SAFETY: the name is a C string.
    owned(unsafe {
        openat(directory.as_raw_fd(), name.as_ptr(), flags | O_NOFOLLOW | O_CLOEXEC, mode as c_uint)
    })
}

/// Opens an absolute path; for places that no command can change.
pub(crate) fn open_path(path: &CStr, flags: c_int) -> io::Result<OwnedFd> {
    // SAFETY: the path is a C string.
    owned(unsafe { openat(AT_FDCWD, path.as_ptr(), flags | O_CLOEXEC) })
}

fn describe(directory: RawFd, name: &CStr, flags: c_int) -> io::Result<Stat> {
    let mut buffer = std::mem::MaybeUninit::<Statx>::zeroed();
    // SAFETY: the name is a C string and `buffer` has the size of the kernel's structure.
    check(unsafe { statx(directory, name.as_ptr(), flags, STATX_BASIC, buffer.as_mut_ptr()) })?;
    // SAFETY: every field is an integer, so the zeroed and then filled buffer is a valid value.
    let found = unsafe { buffer.assume_init() };
    Ok(Stat {
        mode: u32::from(found.mode),
        size: found.size,
        modified_ns: found
            .modified
            .seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(found.modified.nanoseconds)),
    })
}

/// Describes an open file.
pub(crate) fn stat_open(file: BorrowedFd<'_>) -> io::Result<Stat> {
    describe(file.as_raw_fd(), c"", AT_EMPTY_PATH)
}

/// Describes one name in a directory; a link is not followed.
pub(crate) fn stat_name(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<Stat> {
    describe(directory.as_raw_fd(), name, AT_SYMLINK_NOFOLLOW)
}

pub(crate) fn remove_name(
    directory: BorrowedFd<'_>,
    name: &CStr,
    is_directory: bool,
) -> io::Result<()> {
    let flags = if is_directory { AT_REMOVEDIR } else { 0 };
    // SAFETY: the name is a C string.
    check(unsafe { unlinkat(directory.as_raw_fd(), name.as_ptr(), flags) }).map(drop)
}

pub(crate) fn make_directory(directory: BorrowedFd<'_>, name: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: the name is a C string.
    check(unsafe { mkdirat(directory.as_raw_fd(), name.as_ptr(), mode) }).map(drop)
}

pub(crate) fn make_symlink(
    target: &CStr,
    directory: BorrowedFd<'_>,
    name: &CStr,
) -> io::Result<()> {
    // SAFETY: both are C strings.
    check(unsafe { symlinkat(target.as_ptr(), directory.as_raw_fd(), name.as_ptr()) }).map(drop)
}

/// Reads where a link points to; an empty name reads the link that `directory` itself is open on.
pub(crate) fn read_link(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<u8>> {
    let mut target = vec![0_u8; cofferdam_guest::MAX_PATH];
    // SAFETY: the name is a C string, and the pointer and size describe `target`.
    let length = unsafe {
        readlinkat(directory.as_raw_fd(), name.as_ptr(), target.as_mut_ptr().cast(), target.len())
    };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    target.truncate(length as usize);
    Ok(target)
}

pub(crate) fn rename(
    from: BorrowedFd<'_>,
    old: &CStr,
    to: BorrowedFd<'_>,
    new: &CStr,
    replace: bool,
) -> io::Result<()> {
    let flags = if replace { 0 } else { RENAME_NOREPLACE };
    // SAFETY: both names are C strings.
    check(unsafe { renameat2(from.as_raw_fd(), old.as_ptr(), to.as_raw_fd(), new.as_ptr(), flags) })
        .map(drop)
}

/// Sets the permission bits of a file that is open for reading or writing.
pub(crate) fn set_mode_open(file: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    check(unsafe { fchmod(file.as_raw_fd(), mode) }).map(drop)
}

/// Sets the permission bits of what an `O_PATH` descriptor names.
///
/// The link in `/proc/self/fd` leads to the very file, so nothing can be swapped between.
pub(crate) fn set_mode_of(file: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    // SAFETY: the path is a C string.
    check(unsafe { fchmodat(AT_FDCWD, path.as_ptr(), mode, 0) }).map(drop)
}

/// Sets the time of change of one name in a directory; a link is not followed.
pub(crate) fn set_time(directory: BorrowedFd<'_>, name: &CStr, modified_ns: i64) -> io::Result<()> {
    const UTIME_OMIT: i64 = 0x3fff_fffe;
    let times = [
        Timespec { seconds: 0, nanoseconds: UTIME_OMIT },
        Timespec {
            seconds: modified_ns.div_euclid(1_000_000_000),
            nanoseconds: modified_ns.rem_euclid(1_000_000_000),
        },
    ];
    // SAFETY: the name is a C string, and `times` has two entries.
    check(unsafe {
        utimensat(directory.as_raw_fd(), name.as_ptr(), &raw const times, AT_SYMLINK_NOFOLLOW)
    })
    .map(drop)
}

/// Returns the names in a directory in no order, at most `limit`, and whether these are all.
pub(crate) fn read_names(
    directory: BorrowedFd<'_>,
    limit: usize,
) -> io::Result<(Vec<CString>, bool)> {
    let copy = copy_above(directory.as_raw_fd(), 3)?;
    // SAFETY: `copy` is a new descriptor, which the stream owns from here on.
    let stream = unsafe { fdopendir(copy) };
    if stream.is_null() {
        let error = io::Error::last_os_error();
        drop(owned(copy)?);
        return Err(error);
    }
    // SAFETY: the stream is open. The copy shares its position with `directory`, so start at the beginning.
    unsafe { rewinddir(stream) };
    let mut names = Vec::new();
    let complete = loop {
        // SAFETY: the stream is open; the record stays valid until the next call.
        let record = unsafe { readdir64(stream) };
        if record.is_null() {
            break true;
        }
        // SAFETY: the record is valid and its name ends with NUL. The pointer is made without a reference to the
        // whole record, which is shorter than its type when the name is short.
        let name = unsafe { CStr::from_ptr((&raw const (*record).name).cast()) };
        if name == c"." || name == c".." {
            continue;
        }
        if names.len() == limit {
            break false;
        }
        names.push(name.to_owned());
    };
    // SAFETY: the stream is open and not used afterwards.
    unsafe { closedir(stream) };
    Ok((names, complete))
}
