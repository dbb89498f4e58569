//! [`JournalWriter`]: what parallel calls share, what failures reach whom, and how long the lease is kept.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Waker},
    time::Duration,
};

use async_trait::async_trait;
use cofferdam_core::{Clock, RunId, Timestamp};
use cofferdam_journal::{
    Entry, Journal, JournalError, JournalWriter, Lease, MAX_RECORD_BYTES, MemoryJournal, Record,
    RecordBody, Seq, conformance::HandClock,
};
use futures::{FutureExt as _, TryStreamExt as _, future::join_all};
use tokio::sync::Semaphore;

const SECOND: Duration = Duration::from_secs(1);

/// A store in memory whose appends wait for a permit, and fail as they are told.
#[derive(Debug)]
struct Gated {
    inner: MemoryJournal,
    permits: Semaphore,
    /// How many entries each append had.
    units: Mutex<Vec<usize>>,
    /// What the next appends do; afterwards they do what they should.
    failures: Mutex<VecDeque<Failure>>,
    renewals: Mutex<usize>,
}

#[derive(Debug)]
enum Failure {
    /// Fails after it has written.
    Afterwards,
    /// Fails instead of writing.
    Instead(JournalError),
}

#[async_trait]
impl cofferdam_journal::JournalDecorator for Gated {
    fn inner(&self) -> &dyn Journal {
        &self.inner
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Lease, JournalError> {
        *self.renewals.lock().unwrap() += 1;
        self.inner.renew(lease, duration).await
    }

    async fn append(
        &self,
        lease: &Lease,
        expected: Seq,
        entries: Vec<Entry>,
    ) -> Result<Seq, JournalError> {
        self.units.lock().unwrap().push(entries.len());
        // A store takes time, in which others go on.
        tokio::spawn(async {}).await.unwrap();
        self.permits.acquire().await.unwrap().forget();
        let failure = self.failures.lock().unwrap().pop_front();
        match failure {
            Some(Failure::Instead(error)) => Err(error),
            Some(Failure::Afterwards) => {
                self.inner.append(lease, expected, entries).await?;
                Err(JournalError::store("commit", "the cable was pulled"))
            }
            None => self.inner.append(lease, expected, entries).await,
        }
    }
}

struct Setup {
    clock: Arc<HandClock>,
    journal: Arc<Gated>,
    writer: Arc<JournalWriter>,
}

fn run() -> RunId {
    RunId::new("r")
}

fn body(turn: u32) -> RecordBody {
    RecordBody::ModelRequested { turn, items: 0 }
}

/// Polls a future some times; after two an append is being written, unless another is.
fn is_ready_after<T>(polls: usize, future: &mut Pin<Box<impl Future<Output = T>>>) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    (0..polls).any(|_| future.as_mut().poll(&mut context).is_ready())
}

impl Setup {
    async fn new(permits: usize, failures: impl IntoIterator<Item = Failure>) -> Self {
        let clock = Arc::new(HandClock::default());
        let journal = Arc::new(Gated {
            inner: MemoryJournal::new(clock.clone()),
            permits: Semaphore::new(permits),
            units: Mutex::default(),
            failures: Mutex::new(failures.into_iter().collect()),
            renewals: Mutex::default(),
        });
        let lease = journal.lease(&run(), "x", JournalWriter::LEASE).await.unwrap();
        let writer = Arc::new(JournalWriter::new(journal.clone(), clock.clone(), lease));
        Self { clock, journal, writer }
    }

    async fn turns(&self) -> Vec<u32> {
        let records: Vec<Record> = self.journal.read(&run(), Seq(1)).try_collect().await.unwrap();
        records
            .iter()
            .map(|record| match record.body {
                RecordBody::ModelRequested { turn, .. } => turn,
                _ => panic!("{record:?}"),
            })
            .collect()
    }

