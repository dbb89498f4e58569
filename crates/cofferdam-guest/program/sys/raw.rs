//! System calls without the C library, for processes that share the guest's memory.
//!
//! A reaper runs beside the guest in the same memory. The C library keeps its error number, its locks and its heap in
//! that memory, for one thread: so a reaper makes its system calls by itself, allocates nothing, and touches nothing
//! but its own stack and what it was given.

use std::{arch::asm, ffi::c_char};

use super::Pid;

/// The result of a call: an error number if it failed.
pub(crate) type Result<T> = std::result::Result<T, i32>;

#[cfg(target_arch = "x86_64")]
mod number {
    pub(super) const WRITE: usize = 1;
    pub(super) const RT_SIGPROCMASK: usize = 14;
    pub(super) const IOCTL: usize = 16;
    pub(super) const CLONE: usize = 56;
    pub(super) const EXECVE: usize = 59;
    pub(super) const WAIT4: usize = 61;
    pub(super) const FCHDIR: usize = 81;
    pub(super) const UMASK: usize = 95;
    pub(super) const GETPPID: usize = 110;
    pub(super) const SETSID: usize = 112;
    pub(super) const RT_SIGTIMEDWAIT: usize = 128;
    pub(super) const PRCTL: usize = 157;
    pub(super) const SETRLIMIT: usize = 160;
    pub(super) const EXIT_GROUP: usize = 231;
    pub(super) const DUP3: usize = 292;
}

#[cfg(not(target_arch = "x86_64"))]
mod number {
    pub(super) const DUP3: usize = 24;
    pub(super) const IOCTL: usize = 29;
    pub(super) const FCHDIR: usize = 50;
    pub(super) const WRITE: usize = 64;
    pub(super) const EXIT_GROUP: usize = 94;
    pub(super) const RT_SIGPROCMASK: usize = 135;
    pub(super) const RT_SIGTIMEDWAIT: usize = 137;
    pub(super) const SETSID: usize = 157;
    pub(super) const SETRLIMIT: usize = 164;
    pub(super) const UMASK: usize = 166;
    pub(super) const PRCTL: usize = 167;
    pub(super) const GETPPID: usize = 173;
    pub(super) const CLONE: usize = 220;
    pub(super) const EXECVE: usize = 221;
    pub(super) const WAIT4: usize = 260;
}

const CLOSE_RANGE: usize = 436;

/// Makes a system call with up to five arguments.
///
/// # Safety
///
/// As the call: pointers among the arguments must be valid for what it does with them.
unsafe fn call(number: usize, arguments: [usize; 5]) -> Result<usize> {
    let [a, b, c, d, e] = arguments;
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the calling convention of the kernel; it changes only the registers that are named here.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e,
            options(nostack),
        );
    }
    #[cfg(target_arch = "riscv64")]
    // SAFETY: as above.
    unsafe {
        asm!(
            "ecall",
            in("a7") number,
            inlateout("a0") a => result,
            in("a1") b, in("a2") c, in("a3") d, in("a4") e,
            options(nostack),
        );
    }
    answer(result)
}

/// Reads what the kernel answered: a small negative number is an error.
fn answer(result: isize) -> Result<usize> {
    match i32::try_from(result) {
        Ok(negative @ -4095..=-1) => Err(-negative),
        _ => Ok(result as usize),
    }
}

/// A descriptor or another number that the kernel takes as an `int`.
fn int(value: i32) -> usize {
    value as isize as usize
}

/// Memory for the stack of a process that shares this one's memory.
#[repr(C, align(16))]
#[derive(Debug)]
pub(crate) struct Stack([u8; Self::SIZE]);

impl Stack {
    /// Far more than calls of this module need, which keep their few values in registers.
    const SIZE: usize = 16 * 1024;

    /// Returns memory whose pages are taken as they are used.
    pub(crate) fn new() -> Box<std::cell::UnsafeCell<Self>> {
        // SAFETY: bytes may have any value, also that of fresh memory.
        unsafe { Box::new_zeroed().assume_init() }
    }
}

