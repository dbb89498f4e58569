//! The kernel's notes of changes to files: `inotify`.

use std::{
    ffi::{CString, c_char, c_int},
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use super::{O_CLOEXEC, O_NONBLOCK, check, owned};

unsafe extern "C" {
    fn inotify_init1(flags: c_int) -> c_int;
    fn inotify_add_watch(queue: c_int, path: *const c_char, mask: u32) -> c_int;
    fn inotify_rm_watch(queue: c_int, watch: c_int) -> c_int;
}

pub(crate) const IN_MODIFY: u32 = 0x2;
pub(crate) const IN_ATTRIB: u32 = 0x4;
pub(crate) const IN_MOVED_FROM: u32 = 0x40;
pub(crate) const IN_MOVED_TO: u32 = 0x80;
pub(crate) const IN_CREATE: u32 = 0x100;
pub(crate) const IN_DELETE: u32 = 0x200;
pub(crate) const IN_DELETE_SELF: u32 = 0x400;
pub(crate) const IN_MOVE_SELF: u32 = 0x800;
pub(crate) const IN_Q_OVERFLOW: u32 = 0x4000;
pub(crate) const IN_IGNORED: u32 = 0x8000;
pub(crate) const IN_ISDIR: u32 = 0x4000_0000;

/// Opens a queue of notes.
pub(crate) fn open_queue() -> io::Result<OwnedFd> {
    // SAFETY: plain flags.
    owned(unsafe { inotify_init1(O_CLOEXEC | O_NONBLOCK) })
}

/// Watches the very file that a descriptor is open on, and returns the watch's number: the same again for a file that is
/// watched already.
pub(crate) fn add_watch(
    queue: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    mask: u32,
) -> io::Result<c_int> {
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    // SAFETY: the path is a C string.
    check(unsafe { inotify_add_watch(queue.as_raw_fd(), path.as_ptr(), mask) })
}

/// Ends a watch; nothing happens if it has ended by itself.
pub(crate) fn remove_watch(queue: BorrowedFd<'_>, watch: c_int) {
    // SAFETY: plain numbers.
    let _ = unsafe { inotify_rm_watch(queue.as_raw_fd(), watch) };
}

/// One note of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) watch: c_int,
    pub(crate) mask: u32,
    /// Joins the two notes of a move.
    pub(crate) cookie: u32,
    /// The name in the watched directory; empty for the watched file itself.
    pub(crate) name: Vec<u8>,
}

/// Cuts what was read from a queue to notes.
pub(crate) fn notes(mut bytes: &[u8]) -> Vec<Note> {
    let mut notes = Vec::new();
    while let Some((&[w0, w1, w2, w3, m0, m1, m2, m3, c0, c1, c2, c3, l0, l1, l2, l3], rest)) =
        bytes.split_first_chunk::<16>()
    {
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let Some((name, rest)) = rest.split_at_checked(length) else {
            break;
        };
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        notes.push(Note {
            watch: i32::from_ne_bytes([w0, w1, w2, w3]),
            mask: u32::from_ne_bytes([m0, m1, m2, m3]),
            cookie: u32::from_ne_bytes([c0, c1, c2, c3]),
            name: name[..end].to_vec(),
        });
        bytes = rest;
    }
    notes
}
