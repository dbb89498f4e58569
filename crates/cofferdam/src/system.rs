//! The clock and the randomness of the machine: the one place where they are read.

use cofferdam_core::{Clock, Entropy, Timestamp};

/// The machine's time of day.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the clock that everything else is given"
        )]
        let now = std::time::SystemTime::now();
        let since_epoch = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(since_epoch.as_millis().try_into().unwrap_or(u64::MAX))
    }
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn next_u64(&self) -> u64 {
        // Ids need to be distinct, not secret: where the kernel gives no randomness, the address space layout and the
        // time of day still tell processes apart.
        getrandom::u64().unwrap_or_else(|_| {
            let place: u64 = std::ptr::from_ref(self).addr() as u64;
            place.rotate_left(32) ^ SystemClock.now().as_millis()
        })
    }
}