const SIGCHLD: usize = 17;
const CLONE_VM: usize = 0x100;
const CLONE_VFORK: usize = 0x4000;

/// Starts a process that shares this one's memory and runs `function(argument)` on its own stack.
///
/// With `suspend`, this process stands still until the new one has become another program or has ended, as `vfork` does.
///
/// # Safety
///
/// `stack` and what `argument` points to must stay until the process has ended or become another program, and nobody
/// else may use the stack. The function must keep to the calls of this module, since this process's C library is not
/// made for two, and must not return.
pub(crate) unsafe fn spawn<T>(
    function: extern "C" fn(&T) -> !,
    argument: *const T,
    stack: &std::cell::UnsafeCell<Stack>,
    suspend: bool,
) -> Result<Pid> {
    let flags = CLONE_VM | SIGCHLD | if suspend { CLONE_VFORK } else { 0 };
    // The stack grows down from the end of its memory, which is aligned as the calling convention wants.
    let top = stack.get() as usize + Stack::SIZE;
    let result: isize;
    // In the new process, registers are as they were, but for the stack pointer and the result, which is 0: it calls the
    // function, and never comes back. No frame pointer is above, so that a debugger stops there.
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller answers for stack, function and argument; here nothing else changes than registers named.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") number::CLONE => result,
            in("rdi") flags, in("rsi") top, in("rdx") 0, in("r10") 0, in("r8") 0,
            in("r12") function, in("r13") argument,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x22",
            "blr x21",
            "brk #1",
            "2:",
            in("x8") number::CLONE,
            inlateout("x0") flags => result,
            in("x1") top, in("x2") 0, in("x3") 0, in("x4") 0,
            in("x21") function, in("x22") argument,
            lateout("x30") _,
        );
    }
    #[cfg(target_arch = "riscv64")]
    // SAFETY: as above.
    unsafe {
        asm!(
            "ecall",
            "bnez a0, 2f",
            "mv s0, zero",
            "mv a0, s3",
            "jalr s2",
            "ebreak",
            "2:",
            in("a7") number::CLONE,
            inlateout("a0") flags => result,
            in("a1") top, in("a2") 0, in("a3") 0, in("a4") 0,
            in("s2") function, in("s3") argument,
            lateout("ra") _,
        );
    }
    answer(result).map(|pid| pid as Pid)
}

/// Ends this process at once.
pub(crate) fn exit(status: i32) -> ! {
    loop {
        // SAFETY: no memory is involved.
        let _ = unsafe { call(number::EXIT_GROUP, [int(status), 0, 0, 0, 0]) };
    }
}

/// Makes orphans below this process its children.
pub(crate) fn adopt_orphans() -> Result<()> {
    const PR_SET_CHILD_SUBREAPER: usize = 36;
    // SAFETY: plain numbers.
    unsafe { call(number::PRCTL, [PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0]) }.map(drop)
}

/// Asks the kernel for this signal when the parent dies.
pub(crate) fn signal_on_parent_death(signal: i32) -> Result<()> {
    const PR_SET_PDEATHSIG: usize = 1;
    // SAFETY: plain numbers.
    unsafe { call(number::PRCTL, [PR_SET_PDEATHSIG, int(signal), 0, 0, 0]) }.map(drop)
}

pub(crate) fn parent_pid() -> Pid {
    // SAFETY: no arguments; cannot fail.
    unsafe { call(number::GETPPID, [0; 5]) }.map_or(0, |pid| pid as Pid)
}

pub(crate) fn new_session() -> Result<()> {
    // SAFETY: no arguments.
    unsafe { call(number::SETSID, [0; 5]) }.map(drop)
}

/// Makes the terminal on descriptor 0 the controlling one of this session.
pub(crate) fn take_terminal() -> Result<()> {
    const TIOCSCTTY: usize = 0x540e;
    // SAFETY: plain numbers.
    unsafe { call(number::IOCTL, [0, TIOCSCTTY, 0, 0, 0]) }.map(drop)
}

