//! [`JournalWriter`]: one run's way of writing, shared by its loop and its layers.
//!
//! Whoever appends puts their records in a queue. One of those who wait leads: it takes what is queued, writes it to the
//! store as one unit, and hands everybody their result; who came meanwhile is in the next unit. So eight tool calls that
//! end together cost one commit, or two, not eight.
//!
//! The unit that is being written belongs to the writer, not to the caller who leads: a caller that is dropped takes
//! nothing with it, and whoever appends next brings the unit to its end.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use cofferdam_core::{Clock, RunId};
use futures::{
    FutureExt as _,
    channel::oneshot,
    future::{BoxFuture, Shared},
};
use tokio::{sync::watch, task::AbortHandle};

use crate::{Entry, Journal, JournalError, Lease, RecordBody, Seq, lease::expiry};

/// Most records that one unit takes from the queue.
const MAX_UNIT: usize = 256;

/// Appends to one run under one lease, in the order of the calls.
pub struct JournalWriter {
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    run: RunId,
    state: Arc<Mutex<State>>,
    lost: watch::Sender<Option<JournalError>>,
    keeper: Mutex<Option<AbortHandle>>,
}

struct State {
    lease: Lease,
    /// For how long the lease is renewed.
    duration: Duration,
    /// The run's last record; `None` if a failure has left it unknown.
    last: Option<Seq>,
    queue: VecDeque<Waiting>,
    /// The unit that is being written, and its number.
    flight: Option<(u64, Shared<BoxFuture<'static, Landed>>)>,
    flights: u64,
}

/// One call of `append` that waits.
struct Waiting {
    entries: Vec<Entry>,
    tell: oneshot::Sender<Result<Seq, JournalError>>,
}

/// What the writer knows after a unit.
#[derive(Clone)]
struct Landed {
    lease: Lease,
    last: Option<Seq>,
    lost: Option<JournalError>,
}

impl JournalWriter {
    /// How long leases are, unless somebody says otherwise: 30 s.
    pub const LEASE: Duration = Duration::from_secs(30);

    /// Makes a writer that goes on after the lease's last record.
    pub fn new(journal: Arc<dyn Journal>, clock: Arc<dyn Clock>, lease: Lease) -> Self {
        let state = State {
            last: Some(lease.last),
            duration: Self::LEASE,
            queue: VecDeque::new(),
            flight: None,
            flights: 0,
            lease,
        };
        let run = state.lease.run.clone();
        let (lost, _) = watch::channel(None);
        let state = Arc::new(Mutex::new(state));
        Self { journal, clock, run, state, lost, keeper: Mutex::default() }
    }

    /// Returns the run.
    #[must_use]
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// Returns the lease, as it was last renewed.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.state().lease.clone()
    }

    /// Appends one record and returns its number; durable on return, as far as the store is.
    ///
    /// A lease that has expired is renewed first, if nobody took the run over.
    ///
    /// # Errors
    ///
    /// As [`Journal::append`]. After [`JournalError::Store`] the record is there or not; the writer finds out before it
    /// writes the next one, and goes on after whatever is there.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the record is there once or not at all, and the writer goes on. A record that no unit has
    /// taken yet is not written; one whose unit has begun is there at the latest when the next call of this writer returns,
    /// unless that unit fails.
    pub async fn append(&self, body: RecordBody) -> Result<Seq, JournalError> {
        self.append_all(vec![body]).await
    }

    /// Appends records next to each other, all or none, and returns the number of the last.
    ///
    /// # Errors
    ///
    /// As [`JournalWriter::append`].
    ///
    /// # Cancel safety
    ///
    /// As [`JournalWriter::append`].
    pub async fn append_all(&self, bodies: Vec<RecordBody>) -> Result<Seq, JournalError> {
        let time = self.clock.now();
        let entries = bodies.into_iter().map(|body| Entry { time, body }).collect();
        let (tell, mut told) = oneshot::channel();
        self.state().queue.push_back(Waiting { entries, tell });
        // Those who are about to append as well get into the queue first, so that one unit is enough for all.
        give_way().await;
        loop {
            self.land().await;
            if let Ok(Some(result)) = told.try_recv() {
                return result;
            }
        }
    }

