//! A quick "surely not" before a lookup.
//!
//! Most lines of a file are none that a patch looks for. Asking a hash map about each would be most of the work, so a
//! small bit set is asked first, with a hash of the length and both ends of the text only. It may say yes wrongly, never
//! no; texts made to collide cost a lookup each and nothing more.

/// A set of texts that answers "surely not" or "perhaps".
#[derive(Debug)]
pub(crate) struct Filter {
    words: Vec<u64>,
}

impl Filter {
    /// Makes a filter with 16 to 32 bits for each of `texts`.
    pub(crate) fn new(texts: &[&str]) -> Self {
        let mut words = vec![0; (texts.len() / 4).next_power_of_two()];
        let count = words.len();
        for text in texts {
            let (word, bit) = place(text, count);
            words[word] |= bit;
        }
        Self { words }
    }

    /// Whether the text may be in the set.
    pub(crate) fn may_have(&self, text: &str) -> bool {
        let (word, bit) = place(text, self.words.len());
        self.words[word] & bit != 0
    }
}

/// The word and the bit of a text; `words` is a power of two.
fn place(text: &str, words: usize) -> (usize, u64) {
    let bytes = text.as_bytes();
    let (first, last) = match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => (bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0),
    };
    // Two odd constants with well mixed bits; the high half of a product depends on all bits of its factors.
    let mixed =
        (first ^ last.rotate_left(29) ^ bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let high = usize::try_from(mixed >> 38).unwrap_or(0);
    (high & (words - 1), 1 << (mixed >> 32 & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_all_members_and_few_others() {
        let members: Vec<String> =
            (0..1_000).map(|number| format!("    member {number}();")).collect();
        let members: Vec<&str> = members.iter().map(String::as_str).collect();
        let filter = Filter::new(&members);
        assert!(members.iter().all(|member| filter.may_have(member)));
        let strangers = (0..10_000)
            .filter(|number| filter.may_have(&format!("    stranger {number}();")))
            .count();
        assert!(strangers < 1_000, "{strangers} of 10000 pass");
        assert!(!Filter::new(&[]).may_have(""));
        assert!(Filter::new(&["", "x"]).may_have(""));
    }
}
