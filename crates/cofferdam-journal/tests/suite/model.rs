//! Random operations of several writers on several runs, beside a model that is too simple to be wrong; on every store, and
//! with closing and opening again where a store survives that.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cofferdam_core::{RunId, Timestamp};
use cofferdam_journal::{
    Entry, Journal, JournalError, Lease, Record, RecordBody, RunFilter, Seq,
    conformance::{HandClock, Subject},
    verify_chain,
};
use futures::TryStreamExt as _;
use proptest::prelude::*;

use crate::kit::{Memory, Sqlite};

const RUNS: usize = 2;
const WRITERS: usize = 3;

/// How long leases are, in the model's seconds.
const LEASE: u64 = 10;

#[derive(Debug, Clone)]
enum Operation {
    Lease {
        run: usize,
        writer: usize,
    },
    Renew {
        run: usize,
        writer: usize,
    },
    /// Appends so many entries, expecting the number that the writer knows, or one that is off by this.
    Append {
        run: usize,
        writer: usize,
        entries: u8,
        off: i8,
    },
    Release {
        run: usize,
        writer: usize,
    },
    /// The writer forgets its lease without a word.
    Drop {
        run: usize,
        writer: usize,
    },
    Remove {
        run: usize,
    },
    Wait {
        seconds: u64,
    },
    Read {
        run: usize,
        from: u64,
    },
    List,
    Reopen,
}

fn operation() -> impl Strategy<Value = Operation> {
    let (run, writer) = (0..RUNS, 0..WRITERS);
    let who = (run.clone(), writer);
    prop_oneof![
        4 => who.clone().prop_map(|(run, writer)| Operation::Lease { run, writer }),
        2 => who.clone().prop_map(|(run, writer)| Operation::Renew { run, writer }),
        8 => (who.clone(), 0..4u8, prop_oneof![6 => Just(0i8), 1 => -2..3i8])
            .prop_map(|((run, writer), entries, off)| Operation::Append { run, writer, entries, off }),
        1 => who.clone().prop_map(|(run, writer)| Operation::Release { run, writer }),
        1 => who.prop_map(|(run, writer)| Operation::Drop { run, writer }),
        1 => run.clone().prop_map(|run| Operation::Remove { run }),
        2 => (0..8u64).prop_map(|seconds| Operation::Wait { seconds }),
        2 => (run, 0..12u64).prop_map(|(run, from)| Operation::Read { run, from }),
        1 => Just(Operation::List),
        1 => Just(Operation::Reopen),
    ]
}

/// What a run is, in the model: the turns of its records, and who has it until when.
#[derive(Debug, Default)]
struct ModelRun {
    there: bool,
    turns: Vec<u32>,
    holder: Option<(usize, u64)>,
}

struct World {
    journal: Arc<dyn Journal>,
    clock: Arc<HandClock>,
    now: u64,
    runs: [ModelRun; RUNS],
    /// The lease that each writer believes to have, and whether the model says that it is the newest.
    leases: BTreeMap<(usize, usize), Lease>,
    turn: u32,
}

fn id(run: usize) -> RunId {
    RunId::new(format!("run-{run}"))
}

impl World {
    /// Tells whether a writer's lease is the newest on a run and when it ends.
    fn held(&self, run: usize, writer: usize) -> Option<u64> {
        self.runs[run].holder.filter(|(holder, _)| *holder == writer).map(|(_, until)| until)
    }

    fn leased(&self, run: usize) -> bool {
        self.runs[run].holder.is_some_and(|(_, until)| until > self.now)
    }

    async fn lease(&mut self, run: usize, writer: usize) {
        let lease = Duration::from_secs(LEASE);
        let granted = self.journal.lease(&id(run), &format!("writer {writer}"), lease).await;
        if self.leased(run) {
            assert!(matches!(granted, Err(JournalError::Leased { .. })), "{granted:?}");
            return;
        }
        let granted = granted.unwrap();
        for lease in self.leases.values() {
            assert!(granted.epoch > lease.epoch);
        }
        assert_eq!(granted.last.0, self.runs[run].turns.len() as u64);
        let until = self.now + LEASE;
        self.runs[run].there = true;
        self.runs[run].holder = Some((writer, until));
        self.leases.insert((run, writer), granted);
    }

    async fn renew(&mut self, run: usize, writer: usize) {
        let Some(lease) = self.leases.get(&(run, writer)) else { return };
        let renewed = self.journal.renew(lease, Duration::from_secs(LEASE)).await;
        if self.held(run, writer).is_none() {
            assert!(matches!(renewed, Err(JournalError::Fenced { .. })), "{renewed:?}");
            return;
        }
        self.runs[run].holder = Some((writer, self.now + LEASE));
        self.leases.insert((run, writer), renewed.unwrap());
    }

