//! Paths of requests, resolved beneath the workspace.
//!
//! Links that stay in the workspace are followed on the way; `openat2` makes sure of it at the moment of use, so no
//! swap between a check and an act leads out. What is changed is named by an open directory and one last component.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use cofferdam_guest::{FileKind, MAX_PATH, Metadata};

use crate::sys;

/// Bits that a file of a tree may have: set-id bits are dropped.
pub(crate) const MODE_BITS: u32 = 0o1777;

/// The directory that all paths are relative to.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: OwnedFd,
}

impl Workspace {
    /// Opens the workspace at an absolute path.
    pub(crate) fn open(path: &[u8]) -> io::Result<Self> {
        if path.first() != Some(&b'/') {
            return Err(sys::error(sys::EINVAL));
        }
        let root = sys::open_path(&c_string(path)?, sys::O_PATH | sys::O_DIRECTORY)?;
        Ok(Self { root })
    }

    /// Returns an open directory as a workspace of its own.
    pub(crate) fn at(root: OwnedFd) -> Self {
        Self { root }
    }

    /// Opens a directory beneath this one as a workspace of its own, through no link at all.
    pub(crate) fn beneath(&self, path: &[u8]) -> io::Result<Self> {
        let root = self.open_as(path, sys::O_PATH | sys::O_DIRECTORY, 0)?;
        Ok(Self { root })
    }

    /// Opens `path` with these flags and follows links that stay inside.
    pub(crate) fn open_as(&self, path: &[u8], flags: i32, resolve: u64) -> io::Result<OwnedFd> {
        let path = Relative::parse(path)?;
        sys::open_beneath(self.root.as_fd(), &path.whole()?, flags, 0, resolve)
    }

    /// Opens a directory for reading its names.
    pub(crate) fn open_directory(&self, path: &[u8]) -> io::Result<OwnedFd> {
        self.open_as(path, sys::O_RDONLY | sys::O_DIRECTORY, 0)
    }

    /// Opens a regular file for reading. Anything else is refused without being opened.
    pub(crate) fn open_file(&self, path: &[u8]) -> io::Result<(OwnedFd, sys::Stat)> {
        let probe = self.open_as(path, sys::O_PATH, 0)?;
        require_regular(&sys::stat_open(probe.as_fd())?)?;
        // Something else may be there by now: without blocking, the worst is the opening of a fifo, refused below.
        let file = self.open_as(path, sys::O_RDONLY | sys::O_NONBLOCK | sys::O_NOCTTY, 0)?;
        let found = sys::stat_open(file.as_fd())?;
        require_regular(&found)?;
        Ok((file, found))
    }

    /// Opens the directory that holds `path`, and returns it with the last component.
    ///
    /// Missing directories above are made if `make` says so.
    pub(crate) fn parent(&self, path: &[u8], make: bool) -> io::Result<(OwnedFd, CString)> {
        let path = Relative::parse(path)?;
        let (above, name) = path.split().ok_or(sys::error(sys::EINVAL))?;
        let name = c_string(name)?;
        let flags = sys::O_PATH | sys::O_DIRECTORY;
        match sys::open_beneath(self.root.as_fd(), &above.whole()?, flags, 0, 0) {
            Err(error) if make && error.raw_os_error() == Some(sys::ENOENT) => {
                Ok((self.make_directories(&above, 0o755)?, name))
            }
            result => Ok((result?, name)),
        }
    }

    /// Makes a directory and those above it, and opens it. One that is there is kept as it is.
    pub(crate) fn make_path(&self, path: &[u8], mode: u32) -> io::Result<OwnedFd> {
        self.make_directories(&Relative::parse(path)?, mode)
    }

