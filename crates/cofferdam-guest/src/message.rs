//! Messages: what the payload of each kind of frame means, in both directions.
//!
//! An operation opens a channel whose number the host chooses and uses only once. Every channel is ended by exactly one
//! [`GuestMessage::Done`], [`GuestMessage::Uploaded`] or [`GuestMessage::Failed`].

use crate::{
    DownloadTree, Exec, ExitStatus, FileRequest, Frame, GuestHello, HostHello, ListDirectory,
    MAX_PATH, Metadata, ProtocolError, ReadFile, Refusal, TerminalSize, UploadTree, WriteFile,
    frame::encode_frame,
    wire::{Reader, Writer},
};

/// The longest text of a [`Failure`], in bytes.
const MAX_MESSAGE: usize = 1024;

/// Kinds of frames. Those from `0x10` to `0x7f` open a channel, so that a guest can refuse the ones it does not know.
mod kind {
    pub(super) const HELLO: u8 = 0x01;
    pub(super) const REFUSED: u8 = 0x02;

    pub(super) const EXEC: u8 = 0x10;
    pub(super) const READ_FILE: u8 = 0x11;
    pub(super) const WRITE_FILE: u8 = 0x12;
    pub(super) const LIST: u8 = 0x13;
    pub(super) const STAT: u8 = 0x14;
    pub(super) const MAKE_DIRECTORY: u8 = 0x15;
    pub(super) const RENAME: u8 = 0x16;
    pub(super) const REMOVE: u8 = 0x17;
    pub(super) const SET_MODE: u8 = 0x18;
    pub(super) const SYMLINK: u8 = 0x19;
    pub(super) const READ_LINK: u8 = 0x1a;
    pub(super) const UPLOAD_TREE: u8 = 0x1b;
    pub(super) const DOWNLOAD_TREE: u8 = 0x1c;
    pub(super) const PING: u8 = 0x1d;
    pub(super) const LAST_OPENING: u8 = 0x7f;

    pub(super) const DATA: u8 = 0x80;
    pub(super) const END_OF_DATA: u8 = 0x81;
    pub(super) const WINDOW: u8 = 0x82;
    pub(super) const SIGNAL: u8 = 0x83;
    pub(super) const KILL_TREE: u8 = 0x84;
    pub(super) const RESIZE: u8 = 0x85;
    pub(super) const CLOSE: u8 = 0x86;

    pub(super) const STARTED: u8 = 0x90;
    pub(super) const STDOUT: u8 = 0x91;
    pub(super) const STDERR: u8 = 0x92;
    pub(super) const EXITED: u8 = 0x93;
    pub(super) const METADATA: u8 = 0x94;
    pub(super) const DONE: u8 = 0x95;
    pub(super) const UPLOADED: u8 = 0x96;
    pub(super) const FAILED: u8 = 0x97;
}

/// A message from the host to the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostMessage<'a> {
    /// Greets; first frame, channel 0.
    Hello(HostHello),
    /// Opens a channel: starts a command.
    Exec(Exec),
    /// Opens a channel: reads a file.
    ReadFile(ReadFile),
    /// Opens a channel: writes a file.
    WriteFile(WriteFile),
    /// Opens a channel: lists a directory.
    List(ListDirectory),
    /// Opens a channel: one of the small file operations.
    File(FileRequest),
    /// Opens a channel: makes a tree.
    UploadTree(UploadTree),
    /// Opens a channel: sends a tree.
    DownloadTree(DownloadTree),
    /// Opens a channel: does nothing and is answered with `Done`.
    Ping,
    /// Bytes of standard input, of a file or of a tree stream; costs credit.
    Data(&'a [u8]),
    /// No more `Data` will come.
    EndOfData,
    /// Gives the guest credit of this many bytes.
    Window(u32),
    /// Sends this signal to the command's process group.
    Signal(i32),
    /// Kills the command and all its descendants.
    KillTree,
    /// Changes the size of the command's terminal.
    Resize(TerminalSize),
    /// Ends the operation; a command is killed with all its descendants. The guest answers with the channel's end.
    Close,
    /// A kind that this version does not know.
    Unknown {
        /// The kind.
        kind: u8,
        /// The content.
        payload: &'a [u8],
    },
}

