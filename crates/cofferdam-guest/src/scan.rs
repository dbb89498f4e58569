//! Scans: what is in a tree, as the file system tells it, and nothing of any content.
//!
//! A host that remembers what it was told the last time learns which files it must read, from one answer.

use crate::{
    FileKind, MAX_PATH, ProtocolError,
    wire::{Reader, Writer},
};

/// Asks what is in a tree; answered with `Data` (a tree stream of scanned entries) and `Done`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanTree {
    /// The directory, or a single file.
    pub path: Vec<u8>,
    /// The greatest number of entries to send; more is a failure.
    pub max_entries: u64,
}

/// One entry of a tree, with what tells whether it has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanEntry {
    /// Path relative to the root of the tree; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is; fifos, sockets and devices are told as such.
    pub kind: FileKind,
    /// Permission bits, set-id and sticky bits included.
    pub mode: u32,
    /// Size in bytes.
    pub size: u64,
    /// The file system that it is on; a number that means something only beside others of the same scan.
    pub device: u64,
    /// Its number in that file system.
    pub inode: u64,
    /// Last change of content, nanoseconds since the Unix epoch; programs inside may set it.
    pub modified_ns: i64,
    /// Last change of anything, nanoseconds since the Unix epoch; nobody inside can set it.
    pub changed_ns: i64,
    /// How many names it has.
    pub links: u32,
    /// Where a symbolic link points to; empty for everything else.
    pub link_target: Vec<u8>,
}

impl ScanTree {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.bytes(&self.path);
        out.u64(self.max_entries);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        Ok(Self { path: reader.bytes("path", MAX_PATH)?, max_entries: reader.u64()? })
    }
}

impl ScanEntry {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.bytes(&self.path);
        out.u8(self.kind.to_wire());
        out.u32(self.mode);
        out.u64(self.size);
        out.u64(self.device);
        out.u64(self.inode);
        out.i64(self.modified_ns);
        out.i64(self.changed_ns);
        out.u32(self.links);
        out.bytes(&self.link_target);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        Ok(Self {
            path: reader.bytes("path", MAX_PATH)?,
            kind: FileKind::from_wire(reader.u8()?),
            mode: reader.u32()?,
            size: reader.u64()?,
            device: reader.u64()?,
            inode: reader.u64()?,
            modified_ns: reader.i64()?,
            changed_ns: reader.i64()?,
            links: reader.u32()?,
            link_target: reader.bytes("link target", MAX_PATH)?,
        })
    }
}
