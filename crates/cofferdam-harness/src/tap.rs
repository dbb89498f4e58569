//! [`Tap`]: folds what is appended to a run's journal, by whom ever, as soon as it is there.
//!
//! The layers of the tool stack write intents and results themselves. The loop hears of them here: a journal around the given
//! one, so that nothing is told twice and nothing is believed that is not durable.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use cofferdam_core::RunId;
use cofferdam_journal::{Entry, Journal, JournalDecorator, JournalError, Lease, Seq};
use futures::TryStreamExt;

use crate::RunState;

/// The state of a run that is being driven, shared by its loop and its [`Tap`].
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedState(Arc<Mutex<RunState>>);

impl SharedState {
    /// Looks at the state; `look` must not wait.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut RunState) -> T) -> T {
        // A record is folded whole or not at all, so a panic elsewhere leaves no half of one.
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A journal that folds the records of one run.
#[derive(Debug)]
pub(crate) struct Tap {
    inner: Arc<dyn Journal>,
    run: RunId,
    state: SharedState,
}

impl Tap {
    pub(crate) fn new(inner: Arc<dyn Journal>, run: RunId, state: SharedState) -> Self {
        Self { inner, run, state }
    }

    /// Folds records that are there although their append seemed to fail.
    async fn catch_up(&self, last: Seq) -> Result<(), JournalError> {
        let known = self.state.with(|state| state.seq());
        if last <= known {
            return Ok(());
        }
        let mut records = self.inner.read(&self.run, Seq(known.0 + 1));
        while let Some(record) = records.try_next().await? {
            if record.seq > last {
                break;
            }
            self.state.with(|state| state.fold(record.seq, record.time, &record.body));
        }
        Ok(())
    }
}

#[async_trait]
impl JournalDecorator for Tap {
    fn inner(&self) -> &dyn Journal {
        &*self.inner
    }

    async fn append(
        &self,
        lease: &Lease,
        expected: Seq,
        entries: Vec<Entry>,
    ) -> Result<Seq, JournalError> {
        self.catch_up(expected).await?;
        let folded = entries.clone();
        let last = self.inner.append(lease, expected, entries).await?;
        self.state.with(|state| {
            for (seq, entry) in (expected.0 + 1..).zip(folded) {
                state.fold(Seq(seq), entry.time, &entry.body);
            }
        });
        Ok(last)
    }
}
