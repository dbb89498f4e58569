//! Chunk and session ids: they look random, as the peers' do, and are the same in every run with the same seed.

use std::sync::atomic::{AtomicU64, Ordering};

/// Makes ids from a seed and a counter.
#[derive(Debug)]
pub(crate) struct IdSource {
    seed: u64,
    counter: AtomicU64,
}

impl IdSource {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, counter: AtomicU64::new(0) }
    }

    /// Returns six hexadecimal digits.
    pub(crate) fn chunk_id(&self) -> String {
        format!("{:06x}", self.next() >> 40)
    }

    /// Returns a number from 1 000 to 99 999.
    pub(crate) fn session_id(&self) -> u32 {
        // The remainder is below 99 000, so the default is never taken.
        1_000 + u32::try_from(self.next() % 99_000).unwrap_or_default()
    }

    /// Sebastiano Vigna's SplitMix64, whose outputs do not repeat within 2^64 calls.
    fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let count = self.counter.fetch_add(1, Ordering::Relaxed) + 1;
        let mut value = self.seed.wrapping_add(count.wrapping_mul(STEP));
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::IdSource;

    #[test]
    fn ids_follow_from_the_seed() {
        let ids = |seed| {
            let source = IdSource::new(seed);
            (0..1000).map(|_| (source.chunk_id(), source.session_id())).collect::<Vec<_>>()
        };
        assert_eq!(ids(7), ids(7));
        assert_ne!(ids(7), ids(8));
        assert!(
            ids(0)
                .iter()
                .all(|(chunk, session)| chunk.len() == 6 && (1_000..100_000).contains(session))
        );
    }
}
