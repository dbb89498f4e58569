//! [`Tables`]: the operations of a journal on its tables, each a part of a transaction that the caller opens and ends.
//!
//! An operation looks first and writes last, so a refusal has changed nothing, and others in its transaction go on.

use std::{cell::RefCell, collections::HashSet, sync::Arc, time::Duration};

use cofferdam_core::{Clock, RunId, Timestamp};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};

use super::{
    ends::{End, Ends},
    failure::{Failure, Location},
    holds::Holds,
};
use crate::{
    Chain, Entry, Epoch, FORMAT_VERSION, Holder, JournalError, Lease, Record, RecordHash,
    RunFilter, RunSummary, Seq, lease::expiry,
};

/// Runs that a listing looks at in one query.
const LISTED_AT_ONCE: usize = 256;

/// One connection, and what operations need beside it.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) connection: Connection,
    pub(super) location: Location,
    clock: Arc<dyn Clock>,
    holds: Holds,
    ends: RefCell<Ends>,
}

/// An entry in the form in which it is stored.
#[derive(Debug)]
pub(super) struct Prepared {
    time: Timestamp,
    text: String,
}

impl Prepared {
    /// Makes what is stored of each entry; the refusal of one that is too large is for the append to give, in its turn.
    pub(super) fn all(run: &RunId, entries: &[Entry]) -> Vec<Result<Self, JournalError>> {
        let prepare = |entry: &Entry| Ok(Self { time: entry.time, text: entry.text(run)? });
        entries.iter().map(prepare).collect()
    }

    pub(super) fn bytes(&self) -> usize {
        self.text.len()
    }
}

/// A row of `runs`.
struct RunRow {
    epoch: Epoch,
    owner: Option<String>,
    expires: Timestamp,
    /// How many records there are at least.
    records: Seq,
}

/// What is asked of a run's last record.
struct Last {
    seq: Seq,
    hash: Option<RecordHash>,
}

impl Tables {
    pub(super) fn new(
        connection: Connection,
        location: Location,
        clock: Arc<dyn Clock>,
        holds: Holds,
    ) -> Self {
        Self { connection, location, clock, holds, ends: RefCell::default() }
    }

    pub(super) fn statement(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.connection.prepare_cached(sql)
    }

    /// Forgets what this connection knows without looking, because a transaction was rolled back.
    pub(super) fn forget(&self) {
        self.ends.borrow_mut().forget_all();
    }

    /// Removes what holders that are gone have left beside the database.
    pub(super) fn sweep(&self) -> Result<(), JournalError> {
        let used = || -> rusqlite::Result<HashSet<u64>> {
            let mut used = self.statement("SELECT epoch FROM runs WHERE owner IS NOT NULL")?;
            used.query_map([], |row| row.get(0))?.collect()
        };
        let failed = |error| self.location.sqlite("look at its leases", error);
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
        let swept = used()
            .map_err(failed)
            .and_then(|used| self.holds.sweep(&used).map_err(|error| self.io(error)));
        self.connection.execute_batch("ROLLBACK").map_err(failed)?;
        swept
    }

    pub(super) fn lease(
        &self,
        run: &RunId,
        owner: &str,
        duration: Duration,
    ) -> Result<Lease, Failure> {
        let now = self.clock.now();
        self.ends.borrow_mut().forget(run);
        self.refuse_if_leased(run, now)?;
        let row = self.row(run)?;
        let last = self.last(run, row.as_ref())?;
        if let Some(former) = row.filter(|row| row.owner.is_some())
            && !self.holds.is_held(former.epoch).map_err(|error| self.io(error))?
        {
            self.holds.forget(former.epoch);
        }
        let epoch = Epoch(self.newest_epoch()?.0 + 1);
        let hold = self.holds.take(epoch).map_err(|error| self.io(error))?;
        let expires = expiry(now, duration);
        self.set_newest_epoch(epoch)?;
        self.statement(
            "INSERT INTO runs (run, epoch, owner, expires, records) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT (run) DO UPDATE SET epoch = ?2, owner = ?3, expires = ?4, records = ?5",
        )?
        .execute(params![run.as_str(), epoch.0, owner, stored(expires), last.seq.0])?;
        Ok(Lease::new(run.clone(), epoch, expires, last.seq).with_hold(Arc::new(hold)))
    }