    fn make_directories(&self, path: &Relative<'_>, mode: u32) -> io::Result<OwnedFd> {
        let flags = sys::O_PATH | sys::O_DIRECTORY;
        let mut current = sys::open_beneath(self.root.as_fd(), c".", flags, 0, 0)?;
        for end in 1..=path.components.len() {
            let prefix = Relative { components: path.components[..end].to_vec() };
            let whole = prefix.whole()?;
            current = match sys::open_beneath(self.root.as_fd(), &whole, flags, 0, 0) {
                Err(error) if error.raw_os_error() == Some(sys::ENOENT) => {
                    let name = c_string(path.components[end - 1])?;
                    let last = end == path.components.len();
                    match sys::make_directory(
                        current.as_fd(),
                        &name,
                        if last { mode } else { 0o755 },
                    ) {
                        Err(error) if error.raw_os_error() != Some(sys::EEXIST) => {
                            return Err(error);
                        }
                        _ => sys::open_beneath(self.root.as_fd(), &whole, flags, 0, 0)?,
                    }
                }
                result => result?,
            };
        }
        Ok(current)
    }

    /// Describes what is at a path.
    pub(crate) fn describe(&self, path: &[u8], follow: bool) -> io::Result<Metadata> {
        let flags = sys::O_PATH | if follow { 0 } else { sys::O_NOFOLLOW };
        let file = self.open_as(path, flags, 0)?;
        metadata_of(&sys::stat_open(file.as_fd())?, file.as_fd(), c"")
    }
}

/// A checked path: components only, none of them `..`, no NUL.
struct Relative<'a> {
    components: Vec<&'a [u8]>,
}

impl<'a> Relative<'a> {
    fn parse(path: &'a [u8]) -> io::Result<Self> {
        if path.first() == Some(&b'/') || path.contains(&0) {
            return Err(sys::error(sys::EINVAL));
        }
        if path.len() >= MAX_PATH {
            return Err(sys::error(sys::ENAMETOOLONG));
        }
        let components: Vec<_> = path
            .split(|&byte| byte == b'/')
            .filter(|component| !component.is_empty() && *component != b".")
            .collect();
        if components.contains(&b"..".as_slice()) {
            return Err(sys::error(sys::EINVAL));
        }
        Ok(Self { components })
    }

    fn whole(&self) -> io::Result<CString> {
        if self.components.is_empty() {
            return Ok(c".".to_owned());
        }
        c_string(&self.components.join(&b'/'))
    }

    fn split(&self) -> Option<(Self, &'a [u8])> {
        let (name, above) = self.components.split_last()?;
        Some((Self { components: above.to_vec() }, name))
    }
}

/// Refuses a path that is not relative, or has `..` or NUL.
pub(crate) fn check_path(path: &[u8]) -> io::Result<()> {
    Relative::parse(path).map(drop)
}

/// Refuses what is no regular file: a directory as such, the rest as invalid.
pub(crate) fn require_regular(found: &sys::Stat) -> io::Result<()> {
    if found.is(sys::S_IFREG) {
        Ok(())
    } else if found.is(sys::S_IFDIR) {
        Err(sys::error(sys::EISDIR))
    } else {
        Err(sys::error(sys::EINVAL))
    }
}

/// Makes the metadata of what was found as `name` in `directory` (or as `directory` itself if the name is empty).
pub(crate) fn metadata_of(
    found: &sys::Stat,
    directory: BorrowedFd<'_>,
    name: &CStr,
) -> io::Result<Metadata> {
    let kind = match found.mode & sys::S_IFMT {
        sys::S_IFREG => FileKind::Regular,
        sys::S_IFDIR => FileKind::Directory,
        sys::S_IFLNK => FileKind::Symlink,
        sys::S_IFIFO => FileKind::Fifo,
        sys::S_IFSOCK => FileKind::Socket,
        sys::S_IFCHR => FileKind::CharacterDevice,
        _ => FileKind::BlockDevice,
    };
    Ok(Metadata {
        kind,
        mode: found.mode & 0o7777,
        size: found.size,
        modified_ns: found.modified_ns,
        link_target: match kind {
            FileKind::Symlink => sys::read_link(directory, name)?,
            _ => Vec::new(),
        },
    })
}

/// Makes a C string; a NUL inside is an invalid argument.
pub(crate) fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| sys::error(sys::EINVAL))
}
