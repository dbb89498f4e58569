//! Sessions: commands that outlive a connection, and how a later connection finds them.

use std::fmt;

use crate::{
    ExitStatus, MAX_EXEC_ID, ProtocolError,
    wire::{Reader, Writer},
};

/// The length of a session's token, in bytes.
pub const TOKEN_LENGTH: usize = 32;

/// Commands that one answer tells of at most; the oldest are left out beyond.
pub const MAX_LISTED: usize = 512;

/// What proves that a connection belongs to a session. Its text form says nothing of it.
#[derive(Clone, Copy)]
pub struct Token(pub [u8; TOKEN_LENGTH]);

/// Compares all bytes, so that the time taken tells nothing of where two tokens differ.
impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        let differing =
            self.0.iter().zip(&other.0).fold(0, |differing, (a, b)| differing | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

impl Eq for Token {}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// What the host asks for in its greeting: that commands outlive the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRequest {
    /// What every later connection must present.
    pub token: Token,
    /// How long the guest goes on without a connection, in milliseconds; 0 ends it with the connection.
    pub linger_ms: u32,
    /// How much of each of a command's outputs is kept for a later [`Attach`], in bytes.
    pub replay_bytes: u32,
}

/// What the guest grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionGrant {
    /// The number of this connection of the session; the first is 1.
    pub connection: u32,
    /// How long the guest goes on without a connection, in milliseconds; 0 if nobody could reach it then.
    pub linger_ms: u32,
    /// How much of each output is kept, in bytes.
    pub replay_bytes: u32,
}

impl SessionRequest {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.u8(1);
        out.extend_from_slice(&self.token.0);
        out.u32(self.linger_ms);
        out.u32(self.replay_bytes);
    }

    /// Reads the field that older hosts do not send.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, ProtocolError> {
        if reader.remaining() == 0 || !reader.bool()? {
            return Ok(None);
        }
        let mut token = [0; TOKEN_LENGTH];
        token.copy_from_slice(reader.take(TOKEN_LENGTH)?);
        let token = Token(token);
        Ok(Some(Self { token, linger_ms: reader.u32()?, replay_bytes: reader.u32()? }))
    }
}

impl SessionGrant {
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.u8(1);
        out.u32(self.connection);
        out.u32(self.linger_ms);
        out.u32(self.replay_bytes);
    }

    /// Reads the field that older guests do not send.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, ProtocolError> {
        if reader.remaining() == 0 || !reader.bool()? {
            return Ok(None);
        }
        Ok(Some(Self {
            connection: reader.u32()?,
            linger_ms: reader.u32()?,
            replay_bytes: reader.u32()?,
        }))
    }
}

/// Joins a command that was started before. Whoever had joined it is cut off.
///
/// Answered as `Exec`, with `OutputLost` after `Started` if some of what was asked for is no longer there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// The command's name.
    pub exec_id: Vec<u8>,
    /// The first byte of standard output to send, counted from the start of the command.
    pub stdout_from: u64,
    /// The first byte of standard error to send.
    pub stderr_from: u64,
}

impl Attach {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.bytes(&self.exec_id);
        out.u64(self.stdout_from);
        out.u64(self.stderr_from);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        Ok(Self {
            exec_id: reader.bytes("exec id", MAX_EXEC_ID)?,
            stdout_from: reader.u64()?,
            stderr_from: reader.u64()?,
        })
    }
}

/// One command that the guest knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandInfo {
    /// Its name.
    pub exec_id: Vec<u8>,
    /// Its process id in the box; 0 if it is being started.
    pub pid: u32,
    /// How far it is.
    pub state: CommandState,
    /// How it ended, if it did.
    pub status: Option<ExitStatus>,
    /// Bytes of standard output so far.
    pub stdout_bytes: u64,
    /// Bytes of standard error so far.
    pub stderr_bytes: u64,
}

/// How far a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandState {
    /// It is running, or being started.
    Running,
    /// It has ended, and what it started goes on.
    Exited,
    /// It has ended and nothing of its tree is left.
    Finished,
    /// A state that this version does not know, as on the wire.
    Unknown(u8),
}

impl CommandState {
    fn to_wire(self) -> u8 {
        match self {
            Self::Running => 1,
            Self::Exited => 2,
            Self::Finished => 3,
            Self::Unknown(raw) => raw,
        }
    }

    fn from_wire(raw: u8) -> Self {
        match raw {
            1 => Self::Running,
            2 => Self::Exited,
            3 => Self::Finished,
            other => Self::Unknown(other),
        }
    }
}

impl CommandInfo {
    pub(crate) fn write_all(commands: &[Self], out: &mut Vec<u8>) {
        out.count(commands.len());
        for command in commands {
            out.bytes(&command.exec_id);
            out.u32(command.pid);
            out.u8(command.state.to_wire());
            out.u8(u8::from(command.status.is_some()));
            command.status.unwrap_or(ExitStatus::Code(0)).write(out);
            out.u64(command.stdout_bytes);
            out.u64(command.stderr_bytes);
        }
    }

    pub(crate) fn read_all(reader: &mut Reader<'_>) -> Result<Vec<Self>, ProtocolError> {
        let mut commands = Vec::new();
        for _ in 0..reader.count("commands", MAX_LISTED)? {
            commands.push(Self {
                exec_id: reader.bytes("exec id", MAX_EXEC_ID)?,
                pid: reader.u32()?,
                state: CommandState::from_wire(reader.u8()?),
                status: {
                    let ended = reader.bool()?;
                    let status = ExitStatus::read(reader)?;
                    ended.then_some(status)
                },
                stdout_bytes: reader.u64()?,
                stderr_bytes: reader.u64()?,
            });
        }
        Ok(commands)
    }
}
