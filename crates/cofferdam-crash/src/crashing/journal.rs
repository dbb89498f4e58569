//! [`CrashingJournal`]: any journal, with points.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use cofferdam_core::RunId;
use cofferdam_journal::{Entry, Journal, JournalDecorator, JournalError, Lease, Record, Seq};
use futures::stream::BoxStream;

use crate::point::Points;

/// A journal whose process may die at each of its calls. Appends are told apart by the kind of their first record.
#[derive(Debug)]
pub struct CrashingJournal {
    inner: Arc<dyn Journal>,
    points: Arc<Points>,
}

impl CrashingJournal {
    /// Puts points around a journal.
    pub fn new(inner: Arc<dyn Journal>, points: Arc<Points>) -> Self {
        Self { inner, points }
    }
}

/// Returns the kind of a record as it is written.
pub(crate) fn kind(entry: &Entry) -> String {
    let body = serde_json::to_value(&entry.body).unwrap_or_default();
    body["kind"].as_str().unwrap_or("unknown").to_owned()
}

#[async_trait]
impl JournalDecorator for CrashingJournal {
    fn inner(&self) -> &dyn Journal {
        &*self.inner
    }

    async fn lease(
        &self,
        run: &RunId,
        owner: &str,
        duration: Duration,
    ) -> Result<Lease, JournalError> {
        self.points.around("journal.lease", self.inner.lease(run, owner, duration)).await
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Lease, JournalError> {
        self.points.around("journal.renew", self.inner.renew(lease, duration)).await
    }

    async fn append(
        &self,
        lease: &Lease,
        expected: Seq,
        entries: Vec<Entry>,
    ) -> Result<Seq, JournalError> {
        let kind = entries.first().map_or_else(|| "nothing".to_owned(), kind);
        let append = self.inner.append(lease, expected, entries);
        self.points.around(&format!("journal.append.{kind}"), append).await
    }

    fn read(&self, run: &RunId, from: Seq) -> BoxStream<'static, Result<Record, JournalError>> {
        self.points.pass("journal.read");
        self.inner.read(run, from)
    }

    async fn release(&self, lease: &Lease) -> Result<(), JournalError> {
        self.points.around("journal.release", self.inner.release(lease)).await
    }
}
