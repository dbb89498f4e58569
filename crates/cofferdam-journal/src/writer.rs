//! [`JournalWriter`]: one run's way of writing, shared by its loop and its layers.

use std::sync::Arc;

use cofferdam_core::{Clock, RunId};
use futures::lock::Mutex;

use crate::{Entry, Journal, JournalError, Lease, RecordBody, Seq};

/// Appends to one run under one lease, in the order of the calls.
#[derive(Debug)]
pub struct JournalWriter {
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    lease: Lease,
    last: Mutex<Seq>,
}

impl JournalWriter {
    /// Makes a writer that goes on after the lease's last record.
    pub fn new(journal: Arc<dyn Journal>, clock: Arc<dyn Clock>, lease: Lease) -> Self {
        let last = Mutex::new(lease.last);
        Self { journal, clock, lease, last }
    }

    /// Returns the run.
    #[must_use]
    pub fn run(&self) -> &RunId {
        &self.lease.run
    }

    /// Appends one record; durable on return, as far as the store is.
    ///
    /// # Errors
    ///
    /// As [`Journal::append`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped while the store writes, later appends may fail with [`JournalError::Conflict`]: the
    /// truth is then read from the journal by a new writer.
    pub async fn append(&self, body: RecordBody) -> Result<Seq, JournalError> {
        let mut last = self.last.lock().await;
        let entry = Entry { time: self.clock.now(), body };
        *last = self.journal.append(&self.lease, *last, vec![entry]).await?;
        Ok(*last)
    }

    /// Gives the lease back.
    ///
    /// # Errors
    ///
    /// As [`Journal::release`].
    pub async fn release(&self) -> Result<(), JournalError> {
        self.journal.release(&self.lease).await
    }
}