    pub(super) fn renew(&self, lease: &Lease, duration: Duration) -> Result<Lease, Failure> {
        self.ends.borrow_mut().forget(&lease.run);
        let row = self.held(lease)?;
        let last = self.last(&lease.run, Some(&row))?;
        let expires = expiry(self.clock.now(), duration);
        self.statement("UPDATE runs SET expires = ?2, records = ?3 WHERE run = ?1")?
            .execute(params![lease.run.as_str(), stored(expires), last.seq.0])?;
        Ok(lease.extended(expires, last.seq))
    }

    pub(super) fn append(
        &self,
        lease: &Lease,
        expected: Seq,
        entries: &[Result<Prepared, JournalError>],
    ) -> Result<Seq, Failure> {
        let mut end = self.writable(lease, expected)?;
        if let Some(error) = entries.iter().find_map(|entry| entry.as_ref().err()) {
            return Err(error.clone().into());
        }
        for Prepared { time, text } in entries.iter().flatten() {
            let previous = end.hash;
            let previous =
                previous.unwrap_or_else(|| RecordHash::before_first(FORMAT_VERSION, &lease.run));
            end.seq.0 += 1;
            let hash = RecordHash::of_record(previous, FORMAT_VERSION, end.seq, *time, text);
            self.insert(&lease.run, (end.seq, *time, FORMAT_VERSION), text, hash)?;
            end.hash = Some(hash);
        }
        self.ends.borrow_mut().keep(&lease.run, end);
        Ok(end.seq)
    }

    /// Appends records of a copy as they are.
    pub(super) fn restore(&self, lease: &Lease, records: &[Record]) -> Result<Seq, Failure> {
        let Some(first) = records.first() else {
            let row = self.held(lease)?;
            return Ok(self.last(&lease.run, Some(&row))?.seq);
        };
        let before = Seq(first.seq.0.saturating_sub(1));
        let mut chain = match self.writable(lease, before)? {
            End { seq, hash: Some(hash), .. } => Chain::after(lease.run.clone(), seq, hash),
            End { hash: None, .. } => Chain::new(lease.run.clone()),
        };
        self.ends.borrow_mut().forget(&lease.run);
        records.iter().try_for_each(|record| chain.check(record))?;
        for record in records {
            let place = (record.seq, record.time, record.format);
            self.insert(&lease.run, place, record.text(), record.hash)?;
        }
        Ok(chain.last())
    }

    /// Returns the end of a run that may be appended to under a lease.
    fn writable(&self, lease: &Lease, expected: Seq) -> Result<End, Failure> {
        let now = self.clock.now();
        let version = self.statement("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if let Some(end) = self.ends.borrow_mut().open(version, lease, expected, now) {
            return Ok(end);
        }
        let row = self.held(lease)?;
        if row.expires <= now {
            let (run, held, expired) = (lease.run.clone(), lease.epoch, row.expires);
            return Err(JournalError::Expired { run, held, expired }.into());
        }
        let last = self.last(&lease.run, Some(&row))?;
        if expected != last.seq {
            let (run, actual) = (lease.run.clone(), last.seq);
            return Err(JournalError::Conflict { run, expected, actual }.into());
        }
        let (epoch, expires) = (row.epoch, row.expires);
        Ok(End { epoch, expires, seq: last.seq, hash: last.hash })
    }

