//! The typed answer to "may I try this again?".

use std::time::Duration;

/// Whether the same request may succeed if it is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same request fails again; change it or stop.
    Never,
    /// The other party asked for this pause.
    After(Duration),
    /// Try again after a growing pause of the caller's choice.
    Backoff,
}

impl Retry {
    /// Returns true unless the answer is [`Retry::Never`].
    #[must_use]
    pub fn is_retryable(self) -> bool {
        self != Self::Never
    }
}