/// A message from the guest to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestMessage<'a> {
    /// Answers the greeting; channel 0.
    Hello(GuestHello),
    /// Refuses the greeting; channel 0, and the stream ends.
    Refused(Refusal),
    /// The command runs.
    Started {
        /// Its process id in the box.
        pid: u32,
    },
    /// Bytes of standard output; costs credit.
    Stdout(&'a [u8]),
    /// Bytes of standard error; costs credit.
    Stderr(&'a [u8]),
    /// The command ended, and what it had written was sent.
    Exited(ExitStatus),
    /// What is at a path.
    Metadata(Metadata),
    /// Bytes of a file or of a tree stream; costs credit.
    Data(&'a [u8]),
    /// Gives the host credit of this many bytes.
    Window(u32),
    /// The operation succeeded and the channel is at its end.
    Done,
    /// The upload succeeded and the channel is at its end.
    Uploaded {
        /// The number of entries made.
        entries: u64,
    },
    /// The operation failed and the channel is at its end.
    Failed(Failure),
    /// A kind that this version does not know.
    Unknown {
        /// The kind.
        kind: u8,
        /// The content.
        payload: &'a [u8],
    },
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What sort of failure it is.
    pub reason: FailureReason,
    /// The error number, as on Linux; 0 if there is none.
    pub errno: i32,
    /// The path it is about; empty if there is none.
    pub path: Vec<u8>,
    /// What was being done, in words.
    pub message: String,
}

/// The sort of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureReason {
    /// The system refused: the error number says why.
    System,
    /// The guest does not know this operation.
    Unsupported,
    /// A bound of the request or of the guest was reached.
    Limit,
    /// The request makes no sense.
    BadRequest,
    /// The host closed the channel first.
    Cancelled,
    /// A sort that this version does not know, as on the wire.
    Unknown(u8),
}

impl FailureReason {
    fn to_wire(self) -> u8 {
        match self {
            Self::System => 1,
            Self::Unsupported => 2,
            Self::Limit => 3,
            Self::BadRequest => 4,
            Self::Cancelled => 5,
            Self::Unknown(raw) => raw,
        }
    }

    fn from_wire(raw: u8) -> Self {
        match raw {
            1 => Self::System,
            2 => Self::Unsupported,
            3 => Self::Limit,
            4 => Self::BadRequest,
            5 => Self::Cancelled,
            other => Self::Unknown(other),
        }
    }
}

impl<'a> HostMessage<'a> {
    /// Returns whether this message opens a channel.
    #[must_use]
    pub fn opens(&self) -> bool {
        (kind::EXEC..=kind::LAST_OPENING).contains(&self.kind())
    }

    /// Returns the kind of the frame that carries this message.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => kind::HELLO,
            Self::Exec(_) => kind::EXEC,
            Self::ReadFile(_) => kind::READ_FILE,
            Self::WriteFile(_) => kind::WRITE_FILE,
            Self::List(_) => kind::LIST,
            Self::File(FileRequest::Stat { .. }) => kind::STAT,
            Self::File(FileRequest::MakeDirectory { .. }) => kind::MAKE_DIRECTORY,
            Self::File(FileRequest::Rename { .. }) => kind::RENAME,
            Self::File(FileRequest::Remove { .. }) => kind::REMOVE,
            Self::File(FileRequest::SetMode { .. }) => kind::SET_MODE,
            Self::File(FileRequest::Symlink { .. }) => kind::SYMLINK,
            Self::File(FileRequest::ReadLink { .. }) => kind::READ_LINK,
            Self::UploadTree(_) => kind::UPLOAD_TREE,
            Self::DownloadTree(_) => kind::DOWNLOAD_TREE,
            Self::Ping => kind::PING,
            Self::Data(_) => kind::DATA,
            Self::EndOfData => kind::END_OF_DATA,
            Self::Window(_) => kind::WINDOW,
            Self::Signal(_) => kind::SIGNAL,
            Self::KillTree => kind::KILL_TREE,
            Self::Resize(_) => kind::RESIZE,
            Self::Close => kind::CLOSE,
            Self::Unknown { kind, .. } => *kind,
        }
    }

    /// Appends this message as one frame.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::Oversized`] when it does not fit a frame; `out` is as before.
    pub fn encode(&self, channel: u32, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        encode_frame(channel, self.kind(), out, |out| match self {
            Self::Hello(hello) => hello.write(out),
            Self::Exec(exec) => exec.write(out),
            Self::ReadFile(read) => {
                out.bytes(&read.path);
                out.u64(read.offset);
                out.u64(read.max_bytes);
            }
            Self::WriteFile(write) => {
                out.bytes(&write.path);
                out.u32(write.mode);
                out.u8(u8::from(write.keep_mode));
                out.u8(u8::from(write.must_be_new));
                out.u8(u8::from(write.make_parents));
                out.u8(u8::from(write.expected_size.is_some()));
                out.u64(write.expected_size.unwrap_or(0));
            }
            Self::List(list) => {
                out.bytes(&list.path);
                out.u32(list.depth);
                out.u32(list.max_entries);
            }
            Self::File(request) => write_file_request(request, out),
            Self::UploadTree(upload) => out.bytes(&upload.path),
            Self::DownloadTree(download) => {
                out.bytes(&download.path);
                out.u64(download.max_bytes);
                out.u64(download.max_entries);
            }
            Self::Ping | Self::EndOfData | Self::KillTree | Self::Close => {}
            Self::Window(bytes) => out.u32(*bytes),
            Self::Signal(signal) => out.i32(*signal),
            Self::Resize(size) => size.write(out),
            Self::Data(payload) | Self::Unknown { payload, .. } => out.extend_from_slice(payload),
        })
    }

    /// Reads the message of a frame.
    ///
    /// # Errors
    ///
    /// Any [`ProtocolError`] but those of framing and credit.
    pub fn decode(frame: Frame<'a>) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new("host message", frame.payload);
        let message = match frame.kind {
            kind::HELLO => return Ok(Self::Hello(HostHello::read(frame.payload)?)),
            kind::DATA => return Ok(Self::Data(frame.payload)),
            kind::EXEC => Self::Exec(Exec::read(&mut reader)?),
            kind::READ_FILE => Self::ReadFile(ReadFile {
                path: path(&mut reader)?,
                offset: reader.u64()?,
                max_bytes: reader.u64()?,
            }),
            kind::WRITE_FILE => Self::WriteFile(WriteFile {
                path: path(&mut reader)?,
                mode: reader.u32()?,
                keep_mode: reader.bool()?,
                must_be_new: reader.bool()?,
                make_parents: reader.bool()?,
                expected_size: {
                    let known = reader.bool()?;
                    let size = reader.u64()?;
                    known.then_some(size)
                },
            }),
            kind::LIST => Self::List(ListDirectory {
                path: path(&mut reader)?,
                depth: reader.u32()?,
                max_entries: reader.u32()?,
            }),
            kind::STAT..=kind::READ_LINK => Self::File(read_file_request(frame.kind, &mut reader)?),
            kind::UPLOAD_TREE => Self::UploadTree(UploadTree { path: path(&mut reader)? }),
            kind::DOWNLOAD_TREE => Self::DownloadTree(DownloadTree {
                path: path(&mut reader)?,
                max_bytes: reader.u64()?,
                max_entries: reader.u64()?,
            }),
            kind::PING => Self::Ping,
            kind::END_OF_DATA => Self::EndOfData,
            kind::WINDOW => Self::Window(reader.u32()?),
            kind::SIGNAL => Self::Signal(reader.i32()?),
            kind::KILL_TREE => Self::KillTree,
            kind::RESIZE => Self::Resize(TerminalSize::read(&mut reader)?),
            kind::CLOSE => Self::Close,
            kind => {
                return Ok(Self::Unknown { kind, payload: frame.payload });
            }
        };
        reader.end()?;
        Ok(message)
    }
}

