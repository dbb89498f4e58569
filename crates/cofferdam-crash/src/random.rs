//! [`Random`]: numbers that follow from a seed, the same on every machine.

/// A source of numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random {
    seed: u64,
    drawn: u64,
}

impl Random {
    /// Makes the source of a seed.
    #[must_use]
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    /// Returns a number below a bound that is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.drawn += 1;
        let input = [self.seed.to_le_bytes(), self.drawn.to_le_bytes()].concat();
        let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(&input).as_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h]) % bound.max(1)
    }

    /// Puts things into an order of its own.
    pub(crate) fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            let other = self.below(last as u64 + 1);
            things.swap(last, usize::try_from(other).unwrap_or(last));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn a_seed_fixes_the_order() {
        let order = |seed| {
            let mut things = ["a", "b", "c", "d", "e"];
            Random::new(seed).shuffle(&mut things);
            things.join("")
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        let mut letters: Vec<char> = order(3).chars().collect();
        letters.sort_unstable();
        assert_eq!(letters.iter().collect::<String>(), "abcde");
    }
}
