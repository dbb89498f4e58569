//! [`Record`]: one line of a journal, chained to the one before it by hash.
//!
//! Format 1: the hash of a record is the BLAKE3 hash of the previous hash (32 zero bytes for the first) followed by the
//! compact JSON of the record without its hash.

use std::fmt;

use cofferdam_core::{Effects, Item, RunId, StepId, Timestamp, ToolOutput, Usage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{JournalError, Seq};

/// The journal format that this release writes.
pub const FORMAT_VERSION: u32 = 1;

/// What is to be appended: a record before it has its number and hash.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// When it was written.
    pub time: Timestamp,
    /// What it says.
    pub body: RecordBody,
}

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT_VERSION`] of the release that wrote it.
    pub format: u32,
    /// Its number in the run.
    pub seq: Seq,
    /// When it was written.
    pub time: Timestamp,
    /// What it says.
    pub body: RecordBody,
    /// The hash of the record before it.
    pub previous: RecordHash,
    /// The hash of this record.
    pub hash: RecordHash,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RecordBody {
    /// A run began.
    RunStarted {
        /// The agent's name.
        agent: String,
        /// Hashes of what the run was set up with, by name (`instructions`, `tools`, `settings`).
        fingerprints: std::collections::BTreeMap<String, String>,
        /// The input.
        input: Vec<Item>,
    },
    /// A request is about to be sent to the model.
    ModelRequested {
        /// The turn, from 1.
        turn: u32,
        /// Items of the conversation that it holds.
        items: u64,
    },
    /// The model's whole answer, before anything acts on it.
    ModelResponded {
        /// The turn, from 1.
        turn: u32,
        /// The provider's id of the answer.
        response_id: Option<String>,
        /// The items.
        items: Vec<Item>,
        /// What it cost.
        usage: Usage,
    },
    /// A tool call is about to run.
    ToolIntended {
        /// Its place.
        step: StepId,
        /// The tool.
        tool: String,
        /// BLAKE3 of the input as the model wrote it, in hex.
        input_hash: String,
        /// What it does to the world.
        effects: Effects,
        /// The key by which a repeat can be told apart: run and step, so it is the same after a resume.
        idempotency_key: String,
    },
    /// A tool call ended.
    ToolFinished {
        /// Its place.
        step: StepId,
        /// What the model is told; `None` if the call failed in a way that ends the run.
        output: Option<ToolOutput>,
        /// The failure, in words.
        error: Option<String>,
    },
    /// A tool call was refused before it began: unknown, malformed or denied.
    ToolRefused {
        /// Its place.
        step: StepId,
        /// The tool.
        tool: String,
        /// Why.
        reasons: Vec<String>,
    },
    /// The run ended.
    RunFinished {
        /// How.
        outcome: RunOutcome,
        /// What it cost in all.
        usage: Usage,
    },
    /// A record of a kind that is not known here, as it was written.
    #[serde(untagged)]
    Unknown(Value),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunOutcome {
    /// The model answered without calling a tool.
    Completed,
    /// It failed.
    Failed {
        /// How, in words.
        error: String,
    },
    /// It was cancelled.
    Cancelled,
    /// An outcome that is not known here, as it was written.
    #[serde(untagged)]
    Unknown(Value),
}

/// A BLAKE3 hash; hex as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecordHash([u8; 32]);

impl From<RecordHash> for String {
    fn from(hash: RecordHash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for RecordHash {
    type Error = blake3::HexError;

    fn try_from(hex: String) -> Result<Self, Self::Error> {
        blake3::Hash::from_hex(hex).map(|hash| Self(*hash.as_bytes()))
    }
}

impl fmt::Display for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Record {
    /// Makes the record that follows `previous` (`None`: the first of its run).
    #[must_use]
    pub fn following(previous: Option<&Self>, entry: Entry) -> Self {
        let mut record = Self {
            format: FORMAT_VERSION,
            seq: Seq(previous.map_or(0, |record| record.seq.0) + 1),
            time: entry.time,
            body: entry.body,
            previous: previous.map_or_else(RecordHash::default, |record| record.hash),
            hash: RecordHash::default(),
        };
        record.hash = record.compute_hash();
        record
    }

    fn compute_hash(&self) -> RecordHash {
        #[derive(Serialize)]
        struct Hashed<'a> {
            format: u32,
            seq: Seq,
            time: Timestamp,
            body: &'a RecordBody,
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.previous.0);
        let hashed =
            Hashed { format: self.format, seq: self.seq, time: self.time, body: &self.body };
        // Bodies are made of strings, numbers and JSON values, none of which can fail to serialise; a hasher cannot fail
        // to take them. Were that to change, the hash would not fit and the record would read as corrupt.
        let _ = serde_json::to_writer(&mut hasher, &hashed);
        RecordHash(*hasher.finalize().as_bytes())
    }
}

/// Returns the BLAKE3 hash of some content in hex, as records hold it.
#[must_use]
pub fn content_hash(content: &[u8]) -> String {
    blake3::hash(content).to_hex().to_string()
}

/// Checks that records follow each other without a gap and that every hash fits.
///
/// # Errors
///
/// [`JournalError::Corrupt`] or [`JournalError::NewerFormat`] for the first record that does not fit.
pub fn verify_chain(
    run: &RunId,
    previous: Option<&Record>,
    records: &[Record],
) -> Result<(), JournalError> {
    let mut previous = previous;
    for record in records {
        let corrupt = |detail: &str| JournalError::Corrupt {
            run: run.clone(),
            seq: record.seq,
            detail: detail.to_owned(),
        };
        if record.format > FORMAT_VERSION {
            return Err(JournalError::NewerFormat {
                run: run.clone(),
                found: record.format,
                supported: FORMAT_VERSION,
            });
        }
        if record.seq.0 != previous.map_or(0, |record| record.seq.0) + 1 {
            return Err(corrupt("its number does not follow the one before"));
        }
        if record.previous != previous.map_or_else(RecordHash::default, |record| record.hash) {
            return Err(corrupt("it does not name the hash of the record before"));
        }
        if record.hash != record.compute_hash() {
            return Err(corrupt("its hash does not fit its content"));
        }
        previous = Some(record);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        for turn in 1..4 {
            let entry = Entry {
                time: Timestamp(u64::from(turn)),
                body: RecordBody::ModelRequested { turn, items: 1 },
            };
            records.push(Record::following(records.last(), entry));
        }
        records
    }

    #[test]
    fn a_changed_record_breaks_the_chain() {
        let run = RunId::new("r");
        let check = |change: fn(&mut Vec<Record>), expect: &str| {
            let mut records = chain();
            change(&mut records);
            let got = verify_chain(&run, None, &records)
                .map_or_else(|error| error.to_string(), |()| "ok".into());
            assert_eq!(got, expect);
        };
        check(|_| {}, "ok");
        check(
            |r| r[1].time = Timestamp(9),
            "record Seq(2) of run r is corrupt: its hash does not fit its content",
        );
        check(
            |r| {
                r.remove(1);
            },
            "record Seq(3) of run r is corrupt: its number does not follow the one before",
        );
        check(
            |r| r[2].previous = RecordHash::default(),
            "record Seq(3) of run r is corrupt: it does not name the hash of the record before",
        );
        check(|r| r[0].format = 7, "run r is in journal format 7; this release reads up to 1");
    }

    #[test]
    fn format_1_stays_readable() {
        // Written by the first release; changing what it takes to read this breaks journals in the field.
        const LINE: &str = r#"{"format":1,"seq":1,"time":1,"body":{"kind":"model_requested","turn":1,"items":1},"previous":"0000000000000000000000000000000000000000000000000000000000000000","hash":"HASH"}"#;
        let first = &chain()[0];
        let line = LINE.replace("HASH", &first.hash.to_string());
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), *first);
        assert_eq!(serde_json::to_string(first).unwrap(), line);
    }

    #[test]
    fn unknown_records_round_trip() {
        let body: RecordBody = serde_json::from_str(r#"{"kind":"time_travelled","by":3}"#).unwrap();
        assert!(matches!(body, RecordBody::Unknown(_)));
        assert_eq!(serde_json::to_string(&body).unwrap(), r#"{"by":3,"kind":"time_travelled"}"#);
    }
}
