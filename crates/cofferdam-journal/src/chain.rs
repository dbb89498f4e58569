//! [`Record`]: one line of a journal, chained to the one before it by hash.
//!
//! The hash of a record is the BLAKE3 hash of the previous hash (32 bytes) followed by the compact JSON object of its
//! `format`, `seq`, `time` and `body`, in this order, the body as it was written. The hash before the first record is 32 zero
//! bytes in format 1; in format 2 it is [`RecordHash::of_run`], so that no run's records pass for those of another.
//!
//! A record keeps the text of its body beside what the text says. So a record of a newer release, with kinds or fields that
//! are not known here, is still read, verified and copied without a change.
//!
//! What a chain cannot tell is whether records are missing at its *end*: for that, somebody must have kept the last hash.

use std::{fmt, sync::Arc};

use cofferdam_core::{RunId, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::value::RawValue;

use crate::{JournalError, RecordBody, Seq};

/// The journal format that this release writes. It reads this one and all before it.
pub const FORMAT_VERSION: u32 = 2;

/// Most bytes of one record's body: 64 MiB.
pub const MAX_RECORD_BYTES: usize = 64 << 20;

/// What is to be appended: a record before it has its number and hash.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// When it was written.
    pub time: Timestamp,
    /// What it says.
    pub body: RecordBody,
}

impl Entry {
    /// Returns the body as a journal keeps it.
    ///
    /// # Errors
    ///
    /// [`JournalError::TooLarge`] if it is over [`MAX_RECORD_BYTES`], [`JournalError::Store`] if it is no JSON.
    pub fn text(&self, run: &RunId) -> Result<String, JournalError> {
        let text = serde_json::to_string(&self.body)
            .map_err(|error| JournalError::store("write a record as JSON", error))?;
        if text.len() > MAX_RECORD_BYTES {
            let (bytes, limit) = (text.len() as u64, MAX_RECORD_BYTES as u64);
            return Err(JournalError::TooLarge { run: run.clone(), bytes, limit });
        }
        Ok(text)
    }
}

/// One line of a journal.
#[derive(Debug, Clone, PartialEq)]
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
    /// The body as it was written, which is what is hashed.
    text: Arc<str>,
}

impl Record {
    /// Makes the record that follows `previous` in a run (`None`: its first).
    ///
    /// # Errors
    ///
    /// As [`Entry::text`].
    pub fn following(
        run: &RunId,
        previous: Option<&Self>,
        entry: Entry,
    ) -> Result<Self, JournalError> {
        let text = entry.text(run)?;
        let before = previous
            .map_or_else(|| RecordHash::before_first(FORMAT_VERSION, run), |record| record.hash);
        let mut record = Self {
            format: FORMAT_VERSION,
            seq: Seq(previous.map_or(0, |record| record.seq.0) + 1),
            time: entry.time,
            body: entry.body,
            previous: before,
            hash: RecordHash::default(),
            text: text.into(),
        };
        record.hash = record.compute_hash();
        Ok(record)
    }

    /// Puts a record together from what a store has kept of it. Whether it is genuine, [`Chain::check`] tells.
    ///
    /// # Errors
    ///
    /// [`JournalError::Corrupt`] if the text of the body is not JSON.
    pub fn from_parts(run: &RunId, parts: RecordParts) -> Result<Self, JournalError> {
        let RecordParts { format, seq, time, text, previous, hash } = parts;
        let body = serde_json::from_str(&text).map_err(|error| JournalError::Corrupt {
            run: run.clone(),
            seq,
            detail: format!("its body cannot be read as JSON: {error}"),
        })?;
        Ok(Self { format, seq, time, body, previous, hash, text: text.into() })
    }

    /// Returns the body as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    fn compute_hash(&self) -> RecordHash {
        RecordHash::of_record(self.previous, self.format, self.seq, self.time, &self.text)
    }
}

