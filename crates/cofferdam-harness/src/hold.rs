//! [`Hold`]: a run that this process has, before it drives it.

use std::{sync::Arc, time::Duration};

use cofferdam_core::{Clock, RunId};
use cofferdam_journal::{Journal, JournalError, JournalWriter, Lease};

/// The right to drive a run and to write to it, which nobody else has until this is dropped, given back, or used up by
/// [`Harness::resume_held`](crate::Harness::resume_held).
///
/// Whoever looks for a run's sandbox before it goes on with the run takes it first: between the two nobody can come.
#[derive(Debug)]
pub struct Hold {
    writer: Arc<JournalWriter>,
}

impl Hold {
    /// Takes a run for this process, and keeps it: the lease is renewed three times in each `duration`. Call it in a tokio
    /// runtime.
    ///
    /// # Errors
    ///
    /// [`JournalError::Leased`] if somebody drives the run.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nobody holds the run.
    pub async fn take(
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
        run: &RunId,
        owner: &str,
        duration: Duration,
    ) -> Result<Self, JournalError> {
        let lease = journal.lease(run, owner, duration).await?;
        let writer = Arc::new(JournalWriter::new(journal, clock, lease));
        writer.keep(duration);
        Ok(Self { writer })
    }

    /// Returns the run.
    #[must_use]
    pub fn run(&self) -> &RunId {
        self.writer.run()
    }

    /// Gives the run back.
    ///
    /// # Errors
    ///
    /// [`JournalError`]; the lease then ends by itself.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lease ends by itself.
    pub async fn release(self) -> Result<(), JournalError> {
        self.writer.release().await
    }

    /// Returns the lease as it is now, with the run's last record.
    pub(crate) async fn lease(&self, duration: Duration) -> Result<Lease, JournalError> {
        self.writer.renew(duration).await
    }
}
