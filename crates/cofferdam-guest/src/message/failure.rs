//! How an operation fails.

use super::path;
use crate::{
    ProtocolError,
    wire::{Reader, Writer},
};

/// The longest text of a [`Failure`], in bytes.
const MAX_MESSAGE: usize = 1024;

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

impl Failure {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.u8(self.reason.to_wire());
        out.i32(self.errno);
        out.bytes(&self.path);
        out.bytes(self.message.as_bytes());
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        Ok(Self {
            reason: FailureReason::from_wire(reader.u8()?),
            errno: reader.i32()?,
            path: path(reader)?,
            message: reader.text("failure message", MAX_MESSAGE)?,
        })
    }
}