    /// Waits until nothing that was taken from the queue is still being written.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing is lost.
    pub async fn flush(&self) {
        while self.state().flight.is_some() {
            self.land().await;
        }
    }

    /// Extends the lease and learns what the run's last record is.
    ///
    /// # Errors
    ///
    /// As [`Journal::renew`].
    ///
    /// # Cancel safety
    ///
    /// As [`Journal::renew`].
    pub async fn renew(&self, duration: Duration) -> Result<Lease, JournalError> {
        let lease = {
            let mut state = self.state();
            state.duration = duration;
            state.lease.clone()
        };
        let renewed = self.journal.renew(&lease, duration).await;
        if let Err(error @ JournalError::Fenced { .. }) = &renewed {
            self.lost.send_replace(Some(error.clone()));
        }
        let renewed = renewed?;
        self.state().lease = renewed.clone();
        Ok(renewed)
    }

    /// Keeps the lease renewed from now on, to `duration` each time a third of it has passed, until the writer is released or
    /// dropped, or the lease is lost. A renewal that fails for another reason is tried again sooner.
    ///
    /// Call it in a tokio runtime; time is that runtime's.
    pub fn keep(self: &Arc<Self>, duration: Duration) {
        let writer = Arc::downgrade(self);
        let mut wait = duration / 3;
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(wait).await;
                let Some(writer) = writer.upgrade() else { return };
                wait = match writer.renew(duration).await {
                    Ok(_) => duration / 3,
                    Err(JournalError::Fenced { .. }) => return,
                    Err(_) => duration / 12,
                };
            }
        });
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(former) = keeper.replace(task.abort_handle()) {
            former.abort();
        }
    }

    /// Waits until it is known that another process took the run over, and returns the refusal. Whoever drives the run stops
    /// its tools then, without waiting for the next append.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing is lost.
    pub async fn lost(&self) -> JournalError {
        let mut lost = self.lost.subscribe();
        loop {
            if let Some(error) = lost.borrow_and_update().clone() {
                return error;
            }
            // The sender lives as long as `self`.
            let _ = lost.changed().await;
        }
    }

    /// Gives the lease back, after what is being written is done.
    ///
    /// # Errors
    ///
    /// As [`Journal::release`].
    ///
    /// # Cancel safety
    ///
    /// As [`Journal::release`].
    pub async fn release(&self) -> Result<(), JournalError> {
        self.stop_keeper();
        self.flush().await;
        let lease = self.lease();
        self.journal.release(&lease).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic happens while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop_keeper(&self) {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keeper) = keeper.take() {
            keeper.abort();
        }
    }

    /// Brings the unit that is being written to its end; if there is none, makes one of what is queued first.
    async fn land(&self) {
        let Some((number, flight)) = self.take_off() else { return };
        let landed = flight.await;
        let mut state = self.state();
        if state.flight.as_ref().is_some_and(|(flying, _)| *flying == number) {
            state.flight = None;
            state.last = landed.last;
            if landed.lease.expires > state.lease.expires {
                state.lease = landed.lease;
            }
            if landed.lost.is_some() {
                self.lost.send_replace(landed.lost);
            }
        }
    }

    fn take_off(&self) -> Option<(u64, Shared<BoxFuture<'static, Landed>>)> {
        let mut state = self.state();
        if state.flight.is_none() {
            let mut unit: Vec<Waiting> = Vec::new();
            let mut taken = 0;
            while let Some(next) = state.queue.front() {
                if next.tell.is_canceled() {
                    state.queue.pop_front();
                    continue;
                }
                taken += next.entries.len();
                if taken > MAX_UNIT && !unit.is_empty() {
                    break;
                }
                unit.extend(state.queue.pop_front());
            }
            if unit.is_empty() {
                return None;
            }
            state.flights += 1;
            let flight = Flight {
                journal: Arc::clone(&self.journal),
                clock: Arc::clone(&self.clock),
                lease: state.lease.clone(),
                duration: state.duration,
                last: state.last,
            };
            state.flight = Some((state.flights, flight.fly(unit).boxed().shared()));
        }
        state.flight.clone()
    }
}

