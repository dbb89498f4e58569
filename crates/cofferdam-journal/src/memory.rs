//! [`MemoryJournal`]: a journal that lives as long as its process.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use cofferdam_core::{Clock, RunId, Timestamp};
use futures::{StreamExt, stream, stream::BoxStream};

use crate::{
    Entry, Epoch, Holder, Journal, JournalError, Lease, Record, RunFilter, RunSummary, Seq,
    lease::expiry,
};

/// Journals in memory, for tests and for runs that need not survive their process.
#[derive(Debug)]
pub struct MemoryJournal {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    runs: BTreeMap<RunId, Run>,
    /// The newest lease of all.
    epoch: Epoch,
}

#[derive(Debug, Default)]
struct Run {
    records: Vec<Record>,
    holder: Option<HolderOf>,
}

#[derive(Debug)]
struct HolderOf {
    owner: String,
    epoch: Epoch,
    expires: Timestamp,
    hold: Weak<()>,
}

impl HolderOf {
    fn lives(&self, now: Timestamp) -> bool {
        self.expires > now && self.hold.strong_count() > 0
    }
}

impl Run {
    fn last(&self) -> Seq {
        Seq(self.records.len() as u64)
    }

    fn refuse_if_leased(&self, run: &RunId, now: Timestamp) -> Result<(), JournalError> {
        match &self.holder {
            Some(holder) if holder.lives(now) => Err(JournalError::Leased {
                run: run.clone(),
                owner: holder.owner.clone(),
                expires: holder.expires,
            }),
            _ => Ok(()),
        }
    }

    fn summary(&self, run: &RunId, now: Timestamp) -> RunSummary {
        let first = self.records.first().map(|record| (record.time, record.text()));
        let last =
            self.records.last().map(|last| (last.seq, last.time, Some(last.hash), last.text()));
        let holder = self.holder.as_ref().map(|holder| {
            Holder::new(holder.owner.clone(), holder.epoch, holder.expires, holder.lives(now))
        });
        RunSummary::of(run.clone(), first, last, holder)
    }
}

impl MemoryJournal {
    /// Makes an empty store.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Arc::default() }
    }

    /// Every change of the state is one last step after all that can fail, so a panic elsewhere leaves it whole.
    fn with<T>(&self, act: impl FnOnce(&mut State, Timestamp) -> T) -> T {
        let now = self.clock.now();
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner), now)
    }
}

impl State {
    /// Returns the run of a lease that is the newest on it.
    fn held(&mut self, lease: &Lease) -> Result<&mut Run, JournalError> {
        let newest = self.epoch;
        self.runs
            .get_mut(&lease.run)
            .filter(|run| run.holder.as_ref().is_some_and(|holder| holder.epoch == lease.epoch))
            .ok_or_else(|| JournalError::Fenced {
                run: lease.run.clone(),
                held: lease.epoch,
                newest,
            })
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
        self.with(|state, now| {
            if let Some(existing) = state.runs.get(run) {
                existing.refuse_if_leased(run, now)?;
            }
            state.epoch.0 += 1;
            let (epoch, expires, hold) = (state.epoch, expiry(now, duration), Arc::new(()));
            let entry = state.runs.entry(run.clone()).or_default();
            let owner = owner.to_owned();
            entry.holder = Some(HolderOf { owner, epoch, expires, hold: Arc::downgrade(&hold) });
            Ok(Lease::new(run.clone(), epoch, expires, entry.last()).with_hold(hold))
        })
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Lease, JournalError> {
        self.with(|state, now| {
            let run = state.held(lease)?;
            let expires = expiry(now, duration);
            if let Some(holder) = &mut run.holder {
                holder.expires = expires;
            }
            Ok(lease.extended(expires, run.last()))
        })
    }

    async fn append(
        &self,
        lease: &Lease,
        expected: Seq,
        entries: Vec<Entry>,
    ) -> Result<Seq, JournalError> {
        self.with(|state, now| {
            let run = state.held(lease)?;
            let expired = run.holder.as_ref().map(|holder| holder.expires);
            if let Some(expired) = expired.filter(|expires| *expires <= now) {
                let (run, held) = (lease.run.clone(), lease.epoch);
                return Err(JournalError::Expired { run, held, expired });
            }
            let actual = run.last();
            if expected != actual {
                return Err(JournalError::Conflict { run: lease.run.clone(), expected, actual });
            }
            let mut added: Vec<Record> = Vec::with_capacity(entries.len());
            for entry in entries {
                let previous = added.last().or(run.records.last());
                added.push(Record::following(&lease.run, previous, entry)?);
            }
            run.records.append(&mut added);
            Ok(run.last())
        })
    }

    fn read(&self, run: &RunId, from: Seq) -> BoxStream<'static, Result<Record, JournalError>> {
        let (state, run) = (Arc::clone(&self.state), run.clone());
        let mut next = usize::try_from(from.0.saturating_sub(1)).unwrap_or(usize::MAX);
        stream::iter(std::iter::from_fn(move || {
            let state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let record = state.runs.get(&run)?.records.get(next)?.clone();
            next += 1;
            Some(Ok(record))
        }))
        .boxed()
    }

    async fn release(&self, lease: &Lease) -> Result<(), JournalError> {
        self.with(|state, _| {
            if let Ok(run) = state.held(lease) {
                run.holder = None;
                // A number that nobody holds, so that the former holder is told apart.
                state.epoch.0 += 1;
            }
        });
        Ok(())
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunSummary>, JournalError> {
        let from = filter.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        Ok(self.with(|state, now| {
            state
                .runs
                .range((from, Bound::Unbounded))
                .map(|(id, run)| run.summary(id, now))
                .filter(|summary| filter.allows(summary.status))
                .take(filter.bounded_limit())
                .collect()
        }))
    }

    async fn remove(&self, run: &RunId) -> Result<(), JournalError> {
        self.with(|state, now| {
            if let Some(existing) = state.runs.get(run) {
                existing.refuse_if_leased(run, now)?;
            }
            state.runs.remove(run);
            Ok(())
        })
    }
}
