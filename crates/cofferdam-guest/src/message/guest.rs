//! What the guest says.

use super::{Failure, kind};
use crate::{
    CommandInfo, ExitStatus, Frame, GuestHello, Metadata, ProtocolError, Refusal,
    frame::encode_frame,
    wire::{Reader, Writer},
};

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
    /// Bytes of output that an [`Attach`](crate::Attach) asked for and that are no longer there.
    OutputLost {
        /// Bytes of standard output.
        stdout: u64,
        /// Bytes of standard error.
        stderr: u64,
    },
    /// All commands that are known.
    Commands(Vec<CommandInfo>),
    /// The connection, or the watch, stands.
    Opened,
    /// The listener stands.
    Listening {
        /// Its port.
        port: u16,
    },
    /// Somebody inside has connected to the listener.
    Incoming {
        /// What `Accept` names.
        connection: u32,
    },
    /// Bytes of a file, of a tree stream or of a connection, or change records; costs credit.
    Data(&'a [u8]),
    /// No more `Data` will come on the channel of a connection.
    EndOfData,
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
            Self::OutputLost { .. } => kind::OUTPUT_LOST,
            Self::Commands(_) => kind::COMMANDS,
            Self::Opened => kind::OPENED,
            Self::Listening { .. } => kind::LISTENING,
            Self::Incoming { .. } => kind::INCOMING,
            Self::Data(_) => kind::DATA,
            Self::EndOfData => kind::END_OF_DATA,
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
            Self::OutputLost { stdout, stderr } => {
                out.u64(*stdout);
                out.u64(*stderr);
            }
            Self::Commands(commands) => CommandInfo::write_all(commands, out),
            Self::Listening { port } => out.u16(*port),
            Self::Incoming { connection } => out.u32(*connection),
            Self::Done | Self::Opened | Self::EndOfData => {}
            Self::Uploaded { entries } => out.u64(*entries),
            Self::Failed(failure) => failure.write(out),
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
            kind::FAILED => Self::Failed(Failure::read(&mut reader)?),
            kind::OUTPUT_LOST => Self::OutputLost { stdout: reader.u64()?, stderr: reader.u64()? },
            kind::COMMANDS => Self::Commands(CommandInfo::read_all(&mut reader)?),
            kind::OPENED => Self::Opened,
            kind::LISTENING => Self::Listening { port: reader.u16()? },
            kind::INCOMING => Self::Incoming { connection: reader.u32()? },
            kind::END_OF_DATA => Self::EndOfData,
            kind => {
                return Ok(Self::Unknown { kind, payload: frame.payload });
            }
        };
        reader.end()?;
        Ok(message)
    }
}
