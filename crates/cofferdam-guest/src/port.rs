//! Addresses inside the box that the host may ask to be connected to.

use crate::{
    MAX_PATH, ProtocolError,
    wire::{Reader, Writer},
};

/// An address inside the box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP port of the loopback, 127.0.0.1.
    Tcp {
        /// The port.
        port: u16,
    },
    /// A Unix stream socket in the workspace.
    Unix {
        /// Its path.
        path: Vec<u8>,
    },
}

const TCP: u8 = 1;
const UNIX: u8 = 2;

impl Address {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Tcp { port } => {
                out.u8(TCP);
                out.u16(*port);
            }
            Self::Unix { path } => {
                out.u8(UNIX);
                out.bytes(path);
            }
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        match reader.u8()? {
            TCP => Ok(Self::Tcp { port: reader.u16()? }),
            UNIX => Ok(Self::Unix { path: reader.bytes("path", MAX_PATH)? }),
            other => Err(ProtocolError::Invalid { what: "address", value: u64::from(other) }),
        }
    }
}
