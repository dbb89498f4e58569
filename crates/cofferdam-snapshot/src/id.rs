//! Names of what a store holds: [`ChunkId`], [`TreeId`], [`PackName`], [`Lineage`], [`SnapshotId`].
//!
//! The first two are hashes of plain content, so that whatever is read back is held against its name. Packs are named by
//! time and chance instead: a new pack never has the name of one that is about to be deleted.

use std::{fmt, str::FromStr, sync::Arc};

use cofferdam_core::{Entropy, Timestamp};
use serde::{Deserialize, Serialize};

/// A text that names nothing in a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// It is not the hexadecimal form of an id.
    #[error("{text:.80?} is no {what}; expected {digits} lower-case hexadecimal digits")]
    NotHexadecimal {
        /// What was expected, such as `tree id`.
        what: &'static str,
        /// What was given.
        text: String,
        /// How many digits it takes.
        digits: usize,
    },
    /// It cannot be the name of a lineage.
    #[error(
        "{text:.80?} is no name of a lineage; use 1 to 128 of a-z, A-Z, 0-9, `-`, `_` and `.`, and begin with none of the last"
    )]
    Lineage {
        /// What was given.
        text: String,
    },
    /// It is not of the form `LINEAGE@NUMBER`.
    #[error("{text:.160?} is no snapshot; write it as LINEAGE@NUMBER")]
    Snapshot {
        /// What was given.
        text: String,
    },
}

fn to_hexadecimal(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn from_hexadecimal<const N: usize>(what: &'static str, text: &str) -> Result<[u8; N], IdError> {
    let wrong = || IdError::NotHexadecimal { what, text: text.to_owned(), digits: N * 2 };
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(wrong()),
    };
    if text.len() != N * 2 {
        return Err(wrong());
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(bytes)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Bytes of an id.
            pub const BYTES: usize = $bytes;

            /// Wraps the bytes of an id.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// Returns the bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                to_hexadecimal(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                from_hexadecimal($what, text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

id! {
    /// Names a chunk of file content by its BLAKE3 hash, keyed if the store is encrypted.
    ChunkId, 32, "chunk id"
}
id! {
    /// Names a tree by the hash of what is in it, wherever that is stored: equal trees of one store have equal ids.
    ///
    /// What counts is names, kinds, modes, times, link targets, kept attributes, hard links and content.
    TreeId, 32, "tree id"
}
id! {
    /// Names a pack: 48 bits of milliseconds since the Unix epoch, then 80 random bits.
    PackName, 16, "pack name"
}

impl PackName {
    /// Makes a name for a pack that begins now.
    pub fn generate(now: Timestamp, entropy: &dyn Entropy) -> Self {
        let random = (u128::from(entropy.next_u64()) << 64) | u128::from(entropy.next_u64());
        Self(((u128::from(now.as_millis()) << 80) | (random >> 48)).to_be_bytes())
    }

    /// Returns when the pack was begun, by its writer's clock.
    #[must_use]
    pub fn begun(&self) -> Timestamp {
        let mut millis = [0; 8];
        millis[2..].copy_from_slice(&self.0[..6]);
        Timestamp(u64::from_be_bytes(millis))
    }
}

/// Names a line of snapshots, each the child of the one before; a safe file name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lineage(Arc<str>);

impl Lineage {
    /// The most bytes that a name has.
    pub const MAX_BYTES: usize = 128;

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Lineage {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let good = (1..=Self::MAX_BYTES).contains(&text.len())
            && !text.starts_with('.')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if good { Ok(Self(text.into())) } else { Err(IdError::Lineage { text: text.to_owned() }) }
    }
}

impl TryFrom<String> for Lineage {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Lineage> for String {
    fn from(lineage: Lineage) -> Self {
        lineage.0.as_ref().to_owned()
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one snapshot: its lineage and its number there, counted from 1. Written `LINEAGE@NUMBER`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotId {
    /// The line of snapshots.
    pub lineage: Lineage,
    /// Its place in it, from 1.
    pub seq: u64,
}

impl SnapshotId {
    /// Names a snapshot.
    #[must_use]
    pub fn new(lineage: Lineage, seq: u64) -> Self {
        Self { lineage, seq }
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.lineage, self.seq)
    }
}

impl FromStr for SnapshotId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || IdError::Snapshot { text: text.to_owned() };
        let (lineage, seq) = text.split_once('@').ok_or_else(wrong)?;
        let canonical = seq.bytes().all(|b| b.is_ascii_digit()) && !seq.starts_with('0');
        let seq = seq.parse().ok().filter(|_| canonical).ok_or_else(wrong)?;
        Ok(Self { lineage: lineage.parse()?, seq })
    }
}

impl TryFrom<String> for SnapshotId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SnapshotId> for String {
    fn from(id: SnapshotId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_core::Timestamp;

    use super::*;

    #[test]
    fn snapshots_are_written_and_read() {
        let check = |text: &str, expect: Result<&str, &str>| {
            let got = text.parse::<SnapshotId>().map(|id| id.to_string());
            match (got, expect) {
                (Ok(got), Ok(expect)) => assert_eq!(got, expect),
                (Err(got), Err(expect)) => assert!(got.to_string().contains(expect), "{got}"),
                (got, expect) => panic!("{text:?}: {got:?}, expected {expect:?}"),
            }
        };
        check("run-1@7", Ok("run-1@7"));
        check("a.b_c@18446744073709551615", Ok("a.b_c@18446744073709551615"));
        check("a@0", Err("LINEAGE@NUMBER"));
        check("a@07", Err("LINEAGE@NUMBER"));
        check("a@+7", Err("LINEAGE@NUMBER"));
        check("a@18446744073709551616", Err("LINEAGE@NUMBER"));
        check("a", Err("LINEAGE@NUMBER"));
        check("../a@1", Err("no name of a lineage"));
        check(".a@1", Err("no name of a lineage"));
        check("@1", Err("no name of a lineage"));
        check("ü@1", Err("no name of a lineage"));
    }

    #[test]
    fn ids_are_lower_case_hexadecimal() {
        let id = TreeId::from_bytes([0xab; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().to_uppercase().parse::<TreeId>().is_err());
        assert!("ab".parse::<TreeId>().is_err());
    }

    #[test]
    fn packs_know_when_they_were_begun() {
        #[derive(Debug)]
        struct Ones;
        impl Entropy for Ones {
            fn next_u64(&self) -> u64 {
                u64::MAX
            }
        }
        let name = PackName::generate(Timestamp(1_767_323_045_678), &Ones);
        assert_eq!(name.begun(), Timestamp(1_767_323_045_678));
        assert!(PackName::generate(Timestamp(1_767_323_045_679), &Ones) > name);
    }
}