    fn insert(
        &self,
        run: &RunId,
        (seq, time, format): (Seq, Timestamp, u32),
        text: &str,
        hash: RecordHash,
    ) -> rusqlite::Result<()> {
        self.statement(
            "INSERT INTO records (run, seq, time, format, body, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![run.as_str(), seq.0, stored(time), format, text, hash.to_string()])
        .map(drop)
    }

    pub(super) fn release(&self, lease: &Lease) -> Result<(), Failure> {
        self.ends.borrow_mut().forget(&lease.run);
        let row = match self.held(lease) {
            Err(Failure::Refused(JournalError::Fenced { .. })) => return Ok(()),
            held => held?,
        };
        // A run whose end is damaged can be given back all the same.
        let records = self.last(&lease.run, Some(&row)).map_or(row.records, |last| last.seq);
        // A number that nobody holds, so that the former holder is told apart.
        let epoch = Epoch(self.newest_epoch()?.0 + 1);
        self.set_newest_epoch(epoch)?;
        self.statement(
            "UPDATE runs SET epoch = ?2, owner = NULL, expires = 0, records = ?3 WHERE run = ?1",
        )?
        .execute(params![lease.run.as_str(), epoch.0, records.0])?;
        Ok(())
    }

    pub(super) fn remove(&self, run: &RunId) -> Result<(), Failure> {
        self.refuse_if_leased(run, self.clock.now())?;
        self.ends.borrow_mut().forget(run);
        self.statement("DELETE FROM records WHERE run = ?1")?.execute([run.as_str()])?;
        self.statement("DELETE FROM runs WHERE run = ?1")?.execute([run.as_str()])?;
        Ok(())
    }

    pub(super) fn runs(&self, filter: &RunFilter) -> Result<Vec<RunSummary>, Failure> {
        let now = self.clock.now();
        let limit = filter.bounded_limit();
        let mut after = filter.after.clone();
        let mut found = Vec::new();
        loop {
            let listed = self.listed_after(after.as_ref())?;
            let all = listed.len() < LISTED_AT_ONCE;
            after = listed.last().map(|(run, _)| run.clone());
            for (run, row) in listed {
                if found.len() == limit {
                    return Ok(found);
                }
                let summary = self.summary(run, row, now)?;
                if filter.allows(summary.status) {
                    found.push(summary);
                }
            }
            if all {
                return Ok(found);
            }
        }
    }

    fn listed_after(&self, after: Option<&RunId>) -> rusqlite::Result<Vec<(RunId, RunRow)>> {
        self.statement(
            "SELECT run, epoch, owner, expires, records FROM runs WHERE ?1 IS NULL OR run > ?1 ORDER BY run \
             LIMIT ?2",
        )?
        .query_map(params![after.map(RunId::as_str), LISTED_AT_ONCE], |row| {
            let run: String = row.get(0)?;
            Ok((RunId::new(run), RunRow::of(row, 1)?))
        })?
        .collect()
    }

    fn summary(&self, run: RunId, row: RunRow, now: Timestamp) -> Result<RunSummary, Failure> {
        let first: Option<(i64, String)> = self
            .statement("SELECT time, body FROM records WHERE run = ?1 AND seq = 1")?
            .query_row([run.as_str()], |row| Ok((row.get(0)?, lossy(row, 1)?)))
            .optional()?;
        let last: Option<(u64, i64, String, String)> = self
            .statement(
                "SELECT seq, time, hash, body FROM records WHERE run = ?1 ORDER BY seq DESC LIMIT 1",
            )?
            .query_row([run.as_str()], |row| {
                Ok((row.get(0)?, row.get(1)?, lossy(row, 2)?, lossy(row, 3)?))
            })
            .optional()?;
        let live = self.lives(&row, now)?;
        let RunRow { epoch, owner, expires, .. } = row;
        let holder = owner.map(|owner| Holder::new(owner, epoch, expires, live));
        let first = first.as_ref().map(|(time, body)| (Timestamp(time.cast_unsigned()), &**body));
        let last = last.as_ref().map(|(seq, time, hash, body)| {
            let hash = RecordHash::try_from(hash.clone()).ok();
            (Seq(*seq), Timestamp(time.cast_unsigned()), hash, &**body)
        });
        Ok(RunSummary::of(run, first, last, holder))
    }

    fn row(&self, run: &RunId) -> rusqlite::Result<Option<RunRow>> {
        self.statement("SELECT epoch, owner, expires, records FROM runs WHERE run = ?1")?
            .query_row([run.as_str()], |row| RunRow::of(row, 0))
            .optional()
    }

    /// Returns the row of a lease's run, if the lease is the newest on it.
    fn held(&self, lease: &Lease) -> Result<RunRow, Failure> {
        match self.row(&lease.run)? {
            Some(row) if row.epoch == lease.epoch && row.owner.is_some() => Ok(row),
            _ => {
                let (run, held, newest) = (lease.run.clone(), lease.epoch, self.newest_epoch()?);
                Err(JournalError::Fenced { run, held, newest }.into())
            }
        }
    }

    fn lives(&self, row: &RunRow, now: Timestamp) -> Result<bool, JournalError> {
        Ok(row.owner.is_some()
            && row.expires > now
            && self.holds.is_held(row.epoch).map_err(|error| self.io(error))?)
    }

    fn refuse_if_leased(&self, run: &RunId, now: Timestamp) -> Result<(), Failure> {
        let Some(row) = self.row(run)? else { return Ok(()) };
        if self.lives(&row, now)? {
            let (run, expires) = (run.clone(), row.expires);
            let owner = row.owner.unwrap_or_default();
            return Err(JournalError::Leased { run, owner, expires }.into());
        }
        Ok(())
    }

    /// Returns what is at the end of a run that this release may go on with.
    fn last(&self, run: &RunId, row: Option<&RunRow>) -> Result<Last, Failure> {
        let last: Option<(u64, u32, String)> = self
            .statement(
                "SELECT seq, format, hash FROM records WHERE run = ?1 ORDER BY seq DESC LIMIT 1",
            )?
            .query_row([run.as_str()], |row| Ok((row.get(0)?, row.get(1)?, lossy(row, 2)?)))
            .optional()?;
        let seq = Seq(last.as_ref().map_or(0, |(seq, ..)| *seq));
        Self::refuse_if_cut(run, seq, row)?;
        let Some((_, found, hash)) = last else { return Ok(Last { seq, hash: None }) };
        let run = run.clone();
        if found > FORMAT_VERSION {
            let supported = FORMAT_VERSION;
            return Err(JournalError::NewerFormat { run, found, supported }.into());
        }
        let hash = RecordHash::try_from(hash).map_err(|error| JournalError::Corrupt {
            run,
            seq,
            detail: format!("its hash is no hash: {error}"),
        })?;
        Ok(Last { seq, hash: Some(hash) })
    }

    /// Refuses a run that has fewer records than it had.
    fn refuse_if_cut(run: &RunId, last: Seq, row: Option<&RunRow>) -> Result<(), JournalError> {
        match row {
            Some(row) if last < row.records => Err(JournalError::Corrupt {
                run: run.clone(),
                seq: Seq(last.0 + 1),
                detail: format!("it is missing, of {} that there were", row.records),
            }),
            _ => Ok(()),
        }
    }

    /// Checks what was read of a run up to its end, which is not its beginning.
    pub(super) fn check_end(&self, run: &RunId, last: Seq) -> Result<(), Failure> {
        let row = self.row(run)?;
        if row.is_none() && last > Seq(0) {
            return Err(JournalError::store("read a run", "it was removed meanwhile").into());
        }
        Ok(Self::refuse_if_cut(run, last, row.as_ref())?)
    }

    fn newest_epoch(&self) -> rusqlite::Result<Epoch> {
        let epoch =
            self.statement("SELECT epoch FROM newest_epoch")?.query_row([], |row| row.get(0));
        Ok(Epoch(epoch?))
    }

    fn set_newest_epoch(&self, epoch: Epoch) -> rusqlite::Result<()> {
        self.statement("UPDATE newest_epoch SET epoch = ?1")?.execute([epoch.0]).map(drop)
    }

    fn io(&self, error: std::io::Error) -> JournalError {
        self.location.io("use the directory of its leases", error)
    }
}

impl RunRow {
    fn of(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Self> {
        let expires: i64 = row.get(at + 2)?;
        Ok(Self {
            epoch: Epoch(row.get(at)?),
            owner: row.get(at + 1)?,
            expires: Timestamp(expires.cast_unsigned()),
            records: Seq(row.get(at + 3)?),
        })
    }
}

/// SQLite's integers have a sign; a time keeps its bits.
fn stored(time: Timestamp) -> i64 {
    time.0.cast_signed()
}

/// Returns a text, with what is no UTF-8 in it replaced: where it matters, the hash tells.
fn lossy(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<String> {
    Ok(String::from_utf8_lossy(row.get_ref(at)?.as_bytes()?).into_owned())
}
