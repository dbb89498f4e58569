//! Descriptors that come and go over a socket.

use std::{
    ffi::{c_int, c_uint, c_void},
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

/// The most descriptors of one message, which is the kernel's own bound.
const MAX_DESCRIPTORS: usize = 253;

const SOL_SOCKET: c_int = 1;
const SCM_RIGHTS: c_int = 1;

/// The length of a control message without its descriptors, in bytes.
const HEADER: usize = 16;

#[repr(C)]
struct IoVector {
    base: *mut c_void,
    length: usize,
}

#[repr(C)]
struct MessageHeader {
    name: *mut c_void,
    name_length: c_uint,
    vectors: *mut IoVector,
    vector_count: usize,
    control: *mut c_void,
    control_length: usize,
    flags: c_int,
}

/// One control message with room for the descriptors; the length of the kernel's header is that of `length`, `level` and
/// `kind`, and what follows is aligned like it.
#[repr(C)]
struct Control {
    length: usize,
    level: c_int,
    kind: c_int,
    descriptors: [RawFd; MAX_DESCRIPTORS],
}

unsafe extern "C" {
    fn recvmsg(socket: c_int, message: *mut MessageHeader, flags: c_int) -> isize;
    fn sendmsg(socket: c_int, message: *const MessageHeader, flags: c_int) -> isize;
}

/// A received message.
pub(crate) enum Received {
    /// The descriptors that came with one message.
    Descriptors(Vec<OwnedFd>),
    /// The peer has closed.
    End,
    /// Nothing is there yet.
    Nothing,
}

/// Takes one message of a few bytes, which are dropped, with its descriptors. They close on exec.
pub(crate) fn receive_descriptors(socket: BorrowedFd<'_>) -> io::Result<Received> {
    const MSG_CMSG_CLOEXEC_DONTWAIT: c_int = 0x4000_0000 | 0x40;
    const EAGAIN: i32 = 11;
    const ECONNRESET: i32 = 104;
    let mut bytes = [0_u8; 8];
    let mut vector = IoVector { base: bytes.as_mut_ptr().cast(), length: bytes.len() };
    let mut control = MaybeUninit::<Control>::zeroed();
    let mut header = MessageHeader {
        name: ptr::null_mut(),
        name_length: 0,
        vectors: &raw mut vector,
        vector_count: 1,
        control: control.as_mut_ptr().cast(),
        control_length: size_of::<Control>(),
        flags: 0,
    };
    // SAFETY: `header` has the form of `struct msghdr` on 64-bit Linux; it and all that it points to outlive the call.
    let length = unsafe { recvmsg(socket.as_raw_fd(), &raw mut header, MSG_CMSG_CLOEXEC_DONTWAIT) };
    if length == -1 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(EAGAIN | super::EINTR) => Ok(Received::Nothing),
            Some(ECONNRESET) => Ok(Received::End),
            _ => Err(error),
        };
    }
    // SAFETY: all bit patterns are values of its fields, and it was zeroed.
    let control = unsafe { control.assume_init() };
    let mut descriptors = Vec::new();
    if header.control_length >= HEADER && (control.level, control.kind) == (SOL_SOCKET, SCM_RIGHTS)
    {
        let count = control.length.saturating_sub(HEADER) / size_of::<RawFd>();
        for &fd in control.descriptors.iter().take(count) {
            // SAFETY: the kernel has just made this descriptor for this message, and nothing else owns it.
            descriptors.push(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    if length == 0 && descriptors.is_empty() {
        return Ok(Received::End);
    }
    Ok(Received::Descriptors(descriptors))
}

/// Sends a few bytes, which have to go in one piece, and a descriptor with them.
pub(crate) fn send_descriptor(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptor: BorrowedFd<'_>,
) -> io::Result<()> {
    const MSG_NOSIGNAL: c_int = 0x4000;
    let mut vector = IoVector { base: bytes.as_ptr().cast_mut().cast(), length: bytes.len() };
    let mut descriptors = [0; MAX_DESCRIPTORS];
    descriptors[0] = descriptor.as_raw_fd();
    let length = HEADER + size_of::<RawFd>();
    let mut control = Control { length, level: SOL_SOCKET, kind: SCM_RIGHTS, descriptors };
    let header = MessageHeader {
        name: ptr::null_mut(),
        name_length: 0,
        vectors: &raw mut vector,
        vector_count: 1,
        control: (&raw mut control).cast(),
        // With what aligns a next message, though there is none.
        control_length: length.next_multiple_of(size_of::<usize>()),
        flags: 0,
    };
    // SAFETY: `header` has the form of `struct msghdr` on 64-bit Linux; it and all that it points to outlive the call, which
    // only reads.
    let sent = unsafe { sendmsg(socket.as_raw_fd(), &raw const header, MSG_NOSIGNAL) };
    match usize::try_from(sent) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        // A socket buffer that has room for nothing does not happen to the few reports of a set-up.
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}
