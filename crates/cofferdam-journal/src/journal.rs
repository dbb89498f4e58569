//! [`Journal`]: what a store of run journals must do.

use std::{
    fmt::{self, Debug},
    time::Duration,
};

use async_trait::async_trait;
use cofferdam_core::RunId;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::{Entry, JournalError, Lease, Record, RunFilter, RunSummary};

/// The number of a record in its run: 1 for the first, without gaps.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A store of append-only run journals.
///
/// Appends to one run are totally ordered and optimistic; those to different runs may share one commit, and a failure
/// of one is none of the other. [`lease`](crate::lease) has the rules of leases.
///
/// A store that was written elsewhere shows with `cofferdam_journal::conformance` that it keeps these rules.
#[async_trait]
pub trait Journal: Debug + Send + Sync + 'static {
    /// Takes the lease on a run, with an epoch above all that the store has granted. A run begins by being leased.
    ///
    /// `owner` is shown to people and decides nothing: a second lease is refused to the same owner as to another.
    ///
    /// # Errors
    ///
    /// [`JournalError::Leased`] while a lease on the run lives.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lease is granted and dropped, or not granted.
    async fn lease(
        &self,
        run: &RunId,
        owner: &str,
        duration: Duration,
    ) -> Result<Lease, JournalError>;

    /// Extends a lease to `duration` from now, also one that has expired, and tells the run's last record.
    ///
    /// # Errors
    ///
    /// [`JournalError::Fenced`] if the run was leased anew, released or removed since.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lease is extended or not.
    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Lease, JournalError>;

    /// Appends entries as one unit and returns the number of the last; durable on return, as far as the store is.
    ///
    /// # Errors
    ///
    /// [`JournalError::Fenced`] if the lease is not the newest, [`JournalError::Expired`] if it is and has expired,
    /// [`JournalError::Conflict`] if `expected` is not the run's last number, [`JournalError::TooLarge`] if an entry is. They
    /// are looked for in this order, and nothing is written then. After [`JournalError::Store`] all of the entries are there
    /// or none.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, all of the entries are there or none; [`Journal::renew`] tells.
    async fn append(
        &self,
        lease: &Lease,
        expected: Seq,
        entries: Vec<Entry>,
    ) -> Result<Seq, JournalError>;

    /// Reads a run's records from `from` on, in order, in little memory: a long run is not read ahead of its reader. A run
    /// that is not there reads as empty.
    ///
    /// What is appended meanwhile may be read or not; what was acknowledged before the call is.
    ///
    /// # Errors
    ///
    /// The stream ends with [`JournalError::Corrupt`] at a record that does not fit the chain, and with
    /// [`JournalError::NewerFormat`] at one that a newer release wrote.
    fn read(&self, run: &RunId, from: Seq) -> BoxStream<'static, Result<Record, JournalError>>;

    /// Gives the lease back. Idempotent, and of no effect if it is not the newest.
    ///
    /// # Errors
    ///
    /// Those of the store only.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lease is given back or not.
    async fn release(&self, lease: &Lease) -> Result<(), JournalError>;

    /// Lists runs in the order of their ids, a page at a time.
    ///
    /// # Errors
    ///
    /// Those of the store only: a run with a damaged record is listed with what can be read of it.
    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunSummary>, JournalError>;

    /// Removes a run and all of its records. Idempotent. Former leases on it stay refused.
    ///
    /// # Errors
    ///
    /// [`JournalError::Leased`] while a lease on it lives.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the run is removed or not.
    async fn remove(&self, run: &RunId) -> Result<(), JournalError>;
}