impl Drop for JournalWriter {
    fn drop(&mut self) {
        self.stop_keeper();
    }
}

impl fmt::Debug for JournalWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("JournalWriter")
            .field("journal", &self.journal)
            .field("lease", &state.lease)
            .field("last", &state.last)
            .finish_non_exhaustive()
    }
}

/// Lets whatever else is ready in the same executor go first, once.
async fn give_way() {
    let mut gave = false;
    poll_fn(|context| {
        if std::mem::replace(&mut gave, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// One unit on its way to the store.
struct Flight {
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    lease: Lease,
    duration: Duration,
    last: Option<Seq>,
}

impl Flight {
    async fn fly(mut self, unit: Vec<Waiting>) -> Landed {
        let (mut entries, mut ends, mut tells) = (Vec::new(), Vec::new(), Vec::new());
        for waiting in unit {
            entries.extend(waiting.entries);
            ends.push(entries.len());
            tells.push(waiting.tell);
        }
        let results = self.write(entries, &ends).await;
        let lost = results.iter().find_map(|result| match result {
            Err(error @ JournalError::Fenced { .. }) => Some(error.clone()),
            _ => None,
        });
        for (tell, result) in tells.into_iter().zip(results) {
            // A caller that has gone does not want to know.
            let _ = tell.send(result);
        }
        Landed { lease: self.lease, last: self.last, lost }
    }

    /// Writes all as one unit, or one after the other if the failure may be that of a single caller. Returns the result of
    /// each.
    async fn write(
        &mut self,
        entries: Vec<Entry>,
        ends: &[usize],
    ) -> Vec<Result<Seq, JournalError>> {
        // Kept only where it may be needed again.
        let again = (ends.len() > 1).then(|| entries.clone());
        let all = entries.len();
        match (self.append(entries).await, again) {
            (Ok(last), _) => {
                let before = last.0.saturating_sub(all as u64);
                ends.iter().map(|end| Ok(Seq(before + *end as u64))).collect()
            }
            (Err(JournalError::TooLarge { .. } | JournalError::Full { .. }), Some(mut rest)) => {
                let mut results = Vec::with_capacity(ends.len());
                let mut begin = 0;
                for end in ends {
                    let later = rest.split_off(end - begin);
                    results.push(self.append(std::mem::replace(&mut rest, later)).await);
                    begin = *end;
                }
                results
            }
            (Err(error), _) => vec![Err(error); ends.len()],
        }
    }

    async fn append(&mut self, entries: Vec<Entry>) -> Result<Seq, JournalError> {
        let last = self.ready().await?;
        let result = self.journal.append(&self.lease, last, entries).await;
        match &result {
            Ok(last) => self.last = Some(*last),
            Err(JournalError::Store { .. }) => self.last = None,
            Err(_) => {}
        }
        result
    }

    /// Renews the lease if it is about to end, or if that is how to learn the run's last record.
    async fn ready(&mut self) -> Result<Seq, JournalError> {
        let now = self.clock.now();
        if let Some(last) = self.last
            && self.lease.expires > expiry(now, self.duration / 3)
        {
            return Ok(last);
        }
        match (self.journal.renew(&self.lease, self.duration).await, self.last) {
            (Ok(lease), known) => {
                let last = known.unwrap_or(lease.last);
                (self.lease, self.last) = (lease, Some(last));
                Ok(last)
            }
            (Err(_), Some(last)) if self.lease.expires > now => Ok(last),
            (Err(error), _) => Err(error),
        }
    }
}