/// What a store keeps of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordParts {
    /// The format of the release that wrote it.
    pub format: u32,
    /// Its number in the run.
    pub seq: Seq,
    /// When it was written.
    pub time: Timestamp,
    /// The body, as [`Entry::text`] gave it.
    pub text: String,
    /// The hash of the record before it.
    pub previous: RecordHash,
    /// Its own hash.
    pub hash: RecordHash,
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line<'a> {
            format: u32,
            seq: Seq,
            time: Timestamp,
            body: &'a RawValue,
            previous: RecordHash,
            hash: RecordHash,
        }
        // The text was made or read as one JSON value, so this does not fail.
        let body = serde_json::from_str(&self.text).map_err(serde::ser::Error::custom)?;
        let Self { format, seq, time, previous, hash, .. } = *self;
        Line { format, seq, time, body, previous, hash }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Line {
            format: u32,
            seq: Seq,
            time: Timestamp,
            body: Box<RawValue>,
            previous: RecordHash,
            hash: RecordHash,
        }
        let Line { format, seq, time, body, previous, hash } = Line::deserialize(deserializer)?;
        let text: Arc<str> = body.get().into();
        if text.len() > MAX_RECORD_BYTES {
            return Err(D::Error::custom(format!("a body of {} bytes is too long", text.len())));
        }
        let body = serde_json::from_str(&text).map_err(D::Error::custom)?;
        Ok(Self { format, seq, time, body, previous, hash, text })
    }
}

/// A BLAKE3 hash; hex as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecordHash([u8; 32]);

impl RecordHash {
    /// Returns the hash that stands before the first record of a run, from format 2 on.
    #[must_use]
    pub fn of_run(run: &RunId) -> Self {
        Self(blake3::derive_key(
            "cofferdam journal 2: before the first record",
            run.as_str().as_bytes(),
        ))
    }

    /// Returns the hash that stands before the first record of a run, if that is of this format.
    #[must_use]
    pub fn before_first(format: u32, run: &RunId) -> Self {
        if format < 2 { Self::default() } else { Self::of_run(run) }
    }

    /// Returns the hash of a record, from the hash before it and the text of its body.
    #[must_use]
    pub fn of_record(previous: Self, format: u32, seq: Seq, time: Timestamp, text: &str) -> Self {
        let Seq(seq) = seq;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&previous.0);
        let before = format!(r#"{{"format":{format},"seq":{seq},"time":{},"body":"#, time.0);
        hasher.update(before.as_bytes()).update(text.as_bytes()).update(b"}");
        Self(*hasher.finalize().as_bytes())
    }
}

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

/// Returns the BLAKE3 hash of some content in hex, as records hold it.
#[must_use]
pub fn content_hash(content: &[u8]) -> String {
    blake3::hash(content).to_hex().to_string()
}

/// Checks records one by one, so that a chain of any length is verified in little memory.
#[derive(Debug, Clone)]
pub struct Chain {
    run: RunId,
    last: Seq,
    /// `None`: not known before the first record tells its format.
    hash: Option<RecordHash>,
}

impl Chain {
    /// Makes a chain at its beginning.
    #[must_use]
    pub fn new(run: RunId) -> Self {
        Self { run, last: Seq(0), hash: None }
    }

    /// Makes a chain that goes on after a record that is taken to be genuine.
    #[must_use]
    pub fn after(run: RunId, last: Seq, hash: RecordHash) -> Self {
        Self { run, last, hash: Some(hash) }
    }

    /// Returns the number of the last record that was checked.
    #[must_use]
    pub fn last(&self) -> Seq {
        self.last
    }

    /// Returns the hash of the last record that was checked; `None` before the first.
    #[must_use]
    pub fn hash(&self) -> Option<RecordHash> {
        self.hash
    }

