//! [`MemoryJournal`]: a journal that lives as long as its process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use cofferdam_core::{Clock, RunId, Timestamp};
use futures::{StreamExt, stream, stream::BoxStream};

use crate::{Entry, Epoch, Journal, JournalError, Lease, Record, Seq};

/// Journals in memory, for tests and for runs that need not survive their process.
#[derive(Debug)]
pub struct MemoryJournal {
    clock: Arc<dyn Clock>,
    runs: Mutex<HashMap<RunId, Run>>,
}

#[derive(Debug, Default)]
struct Run {
    records: Vec<Record>,
    epoch: Epoch,
    holder: Option<(String, Timestamp)>,
}

impl MemoryJournal {
    /// Makes an empty store.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, runs: Mutex::default() }
    }

    fn with_run<T>(&self, run: &RunId, act: impl FnOnce(&mut Run) -> T) -> T {
        // A panic in `act` cannot leave a run half changed: each changes it in one last step.
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        act(runs.entry(run.clone()).or_default())
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn lease(
        &self,
        run: &RunId,
        owner: &str,
        duration: Duration,
    ) -> Result<Lease, JournalError> {
        let now = self.clock.now();
        let duration = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let expires = Timestamp(now.as_millis().saturating_add(duration));
        self.with_run(run, |state| {
            match &state.holder {
                Some((holder, until)) if holder != owner && *until > now => {
                    return Err(JournalError::Leased {
                        run: run.clone(),
                        owner: holder.clone(),
                        expires: *until,
                    });
                }
                Some((holder, until)) if holder == owner && *until > now => {}
                _ => state.epoch.0 += 1,
            }
            state.holder = Some((owner.to_owned(), expires));
            Ok(Lease {
                run: run.clone(),
                epoch: state.epoch,
                expires,
                last: Seq(state.records.len() as u64),
            })
        })
    }

    async fn append(
        &self,
        lease: &Lease,
        expected: Seq,
        entries: Vec<Entry>,
    ) -> Result<Seq, JournalError> {
        self.with_run(&lease.run, |state| {
            if lease.epoch != state.epoch {
                return Err(JournalError::Fenced {
                    run: lease.run.clone(),
                    held: lease.epoch,
                    newest: state.epoch,
                });
            }
            let actual = Seq(state.records.len() as u64);
            if expected != actual {
                return Err(JournalError::Conflict { run: lease.run.clone(), expected, actual });
            }
            for entry in entries {
                let record = Record::following(state.records.last(), entry);
                state.records.push(record);
            }
            Ok(Seq(state.records.len() as u64))
        })
    }

    fn read(&self, run: &RunId, from: Seq) -> BoxStream<'static, Result<Record, JournalError>> {
        let skip = usize::try_from(from.0.saturating_sub(1)).unwrap_or(usize::MAX);
        let records: Vec<_> =
            self.with_run(run, |state| state.records.iter().skip(skip).cloned().collect());
        stream::iter(records.into_iter().map(Ok)).boxed()
    }

    async fn release(&self, lease: &Lease) -> Result<(), JournalError> {
        self.with_run(&lease.run, |state| {
            if state.epoch == lease.epoch {
                state.holder = None;
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::{TryStreamExt, executor::block_on};

    use super::*;
    use crate::{RecordBody, verify_chain};

    #[derive(Debug, Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::Relaxed))
        }
    }

    fn entry(turn: u32) -> Entry {
        Entry { time: Timestamp(0), body: RecordBody::ModelRequested { turn, items: 0 } }
    }

    #[test]
    fn leases_fence_and_appends_are_ordered() {
        let clock = Arc::new(Hand::default());
        let journal = MemoryJournal::new(clock.clone());
        let run = RunId::new("r");
        let second = Duration::from_secs(1);
        block_on(async {
            let first = journal.lease(&run, "a", second).await.unwrap();
            assert_eq!(
                journal.append(&first, Seq(0), vec![entry(1), entry(2)]).await.unwrap(),
                Seq(2)
            );
            assert!(matches!(
                journal.append(&first, Seq(1), vec![entry(3)]).await,
                Err(JournalError::Conflict { actual: Seq(2), .. })
            ));
            assert!(matches!(
                journal.lease(&run, "b", second).await,
                Err(JournalError::Leased { .. })
            ));
            let renewed = journal.lease(&run, "a", second).await.unwrap();
            assert_eq!(renewed.epoch, first.epoch);

            clock.0.store(5_000, Ordering::Relaxed);
            let taken = journal.lease(&run, "b", second).await.unwrap();
            assert!(taken.epoch > first.epoch);
            assert!(matches!(
                journal.append(&first, Seq(2), vec![entry(3)]).await,
                Err(JournalError::Fenced { .. })
            ));
            journal.append(&taken, taken.last, vec![entry(3)]).await.unwrap();
            journal.release(&taken).await.unwrap();
            journal.lease(&run, "c", second).await.unwrap();

            let records: Vec<_> = journal.read(&run, Seq(1)).try_collect().await.unwrap();
            assert_eq!(records.len(), 3);
            verify_chain(&run, None, &records).unwrap();
            let tail: Vec<_> = journal.read(&run, Seq(3)).try_collect().await.unwrap();
            assert_eq!(tail[..], records[2..]);
        });
    }
}
