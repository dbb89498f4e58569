//! [`CheckpointId`]: the name of a checkpoint, which is also the proof of what it says.

use std::{fmt, str::FromStr};

use cofferdam_core::RunId;
use cofferdam_journal::Seq;
use serde::{Deserialize, Serialize};

use crate::CheckpointError;

/// Names one checkpoint: `RUN.SEQ.HASH`, the run, the position in its journal, and the BLAKE3 hash of the checkpoint as it is
/// stored.
///
/// The hash makes the name fit one content only; the run and the position let people and lists read it, and sort it.
///
/// ```
/// use cofferdam_checkpoint::CheckpointId;
///
/// let text = format!("01jz.42.{}", "ab".repeat(32));
/// let id: CheckpointId = text.parse()?;
/// assert_eq!((id.run().as_str(), id.at().0), ("01jz", 42));
/// assert_eq!(id.to_string(), text);
/// # Ok::<(), cofferdam_checkpoint::CheckpointError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CheckpointId {
    run: RunId,
    at: Seq,
    hash: String,
}

impl CheckpointId {
    /// Names stored bytes.
    pub(crate) fn of(run: RunId, at: Seq, stored: &[u8]) -> Self {
        Self { run, at, hash: blake3::hash(stored).to_hex().to_string() }
    }

    /// Returns the run that it is of.
    #[must_use]
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// Returns the last record of the run's journal that it covers.
    #[must_use]
    pub fn at(&self) -> Seq {
        self.at
    }

    /// Returns the hash of the stored checkpoint, 64 hex digits.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }
}

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.run, self.at.0, self.hash)
    }
}

impl FromStr for CheckpointId {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let invalid = |reason| CheckpointError::InvalidId { text: shown(text), reason };
        let (rest, hash) = text.rsplit_once('.').ok_or_else(|| invalid("it has no hash"))?;
        let (run, at) = rest.rsplit_once('.').ok_or_else(|| invalid("it has no position"))?;
        if run.is_empty() {
            return Err(invalid("it has no run"));
        }
        // One spelling only: an id is compared as text.
        let number: u64 = at.parse().map_err(|_| invalid("its position is no number"))?;
        if number.to_string() != at {
            return Err(invalid("its position is not written as a number is"));
        }
        if hash.len() != 64 || !hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(invalid("its hash is not 64 hex digits in lower case"));
        }
        Ok(Self { run: RunId::new(run), at: Seq(number), hash: hash.to_owned() })
    }
}

/// The beginning of a text that somebody gave for an id.
fn shown(text: &str) -> String {
    const MAX_CHARS: usize = 160;
    text.chars().take(MAX_CHARS).collect()
}

impl TryFrom<String> for CheckpointId {
    type Error = CheckpointError;

    fn try_from(text: String) -> Result<Self, CheckpointError> {
        text.parse()
    }
}

impl From<CheckpointId> for String {
    fn from(id: CheckpointId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_is_no_id() {
        let hash = "0f".repeat(32);
        let check = |text: &str, expect: &str| {
            let error = text.parse::<CheckpointId>().unwrap_err().to_string();
            assert!(error.ends_with(expect), "{error}");
        };
        check("", "it has no hash");
        check(&hash, "it has no hash");
        check(&format!("1.{hash}"), "it has no position");
        check(&format!(".1.{hash}"), "it has no run");
        check(&format!("r.x.{hash}"), "its position is no number");
        check(&format!("r.01.{hash}"), "its position is not written as a number is");
        check(&format!("r.+1.{hash}"), "its position is not written as a number is");
        check("r.1.0f", "its hash is not 64 hex digits in lower case");
        check(
            &format!("r.1.{}", hash.to_uppercase()),
            "its hash is not 64 hex digits in lower case",
        );
    }

    proptest! {
        #[test]
        fn any_id_is_read_back(run in ".{1,40}", at: u64, stored: Vec<u8>) {
            let id = CheckpointId::of(RunId::new(run), Seq(at), &stored);
            prop_assert_eq!(id.to_string().parse::<CheckpointId>().unwrap(), id);
        }

        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = text.parse::<CheckpointId>();
        }
    }
}
