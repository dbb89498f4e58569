//! Copies of runs as JSON Lines, which anybody can check without the store that they came from.
//!
//! ```text
//! {"cofferdam_journal":1,"run":"01k…"}                      what it is, and of which run
//! {"format":2,"seq":1,"time":…,"body":{…},"previous":"…","hash":"…"}      its records, each on a line, as they were written
//! {"end":{"records":1,"head":"…"}}                           how many there are, and the hash of the last
//! ```
//!
//! [`export`] writes one. [`Import`] reads one line by line and verifies each record; a copy that was cut off lacks its last
//! line and is refused at the end. Both need memory for one record at a time. The rules of the hashes are in
//! [`chain`](crate::chain): a program in any language can check them with BLAKE3 and a JSON parser that tells where a value
//! begins and ends.

use std::io::{self, BufRead, Read as _};

use cofferdam_core::RunId;
use futures::{StreamExt as _, stream, stream::BoxStream};
use serde::{Deserialize, Serialize};

use crate::{Chain, Journal, JournalError, MAX_RECORD_BYTES, Record, RecordHash, Seq};

/// The version of the lines around the records.
const VERSION: u32 = 1;

/// Most bytes of a line: a record, and its numbers and hashes.
const MAX_LINE_BYTES: usize = MAX_RECORD_BYTES + 1024;

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    cofferdam_journal: u32,
    run: RunId,
}

/// The last line.
#[derive(Serialize, Deserialize)]
struct End {
    end: Totals,
}

#[derive(Serialize, Deserialize)]
struct Totals {
    records: Seq,
    head: Option<RecordHash>,
}

/// Returns the lines of a copy of a run, without their ends. A run that is not there has a copy of no records.
///
/// # Errors
///
/// The stream ends with the error of [`Journal::read`], and then has no last line, so that it does not pass for whole.
pub fn export(
    journal: &dyn Journal,
    run: &RunId,
) -> BoxStream<'static, Result<String, JournalError>> {
    let head = line(&Head { cofferdam_journal: VERSION, run: run.clone() });
    let start = Some((journal.read(run, Seq(1)), Totals { records: Seq(0), head: None }));
    let rest = stream::unfold(start, async |state| {
        let (mut records, totals) = state?;
        match records.next().await {
            Some(Ok(record)) => {
                let totals = Totals { records: record.seq, head: Some(record.hash) };
                Some((line(&record), Some((records, totals))))
            }
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((line(&End { end: totals }), None)),
        }
    });
    stream::iter([head]).chain(rest).boxed()
}

fn line(value: &impl Serialize) -> Result<String, JournalError> {
    serde_json::to_string(value)
        .map_err(|error| JournalError::store("write a line of a copy", error))
}

/// A copy that is being read, a line at a time.
#[derive(Debug, Default)]
pub struct Import {
    lines: u64,
    chain: Option<Chain>,
    run: Option<RunId>,
    ended: bool,
}

/// A copy that was read to its end, and is genuine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// The run.
    pub run: RunId,
    /// How many records it has.
    pub records: Seq,
    /// The hash of the last. Whoever kept that of the original can compare.
    pub head: Option<RecordHash>,
}

impl Import {
    /// Begins with the first line.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the run, once the first line was read.
    #[must_use]
    pub fn run(&self) -> Option<&RunId> {
        self.run.as_ref()
    }

    /// Takes the next line, without its end, and returns the record in it; `None` for the first and the last line.
    ///
    /// # Errors
    ///
    /// [`JournalError::Import`] for a line that is not what it should be, and the errors of [`Chain::check`] for a record that
    /// does not fit. What was returned before is genuine.
    pub fn line(&mut self, line: &str) -> Result<Option<Record>, JournalError> {
        self.lines += 1;
        if self.ended {
            return Err(self.refusal("there is more after its end"));
        }
        let Some(chain) = &mut self.chain else {
            let Head { cofferdam_journal, run } = serde_json::from_str(line)
                .map_err(|error| self.refusal(format!("it is no copy of a run: {error}")))?;
            if cofferdam_journal != VERSION {
                let found = format!("it is of version {cofferdam_journal}, not {VERSION}");
                return Err(self.refusal(found));
            }
            self.chain = Some(Chain::new(run.clone()));
            self.run = Some(run);
            return Ok(None);
        };
        let no_record = match serde_json::from_str::<Record>(line) {
            Ok(record) => {
                chain.check(&record)?;
                return Ok(Some(record));
            }
            Err(error) => error,
        };
        let (records, hash) = (chain.last(), chain.hash());
        match serde_json::from_str(line) {
            Ok(End { end }) if end.records == records && end.head == hash => {
                self.ended = true;
                Ok(None)
            }
            Ok(End { end }) => Err(self.refusal(format!(
                "it says that there are {} records, and {records} came, or their last hash is another",
                end.records
            ))),
            Err(_) => Err(self.refusal(format!("it is no record: {no_record}"))),
        }
    }

    /// Tells what was read, if that was all.
    ///
    /// # Errors
    ///
    /// [`JournalError::Import`] if the last line has not come.
    pub fn finish(self) -> Result<Imported, JournalError> {
        match (self.ended, self.run, self.chain) {
            (true, Some(run), Some(chain)) => {
                Ok(Imported { run, records: chain.last(), head: chain.hash() })
            }
            _ => Err(JournalError::Import {
                line: self.lines + 1,
                detail: "its last line is missing, so records may be, too".to_owned(),
            }),
        }
    }

    fn refusal(&self, detail: impl Into<String>) -> JournalError {
        JournalError::Import { line: self.lines, detail: detail.into() }
    }
}

/// Checks a whole copy.
///
/// # Errors
///
/// As [`Import::line`] and [`Import::finish`]; [`JournalError::Store`] if it cannot be read.
pub fn verify(copy: impl BufRead) -> Result<Imported, JournalError> {
    let mut import = Import::new();
    for_each_line(copy, |line| import.line(line).map(drop))?;
    import.finish()
}

/// Calls a function with each line of a copy; a line that is too long is an error, not a lot of memory.
fn for_each_line(
    mut copy: impl BufRead,
    mut each: impl FnMut(&str) -> Result<(), JournalError>,
) -> Result<(), JournalError> {
    let failed = |error: io::Error| JournalError::store("read a copy", error);
    let (mut line, mut number) = (Vec::new(), 0);
    loop {
        line.clear();
        number += 1;
        let most = MAX_LINE_BYTES as u64 + 1;
        if copy.by_ref().take(most).read_until(b'\n', &mut line).map_err(failed)? == 0 {
            return Ok(());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let refusal =
            |detail: &str| JournalError::Import { line: number, detail: detail.to_owned() };
        if line.len() > MAX_LINE_BYTES {
            return Err(refusal("it is longer than any record"));
        }
        let text = str::from_utf8(&line).map_err(|_| refusal("it is not UTF-8"))?;
        each(text)?;
    }
}
