//! [`Event`]: one record of the log, as `power_loss.c` writes it.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::Error;

/// One change of a file below the directory. Paths are relative to it; inodes are numbers of the file system.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// A file was made, under a name or (`None`) without one.
    Create {
        path: Option<PathBuf>,
        inode: u64,
    },
    Write {
        inode: u64,
        offset: u64,
        data: Vec<u8>,
    },
    Truncate {
        inode: u64,
        length: u64,
    },
    /// A file's content and length were flushed.
    Flush {
        inode: u64,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
    MakeDirectory {
        path: PathBuf,
    },
    RemoveDirectory {
        path: PathBuf,
    },
    /// A file was given another name.
    Link {
        path: PathBuf,
        inode: u64,
    },
    /// A directory's entries were flushed.
    FlushDirectory {
        path: PathBuf,
    },
    /// Something was acknowledged.
    Mark {
        data: Vec<u8>,
    },
}

/// Numbers in a record's header.
const NUMBERS: usize = 6;

impl Event {
    pub(super) fn is_flush(&self) -> bool {
        matches!(self, Self::Flush { .. } | Self::FlushDirectory { .. })
    }

    pub(super) fn parse_all(mut log: &[u8], root: &Path) -> Result<Vec<Self>, Error> {
        let mut events = Vec::new();
        while !log.is_empty() {
            events.push(Self::parse(&mut log, root)?);
        }
        Ok(events)
    }

    fn parse(log: &mut &[u8], root: &Path) -> Result<Self, Error> {
        let mut header = [0; NUMBERS];
        for number in &mut header {
            let bytes = take(log, 8)?;
            *number = bytes.iter().rev().fold(0, |value, byte| (value << 8) | u64::from(*byte));
        }
        let [operation, inode, offset, first, second, length] = header;
        let mut path = |length| -> Result<Option<PathBuf>, Error> {
            let path = Path::new(OsStr::from_bytes(take(log, length)?));
            Ok(path.strip_prefix(root).ok().map(Path::to_path_buf))
        };
        let (first, second) = (path(first)?, path(second)?);
        let data = take(log, length)?.to_vec();
        let known = |path: Option<PathBuf>| path.ok_or_else(|| torn("a path outside of the root"));
        Ok(match operation {
            1 => Self::Create { path: first, inode },
            2 => Self::Write { inode, offset, data },
            3 => Self::Truncate { inode, length: offset },
            4 => Self::Flush { inode },
            5 => Self::Rename { from: known(first)?, to: known(second)? },
            6 => Self::Unlink { path: known(first)? },
            7 => Self::MakeDirectory { path: known(first)? },
            8 => Self::RemoveDirectory { path: known(first)? },
            9 => Self::Link { path: known(first)?, inode },
            10 => Self::FlushDirectory { path: known(first)? },
            11 => Self::Mark { data },
            _ => {
                let path = first.or(second).unwrap_or_default();
                let detail = "a rename of a directory, or over the edge of the directory";
                return Err(Error::Unseen { path, detail: detail.to_owned() });
            }
        })
    }
}

fn take<'a>(log: &mut &'a [u8], length: u64) -> Result<&'a [u8], Error> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let (taken, rest) = log.split_at_checked(length).ok_or_else(|| torn("a torn record"))?;
    *log = rest;
    Ok(taken)
}

fn torn(what: &str) -> Error {
    Error::Unseen { path: PathBuf::from("log"), detail: format!("the log has {what}") }
}
