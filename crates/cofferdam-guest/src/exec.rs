//! Commands as data: the request to start one, and how it ended.

use crate::{
    MAX_PATH, ProtocolError,
    wire::{Reader, Writer},
};

/// The greatest number of arguments, or of variables, of a command.
pub const MAX_ARGUMENTS: usize = 16 * 1024;

/// The greatest length of arguments and variables of a command together, in bytes; they travel in one frame.
pub const MAX_ARGUMENT_BYTES: usize = 240 * 1024;

/// The greatest length of a command's name, in bytes.
pub const MAX_EXEC_ID: usize = 256;

const MAX_RESOURCE_LIMITS: usize = 16;

/// A command to start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exec {
    /// A name that no other live command has.
    pub exec_id: Vec<u8>,
    /// Program and arguments; a program without `/` is looked up in the `PATH` of `environment`.
    pub argv: Vec<Vec<u8>>,
    /// All variables; none is inherited.
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// Working directory, relative to the workspace; empty is the workspace.
    pub directory: Vec<u8>,
    /// Run on a terminal of this size; its output arrives as `Stdout`.
    pub terminal: Option<TerminalSize>,
    /// Keep standard input open for `Data` frames; otherwise it is `/dev/null`. A terminal is always open.
    pub stdin: bool,
    /// Limits of the command itself, as of `setrlimit`.
    pub resource_limits: Vec<ResourceLimit>,
}

/// The size of a terminal in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

impl TerminalSize {
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.u16(self.rows);
        out.u16(self.columns);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        Ok(Self { rows: reader.u16()?, columns: reader.u16()? })
    }
}

/// One limit of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceLimit {
    /// The number of the resource, as Linux's `RLIMIT_*`.
    pub resource: u32,
    /// The limit in force.
    pub soft: u64,
    /// The greatest limit that the command may set.
    pub hard: u64,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// A way that this version does not know, as on the wire.
    Unknown(u8, i32),
}

impl ExitStatus {
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        let (tag, value) = match self {
            Self::Code(code) => (0, code),
            Self::Signal(signal) => (1, signal),
            Self::Unknown(tag, value) => (tag, value),
        };
        out.u8(tag);
        out.i32(value);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        Ok(match (reader.u8()?, reader.i32()?) {
            (0, code) => Self::Code(code),
            (1, signal) => Self::Signal(signal),
            (tag, value) => Self::Unknown(tag, value),
        })
    }
}

impl Exec {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.bytes(&self.exec_id);
        out.count(self.argv.len());
        for argument in &self.argv {
            out.bytes(argument);
        }
        out.count(self.environment.len());
        for (name, value) in &self.environment {
            out.bytes(name);
            out.bytes(value);
        }
        out.bytes(&self.directory);
        match self.terminal {
            None => out.u8(0),
            Some(size) => {
                out.u8(1);
                size.write(out);
            }
        }
        out.u8(u8::from(self.stdin));
        out.count(self.resource_limits.len());
        for limit in &self.resource_limits {
            out.u32(limit.resource);
            out.u64(limit.soft);
            out.u64(limit.hard);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        // What is left is an argument's own bound, so their sum has the bound of the frame.
        let exec_id = reader.bytes("exec id", MAX_EXEC_ID)?;
        let mut argv = Vec::new();
        for _ in 0..reader.count("arguments", MAX_ARGUMENTS)? {
            argv.push(reader.bytes("argument", MAX_ARGUMENT_BYTES)?);
        }
        let mut environment = Vec::new();
        for _ in 0..reader.count("environment", MAX_ARGUMENTS)? {
            let name = reader.bytes("variable name", MAX_ARGUMENT_BYTES)?;
            environment.push((name, reader.bytes("variable value", MAX_ARGUMENT_BYTES)?));
        }
        let directory = reader.bytes("working directory", MAX_PATH)?;
        let terminal = if reader.bool()? { Some(TerminalSize::read(reader)?) } else { None };
        let stdin = reader.bool()?;
        let mut resource_limits = Vec::new();
        for _ in 0..reader.count("resource limits", MAX_RESOURCE_LIMITS)? {
            resource_limits.push(ResourceLimit {
                resource: reader.u32()?,
                soft: reader.u64()?,
                hard: reader.u64()?,
            });
        }
        Ok(Self { exec_id, argv, environment, directory, terminal, stdin, resource_limits })
    }
}
