//! A journal whose disk lost power: at each flush, and at moments between, with any part kept of what had not been flushed.

#![expect(clippy::disallowed_methods, reason = "what is recorded is a process of its own")]

use std::{
    collections::BTreeMap, io::Write as _, ops::RangeInclusive, path::Path, process::Command,
    sync::Arc, time::Duration,
};

use cofferdam_core::{RunId, Timestamp};
use cofferdam_journal::{
    Entry, Journal, JournalWriter, Record, RecordBody, RunFilter, Seq, SqliteJournal, verify_chain,
};
use cofferdam_testkit::{
    FixedClock,
    power_loss::{self, CrashState, Error, Log},
    skip,
};
use futures::{TryStreamExt as _, executor::block_on, future::join_all};
use rusqlite::Connection;

use crate::kit;

/// Names the directory in the environment of the process that is recorded.
const DIRECTORY: &str = "COFFERDAM_TEST_POWER_LOSS";

const MINUTE: Duration = Duration::from_secs(60);

fn open(directory: &Path) -> SqliteJournal {
    SqliteJournal::open(directory.join("runs.db"), Arc::new(FixedClock::at(1))).unwrap()
}

fn entry(turn: u32, length: usize) -> Entry {
    let text = format!("{turn:08} {}", "x".repeat(length));
    Entry { time: Timestamp(1), body: RecordBody::Unknown(text.into()) }
}

/// Not a test of its own: the process that is recorded, when the test below starts this program again. Each line that it
/// prints is what it was told: a run, and how many records are there; or that the run was removed.
#[test]
fn recorded() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let say = |run: &RunId, records: &dyn std::fmt::Display| {
        writeln!(std::io::stdout().lock(), "\nacknowledged {run} {records}").unwrap();
    };
    block_on(async {
        let journal: Arc<dyn Journal> = Arc::new(open(Path::new(&directory)));
        // One run after the other, in units of different lengths, some of them over many pages.
        for name in ["a", "b"] {
            let run = RunId::new(name);
            let lease = journal.lease(&run, "x", MINUTE).await.unwrap();
            let mut last = lease.last;
            for turn in 0..6 {
                let length = [10, 2000, 9000][turn as usize % 3];
                let unit = (0..=turn % 2).map(|_| entry(turn, length)).collect();
                last = journal.append(&lease, last, unit).await.unwrap();
                say(&run, &last);
            }
            journal.release(&lease).await.unwrap();
        }
        // Parallel appends, which share commits.
        let run = RunId::new("c");
        let lease = journal.lease(&run, "x", MINUTE).await.unwrap();
        let writer = JournalWriter::new(Arc::clone(&journal), Arc::new(FixedClock::at(1)), lease);
        join_all((0..8).map(async |turn| {
            let body = RecordBody::ModelRequested { turn, items: 0 };
            say(&run, &writer.append(body).await.unwrap());
        }))
        .await;
        writer.release().await.unwrap();
        say(&RunId::new("a"), &"removing");
        journal.remove(&RunId::new("a")).await.unwrap();
        say(&RunId::new("a"), &"removed");
    });
    // Closed and opened again: the log is written back to the database.
    let journal = open(Path::new(&directory));
    block_on(journal.close());
    let journal = open(Path::new(&directory));
    block_on(async {
        let run = RunId::new("b");
        let lease = journal.lease(&run, "x", MINUTE).await.unwrap();
        say(&run, &journal.append(&lease, lease.last, vec![entry(9, 5)]).await.unwrap());
        journal.close().await;
    });
}

/// The numbers of records that each run may have, from what had been acknowledged.
fn allowed(state: &CrashState) -> BTreeMap<String, Vec<RangeInclusive<u64>>> {
    let mut allowed: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for line in state.acknowledged.lines() {
        let Some((run, records)) =
            line.strip_prefix("acknowledged ").and_then(|line| line.split_once(' '))
        else {
            continue;
        };
        let ranges = allowed.entry(run.to_owned()).or_default();
        match records {
            "removing" => ranges.push(0..=0),
            "removed" => *ranges = vec![0..=0],
            records => {
                let least = records.parse().unwrap();
                let before = ranges.first().map_or(0, |range| *range.start());
                *ranges = vec![std::cmp::max(before, least)..=u64::MAX];
            }
        }
    }
    allowed
}

fn check(state: &CrashState) {
    let journal =
        SqliteJournal::open(state.directory.path().join("runs.db"), Arc::new(FixedClock::at(1)))
            .unwrap_or_else(|error| panic!("{}: {error} ({error:?})", state.description));
    block_on(async {
        for (run, allowed) in allowed(state) {
            let run = RunId::new(run);
            let records: Vec<Record> = journal
                .read(&run, Seq(1))
                .try_collect()
                .await
                .unwrap_or_else(|error| panic!("{}: {error}", state.description));
            verify_chain(&run, None, &records).unwrap();
            let there = records.len() as u64;
            assert!(
                allowed.iter().any(|range| range.contains(&there)),
                "{}: run {run} has {there} records, not {allowed:?}",
                state.description
            );
            // Everybody who drove it is dead, and it goes on.
            let lease = journal.lease(&run, "next", MINUTE).await.unwrap();
            journal.append(&lease, Seq(there), vec![entry(0, 5)]).await.unwrap();
        }
        journal.runs(&RunFilter::default()).await.unwrap();
        journal.close().await;
    });
}

/// Records one of the tests above as a process; `None` if nothing can be recorded here.
fn record(test: &str, directory: &Path) -> Option<Log> {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture", "--test-threads", "1"]).env(DIRECTORY, directory);
    match power_loss::record(&mut child, directory, &["-shm"]) {
        Err(error @ Error::NoCompiler) => {
            skip("power_loss", &error.to_string());
            None
        }
        log => Some(log.unwrap()),
    }
}

#[test]
fn what_was_acknowledged_survives() {
    let directory = kit::directory();
    let Some(log) = record("power_loss::recorded", directory.path()) else { return };
    assert!(log.flushes() > 30, "{} flushes", log.flushes());
    let mut states = 0;
    for state in log.crash_states(1, 40) {
        check(&state);
        states += 1;
    }
    assert!(states > 300, "{states} states");
}

/// Not a test of its own: a database whose commits are not flushed.
#[test]
fn recorded_without_flushes() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let connection = Connection::open(Path::new(&directory).join("runs.db")).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; CREATE TABLE t (x INTEGER);",
        )
        .unwrap();
    for number in 1..=5 {
        connection.execute("INSERT INTO t VALUES (?1)", [number]).unwrap();
        writeln!(std::io::stdout().lock(), "\nacknowledged t {number}").unwrap();
    }
}

/// The control: if nothing were flushed, the test above would have seen it.
#[test]
fn what_is_not_flushed_is_lost() {
    let directory = kit::directory();
    let Some(log) = record("power_loss::recorded_without_flushes", directory.path()) else {
        return;
    };
    let lost = log.crash_states(1, 20).any(|state| {
        let there = Connection::open(state.directory.path().join("runs.db"))
            .and_then(|db| db.query_row("SELECT count(*) FROM t", [], |row| row.get(0)))
            .unwrap_or(0);
        allowed(&state).values().any(|allowed| !allowed.iter().any(|range| range.contains(&there)))
    });
    assert!(lost);
}