    fn units(&self) -> Vec<usize> {
        self.journal.units.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn parallel_calls_share_units_and_keep_their_order() {
    let setup = Setup::new(99, []).await;
    for first in [1, 9] {
        let turns = first..first + 8;
        let numbers = join_all(turns.clone().map(|turn| setup.writer.append(body(turn)))).await;
        let numbers: Vec<u64> = numbers.into_iter().map(|number| number.unwrap().0).collect();
        assert_eq!(numbers, turns.map(u64::from).collect::<Vec<_>>());
    }
    assert_eq!(setup.turns().await, (1..=16).collect::<Vec<_>>());
    // The first of all does not know that others come; after that they wait for each other.
    assert_eq!(setup.units(), [1, 7, 8]);
}

#[tokio::test]
async fn a_failure_reaches_all_whom_it_concerns_and_nobody_else() {
    let setup = Setup::new(2, []).await;
    join_all([1, 2, 3].map(|turn| setup.writer.append(body(turn)))).await;
    let failure = Failure::Instead(JournalError::store("commit", "the cable was pulled"));
    setup.journal.failures.lock().unwrap().push_back(failure);

    let mut first = Box::pin(join_all([4, 5].map(|turn| setup.writer.append(body(turn)))));
    assert!(!is_ready_after(2, &mut first));
    // Who comes while a unit is being written is in the next one.
    let mut later = Box::pin(setup.writer.append(body(6)));
    assert!(!is_ready_after(2, &mut later));
    setup.journal.permits.add_permits(8);
    let results = first.await;
    assert!(matches!(results[0], Err(JournalError::Store { .. })));
    assert!(matches!(results[1], Err(JournalError::Store { .. })));
    assert_eq!(later.await.unwrap(), Seq(4));
    assert_eq!(setup.turns().await, [1, 2, 3, 6]);
    assert_eq!(setup.units(), [1, 2, 2, 1]);
}

#[tokio::test]
async fn after_an_unknown_outcome_the_writer_learns_what_is_there() {
    let setup = Setup::new(9, [Failure::Afterwards]).await;
    assert!(matches!(setup.writer.append(body(1)).await, Err(JournalError::Store { .. })));
    assert_eq!(setup.writer.append(body(2)).await.unwrap(), Seq(2));
    assert_eq!(setup.turns().await, [1, 2]);
    assert_eq!(*setup.journal.renewals.lock().unwrap(), 1);
}

#[tokio::test]
async fn one_that_is_too_large_does_not_take_others_with_it() {
    let setup = Setup::new(99, []).await;
    let large = || RecordBody::Unknown("x".repeat(MAX_RECORD_BYTES).into());
    let results = join_all([
        setup.writer.append(body(1)),
        setup.writer.append(body(2)),
        setup.writer.append(large()),
        setup.writer.append(body(3)),
    ])
    .await;
    let told: Vec<Result<Seq, bool>> = results
        .into_iter()
        .map(|result| result.map_err(|e| matches!(e, JournalError::TooLarge { .. })))
        .collect();
    assert_eq!(told, [Ok(Seq(1)), Ok(Seq(2)), Err(true), Ok(Seq(3))]);
    assert_eq!(setup.turns().await, [1, 2, 3]);
}

#[tokio::test]
async fn a_leader_that_is_dropped_takes_nothing_with_it() {
    let setup = Setup::new(0, []).await;
    let mut leads = Box::pin(setup.writer.append(body(1)));
    assert!(!is_ready_after(2, &mut leads));
    let mut follows = Box::pin(setup.writer.append(body(2)));
    assert!(!is_ready_after(2, &mut follows));
    let mut given_up = Box::pin(setup.writer.append(body(3)));
    assert!(!is_ready_after(2, &mut given_up));
    drop(leads);
    drop(given_up);
    setup.journal.permits.add_permits(9);
    assert_eq!(follows.await.unwrap(), Seq(2));
    assert_eq!(setup.turns().await, [1, 2]);
}

#[tokio::test]
async fn a_release_waits_for_what_is_being_written() {
    let setup = Setup::new(0, []).await;
    let mut call = Box::pin(setup.writer.append(body(1)));
    assert!(!is_ready_after(2, &mut call));
    drop(call);
    setup.journal.permits.add_permits(9);
    setup.writer.release().await.unwrap();
    assert_eq!(setup.turns().await, [1]);
    assert!(matches!(setup.writer.append(body(2)).await, Err(JournalError::Fenced { .. })));
}

#[tokio::test]
async fn an_expired_lease_is_renewed_by_the_next_append() {
    let setup = Setup::new(9, []).await;
    setup.clock.advance(JournalWriter::LEASE * 2);
    assert_eq!(setup.writer.append(body(1)).await.unwrap(), Seq(1));
    assert_eq!(*setup.journal.renewals.lock().unwrap(), 1);
    assert!(setup.writer.lease().expires > setup.clock.now());
}

#[tokio::test]
async fn who_was_taken_over_is_told() {
    let setup = Setup::new(9, []).await;
    setup.clock.advance(JournalWriter::LEASE);
    let other = setup.journal.lease(&run(), "other", SECOND).await.unwrap();
    assert!(setup.writer.lost().now_or_never().is_none());
    assert!(matches!(setup.writer.append(body(1)).await, Err(JournalError::Fenced { .. })));
    assert!(matches!(setup.writer.lost().await, JournalError::Fenced { .. }));
    assert_eq!(setup.turns().await, Vec::<u32>::new());
    assert_eq!(other.last, Seq(0));
}

/// Lets both clocks pass, that of the runtime, which is paused, and that of the store.
async fn pass(setup: &Setup, time: Duration) {
    for _ in 0..time.as_secs() {
        setup.clock.advance(SECOND);
        tokio::time::sleep(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_keeper_renews_until_the_writer_is_gone() {
    let setup = Setup::new(9, []).await;
    setup.writer.keep(Duration::from_secs(9));
    pass(&setup, Duration::from_secs(300)).await;
    assert!(matches!(
        setup.journal.lease(&run(), "other", SECOND).await,
        Err(JournalError::Leased { .. })
    ));
    let renewals = *setup.journal.renewals.lock().unwrap();
    assert!((95..=100).contains(&renewals), "{renewals}");

    // Nothing keeps the lease after that: neither the task nor a clone.
    let Setup { clock, journal, writer } = setup;
    drop(writer);
    journal.lease(&run(), "other", SECOND).await.unwrap();
    let before: Timestamp = clock.now();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(clock.now(), before);
    assert_eq!(*journal.renewals.lock().unwrap(), renewals);
}

#[tokio::test(start_paused = true)]
async fn the_keeper_tells_that_the_lease_was_lost() {
    let setup = Setup::new(9, []).await;
    setup.writer.keep(Duration::from_secs(9));
    // The process was stopped for a minute, and another came.
    setup.clock.advance(Duration::from_secs(60));
    let _other = setup.journal.lease(&run(), "other", JournalWriter::LEASE).await.unwrap();
    assert!(matches!(setup.writer.lost().await, JournalError::Fenced { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_released_writer_is_kept_no_longer() {
    let setup = Setup::new(9, []).await;
    setup.writer.keep(Duration::from_secs(9));
    setup.writer.release().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(*setup.journal.renewals.lock().unwrap(), 0);
    assert!(setup.writer.lost().now_or_never().is_none());
}
