//! Mounts, and trees of mounts.

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_ulong, c_void},
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    ptr,
};

use super::{AT_EMPTY_PATH, AT_FDCWD, O_CLOEXEC, check, check_long, own, syscall};
use crate::numbers;

pub(crate) const MS_RDONLY: c_ulong = 1;
pub(crate) const MS_NOSUID: c_ulong = 2;
pub(crate) const MS_NODEV: c_ulong = 4;
pub(crate) const MS_NOEXEC: c_ulong = 8;
pub(crate) const MS_BIND: c_ulong = 4096;
pub(crate) const MS_REC: c_ulong = 16384;
pub(crate) const MS_PRIVATE: c_ulong = 1 << 18;
pub(crate) const MS_SLAVE: c_ulong = 1 << 19;

pub(crate) const MOUNT_ATTR_RDONLY: u64 = 1;
pub(crate) const MOUNT_ATTR_NOSUID: u64 = 2;
pub(crate) const MOUNT_ATTR_NODEV: u64 = 4;
pub(crate) const MOUNT_ATTR_NOEXEC: u64 = 8;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

const AT_RECURSIVE: c_uint = 0x8000;
const OPEN_TREE_CLONE: c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 4;
const MNT_DETACH: c_int = 2;

unsafe extern "C" {
    fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
    fn umount2(target: *const c_char, flags: c_int) -> c_int;
    fn setxattr(
        path: *const c_char,
        name: *const c_char,
        value: *const c_void,
        size: usize,
        flags: c_int,
    ) -> c_int;
    fn removexattr(path: *const c_char, name: *const c_char) -> c_int;
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

/// Clones the one mount at `path`, without those below it, into a tree that is not attached anywhere.
pub(crate) fn open_mount(path: &CStr) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | O_CLOEXEC.cast_unsigned();
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
    set_attributes(tree.as_raw_fd(), c"", AT_EMPTY_PATH | AT_RECURSIVE, attributes, 0)
}

/// Shows the files of a tree of [`open_mount`] as those of other users: who has an id on the disk appears as whom the user
/// namespace maps that id to.
pub(crate) fn map_owners(tree: BorrowedFd<'_>, users: BorrowedFd<'_>) -> io::Result<()> {
    let users = u64::from(users.as_raw_fd().cast_unsigned());
    set_attributes(tree.as_raw_fd(), c"", AT_EMPTY_PATH, MOUNT_ATTR_IDMAP, users)
}

/// Adds attributes to the one mount at `path`.
pub(crate) fn restrict_mount(path: &CStr, attributes: u64) -> io::Result<()> {
    set_attributes(AT_FDCWD, path, 0, attributes, 0)
}

fn set_attributes(
    fd: c_int,
    path: &CStr,
    flags: c_uint,
    attributes: u64,
    user_namespace: u64,
) -> io::Result<()> {
    let attr = MountAttr { set: attributes, clear: 0, propagation: 0, user_namespace };
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

/// Fails if files at `path` cannot have attributes of users, by giving it one and taking it away.
pub(crate) fn try_attribute(path: &CStr) -> io::Result<()> {
    const NAME: &CStr = c"user.cofferdam";
    // SAFETY: both strings are NUL-terminated and outlive the call; a value of no bytes is not read.
    check(unsafe { setxattr(path.as_ptr(), NAME.as_ptr(), ptr::null(), 0, 0) })?;
    // SAFETY: both strings are NUL-terminated and outlive the call.
    check(unsafe { removexattr(path.as_ptr(), NAME.as_ptr()) }).map(drop)
}