pub(crate) fn set_umask(mask: u32) {
    // SAFETY: a plain number; cannot fail.
    let _ = unsafe { call(number::UMASK, [mask as usize, 0, 0, 0, 0]) };
}

pub(crate) fn change_directory(directory: i32) -> Result<()> {
    // SAFETY: plain numbers; the kernel checks them.
    unsafe { call(number::FCHDIR, [int(directory), 0, 0, 0, 0]) }.map(drop)
}

/// Makes `to` a copy of `from` that a program started from this process inherits.
pub(crate) fn place(from: i32, to: i32) -> Result<()> {
    // SAFETY: descriptors of a process of its own table, in which no value owns them.
    unsafe { call(number::DUP3, [int(from), int(to), 0, 0, 0]) }.map(drop)
}

/// Closes all descriptors from `first` to `last`, or marks them to be closed when a program is started.
pub(crate) fn close_range(first: i32, last: i32, on_exec: bool) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: usize = 4;
    let flags = if on_exec { CLOSE_RANGE_CLOEXEC } else { 0 };
    // SAFETY: as in `place`.
    unsafe { call(CLOSE_RANGE, [int(first), int(last), flags, 0, 0]) }.map(drop)
}

pub(crate) fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = [soft, hard];
    // SAFETY: `limit` is two numbers, as the call reads them.
    unsafe { call(number::SETRLIMIT, [resource as usize, limit.as_ptr() as usize, 0, 0, 0]) }
        .map(drop)
}

/// The size of the kernel's set of signals.
const SIGNAL_SET: usize = size_of::<u64>();

/// Blocks no signal.
pub(crate) fn unblock_signals() {
    const SIG_SETMASK: usize = 2;
    let none = 0_u64;
    let none = (&raw const none) as usize;
    // SAFETY: the pointer is to a set of the size given; a null pointer for the old set is allowed.
    let _ = unsafe { call(number::RT_SIGPROCMASK, [SIG_SETMASK, none, 0, SIGNAL_SET, 0]) };
}

/// Waits for one of these blocked signals.
pub(crate) fn wait_for_signal(signals: &[i32]) {
    let set = signals.iter().fold(0_u64, |set, signal| set | 1 << (signal - 1));
    let set = (&raw const set) as usize;
    // SAFETY: as in `unblock_signals`; null pointers for details and time are allowed.
    let _ = unsafe { call(number::RT_SIGTIMEDWAIT, [set, 0, 0, SIGNAL_SET, 0]) };
}

/// Looks for a child that has ended, without waiting: its number and raw status, or `None` while all of them live.
///
/// # Errors
///
/// Fails if there are no children.
pub(crate) fn reap_child() -> Result<Option<(Pid, i32)>> {
    const WNOHANG: usize = 1;
    const ALL_THREADS_AND_CLONES: usize = 0x4000_0000;
    let mut status = 0_i32;
    let place = (&raw mut status) as usize;
    let flags = WNOHANG | ALL_THREADS_AND_CLONES;
    // SAFETY: `status` is valid for writing; a null pointer for the usage is allowed.
    let pid = unsafe { call(number::WAIT4, [int(-1), place, flags, 0, 0]) }?;
    Ok((pid != 0).then_some((pid as Pid, status)))
}

pub(crate) fn write(descriptor: i32, bytes: &[u8]) -> Result<usize> {
    // SAFETY: the pointer and the length describe `bytes`.
    unsafe { call(number::WRITE, [int(descriptor), bytes.as_ptr() as usize, bytes.len(), 0, 0]) }
}

/// Replaces this process by a program; returns the error number if it cannot.
///
/// # Safety
///
/// `path` must be a C string, and both lists pointers to C strings with a null pointer at the end.
pub(super) unsafe fn execute(
    path: *const c_char,
    argv: *const *const c_char,
    environment: *const *const c_char,
) -> i32 {
    // SAFETY: the caller answers for the pointers.
    let result =
        unsafe { call(number::EXECVE, [path as usize, argv as usize, environment as usize, 0, 0]) };
    result.err().unwrap_or(0)
}
