//! [`Journal`]: what a store of run journals must do.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use cofferdam_core::{RunId, Timestamp};
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::{Entry, JournalError, Record};

/// The number of a record in its run: 1 for the first, without gaps.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

/// The number of a lease on a run: it rises with each lease, so a former holder is told apart.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// The right to append to one run until it expires or is taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The run.
    pub run: RunId,
    /// The fencing number.
    pub epoch: Epoch,
    /// When another process may take the run over.
    pub expires: Timestamp,
    /// The last record that was there when the lease was granted.
    pub last: Seq,
}

/// A store of append-only run journals.
///
/// Appends to one run are totally ordered and optimistic; different runs do not wait for each other.
#[async_trait]
pub trait Journal: Debug + Send + Sync + 'static {
    /// Takes the lease on a run, or renews it for the owner who has it.
    ///
    /// # Errors
    ///
    /// [`JournalError::Leased`] while another owner's lease has not expired.
    async fn lease(
        &self,
        run: &RunId,
        owner: &str,
        duration: Duration,
    ) -> Result<Lease, JournalError>;

    /// Appends entries as one unit and returns the number of the last; durable on return, as far as the store is.
    ///
    /// # Errors
    ///
    /// [`JournalError::Conflict`] if `expected` is not the run's last number, [`JournalError::Fenced`] if a newer lease
    /// was granted. Nothing is written then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, all of the entries are there or none; read to know.
    async fn append(
        &self,
        lease: &Lease,
        expected: Seq,
        entries: Vec<Entry>,
    ) -> Result<Seq, JournalError>;

    /// Reads a run's records from `from` on, in order. A run that is not there reads as empty.
    ///
    /// # Errors
    ///
    /// The stream ends with [`JournalError::Corrupt`] at a record whose hash does not fit.
    fn read(&self, run: &RunId, from: Seq) -> BoxStream<'static, Result<Record, JournalError>>;

    /// Gives the lease back. Idempotent.
    ///
    /// # Errors
    ///
    /// [`JournalError::Store`] only.
    async fn release(&self, lease: &Lease) -> Result<(), JournalError>;
}
