//! File operations as data: what the host asks, and what a file is.

use crate::{
    ProtocolError,
    wire::{Reader, Writer},
};

/// The greatest length of a path or of a link's target, in bytes, as `PATH_MAX` of Linux.
pub const MAX_PATH: usize = 4096;

/// What kind of file something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A kind that this version does not know, as on the wire.
    Unknown(u8),
}

impl FileKind {
    pub(crate) fn to_wire(self) -> u8 {
        match self {
            Self::Regular => 1,
            Self::Directory => 2,
            Self::Symlink => 3,
            Self::Fifo => 4,
            Self::Socket => 5,
            Self::CharacterDevice => 6,
            Self::BlockDevice => 7,
            Self::Unknown(raw) => raw,
        }
    }

    pub(crate) fn from_wire(raw: u8) -> Self {
        match raw {
            1 => Self::Regular,
            2 => Self::Directory,
            3 => Self::Symlink,
            4 => Self::Fifo,
            5 => Self::Socket,
            6 => Self::CharacterDevice,
            7 => Self::BlockDevice,
            other => Self::Unknown(other),
        }
    }
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Regular file, directory, link or something else.
    pub kind: FileKind,
    /// Permission bits, set-id and sticky bits included.
    pub mode: u32,
    /// Size in bytes.
    pub size: u64,
    /// Last change of content, nanoseconds since the Unix epoch.
    pub modified_ns: i64,
    /// Where a symbolic link points to; empty for everything else.
    pub link_target: Vec<u8>,
}

impl Metadata {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.u8(self.kind.to_wire());
        out.u32(self.mode);
        out.u64(self.size);
        out.i64(self.modified_ns);
        out.bytes(&self.link_target);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        Ok(Self {
            kind: FileKind::from_wire(reader.u8()?),
            mode: reader.u32()?,
            size: reader.u64()?,
            modified_ns: reader.i64()?,
            link_target: reader.bytes("link target", MAX_PATH)?,
        })
    }
}

/// One file operation that needs no stream of data. All paths are relative to the workspace; empty is the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileRequest {
    /// Describes what is at a path; answered with `Metadata`.
    Stat {
        /// The path.
        path: Vec<u8>,
        /// Whether to describe what a final link points to.
        follow: bool,
    },
    /// Makes a directory.
    MakeDirectory {
        /// The path.
        path: Vec<u8>,
        /// Permission bits of the last component.
        mode: u32,
        /// Whether to make those above, and accept one that is there.
        parents: bool,
    },
    /// Moves a file or directory.
    Rename {
        /// The old path.
        from: Vec<u8>,
        /// The new path.
        to: Vec<u8>,
        /// Whether a file at the new path is replaced.
        replace: bool,
    },
    /// Removes a file, a link or a directory.
    Remove {
        /// The path.
        path: Vec<u8>,
        /// Whether to remove what is in a directory.
        recursive: bool,
    },
    /// Sets permission bits; a final link is refused.
    SetMode {
        /// The path.
        path: Vec<u8>,
        /// The permission bits.
        mode: u32,
    },
    /// Makes a symbolic link.
    Symlink {
        /// The path of the link.
        path: Vec<u8>,
        /// What it points to, kept as it is.
        target: Vec<u8>,
    },
    /// Reads where a symbolic link points to; answered with `Metadata`.
    ReadLink {
        /// The path of the link.
        path: Vec<u8>,
    },
}

/// Asks for a part of a regular file; answered with `Metadata`, `Data` and `Done`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadFile {
    /// The path; links that stay in the workspace are followed.
    pub path: Vec<u8>,
    /// Where to start, in bytes.
    pub offset: u64,
    /// The greatest number of bytes to send.
    pub max_bytes: u64,
}

/// Writes a whole file from `Data` frames up to `EndOfData`; answered with `Done`.
///
/// The content is written beside the file and moved over it, so a reader sees the old file or the new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteFile {
    /// The path; a final link is replaced.
    pub path: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Whether to keep the permission bits of a regular file that is there.
    pub keep_mode: bool,
    /// Whether to fail if anything is there.
    pub must_be_new: bool,
    /// Whether to make missing directories above.
    pub make_parents: bool,
    /// The size that the content must have in the end, in bytes.
    pub expected_size: Option<u64>,
}

/// Asks for the entries of a directory; answered with `Data` (a tree stream without content) and `Done`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListDirectory {
    /// The path.
    pub path: Vec<u8>,
    /// Levels to go down; 1 is the directory alone.
    pub depth: u32,
    /// The greatest number of entries to send; the end of the stream tells whether there were more.
    pub max_entries: u32,
}

/// Makes the entries of a tree stream that comes as `Data` frames up to `EndOfData`; answered with `Uploaded`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadTree {
    /// The directory beneath which the entries are made; made itself if missing.
    pub path: Vec<u8>,
}

/// Asks for a whole tree; answered with `Data` (a tree stream with content) and `Done`.
///
/// With and without `hard_links` these are two operations on the wire, since a host that does not know of hard links
/// must never be sent one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadTree {
    /// The directory, or a single file.
    pub path: Vec<u8>,
    /// The greatest number of bytes of content; more is a failure.
    pub max_bytes: u64,
    /// The greatest number of entries; more is a failure.
    pub max_entries: u64,
    /// Whether a second name of a file is told as such, without its content; else it is one more file.
    pub hard_links: bool,
}
