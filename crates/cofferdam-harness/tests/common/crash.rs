//! [`CrashJournal`]: the process dies at an append, before it is there or after. What hangs here is dropped by the test, as a
//! process that is killed drops everything.

use std::{
    sync::Arc,
    sync::atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use cofferdam_journal::{Entry, Journal, JournalDecorator, JournalError, Lease, Seq};
use tokio::sync::Semaphore;

use super::world::Moment;

/// Where a process dies: at its n-th append, from 1.
pub(crate) type CrashPoint = (u32, Moment);

#[derive(Debug)]
pub(crate) struct CrashJournal {
    inner: Arc<dyn Journal>,
    at: Option<CrashPoint>,
    appends: AtomicU32,
    crashed: Semaphore,
}

impl CrashJournal {
    pub(crate) fn new(inner: Arc<dyn Journal>, at: Option<CrashPoint>) -> Self {
        Self { inner, at, appends: AtomicU32::new(0), crashed: Semaphore::new(0) }
    }

    /// Waits for the crash.
    pub(crate) async fn crashed(&self) {
        let _ = self.crashed.acquire().await.unwrap();
    }

    async fn die(&self) {
        self.crashed.add_permits(1);
        std::future::pending::<()>().await;
    }
}

#[async_trait]
impl JournalDecorator for CrashJournal {
    fn inner(&self) -> &dyn Journal {
        &*self.inner
    }

    async fn append(
        &self,
        lease: &Lease,
        expected: Seq,
        entries: Vec<Entry>,
    ) -> Result<Seq, JournalError> {
        let nth = self.appends.fetch_add(1, Ordering::SeqCst) + 1;
        if self.at == Some((nth, Moment::Before)) {
            self.die().await;
        }
        let last = self.inner.append(lease, expected, entries).await;
        if self.at == Some((nth, Moment::After)) {
            self.die().await;
        }
        last
    }
}
