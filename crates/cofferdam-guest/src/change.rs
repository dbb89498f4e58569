//! Watching: what to watch, and the records of what changed.

use crate::{
    MAX_PATH, ProtocolError,
    wire::{Reader, Writer},
};

/// Watches a file or directory; answered with `Opened`, then `Data` frames of whole change records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// The path; a final link is not followed.
    pub path: Vec<u8>,
    /// Whether to watch all directories below, and those that appear.
    pub recursive: bool,
}

impl Watch {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.bytes(&self.path);
        out.u8(u8::from(self.recursive));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        Ok(Self { path: reader.bytes("path", MAX_PATH)?, recursive: reader.bool()? })
    }
}

/// One change. Paths are relative to what is watched; empty is that itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Something is there that was not.
    Created {
        /// Its path.
        path: Vec<u8>,
    },
    /// Content or metadata changed.
    Modified {
        /// Its path.
        path: Vec<u8>,
    },
    /// It is gone.
    Removed {
        /// Its path.
        path: Vec<u8>,
    },
    /// It has another path.
    Moved {
        /// The path before.
        from: Vec<u8>,
        /// The path now.
        to: Vec<u8>,
    },
    /// Changes were missed: look at everything.
    Overflow,
    /// This directory could not be watched, so nothing is told of what is in it.
    Unwatched {
        /// Its path.
        path: Vec<u8>,
        /// The error number: `ENOSPC` is the limit of watches.
        errno: i32,
    },
    /// A change that this version does not know, as on the wire.
    Unknown(u8),
}

impl Change {
    /// Appends this change as one record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (tag, path, more): (u8, &[u8], &[u8]) = match self {
            Self::Created { path } => (1, path, b""),
            Self::Modified { path } => (2, path, b""),
            Self::Removed { path } => (3, path, b""),
            Self::Moved { from, to } => (4, from, to),
            Self::Overflow => (5, b"", b""),
            Self::Unwatched { path, .. } => (6, path, b""),
            Self::Unknown(tag) => (*tag, b"", b""),
        };
        let errno = if let Self::Unwatched { errno, .. } = self { *errno } else { 0 };
        out.u8(tag);
        out.bytes(path);
        out.bytes(more);
        out.i32(errno);
    }

    /// Reads the whole records of one `Data` frame.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::Truncated`] and [`ProtocolError::Bound`].
    pub fn decode_all(payload: &[u8]) -> Result<Vec<Self>, ProtocolError> {
        let mut reader = Reader::new("change record", payload);
        let mut changes = Vec::new();
        while reader.remaining() > 0 {
            let tag = reader.u8()?;
            let path = reader.bytes("path", MAX_PATH)?;
            let to = reader.bytes("path", MAX_PATH)?;
            let errno = reader.i32()?;
            changes.push(match tag {
                1 => Self::Created { path },
                2 => Self::Modified { path },
                3 => Self::Removed { path },
                4 => Self::Moved { from: path, to },
                5 => Self::Overflow,
                6 => Self::Unwatched { path, errno },
                tag => Self::Unknown(tag),
            });
        }
        Ok(changes)
    }
}