impl<'a> GuestMessage<'a> {
    /// Returns the kind of the frame that carries this message.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => kind::HELLO,
            Self::Refused(_) => kind::REFUSED,
            Self::Started { .. } => kind::STARTED,
            Self::Stdout(_) => kind::STDOUT,
            Self::Stderr(_) => kind::STDERR,
            Self::Exited(_) => kind::EXITED,
            Self::Metadata(_) => kind::METADATA,
            Self::Data(_) => kind::DATA,
            Self::Window(_) => kind::WINDOW,
            Self::Done => kind::DONE,
            Self::Uploaded { .. } => kind::UPLOADED,
            Self::Failed(_) => kind::FAILED,
            Self::Unknown { kind, .. } => *kind,
        }
    }

    /// Appends this message as one frame.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::Oversized`] when it does not fit a frame; `out` is as before.
    pub fn encode(&self, channel: u32, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        encode_frame(channel, self.kind(), out, |out| match self {
            Self::Hello(hello) => hello.write(out),
            Self::Refused(refusal) => refusal.write(out),
            Self::Started { pid } => out.u32(*pid),
            Self::Exited(status) => status.write(out),
            Self::Metadata(metadata) => metadata.write(out),
            Self::Window(bytes) => out.u32(*bytes),
            Self::Done => {}
            Self::Uploaded { entries } => out.u64(*entries),
            Self::Failed(failure) => {
                out.u8(failure.reason.to_wire());
                out.i32(failure.errno);
                out.bytes(&failure.path);
                out.bytes(failure.message.as_bytes());
            }
            Self::Stdout(payload)
            | Self::Stderr(payload)
            | Self::Data(payload)
            | Self::Unknown { payload, .. } => out.extend_from_slice(payload),
        })
    }

    /// Reads the message of a frame.
    ///
    /// # Errors
    ///
    /// Any [`ProtocolError`] but those of framing and credit.
    pub fn decode(frame: Frame<'a>) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new("guest message", frame.payload);
        let message = match frame.kind {
            kind::HELLO => return Ok(Self::Hello(GuestHello::read(frame.payload)?)),
            kind::REFUSED => return Ok(Self::Refused(Refusal::read(frame.payload)?)),
            kind::STDOUT => return Ok(Self::Stdout(frame.payload)),
            kind::STDERR => return Ok(Self::Stderr(frame.payload)),
            kind::DATA => return Ok(Self::Data(frame.payload)),
            kind::STARTED => Self::Started { pid: reader.u32()? },
            kind::EXITED => Self::Exited(ExitStatus::read(&mut reader)?),
            kind::METADATA => Self::Metadata(Metadata::read(&mut reader)?),
            kind::WINDOW => Self::Window(reader.u32()?),
            kind::DONE => Self::Done,
            kind::UPLOADED => Self::Uploaded { entries: reader.u64()? },
            kind::FAILED => Self::Failed(Failure {
                reason: FailureReason::from_wire(reader.u8()?),
                errno: reader.i32()?,
                path: path(&mut reader)?,
                message: reader.text("failure message", MAX_MESSAGE)?,
            }),
            kind => {
                return Ok(Self::Unknown { kind, payload: frame.payload });
            }
        };
        reader.end()?;
        Ok(message)
    }
}

