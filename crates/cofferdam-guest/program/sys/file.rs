//! Files, named by an open directory and a name in it.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_long, c_uint, c_void},
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use super::{EAGAIN, check, copy_above, owned, syscall};

unsafe extern "C" {
    fn openat(directory: c_int, path: *const c_char, flags: c_int, ...) -> c_int;
    fn unlinkat(directory: c_int, path: *const c_char, flags: c_int) -> c_int;
    fn mkdirat(directory: c_int, path: *const c_char, mode: c_uint) -> c_int;
    fn linkat(
        from: c_int,
        old: *const c_char,
        to: c_int,
        new: *const c_char,
        flags: c_int,
    ) -> c_int;
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
    fn futimens(fd: c_int, times: *const [Timespec; 2]) -> c_int;
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
}

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

pub(super) const AT_FDCWD: c_int = -100;
const AT_SYMLINK_NOFOLLOW: c_int = 0x100;
const AT_REMOVEDIR: c_int = 0x200;
const AT_EMPTY_PATH: c_int = 0x1000;
const RENAME_NOREPLACE: c_uint = 1;
const STATX_BASIC: c_uint = 0x7ff;

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
    special_device: [u32; 2],
    device: [u32; 2],
    rest: [u64; 14],
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
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) links: u32,
    pub(crate) modified_ns: i64,
    pub(crate) changed_ns: i64,
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
        device: u64::from(found.device[0]) << 32 | u64::from(found.device[1]),
        inode: found.inode,
        links: found.links,
        modified_ns: found.modified.nanoseconds(),
        changed_ns: found.changed.nanoseconds(),
    })
}

impl StatxTime {
    fn nanoseconds(&self) -> i64 {
        self.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(self.nanoseconds))
    }
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

/// Gives a file a second name; a link is not followed.
pub(crate) fn make_hard_link(
    from: BorrowedFd<'_>,
    old: &CStr,
    to: BorrowedFd<'_>,
    new: &CStr,
) -> io::Result<()> {
    // SAFETY: both names are C strings.
    check(unsafe { linkat(from.as_raw_fd(), old.as_ptr(), to.as_raw_fd(), new.as_ptr(), 0) })
        .map(drop)
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

/// Returns the times that set the one of change and leave the other.
fn times(modified_ns: i64) -> [Timespec; 2] {
    const UTIME_OMIT: i64 = 0x3fff_fffe;
    [
        Timespec { seconds: 0, nanoseconds: UTIME_OMIT },
        Timespec {
            seconds: modified_ns.div_euclid(1_000_000_000),
            nanoseconds: modified_ns.rem_euclid(1_000_000_000),
        },
    ]
}

/// Sets the time of change of a file that is open for reading or writing.
pub(crate) fn set_time_open(file: BorrowedFd<'_>, modified_ns: i64) -> io::Result<()> {
    let times = times(modified_ns);
    // SAFETY: the descriptor is open, and `times` has two entries.
    check(unsafe { futimens(file.as_raw_fd(), &raw const times) }).map(drop)
}

/// Sets the time of change of one name in a directory; a link is not followed.
pub(crate) fn set_time(directory: BorrowedFd<'_>, name: &CStr, modified_ns: i64) -> io::Result<()> {
    let times = times(modified_ns);
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
