//! [`Page`]: some records of a run at a time, verified as they are read.

use cofferdam_core::{RunId, Timestamp};
use rusqlite::{OptionalExtension as _, params, types::ValueRef};

use super::{failure::Failure, tables::Tables};
use crate::{Chain, JournalError, Record, RecordHash, RecordParts, Seq};

/// Most records of a page.
const PAGE_RECORDS: usize = 256;

/// Bytes of bodies after which a page ends. It has one record at least, however long that is.
const PAGE_BYTES: usize = 1 << 20;

/// Where a page begins.
#[derive(Debug, Clone)]
pub(super) struct Place {
    run: RunId,
    from: Seq,
    /// The chain up to here; `None` before the first page.
    chain: Option<Chain>,
}

/// What was read.
#[derive(Debug)]
pub(super) struct Page {
    /// Genuine records.
    pub(super) records: Vec<Record>,
    /// Where the next page begins; `None` after the last one.
    pub(super) next: Option<Place>,
    /// Why nothing can be read after these records.
    pub(super) error: Option<JournalError>,
}

impl Place {
    pub(super) fn new(run: RunId, from: Seq) -> Self {
        Self { run, from: Seq(from.0.max(1)), chain: None }
    }
}

impl Tables {
    /// Reads a page, from one state of the database. A damaged place in the middle ends it: what is before is returned with the
    /// error.
    pub(super) fn page(&self, place: &Place) -> Result<Page, Failure> {
        self.connection.execute_batch("BEGIN")?;
        let page = self.page_of_one_state(place);
        // Nothing was written. Should it fail, the next page cannot begin and says so.
        let _ = self.connection.execute_batch("ROLLBACK");
        page
    }

    fn page_of_one_state(&self, place: &Place) -> Result<Page, Failure> {
        let mut page = Page { records: Vec::new(), next: None, error: None };
        let Some(mut chain) = self.chain_before(place)? else { return Ok(page) };
        match self.fill(place, &mut chain, &mut page.records) {
            Ok(true) => {}
            Ok(false) => {
                let from = Seq(chain.last().0.saturating_add(1));
                page.next = Some(Place { run: place.run.clone(), from, chain: Some(chain) });
            }
            Err(Failure::Refused(error)) => page.error = Some(error),
            Err(Failure::Sqlite(error)) => {
                page.error = Some(self.location.sqlite("read a run", error));
            }
        }
        Ok(page)
    }

    /// Returns the chain up to the record before a place; `None` if there is nothing from there on.
    fn chain_before(&self, place: &Place) -> Result<Option<Chain>, Failure> {
        if let Some(chain) = &place.chain {
            return Ok(Some(chain.clone()));
        }
        if place.from == Seq(1) {
            return Ok(Some(Chain::new(place.run.clone())));
        }
        // Numbers above what SQLite can hold are above all that it holds.
        let Ok(before) = i64::try_from(place.from.0 - 1) else { return Ok(None) };
        let hash: Option<Vec<u8>> = self
            .statement("SELECT hash FROM records WHERE run = ?1 AND seq = ?2")?
            .query_row(params![place.run.as_str(), before], |row| {
                Ok(row.get_ref(0)?.as_bytes()?.to_vec())
            })
            .optional()?;
        let Some(hash) = hash else {
            let later: bool = self
                .statement("SELECT EXISTS (SELECT 1 FROM records WHERE run = ?1 AND seq > ?2)")?
                .query_row(params![place.run.as_str(), before], |row| row.get(0))?;
            let missing = || corrupt(place, Seq(place.from.0 - 1), "it is missing");
            return if later { Err(missing().into()) } else { Ok(None) };
        };
        let seq = Seq(place.from.0 - 1);
        let hash = hash_of(&hash).ok_or_else(|| corrupt(place, seq, "its hash is no hash"))?;
        Ok(Some(Chain::after(place.run.clone(), seq, hash)))
    }

    /// Reads records until the page is full (false) or the run ends (true).
    fn fill(
        &self,
        place: &Place,
        chain: &mut Chain,
        records: &mut Vec<Record>,
    ) -> Result<bool, Failure> {
        let mut statement = self.statement(
            "SELECT seq, time, format, hash, body FROM records WHERE run = ?1 AND seq >= ?2 \
             ORDER BY seq LIMIT ?3",
        )?;
        let mut rows = statement.query(params![place.run.as_str(), place.from.0, PAGE_RECORDS])?;
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            let expected = Seq(chain.last().0.saturating_add(1));
            let parts =
                parts(row, chain, &place.run).map_err(|detail| corrupt(place, expected, detail))?;
            bytes += parts.text.len();
            let record = Record::from_parts(&place.run, parts)?;
            chain.check(&record)?;
            records.push(record);
            if records.len() == PAGE_RECORDS || bytes >= PAGE_BYTES {
                return Ok(false);
            }
        }
        self.check_end(&place.run, chain.last())?;
        Ok(true)
    }
}

/// Takes a row apart without trusting it: a damaged database may hold anything.
fn parts(row: &rusqlite::Row<'_>, chain: &Chain, run: &RunId) -> Result<RecordParts, &'static str> {
    let number = |at, what| match row.get_ref(at) {
        Ok(ValueRef::Integer(number)) => Ok(number),
        _ => Err(what),
    };
    let text = |at, what| match row.get_ref(at) {
        Ok(ValueRef::Text(text)) => Ok(text),
        _ => Err(what),
    };
    let seq = number(0, "its number is no number")?;
    let time = number(1, "its time is no number")?;
    let format = number(2, "its format is no number")?;
    let format = u32::try_from(format).map_err(|_| "its format is no version")?;
    let hash = hash_of(text(3, "its hash is no text")?).ok_or("its hash is no hash")?;
    let body = text(4, "its body is no text")?.to_vec();
    Ok(RecordParts {
        format,
        seq: Seq(seq.cast_unsigned()),
        time: Timestamp(time.cast_unsigned()),
        text: String::from_utf8(body).map_err(|_| "its body is not UTF-8")?,
        previous: chain.hash().unwrap_or_else(|| RecordHash::before_first(format, run)),
        hash,
    })
}

fn hash_of(hex: &[u8]) -> Option<RecordHash> {
    RecordHash::try_from(String::from_utf8(hex.to_vec()).ok()?).ok()
}

fn corrupt(place: &Place, seq: Seq, detail: &str) -> JournalError {
    JournalError::Corrupt { run: place.run.clone(), seq, detail: detail.to_owned() }
}