fn path(reader: &mut Reader<'_>) -> Result<Vec<u8>, ProtocolError> {
    reader.bytes("path", MAX_PATH)
}

fn write_file_request(request: &FileRequest, out: &mut Vec<u8>) {
    match request {
        FileRequest::Stat { path, follow } => {
            out.bytes(path);
            out.u8(u8::from(*follow));
        }
        FileRequest::MakeDirectory { path, mode, parents } => {
            out.bytes(path);
            out.u32(*mode);
            out.u8(u8::from(*parents));
        }
        FileRequest::Rename { from, to, replace } => {
            out.bytes(from);
            out.bytes(to);
            out.u8(u8::from(*replace));
        }
        FileRequest::Remove { path, recursive } => {
            out.bytes(path);
            out.u8(u8::from(*recursive));
        }
        FileRequest::SetMode { path, mode } => {
            out.bytes(path);
            out.u32(*mode);
        }
        FileRequest::Symlink { path, target } => {
            out.bytes(path);
            out.bytes(target);
        }
        FileRequest::ReadLink { path } => out.bytes(path),
    }
}

fn read_file_request(kind: u8, reader: &mut Reader<'_>) -> Result<FileRequest, ProtocolError> {
    let first = path(reader)?;
    Ok(match kind {
        kind::STAT => FileRequest::Stat { path: first, follow: reader.bool()? },
        kind::MAKE_DIRECTORY => {
            FileRequest::MakeDirectory { path: first, mode: reader.u32()?, parents: reader.bool()? }
        }
        kind::RENAME => {
            FileRequest::Rename { from: first, to: path(reader)?, replace: reader.bool()? }
        }
        kind::REMOVE => FileRequest::Remove { path: first, recursive: reader.bool()? },
        kind::SET_MODE => FileRequest::SetMode { path: first, mode: reader.u32()? },
        kind::SYMLINK => FileRequest::Symlink { path: first, target: path(reader)? },
        _ => FileRequest::ReadLink { path: first },
    })
}
