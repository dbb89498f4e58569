//! Typed identifiers. An id is text that is safe in a file name; making one needs [`Entropy`], so tests fix them.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// A source of random bits, passed in wherever an id is made.
pub trait Entropy: fmt::Debug + Send + Sync + 'static {
    /// Returns 64 random bits.
    fn next_u64(&self) -> u64;
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps an id that another party made.
            pub fn new(id: impl Into<Arc<str>>) -> Self {
                Self(id.into())
            }

            /// Returns the id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// Names one run of an agent.
    RunId
}
id! {
    /// Names one live sandbox.
    SandboxId
}
id! {
    /// The model's name of one tool call; unique in a run at best, so journals use positions instead.
    CallId
}

impl RunId {
    /// Makes an id that sorts by time: 48 bits of milliseconds, then 80 random bits, in Crockford base 32.
    pub fn generate(now: Timestamp, entropy: &dyn Entropy) -> Self {
        Self(sortable(now, entropy).into())
    }
}

impl SandboxId {
    /// Makes an id that sorts by time, of the same form as [`RunId::generate`].
    pub fn generate(now: Timestamp, entropy: &dyn Entropy) -> Self {
        Self(sortable(now, entropy).into())
    }
}

fn sortable(now: Timestamp, entropy: &dyn Entropy) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let random = (u128::from(entropy.next_u64()) << 64) | u128::from(entropy.next_u64());
    let value = (u128::from(now.as_millis()) << 80) | (random >> 48);
    (0..26).rev().map(|i| char::from(DIGITS[((value >> (5 * i)) & 31) as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fixed(u64);

    impl Entropy for Fixed {
        fn next_u64(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn generated_ids_sort_by_time_and_are_file_names() {
        let early = RunId::generate(Timestamp(1_000), &Fixed(u64::MAX));
        let late = RunId::generate(Timestamp(1_001), &Fixed(0));
        assert!(early < late);
        assert_eq!(early.as_str(), "00000000z8zzzzzzzzzzzzzzzz");
        assert!(late.as_str().chars().all(|c| c.is_ascii_alphanumeric()));
        assert_eq!(late.as_str().len(), 26);
    }
}
