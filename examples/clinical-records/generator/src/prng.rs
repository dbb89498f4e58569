//! The seeded random numbers behind every choice of the generator.
//!
//! Own code, whole numbers only: a library may change its streams between versions and floating point may differ
//! between platforms, and either would change the checked-in records. The generator is xoshiro256**, its state is
//! filled by splitmix64, both as published by Blackman and Vigna.

/// A reproducible stream of random numbers.
#[derive(Debug, Clone)]
pub(crate) struct Prng {
    seed: u64,
    state: [u64; 4],
}

impl Prng {
    /// Starts the stream of `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        let mut mixer = seed;
        let state = std::array::from_fn(|_| splitmix(&mut mixer));
        Self { seed, state }
    }

    /// Returns an independent stream, named by `label`.
    ///
    /// It depends on the seed and the label only, not on the numbers drawn so far, so that a change in one part of the
    /// corpus leaves the other parts as they are.
    pub(crate) fn fork(&self, label: &str) -> Self {
        // FNV-1a: any fixed hash would do.
        let hash = label.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self::new(self.seed.rotate_left(17) ^ hash)
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// Returns a number from 0 up to but not including `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.next()) * bound as u128;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the high half of the product is below `bound`"
        )]
        let scaled = (wide >> 64) as usize;
        scaled
    }

    /// Returns a number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// Returns true once in `n` draws on average.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Returns true `percent` times in a hundred draws on average.
    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Picks one of `choices`, which must not be empty.
    pub(crate) fn pick<'a, T: ?Sized>(&mut self, choices: &'a [&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }

    /// Picks one of `choices`, which must not be empty.
    pub(crate) fn pick_ref<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// Picks the index of one of `weights`, each as likely as its weight says.
    pub(crate) fn weighted(&mut self, weights: &[usize]) -> usize {
        let mut draw = self.below(weights.iter().sum());
        for (index, &weight) in weights.iter().enumerate() {
            if draw < weight {
                return index;
            }
            draw -= weight;
        }
        weights.len() - 1
    }
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_gives_the_published_numbers() {
        let mut state = 1_234_567;
        let drawn: Vec<u64> = (0..3).map(|_| splitmix(&mut state)).collect();
        assert_eq!(
            drawn,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn draws_stay_in_their_bounds_and_reach_both_ends() {
        let mut prng = Prng::new(1);
        let drawn: Vec<usize> = (0..1000).map(|_| prng.between(3, 7)).collect();
        assert!(drawn.iter().all(|&number| (3..=7).contains(&number)));
        assert!((3..=7).all(|number| drawn.contains(&number)));
    }

    #[test]
    fn a_fork_does_not_depend_on_the_numbers_drawn_before() {
        let fresh = Prng::new(9);
        let mut used = Prng::new(9);
        used.next();
        assert_eq!(fresh.fork("pages").next(), used.fork("pages").next());
        assert_ne!(fresh.fork("pages").next(), fresh.fork("noise").next());
    }
}
