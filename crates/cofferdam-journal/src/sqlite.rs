//! [`SqliteJournal`]: journals of many runs in one SQLite database, which survive the death of their process and the loss of
//! power.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use cofferdam_core::Clock;
//! # fn open(clock: Arc<dyn Clock>) -> Result<(), cofferdam_journal::JournalError> {
//! use cofferdam_journal::SqliteJournal;
//!
//! let journal = SqliteJournal::open("runs.db", clock)?;
//! # drop(journal);
//! # Ok(())
//! # }
//! ```
//!
//! **Durable** means: when an append returns, its records were flushed to the disk (`journal_mode = WAL`, `synchronous =
//! FULL`). Appends that wait at the same time, of one run or of many, share one transaction and one flush.
//!
//! **Several processes** of one host may have the database open at once. Each append checks its lease and its place in
//! the transaction that writes it.
//!
//! **A dead holder** is known without waiting for its lease to expire. Beside the database `runs.db` is a directory
//! `runs.db-leases` with one empty file for each lease that is held, named by its epoch and locked (`flock`) by its
//! holder. The kernel frees the lock when the holder dies, however it dies. If that directory is lost nothing else
//! is: leases then look as if nobody held them, and who is taken over by mistake is fenced.
//!
//! **For people.** The `application_id` of the database is `0x436f4a6c` ("CoJl"), its `user_version` is [`STORE_VERSION`].
//! It can be read with any tool, also while runs go on:
//!
//! ```sql
//! SELECT * FROM history WHERE run = '…';                     -- number, time, kind, body
//! SELECT run, owner, epoch, expires FROM runs;               -- who drives what; times in milliseconds since 1970
//! SELECT seq, body FROM records WHERE run = '…' AND seq = 7; -- exactly what was written, and what its hash is of
//! ```
//!
//! | Table | Column | |
//! |---|---|---|
//! | `runs` | `run` | its id |
//! | | `epoch` | the newest lease on it |
//! | | `owner`, `expires` | who was granted it, until when; `NULL` and 0 once it was released |
//! | | `records` | how many it had when the lease was last granted, renewed or released: fewer cannot be all |
//! | `records` | `run`, `seq` | its place |
//! | | `time` | when it was written, in milliseconds since 1970 |
//! | | `format` | the journal format of the release that wrote it |
//! | | `body` | JSON, as it was written |
//! | | `hash` | its hash, in hex; [`chain`](crate::chain) says of what |
//! | `newest_epoch` | `epoch` | the newest lease of all |
//!
//! The files are made readable and writable by their owner alone. What is removed is overwritten in the database.

mod ends;
mod failure;
mod holds;
mod page;
mod schema;
mod tables;
mod thread;

use std::{collections::VecDeque, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use cofferdam_core::{Clock, RunId};
use futures::{StreamExt as _, stream, stream::BoxStream};

use self::{
    failure::Location,
    holds::Holds,
    page::{Page, Place},
    tables::{Prepared, Tables},
    thread::Thread,
};
use crate::{Entry, Journal, JournalError, Lease, Record, RunFilter, RunSummary, Seq};

pub use self::schema::STORE_VERSION;

/// Journals in a SQLite database.
///
/// Blocking work is done by two threads of its own, one that writes and one that reads, so it needs no async runtime. At
/// most one call of each [`JournalWriter`](crate::JournalWriter) waits in their queues.
#[derive(Debug)]
pub struct SqliteJournal {
    location: Location,
    writing: Thread,
    reading: Arc<Thread>,
}

impl SqliteJournal {
    /// Opens the database of this path, or makes it; its directory must be there. It blocks for as long as that takes.
    ///
    /// `clock` decides when leases have expired, and nothing else.
    ///
    /// # Errors
    ///
    /// - [`JournalError::Foreign`] if the file is something else, which is then not touched.
    /// - [`JournalError::NewerStore`] if a newer release made it.
    /// - [`JournalError::ReadOnly`], [`JournalError::Full`], [`JournalError::Damaged`], [`JournalError::Busy`]: as they say.
    pub fn open(path: impl AsRef<Path>, clock: Arc<dyn Clock>) -> Result<Self, JournalError> {
        let location = Location::of(path.as_ref());
        schema::prepare(&location)?;
        let holds = Holds::open(&location)?;
        let connection = schema::connect(&location)?;
        schema::make(&connection, &location)?;
        let tables = Tables::new(connection, location.clone(), clock.clone(), holds.clone());
        tables.sweep()?;
        let reader = Tables::new(schema::connect(&location)?, location.clone(), clock, holds);
        let writing = Thread::writing(tables)?;
        let reading = Arc::new(Thread::reading(reader)?);
        Ok(Self { location, writing, reading })
    }

    /// Returns the path of the database.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.location.database()
    }

    /// Appends records of a copy of the run ([`export`](mod@crate::export)) as they are, with their numbers, times and hashes, all
    /// or none, and returns the number of the last. They must follow what is there: to mend a run, remove it, lease it, and
    /// restore its copy a part at a time.
    ///
    /// # Errors
    ///
    /// As [`Journal::append`], with the number before the first record as the one expected, and as [`Chain::check`](crate::Chain::check).
    ///
    /// # Cancel safety
    ///
    /// As [`Journal::append`].
    pub async fn restore(&self, lease: &Lease, records: Vec<Record>) -> Result<Seq, JournalError> {
        let bytes = records.iter().map(|record| record.text().len()).sum();
        let lease = lease.clone();
        self.writing
            .call("restore a run", bytes, move |tables| tables.restore(&lease, &records))
            .await
    }

    /// Ends what is queued, then closes the database; calls that come later fail. Without it the database is closed soon
    /// after the journal was dropped.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the database is closed all the same.
    pub async fn close(&self) {
        self.reading.close().await;
        self.writing.close().await;
    }
}