    /// Checks the next record.
    ///
    /// # Errors
    ///
    /// [`JournalError::Corrupt`] or [`JournalError::NewerFormat`] if it does not fit; the chain stays where it was.
    pub fn check(&mut self, record: &Record) -> Result<(), JournalError> {
        let corrupt = |detail: &str| JournalError::Corrupt {
            run: self.run.clone(),
            seq: record.seq,
            detail: detail.to_owned(),
        };
        if record.format > FORMAT_VERSION {
            return Err(JournalError::NewerFormat {
                run: self.run.clone(),
                found: record.format,
                supported: FORMAT_VERSION,
            });
        }
        if Some(record.seq.0) != self.last.0.checked_add(1) {
            return Err(corrupt("its number does not follow the one before"));
        }
        let before =
            self.hash.unwrap_or_else(|| RecordHash::before_first(record.format, &self.run));
        if record.previous != before {
            return Err(corrupt("it does not name the hash of the record before"));
        }
        if record.hash != record.compute_hash() {
            return Err(corrupt("its hash does not fit its content"));
        }
        self.last = record.seq;
        self.hash = Some(record.hash);
        Ok(())
    }
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
    let mut chain = previous.map_or_else(
        || Chain::new(run.clone()),
        |record| Chain::after(run.clone(), record.seq, record.hash),
    );
    records.iter().try_for_each(|record| chain.check(record))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(turn: u32) -> Entry {
        Entry {
            time: Timestamp(u64::from(turn)),
            body: RecordBody::ModelRequested { turn, items: 1 },
        }
    }

    fn chain(run: &RunId) -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        for turn in 1..4 {
            records.push(Record::following(run, records.last(), entry(turn)).unwrap());
        }
        records
    }

    #[test]
    fn a_changed_record_breaks_the_chain() {
        let run = RunId::new("r");
        let check = |change: fn(&mut Vec<Record>), expect: &str| {
            let mut records = chain(&run);
            change(&mut records);
            let got = verify_chain(&run, None, &records)
                .map_or_else(|error| error.to_string(), |()| "ok".into());
            assert_eq!(got, expect);
        };
        check(|_| {}, "ok");
        check(
            |r| r[1].time = Timestamp(9),
            "record 2 of run r is corrupt: its hash does not fit its content; restore it from a copy, what is before it is \
             intact",
        );
        check(
            |r| r[1].text = r[1].text.replace(":2", ":3").into(),
            "record 2 of run r is corrupt: its hash does not fit its content; restore it from a copy, what is before it is \
             intact",
        );
        check(
            |r| {
                r.remove(1);
            },
            "record 3 of run r is corrupt: its number does not follow the one before; restore it from a copy, what is before \
             it is intact",
        );
        check(
            |r| r[2].previous = RecordHash::default(),
            "record 3 of run r is corrupt: it does not name the hash of the record before; restore it from a copy, what is \
             before it is intact",
        );
        check(
            |r| r[0].format = 7,
            "run r has records of journal format 7, and this release reads up to 2; use a newer release",
        );
        check(
            |r| *r = chain(&RunId::new("another")),
            "record 1 of run r is corrupt: it does not name the hash of the record before; restore it from a copy, what is \
             before it is intact",
        );
    }

    #[test]
    fn what_is_not_known_here_keeps_its_text_and_its_hash() {
        let run = RunId::new("r");
        let check = |body: &str| {
            let previous = RecordHash::of_run(&run);
            let hash = RecordHash::of_record(previous, 2, Seq(1), Timestamp(1), body);
            let line = format!(
                r#"{{"format":2,"seq":1,"time":1,"body":{body},"previous":"{previous}","hash":"{hash}"}}"#
            );
            let record: Record = serde_json::from_str(&line).unwrap();
            verify_chain(&run, None, std::slice::from_ref(&record)).unwrap();
            assert_eq!(serde_json::to_string(&record).unwrap(), line);
        };
        check(r#"{"kind":"time_travelled","by":3,"and":{"z":1.50,"a":1e2}}"#);
        check(r#"{"kind":"model_requested","turn":1,"items":1,"added_later":true}"#);
        check(r#"["no object"]"#);
    }

    #[test]
    fn a_body_has_a_bound() {
        let run = RunId::new("r");
        let long = "x".repeat(MAX_RECORD_BYTES);
        let body = RecordBody::Unknown(long.into());
        let error = Record::following(&run, None, Entry { time: Timestamp(0), body }).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a record of run r has 67108866 bytes, and a record may have 67108864; keep large content outside of the journal \
             and record its hash"
        );
    }
}
