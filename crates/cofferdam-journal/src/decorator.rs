//! [`JournalDecorator`]: a journal around another, which changes what some of the calls do.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use cofferdam_core::RunId;
use futures::stream::BoxStream;

use crate::{Entry, Journal, JournalError, Lease, Record, RunFilter, RunSummary, Seq};

/// A journal around another. Whatever it does not say itself, the inner one does.
///
/// Whoever implements it has implemented [`Journal`], whose rules each of its methods has to keep.
///
/// # Examples
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicUsize, Ordering}};
///
/// use cofferdam_journal::{Entry, Journal, JournalDecorator, JournalError, Lease, Seq};
///
/// /// Counts the records that were acknowledged.
/// #[derive(Debug)]
/// struct Counting {
///     inner: Arc<dyn Journal>,
///     records: AtomicUsize,
/// }
///
/// #[async_trait::async_trait]
/// impl JournalDecorator for Counting {
///     fn inner(&self) -> &dyn Journal {
///         &*self.inner
///     }
///
///     async fn append(
///         &self,
///         lease: &Lease,
///         expected: Seq,
///         entries: Vec<Entry>,
///     ) -> Result<Seq, JournalError> {
///         let count = entries.len();
///         let last = self.inner.append(lease, expected, entries).await?;
///         self.records.fetch_add(count, Ordering::Relaxed);
///         Ok(last)
///     }
/// }
///
/// fn counting(inner: Arc<dyn Journal>) -> Arc<dyn Journal> {
///     Arc::new(Counting { inner, records: AtomicUsize::new(0) })
/// }
/// ```
#[async_trait]
pub trait JournalDecorator: Debug + Send + Sync + 'static {
    /// Returns the journal that does what this one does not.
    fn inner(&self) -> &dyn Journal;

    /// As [`Journal::lease`].
    async fn lease(
        &self,
        run: &RunId,
        owner: &str,
        duration: Duration,
    ) -> Result<Lease, JournalError> {
        self.inner().lease(run, owner, duration).await
    }

    /// As [`Journal::renew`].
    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Lease, JournalError> {
        self.inner().renew(lease, duration).await
    }

    /// As [`Journal::append`].
    async fn append(
        &self,
        lease: &Lease,
        expected: Seq,
        entries: Vec<Entry>,
    ) -> Result<Seq, JournalError> {
        self.inner().append(lease, expected, entries).await
    }

    /// As [`Journal::read`].
    fn read(&self, run: &RunId, from: Seq) -> BoxStream<'static, Result<Record, JournalError>> {
        self.inner().read(run, from)
    }

    /// As [`Journal::release`].
    async fn release(&self, lease: &Lease) -> Result<(), JournalError> {
        self.inner().release(lease).await
    }

    /// As [`Journal::runs`].
    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunSummary>, JournalError> {
        self.inner().runs(filter).await
    }

    /// As [`Journal::remove`].
    async fn remove(&self, run: &RunId) -> Result<(), JournalError> {
        self.inner().remove(run).await
    }
}

#[async_trait]
impl<D: JournalDecorator> Journal for D {
    async fn lease(
        &self,
        run: &RunId,
        owner: &str,
        duration: Duration,
    ) -> Result<Lease, JournalError> {
        JournalDecorator::lease(self, run, owner, duration).await
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Lease, JournalError> {
        JournalDecorator::renew(self, lease, duration).await
    }

    async fn append(
        &self,
        lease: &Lease,
        expected: Seq,
        entries: Vec<Entry>,
    ) -> Result<Seq, JournalError> {
        JournalDecorator::append(self, lease, expected, entries).await
    }

    fn read(&self, run: &RunId, from: Seq) -> BoxStream<'static, Result<Record, JournalError>> {
        JournalDecorator::read(self, run, from)
    }

    async fn release(&self, lease: &Lease) -> Result<(), JournalError> {
        JournalDecorator::release(self, lease).await
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunSummary>, JournalError> {
        JournalDecorator::runs(self, filter).await
    }

    async fn remove(&self, run: &RunId) -> Result<(), JournalError> {
        JournalDecorator::remove(self, run).await
    }
}
