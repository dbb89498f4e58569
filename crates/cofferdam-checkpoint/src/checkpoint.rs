//! [`Checkpoint`]: a point of a run that it can go on from, on this host or another.
//!
//! Format 1: the compact JSON of [`Checkpoint`]; the hash in its [`CheckpointId`] is the BLAKE3 hash of exactly these bytes.

use cofferdam_core::{RunId, Timestamp};
use cofferdam_journal::Seq;
use cofferdam_snapshot::Receipt;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{CheckpointError, CheckpointId};

/// The checkpoint format that this release writes.
pub const FORMAT_VERSION: u32 = 1;

/// The three things that belong together: a position in the journal, the workspace as it was then, and the sandbox that it was
/// in. Immutable, and named by its content.
///
/// What it does not hold: the memory of processes, the environment, mounts, what is excluded by the manifest, and secrets, of
/// which no sandbox has any.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// [`FORMAT_VERSION`] of the release that wrote it.
    pub format: u32,
    /// The run.
    pub run: RunId,
    /// The last record of the run's journal that it covers.
    pub at: Seq,
    /// The turn of the model after which it was taken; 0 before the first.
    pub turn: u32,
    /// When it was taken.
    pub time: Timestamp,
    /// The checkpoints that it comes from: none for the first of a run that began anew, and one of another run for the first
    /// of a fork.
    pub parents: Vec<CheckpointId>,
    /// The snapshot of the workspace, and what was left out of it; `None` if nothing keeps workspaces.
    pub workspace: Option<Receipt>,
    /// What finds the sandbox again, if it still lives ([`crate::SandboxHandle`]).
    pub sandbox: Value,
    /// Commands that went on meanwhile, by name: files that they write may be half written.
    pub running: Vec<String>,
}

impl Checkpoint {
    /// Returns the bytes that are stored, and the name that fits them.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Store`] if the sandbox's state cannot be written as JSON.
    pub fn encode(&self) -> Result<(CheckpointId, Vec<u8>), CheckpointError> {
        let stored = serde_json::to_vec(self).map_err(|error| CheckpointError::Store {
            operation: "write a checkpoint as JSON",
            source: error.into(),
        })?;
        Ok((CheckpointId::of(self.run.clone(), self.at, &stored), stored))
    }

    /// Reads stored bytes and holds them against their name.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Corrupt`], [`CheckpointError::NewerFormat`].
    pub fn decode(id: &CheckpointId, stored: &[u8]) -> Result<Self, CheckpointError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let corrupt = |detail: String| CheckpointError::Corrupt { id: id.clone(), detail };
        if blake3::hash(stored).to_hex().as_str() != id.hash() {
            return Err(corrupt("its hash does not fit its content".to_owned()));
        }
        let Format { format } =
            serde_json::from_slice(stored).map_err(|error| corrupt(error.to_string()))?;
        if format > FORMAT_VERSION {
            let (found, supported) = (format, FORMAT_VERSION);
            return Err(CheckpointError::NewerFormat { id: id.clone(), found, supported });
        }
        let checkpoint: Self =
            serde_json::from_slice(stored).map_err(|error| corrupt(error.to_string()))?;
        if (&checkpoint.run, checkpoint.at) != (id.run(), id.at()) {
            return Err(corrupt("it is of another run or position than its name says".to_owned()));
        }
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIPT: &str = include_str!("checkpoint/receipt_1.json");

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            format: 1,
            run: RunId::new("r"),
            at: Seq(7),
            turn: 2,
            time: Timestamp(1_000),
            parents: vec![],
            workspace: Some(serde_json::from_str(RECEIPT).unwrap()),
            sandbox: serde_json::json!({"id": "s"}),
            running: vec!["server".to_owned()],
        }
    }

    #[test]
    fn format_1_stays_readable() {
        // Written by the first release with checkpoints; what can no longer read this loses the runs of the field.
        const STORED: &str = include_str!("checkpoint/checkpoint_1.json");
        const ID: &str = "r.7.91811dd9122790372f892856688eec350bd8e9a457a4e8a5c71adf666294bc5f";
        let (id, stored) = checkpoint().encode().unwrap();
        assert_eq!(String::from_utf8(stored).unwrap(), STORED);
        assert_eq!(id.to_string(), ID);
        assert_eq!(Checkpoint::decode(&id, STORED.as_bytes()).unwrap(), checkpoint());
    }

    #[test]
    fn what_does_not_fit_its_name_is_refused() {
        let check = |change: fn(&mut Checkpoint), named: Option<(&str, u64)>, expect: &str| {
            let mut changed = checkpoint();
            change(&mut changed);
            let (id, stored) = changed.encode().unwrap();
            let id =
                named.map_or(id, |(run, at)| CheckpointId::of(RunId::new(run), Seq(at), &stored));
            let error = Checkpoint::decode(&id, &stored).unwrap_err().to_string();
            assert!(error.ends_with(expect), "{error}");
        };
        check(|_| {}, Some(("r", 8)), "it is of another run or position than its name says");
        check(|_| {}, Some(("q", 7)), "it is of another run or position than its name says");
        check(|c| c.format = 9, None, "is in format 9; this release reads up to 1");

        let (id, mut stored) = checkpoint().encode().unwrap();
        stored[20] ^= 1;
        let error = Checkpoint::decode(&id, &stored).unwrap_err().to_string();
        assert!(error.ends_with("its hash does not fit its content"), "{error}");
    }
}
