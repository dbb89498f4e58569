//! The one error of the codec: what was wrong with the bytes.

use std::fmt;

/// Describes bytes that do not follow the protocol.
///
/// Framing cannot be recovered after any of these: the reader drops the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A frame announces a payload above [`MAX_PAYLOAD`](crate::MAX_PAYLOAD).
    Oversized {
        /// The channel of the frame.
        channel: u32,
        /// The kind of the frame.
        kind: u8,
        /// The announced payload length in bytes.
        length: u32,
    },
    /// A message ends before its last field.
    Truncated {
        /// The message being read.
        what: &'static str,
    },
    /// A message goes on after its last field.
    Trailing {
        /// The message being read.
        what: &'static str,
        /// The number of bytes left over.
        extra: usize,
    },
    /// A counted field is above its bound.
    Bound {
        /// The field.
        what: &'static str,
        /// The announced length or count.
        length: u64,
        /// The greatest one allowed.
        limit: u64,
    },
    /// A field has a value outside of its set.
    Invalid {
        /// The field.
        what: &'static str,
        /// The value read.
        value: u64,
    },
    /// The first frame is not a greeting of this protocol.
    NotAGreeting,
    /// The two sides share no protocol version.
    Version {
        /// The versions this side speaks.
        ours: (u16, u16),
        /// The versions the other side speaks.
        theirs: (u16, u16),
    },
    /// The peer sent more than the credit that it was given.
    Overrun {
        /// The channel.
        channel: u32,
        /// The bytes above the credit.
        excess: u64,
    },
    /// A message arrived on a channel, or at a time, where it has no meaning.
    Unexpected {
        /// The channel.
        channel: u32,
        /// The kind of the frame.
        kind: u8,
    },
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Oversized { channel, kind, length } => write!(
                f,
                "frame of kind {kind:#04x} on channel {channel} announces {length} bytes, more than {}",
                crate::MAX_PAYLOAD
            ),
            Self::Truncated { what } => write!(f, "{what} is cut short"),
            Self::Trailing { what, extra } => write!(f, "{what} has {extra} bytes too many"),
            Self::Bound { what, length, limit } => {
                write!(f, "{what} is {length} long, more than {limit}")
            }
            Self::Invalid { what, value } => write!(f, "{what} has the unknown value {value}"),
            Self::NotAGreeting => write!(f, "the stream does not start with a guest greeting"),
            Self::Version { ours, theirs } => write!(
                f,
                "no common protocol version: this side speaks {} to {}, the other {} to {}",
                ours.0, ours.1, theirs.0, theirs.1
            ),
            Self::Overrun { channel, excess } => {
                write!(f, "channel {channel} received {excess} bytes above its credit")
            }
            Self::Unexpected { channel, kind } => {
                write!(f, "frame of kind {kind:#04x} has no meaning on channel {channel}")
            }
        }
    }
}

impl std::error::Error for ProtocolError {}
