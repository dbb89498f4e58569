//! System calls: the only file of the program with `unsafe` code.
//!
//! An attack is a system call that a library would not make, so nearly all of them go through [`call`] by number. What a
//! call reads or writes in memory is borrowed by its arguments; a probe hands over buffers that are as long as the kernel's
//! structures.
#![expect(
    unsafe_code,
    reason = "an attack is a system call that no library makes; the program has no dependency"
)]
// Arguments of system calls are words; results are words whose sign was checked.
#![expect(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "arguments and results of system calls are words"
)]

use std::{
    ffi::{CStr, c_int, c_long},
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use crate::numbers as n;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn fork() -> c_int;
    fn _exit(status: c_int) -> !;
}

/// A process id.
pub(crate) type Pid = i32;

/// One argument of a system call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Word(u64);

macro_rules! word_from {
    ($($number:ty),+) => {$(
        impl From<$number> for Word {
            fn from(number: $number) -> Self {
                Self(number as i64 as u64)
            }
        }
    )+};
}
word_from!(i32, u32, i64, usize);

impl From<u64> for Word {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl From<&CStr> for Word {
    fn from(text: &CStr) -> Self {
        Self(text.as_ptr() as u64)
    }
}

impl From<&[u8]> for Word {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.as_ptr() as u64)
    }
}

impl From<&mut [u8]> for Word {
    fn from(bytes: &mut [u8]) -> Self {
        Self(bytes.as_mut_ptr() as u64)
    }
}

impl From<&OwnedFd> for Word {
    fn from(fd: &OwnedFd) -> Self {
        Self::from(fd.as_raw_fd())
    }
}

/// Makes a system call by number.
pub(crate) fn call(number: i64, arguments: &[Word]) -> io::Result<i64> {
    let mut words = [0_u64; 6];
    for (word, argument) in words.iter_mut().zip(arguments) {
        *word = argument.0;
    }
    let [a, b, c, d, e, f] = words;
    // SAFETY: memory that the kernel reads or writes is borrowed by the caller's arguments for this statement, and as long
    // as the call's structures (see the head of this file). No call here changes this program's own mappings or stack.
    let result = unsafe { syscall(number, a, b, c, d, e, f) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Makes a system call that returns a new descriptor.
pub(crate) fn descriptor(number: i64, arguments: &[Word]) -> io::Result<OwnedFd> {
    let fd = call(number, arguments)? as c_int;
    // SAFETY: the kernel has just made the descriptor for this call, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `sys!(number, arguments…)`: a system call, its arguments made to words.
macro_rules! sys {
    ($number:expr $(, $argument:expr)* $(,)?) => {
        $crate::sys::call($number, &[$($crate::sys::Word::from($argument)),*])
    };
}
pub(crate) use sys;

/// Makes `getpid` by the system call table of another ABI.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OldAbi {
    /// 32-bit x86, by `int 0x80`.
    I386,
    /// x32: the 64-bit entry with a bit in the number.
    X32,
}

impl OldAbi {
    pub(crate) fn process_id(self) -> io::Result<i64> {
        match self {
            Self::X32 => call(0x4000_0000 | n::GETPID, &[]),
            #[cfg(target_arch = "x86_64")]
            Self::I386 => {
                let mut result: i32 = 20; // `getpid` in the table of i386
                // SAFETY: the call takes no argument and touches no memory; the kernel keeps all other registers but those
                // that are named.
                unsafe {
                    std::arch::asm!(
                        "int 0x80", inout("eax") result,
                        out("r8") _, out("r9") _, out("r10") _, out("r11") _,
                    );
                }
                if result < 0 {
                    Err(io::Error::from_raw_os_error(-result))
                } else {
                    Ok(result.into())
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::I386 => Err(io::Error::from_raw_os_error(38)),
        }
    }
}

/// Copies this process. The program has one thread, so the copy may go on as usual.
pub(crate) fn fork_process() -> io::Result<Option<Pid>> {
    // SAFETY: no arguments; the program is single-threaded, so no lock is held by a thread that the copy lacks.
    match unsafe { fork() } {
        0 => Ok(None),
        pid if pid > 0 => Ok(Some(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends this process at once.
pub(crate) fn exit_now(status: c_int) -> ! {
    // SAFETY: never returns and touches no memory.
    unsafe { _exit(status) }
}

/// How a child ended, and nothing if it runs (`hang` waits).
pub(crate) fn wait_child(pid: Pid, hang: bool) -> io::Result<Option<Ended>> {
    const WNOHANG: i32 = 1;
    const ALL: i32 = 0x4000_0000;
    let mut status = [0_u8; 4];
    let options = ALL | if hang { 0 } else { WNOHANG };
    if sys!(n::WAIT4, pid, &mut status[..], options, 0)? == 0 {
        return Ok(None);
    }
    let raw = i32::from_ne_bytes(status);
    let signal = raw & 0x7f;
    Ok(Some(if signal == 0 { Ended::Exited((raw >> 8) & 0xff) } else { Ended::Killed(signal) }))
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Exited(i32),
    Killed(i32),
}

/// Sends a signal; a negative number is a process group.
pub(crate) fn kill(pid: Pid, signal: i32) -> io::Result<()> {
    sys!(n::KILL, pid, signal).map(drop)
}

/// Makes a pipe: the end to read and the end to write, closed when a program is started.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    const O_CLOEXEC: i32 = 0o2_000_000;
    let mut fds = [0_u8; 8];
    sys!(n::PIPE2, &mut fds[..], O_CLOEXEC)?;
    let at = |i: usize| i32::from_ne_bytes([fds[i], fds[i + 1], fds[i + 2], fds[i + 3]]);
    // SAFETY: both descriptors are new and nobody else owns them.
    Ok(unsafe { (OwnedFd::from_raw_fd(at(0)), OwnedFd::from_raw_fd(at(4))) })
}

/// Waits a moment for a descriptor to become readable.
pub(crate) fn readable_within(fd: &OwnedFd, milliseconds: i32) -> io::Result<bool> {
    const POLLIN: i16 = 1;
    let mut entry = Vec::from(fd.as_raw_fd().to_ne_bytes());
    entry.extend(POLLIN.to_ne_bytes());
    entry.extend([0, 0]);
    Ok(sys!(n::POLL, &mut entry[..], 1, milliseconds)? > 0)
}

/// The words of a structure, one after another as the kernel has them.
macro_rules! structure {
    ($size:expr; $($value:expr),* $(,)?) => {{
        let mut bytes: Vec<u8> = Vec::with_capacity($size);
        $(bytes.extend($value.to_ne_bytes());)*
        bytes.resize($size, 0);
        bytes
    }};
}
pub(crate) use structure;