#[async_trait]
impl Journal for SqliteJournal {
    async fn lease(
        &self,
        run: &RunId,
        owner: &str,
        duration: Duration,
    ) -> Result<Lease, JournalError> {
        let (run, owner) = (run.clone(), owner.to_owned());
        self.writing
            .call("lease a run", 0, move |tables| tables.lease(&run, &owner, duration))
            .await
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Lease, JournalError> {
        let lease = lease.clone();
        self.writing.call("renew a lease", 0, move |tables| tables.renew(&lease, duration)).await
    }

    async fn append(
        &self,
        lease: &Lease,
        expected: Seq,
        entries: Vec<Entry>,
    ) -> Result<Seq, JournalError> {
        let prepared = Prepared::all(&lease.run, &entries);
        drop(entries);
        let bytes = prepared.iter().flatten().map(Prepared::bytes).sum();
        let lease = lease.clone();
        self.writing
            .call("append to a run", bytes, move |tables| {
                tables.append(&lease, expected, &prepared)
            })
            .await
    }

    fn read(&self, run: &RunId, from: Seq) -> BoxStream<'static, Result<Record, JournalError>> {
        let reader = Reader {
            thread: Arc::clone(&self.reading),
            place: Some(Place::new(run.clone(), from)),
            records: VecDeque::new(),
            error: None,
        };
        stream::unfold(reader, Reader::next).boxed()
    }

    async fn release(&self, lease: &Lease) -> Result<(), JournalError> {
        let lease = lease.clone();
        self.writing.call("release a lease", 0, move |tables| tables.release(&lease)).await
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunSummary>, JournalError> {
        let filter = filter.clone();
        self.reading.call("list runs", 0, move |tables| tables.runs(&filter)).await
    }

    async fn remove(&self, run: &RunId) -> Result<(), JournalError> {
        let run = run.clone();
        self.writing.call("remove a run", 0, move |tables| tables.remove(&run)).await
    }
}

/// A stream of records: what is left of the page that was read last, and where the next begins.
struct Reader {
    thread: Arc<Thread>,
    place: Option<Place>,
    records: VecDeque<Record>,
    error: Option<JournalError>,
}

impl Reader {
    async fn next(mut self) -> Option<(Result<Record, JournalError>, Self)> {
        loop {
            if let Some(record) = self.records.pop_front() {
                return Some((Ok(record), self));
            }
            if let Some(error) = self.error.take() {
                self.place = None;
                return Some((Err(error), self));
            }
            let place = self.place.take()?;
            let read = self.thread.call("read a run", 0, move |tables| tables.page(&place)).await;
            match read {
                Ok(Page { records, next, error }) => {
                    (self.records, self.place, self.error) = (records.into(), next, error);
                }
                Err(error) => self.error = Some(error),
            }
        }
    }
}
