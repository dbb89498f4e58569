//! Frames: the outermost layer of the stream.
//!
//! ```text
//! u32 payload length | u32 channel | u8 kind | payload
//! ```
//!
//! [`FrameDecoder`] is a push parser: bytes in, frames out, no I/O. It keeps at most one frame and what was
//! pushed with it.

use crate::ProtocolError;

/// The greatest payload of a frame, in bytes.
pub const MAX_PAYLOAD: usize = 256 * 1024;

/// The length of the header of a frame, in bytes.
pub const HEADER_LENGTH: usize = 9;

/// One frame, borrowed from the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The channel; 0 is the connection itself.
    pub channel: u32,
    /// What the payload is: see [`HostMessage`](crate::HostMessage) and [`GuestMessage`](crate::GuestMessage).
    pub kind: u8,
    /// The content.
    pub payload: &'a [u8],
}

/// Cuts a stream of bytes to frames.
///
/// ```
/// use cofferdam_guest::{FrameDecoder, HostMessage};
///
/// let mut bytes = Vec::new();
/// HostMessage::Ping.encode(7, &mut bytes)?;
/// let mut decoder = FrameDecoder::new();
/// decoder.push(&bytes);
/// let frame = decoder.next_frame()?.expect("one whole frame was pushed");
/// assert_eq!((frame.channel, HostMessage::decode(frame)?), (7, HostMessage::Ping));
/// # Ok::<(), cofferdam_guest::ProtocolError>(())
/// ```
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: Vec<u8>,
    start: usize,
}

impl FrameDecoder {
    /// Returns an empty decoder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes that arrived.
    ///
    /// Take all frames with [`next_frame`](Self::next_frame) before pushing more; that bounds the memory.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the number of bytes that wait for the rest of their frame.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Returns the next whole frame, or `None` when more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::Oversized`], as soon as the header is there and for every later call.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, ProtocolError> {
        let waiting = &self.buffer[self.start..];
        let Some((&[l0, l1, l2, l3, c0, c1, c2, c3, kind], rest)) =
            waiting.split_first_chunk::<HEADER_LENGTH>()
        else {
            return Ok(None);
        };
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let channel = u32::from_le_bytes([c0, c1, c2, c3]);
        let size = match usize::try_from(length) {
            Ok(size) if size <= MAX_PAYLOAD => size,
            _ => {
                return Err(ProtocolError::Oversized { channel, kind, length });
            }
        };
        let Some(payload) = rest.get(..size) else {
            return Ok(None);
        };
        self.start += HEADER_LENGTH + size;
        Ok(Some(Frame { channel, kind, payload }))
    }
}

/// Appends one frame whose payload `fill` writes.
///
/// # Errors
///
/// [`ProtocolError::Oversized`] when the payload is too long; `out` is as before.
pub(crate) fn encode_frame(
    channel: u32,
    kind: u8,
    out: &mut Vec<u8>,
    fill: impl FnOnce(&mut Vec<u8>),
) -> Result<(), ProtocolError> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&channel.to_le_bytes());
    out.push(kind);
    fill(out);
    let length = out.len() - start - HEADER_LENGTH;
    match u32::try_from(length) {
        Ok(encoded) if length <= MAX_PAYLOAD => {
            out[start..start + 4].copy_from_slice(&encoded.to_le_bytes());
            Ok(())
        }
        other => {
            out.truncate(start);
            Err(ProtocolError::Oversized { channel, kind, length: other.unwrap_or(u32::MAX) })
        }
    }
}
