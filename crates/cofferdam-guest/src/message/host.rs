//! What the host says.

use super::{kind, path};
use crate::{
    Address, Attach, DownloadTree, Exec, FileRequest, Frame, HostHello, ListDirectory, MAX_EXEC_ID,
    ProtocolError, ReadFile, ScanTree, TerminalSize, UploadTree, Watch, WriteFile,
    frame::encode_frame,
    wire::{Reader, Writer},
};

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
    /// Opens a channel: tells what is in a tree, without content.
    ScanTree(ScanTree),
    /// Opens a channel: does nothing and is answered with `Done`.
    Ping,
    /// Opens a channel: joins a command that was started before, and hears its output from a point on.
    Attach(Attach),
    /// Opens a channel: gives up what is kept of a command that has ended.
    Forget {
        /// The command's name.
        exec_id: Vec<u8>,
    },
    /// Opens a channel: asks for all commands that are known; answered with `Commands` and `Done`.
    ListCommands,
    /// Opens a channel: connects to an address inside; answered with `Opened`, then `Data` both ways.
    Connect(Address),
    /// Opens a channel: listens on a port of the loopback inside; answered with `Listening`, then `Incoming`.
    Listen {
        /// The port; 0 lets the system choose.
        port: u16,
    },
    /// Opens a channel: takes a connection that was announced; answered as `Connect`.
    Accept {
        /// The channel of the listener.
        listener: u32,
        /// The number that `Incoming` gave.
        connection: u32,
    },
    /// Opens a channel: watches for changes; answered with `Opened`, then `Data` (change records).
    Watch(Watch),
    /// Bytes of standard input, of a file, of a tree stream or of a connection; costs credit.
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
    /// Ends the channel of a command, which goes on; answered with `Failed(Cancelled)`.
    Detach,
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
            Self::DownloadTree(DownloadTree { hard_links: false, .. }) => kind::DOWNLOAD_TREE,
            Self::DownloadTree(DownloadTree { hard_links: true, .. }) => kind::DOWNLOAD_LINKED,
            Self::ScanTree(_) => kind::SCAN_TREE,
            Self::Ping => kind::PING,
            Self::Attach(_) => kind::ATTACH,
            Self::Forget { .. } => kind::FORGET,
            Self::ListCommands => kind::LIST_COMMANDS,
            Self::Connect(_) => kind::CONNECT,
            Self::Listen { .. } => kind::LISTEN,
            Self::Accept { .. } => kind::ACCEPT,
            Self::Watch(_) => kind::WATCH,
            Self::Data(_) => kind::DATA,
            Self::EndOfData => kind::END_OF_DATA,
            Self::Window(_) => kind::WINDOW,
            Self::Signal(_) => kind::SIGNAL,
            Self::KillTree => kind::KILL_TREE,
            Self::Resize(_) => kind::RESIZE,
            Self::Close => kind::CLOSE,
            Self::Detach => kind::DETACH,
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
            Self::ScanTree(scan) => scan.write(out),
            Self::Attach(attach) => attach.write(out),
            Self::Forget { exec_id } => out.bytes(exec_id),
            Self::Connect(address) => address.write(out),
            Self::Listen { port } => out.u16(*port),
            Self::Accept { listener, connection } => {
                out.u32(*listener);
                out.u32(*connection);
            }
            Self::Watch(watch) => watch.write(out),
            Self::Ping
            | Self::ListCommands
            | Self::EndOfData
            | Self::KillTree
            | Self::Detach
            | Self::Close => {}
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
            kind::DOWNLOAD_TREE | kind::DOWNLOAD_LINKED => Self::DownloadTree(DownloadTree {
                path: path(&mut reader)?,
                max_bytes: reader.u64()?,
                max_entries: reader.u64()?,
                hard_links: frame.kind == kind::DOWNLOAD_LINKED,
            }),
            kind::SCAN_TREE => Self::ScanTree(ScanTree::read(&mut reader)?),
            kind::PING => Self::Ping,
            kind::ATTACH => Self::Attach(Attach::read(&mut reader)?),
            kind::FORGET => Self::Forget { exec_id: reader.bytes("exec id", MAX_EXEC_ID)? },
            kind::LIST_COMMANDS => Self::ListCommands,
            kind::CONNECT => Self::Connect(Address::read(&mut reader)?),
            kind::LISTEN => Self::Listen { port: reader.u16()? },
            kind::ACCEPT => Self::Accept { listener: reader.u32()?, connection: reader.u32()? },
            kind::WATCH => Self::Watch(Watch::read(&mut reader)?),
            kind::END_OF_DATA => Self::EndOfData,
            kind::WINDOW => Self::Window(reader.u32()?),
            kind::SIGNAL => Self::Signal(reader.i32()?),
            kind::KILL_TREE => Self::KillTree,
            kind::RESIZE => Self::Resize(TerminalSize::read(&mut reader)?),
            kind::CLOSE => Self::Close,
            kind::DETACH => Self::Detach,
            kind => {
                return Ok(Self::Unknown { kind, payload: frame.payload });
            }
        };
        reader.end()?;
        Ok(message)
    }
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
