//! The tree stream: directories, files with their content, and links, one after the other.
//!
//! It travels in the payloads of `Data` frames and knows nothing of their borders.
//!
//! ```text
//! u8 1 | u32 path length | path | metadata                 an entry; for a regular file `size` bytes follow
//! u8 2 | u32 path length | path | u8 reason                something that was left out
//! u8 3 | u32 path length | path | u32 length | path        a second name (first) of a file that came before (second)
//! u8 4 | scanned entry                                     in answer to a scan, instead of the others
//! u8 0 | u8 truncated                                      the end
//! metadata = u8 kind | u32 mode | u64 size | i64 modified ns | u32 target length | target
//! ```

use crate::{
    FileKind, MAX_PATH, Metadata, ProtocolError, ScanEntry,
    wire::{Reader, Writer},
};

/// `modified_ns` of an entry whose time is not to be set.
pub const NO_TIME: i64 = i64::MIN;

/// The longest record, content left out.
const MAX_RECORD: usize = 1 + 4 + MAX_PATH + 1 + 4 + 5 * 8 + 4 + 4 + MAX_PATH;

const END: u8 = 0;
const ENTRY: u8 = 1;
const SKIPPED: u8 = 2;
const HARD_LINK: u8 = 3;
const SCANNED: u8 = 4;

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// Path relative to the root of the tree; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub metadata: Metadata,
}

/// Why something was left out of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// It is a named pipe.
    Fifo,
    /// It is a socket.
    Socket,
    /// It is a device.
    Device,
    /// It could not be read.
    Unreadable,
    /// A reason that this version does not know, as on the wire.
    Unknown(u8),
}

impl SkipReason {
    fn to_wire(self) -> u8 {
        match self {
            Self::Fifo => 1,
            Self::Socket => 2,
            Self::Device => 3,
            Self::Unreadable => 4,
            Self::Unknown(raw) => raw,
        }
    }

    fn from_wire(raw: u8) -> Self {
        match raw {
            1 => Self::Fifo,
            2 => Self::Socket,
            3 => Self::Device,
            4 => Self::Unreadable,
            other => Self::Unknown(other),
        }
    }
}

/// A piece of a tree stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeRecord<'a> {
    /// An entry begins.
    Entry(TreeEntry),
    /// Content of the regular file that began last.
    Content(&'a [u8]),
    /// Something was left out.
    Skipped {
        /// Path relative to the root of the tree.
        path: Vec<u8>,
        /// Why.
        reason: SkipReason,
    },
    /// A second name of a regular file whose entry came before.
    HardLink {
        /// The new name's path, relative to the root of the tree.
        path: Vec<u8>,
        /// The path of the file's entry.
        to: Vec<u8>,
    },
    /// An entry of a scan.
    Scanned(ScanEntry),
    /// The stream is complete.
    End {
        /// Whether a bound cut it short.
        truncated: bool,
    },
}

/// Appends an entry. For a regular file, append exactly `size` bytes of content to `out` afterwards.
pub fn encode_entry(path: &[u8], metadata: &Metadata, out: &mut Vec<u8>) {
    out.u8(ENTRY);
    out.bytes(path);
    metadata.write(out);
}

/// Appends a note that something was left out.
pub fn encode_skipped(path: &[u8], reason: SkipReason, out: &mut Vec<u8>) {
    out.u8(SKIPPED);
    out.bytes(path);
    out.u8(reason.to_wire());
}

/// Appends a second name of a regular file whose entry came before.
pub fn encode_hard_link(path: &[u8], to: &[u8], out: &mut Vec<u8>) {
    out.u8(HARD_LINK);
    out.bytes(path);
    out.bytes(to);
}

/// Appends an entry of a scan.
pub fn encode_scanned(entry: &ScanEntry, out: &mut Vec<u8>) {
    out.u8(SCANNED);
    entry.write(out);
}

/// Appends the end of the stream.
pub fn encode_end(truncated: bool, out: &mut Vec<u8>) {
    out.u8(END);
    out.u8(u8::from(truncated));
}

/// Cuts a tree stream to records: bytes in, records out, no I/O.
///
/// It keeps at most one record without its content, and what was pushed with it.
#[derive(Debug)]
pub struct TreeDecoder {
    buffer: Vec<u8>,
    start: usize,
    content_left: u64,
    with_content: bool,
    ended: bool,
}

impl TreeDecoder {
    /// Returns a decoder of a stream in which content follows each regular file.
    #[must_use]
    pub fn with_content() -> Self {
        Self { buffer: Vec::new(), start: 0, content_left: 0, with_content: true, ended: false }
    }

    /// Returns a decoder of a listing, in which no content follows.
    #[must_use]
    pub fn without_content() -> Self {
        Self { with_content: false, ..Self::with_content() }
    }

    /// Adds bytes that arrived; take all records with [`next_record`](Self::next_record) before pushing more.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns whether the end record was read.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Returns the next record, or `None` when more bytes are needed.
    ///
    /// # Errors
    ///
    /// A record with an unknown tag, a bound exceeded, or bytes after the end.
    pub fn next_record(&mut self) -> Result<Option<TreeRecord<'_>>, ProtocolError> {
        let waiting = &self.buffer[self.start..];
        if waiting.is_empty() {
            return Ok(None);
        }
        if self.ended {
            return Err(ProtocolError::Trailing { what: "tree stream", extra: waiting.len() });
        }
        if self.content_left > 0 {
            let length = usize::try_from(self.content_left)
                .map_or(waiting.len(), |left| left.min(waiting.len()));
            self.content_left -= length as u64;
            let start = self.start;
            self.start += length;
            return Ok(Some(TreeRecord::Content(&self.buffer[start..start + length])));
        }
        let mut reader = Reader::new("tree record", waiting);
        match Self::parse(&mut reader) {
            Ok(record) => {
                self.start = self.buffer.len() - reader.remaining();
                match &record {
                    TreeRecord::Entry(entry)
                        if entry.metadata.kind == FileKind::Regular && self.with_content =>
                    {
                        self.content_left = entry.metadata.size;
                    }
                    TreeRecord::End { .. } => self.ended = true,
                    _ => {}
                }
                Ok(Some(record))
            }
            Err(ProtocolError::Truncated { .. }) if waiting.len() < MAX_RECORD => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(reader: &mut Reader<'_>) -> Result<TreeRecord<'static>, ProtocolError> {
        Ok(match reader.u8()? {
            END => TreeRecord::End { truncated: reader.bool()? },
            ENTRY => TreeRecord::Entry(TreeEntry {
                path: reader.bytes("path", MAX_PATH)?,
                metadata: Metadata::read(reader)?,
            }),
            SKIPPED => TreeRecord::Skipped {
                path: reader.bytes("path", MAX_PATH)?,
                reason: SkipReason::from_wire(reader.u8()?),
            },
            HARD_LINK => TreeRecord::HardLink {
                path: reader.bytes("path", MAX_PATH)?,
                to: reader.bytes("path", MAX_PATH)?,
            },
            SCANNED => TreeRecord::Scanned(ScanEntry::read(reader)?),
            other => {
                return Err(ProtocolError::Invalid {
                    what: "tree record",
                    value: u64::from(other),
                });
            }
        })
    }
}
