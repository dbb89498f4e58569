//! One channel's turn to send: what it may send now, and the frames that it sends.

use cofferdam_guest::{GuestMessage, ProtocolError, SendWindow};

/// The greatest piece that a channel sends in one turn.
pub(crate) const PIECE: usize = 64 * 1024;

/// Sends on one channel.
#[derive(Debug)]
pub(crate) struct Sender<'a> {
    pub(crate) channel: u32,
    pub(crate) window: &'a mut SendWindow,
    /// Where a piece is put together; as long as the greatest one.
    pub(crate) buffer: &'a mut [u8],
    pub(crate) out: &'a mut Vec<u8>,
}

impl Sender<'_> {
    /// Sends a message that costs no credit.
    pub(crate) fn send(&mut self, message: &GuestMessage<'_>) -> Result<(), ProtocolError> {
        message.encode(self.channel, self.out)
    }

    /// Returns room for a piece, as long as there is credit; empty if there is none.
    pub(crate) fn piece(&mut self) -> &mut [u8] {
        let credit = self.window.available().min(PIECE);
        &mut self.buffer[..credit]
    }

    /// Sends what was put into the first bytes of [`Sender::piece`].
    pub(crate) fn send_piece(
        &mut self,
        length: usize,
        message: impl FnOnce(&[u8]) -> GuestMessage<'_>,
    ) -> Result<(), ProtocolError> {
        let length = self.window.take(length);
        message(&self.buffer[..length]).encode(self.channel, self.out)
    }

    /// Sends the beginning of these bytes, as much as there is credit for, and returns how much that was.
    pub(crate) fn send_data(&mut self, bytes: &[u8]) -> Result<usize, ProtocolError> {
        let length = self.window.take(bytes.len().min(PIECE));
        if length > 0 {
            GuestMessage::Data(&bytes[..length]).encode(self.channel, self.out)?;
        }
        Ok(length)
    }
}
