//! Credit: how much one side may send on a channel before the other has taken it.
//!
//! Only the payloads of data frames cost credit. Both directions of a channel start with [`INITIAL_WINDOW`].

use crate::ProtocolError;

/// The credit of each direction of a new channel, in bytes.
pub const INITIAL_WINDOW: u32 = 256 * 1024;

/// The credit of a transfer that is known to be long, in bytes.
pub const WIDE_WINDOW: u32 = 1024 * 1024;

/// The greatest credit that a peer may hold, in bytes.
pub const MAX_WINDOW: u32 = 16 * 1024 * 1024;

/// The sender's side of a window.
#[derive(Debug, Clone)]
pub struct SendWindow {
    credit: u32,
}

impl Default for SendWindow {
    fn default() -> Self {
        Self { credit: INITIAL_WINDOW }
    }
}

impl SendWindow {
    /// Returns how many bytes may be sent now.
    #[must_use]
    pub fn available(&self) -> usize {
        self.credit as usize
    }

    /// Takes up to `wanted` bytes of credit and returns how many were there.
    pub fn take(&mut self, wanted: usize) -> usize {
        let taken = u32::try_from(wanted).unwrap_or(u32::MAX).min(self.credit);
        self.credit -= taken;
        taken as usize
    }

    /// Adds the credit of a `Window` frame.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::Bound`] when the credit would be above [`MAX_WINDOW`].
    pub fn grant(&mut self, bytes: u32) -> Result<(), ProtocolError> {
        let credit = u64::from(self.credit) + u64::from(bytes);
        match u32::try_from(credit) {
            Ok(credit) if credit <= MAX_WINDOW => {
                self.credit = credit;
                Ok(())
            }
            _ => Err(ProtocolError::Bound {
                what: "window",
                length: credit,
                limit: u64::from(MAX_WINDOW),
            }),
        }
    }
}

/// The receiver's side of a window.
#[derive(Debug, Clone)]
pub struct ReceiveWindow {
    outstanding: u32,
    taken: u32,
}

impl Default for ReceiveWindow {
    fn default() -> Self {
        Self { outstanding: INITIAL_WINDOW, taken: 0 }
    }
}

impl ReceiveWindow {
    /// Notes credit that is given on top, for a transfer that is known to be long, and returns it.
    ///
    /// The window is then [`WIDE_WINDOW`]: a far host's grants come in time.
    #[must_use]
    pub fn widen(&mut self) -> u32 {
        let bytes = WIDE_WINDOW.saturating_sub(self.outstanding);
        self.outstanding += bytes;
        bytes
    }

    /// Notes `length` bytes that arrived on `channel`.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::Overrun`] when the peer had no credit for them.
    pub fn arrived(&mut self, channel: u32, length: usize) -> Result<(), ProtocolError> {
        let outstanding = u64::from(self.outstanding);
        match u32::try_from(length).ok().and_then(|length| self.outstanding.checked_sub(length)) {
            Some(left) => {
                self.outstanding = left;
                Ok(())
            }
            None => Err(ProtocolError::Overrun {
                channel,
                excess: (length as u64).saturating_sub(outstanding),
            }),
        }
    }

    /// Notes `length` bytes that were taken out of the buffer, and returns the credit to give back now.
    ///
    /// Credit goes back in large pieces, so that a peer that sends single bytes does not cost a frame for each.
    #[must_use]
    pub fn taken(&mut self, length: usize) -> Option<u32> {
        self.taken = self.taken.saturating_add(u32::try_from(length).unwrap_or(u32::MAX));
        if self.taken < INITIAL_WINDOW / 4 {
            return None;
        }
        self.outstanding = self.outstanding.saturating_add(self.taken);
        Some(std::mem::take(&mut self.taken))
    }
}