    async fn append(&mut self, run: usize, writer: usize, entries: u8, off: i8) {
        let Some(lease) = self.leases.get(&(run, writer)).cloned() else { return };
        let last = self.runs[run].turns.len() as u64;
        let expected = last.saturating_add_signed(i64::from(off));
        let turns: Vec<u32> = (0..u32::from(entries)).map(|nth| self.turn + nth).collect();
        self.turn += u32::from(entries);
        let entries = turns.iter().map(|turn| Entry {
            time: Timestamp(1),
            body: RecordBody::ModelRequested { turn: *turn, items: 0 },
        });
        let result = self.journal.append(&lease, Seq(expected), entries.collect()).await;
        match self.held(run, writer) {
            None => assert!(matches!(result, Err(JournalError::Fenced { .. })), "{result:?}"),
            Some(until) if until <= self.now => {
                assert!(matches!(result, Err(JournalError::Expired { .. })), "{result:?}");
            }
            Some(_) if expected != last => {
                assert!(matches!(result, Err(JournalError::Conflict { .. })), "{result:?}");
            }
            Some(_) => {
                self.runs[run].turns.extend(turns);
                assert_eq!(result.unwrap().0, self.runs[run].turns.len() as u64);
            }
        }
    }

    async fn release(&mut self, run: usize, writer: usize) {
        let Some(lease) = self.leases.get(&(run, writer)) else { return };
        self.journal.release(lease).await.unwrap();
        if self.held(run, writer).is_some() {
            self.runs[run].holder = None;
        }
    }

    async fn remove(&mut self, run: usize) {
        let removed = self.journal.remove(&id(run)).await;
        if self.leased(run) {
            assert!(matches!(removed, Err(JournalError::Leased { .. })), "{removed:?}");
        } else {
            removed.unwrap();
            self.runs[run] = ModelRun::default();
        }
    }

    async fn read(&self, run: usize, from: u64) {
        let skip = usize::try_from(from.saturating_sub(1)).unwrap();
        let found: Vec<Record> =
            self.journal.read(&id(run), Seq(from)).try_collect().await.unwrap();
        if skip == 0 {
            verify_chain(&id(run), None, &found).unwrap();
        }
        let turns: Vec<u32> = found
            .iter()
            .map(|record| match record.body {
                RecordBody::ModelRequested { turn, .. } => turn,
                _ => panic!("{record:?}"),
            })
            .collect();
        assert_eq!(turns, self.runs[run].turns.get(skip..).unwrap_or_default());
    }

    async fn list(&self) {
        let listed = self.journal.runs(&RunFilter::default()).await.unwrap();
        let found: Vec<_> = listed
            .iter()
            .map(|run| {
                (run.run.clone(), run.records.0, run.holder.as_ref().is_some_and(|h| h.live))
            })
            .collect();
        let expected: Vec<_> = (0..RUNS)
            .filter(|run| self.runs[*run].there)
            .map(|run| (id(run), self.runs[run].turns.len() as u64, self.leased(run)))
            .collect();
        assert_eq!(found, expected);
    }

    async fn act(&mut self, operation: &Operation, subject: &dyn Subject) {
        match *operation {
            Operation::Lease { run, writer } => self.lease(run, writer).await,
            Operation::Renew { run, writer } => self.renew(run, writer).await,
            Operation::Append { run, writer, entries, off } => {
                self.append(run, writer, entries, off).await;
            }
            Operation::Release { run, writer } => self.release(run, writer).await,
            Operation::Drop { run, writer } => {
                if self.leases.remove(&(run, writer)).is_some() && self.held(run, writer).is_some()
                {
                    self.runs[run].holder = None;
                }
            }
            Operation::Remove { run } => self.remove(run).await,
            Operation::Wait { seconds } => {
                self.now += seconds;
                self.clock.advance(Duration::from_secs(seconds));
            }
            Operation::Read { run, from } => self.read(run, from).await,
            Operation::List => self.list().await,
            Operation::Reopen => {
                let reopened = subject.reopen(Arc::clone(&self.journal), self.clock.clone()).await;
                if let Some(journal) = reopened.unwrap() {
                    self.journal = journal;
                }
            }
        }
    }
}

fn check(subject: &dyn Subject, operations: &[Operation]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let clock = Arc::new(HandClock::default());
        let journal = subject.fresh(clock.clone()).await.unwrap();
        let (runs, leases) = (Default::default(), BTreeMap::new());
        let mut world = World { journal, clock, now: 0, runs, leases, turn: 0 };
        for operation in operations {
            world.act(operation, subject).await;
        }
        for run in 0..RUNS {
            world.read(run, 0).await;
        }
        world.list().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn memory(operations in prop::collection::vec(operation(), 1..60)) {
        check(&Memory, &operations);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn sqlite(operations in prop::collection::vec(operation(), 1..40)) {
        check(&Sqlite::new(), &operations);
    }
}
