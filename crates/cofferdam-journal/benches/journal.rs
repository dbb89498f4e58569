//! How long durable appends take, beside SQLite alone on the same disk: one JSON object per line.
//!
//! Rounds of the case and of its floor take turns, so that both meet the same disk. `median_ms` and `min_ms` are of one round;
//! `ratio` compares the medians.
//!
//! - One after the other: the floor is the same rows in the same kind of table, made and hashed in the same way, one insert a
//!   transaction, with the same durability; without leases, expected numbers and a view of what others do.
//! - The same again: the floor does its inserts on a thread of its own, as whatever does not block an async caller must.
//! - Eight at a time, by one writer, and eight runs at a time: the floor is the same number of appends one after the other.
//! - Reading a long run: the floor is the same rows read and counted by SQLite alone.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use cofferdam_core::{Clock, RunId, Timestamp};
use cofferdam_journal::{
    Entry, FORMAT_VERSION, Journal, JournalError, JournalWriter, Lease, RecordBody, RecordHash,
    Seq, SqliteJournal,
};
use futures::{TryStreamExt as _, channel::oneshot, executor::block_on, future::join_all};
use rusqlite::Connection;

type Failure = Box<dyn std::error::Error>;

const ROUNDS: usize = 15;
/// Appends of a round.
const APPENDS: usize = 64;
const PARALLEL: usize = 8;
const BODY_BYTES: usize = 2048;
const LONG_RUN: usize = 20_000;

#[derive(Debug)]
struct Standing;

impl Clock for Standing {
    fn now(&self) -> Timestamp {
        Timestamp(1)
    }
}

fn main() -> Result<(), Failure> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let path = directory.path().join("runs.db");
    let journal: Arc<dyn Journal> = Arc::new(SqliteJournal::open(&path, Arc::new(Standing))?);
    let mut alone = Alone::open(&directory.path().join("alone.db"))?;

    let mut run = Run::begin(&journal, "one")?;
    case(
        "journal: 64 durable appends of 2 KiB",
        "SQLite alone",
        Some(1.0 / 0.9),
        || Ok(run.one_by_one(APPENDS)?),
        || (0..APPENDS).try_for_each(|_| alone.append()),
    )?;

    let mut run = Run::begin(&journal, "one again")?;
    let asked = asked(Alone::open(&directory.path().join("asked.db"))?);
    case(
        "journal: 64 durable appends of 2 KiB, for who must not block",
        "SQLite alone, on a thread of its own",
        Some(1.0 / 0.9),
        || Ok(run.one_by_one(APPENDS)?),
        || {
            (0..APPENDS).try_for_each(|_| {
                let (tell, told) = oneshot::channel();
                asked.send(tell)?;
                Ok(block_on(told)??)
            })
        },
    )?;

    let mut run = Run::begin(&journal, "sequential")?;
    let writer = Run::begin(&journal, "parallel")?.writer();
    case(
        "journal: 64 durable appends, 8 at a time, one run",
        "one at a time",
        Some(0.25),
        || {
            for _ in 0..APPENDS / PARALLEL {
                let all = join_all((0..PARALLEL).map(|_| writer.append(body())));
                block_on(all).into_iter().collect::<Result<Vec<_>, _>>()?;
            }
            Ok(())
        },
        || Ok(run.one_by_one(APPENDS)?),
    )?;

    let mut run = Run::begin(&journal, "sequential again")?;
    let mut runs = (0..PARALLEL)
        .map(|number| Run::begin(&journal, &format!("run {number}")))
        .collect::<Result<Vec<_>, _>>()?;
    case(
        "journal: 64 durable appends, 8 runs at a time",
        "one at a time",
        Some(0.25),
        || {
            let all = join_all(runs.iter_mut().map(|run| run.append_some(APPENDS / PARALLEL)));
            block_on(all).into_iter().collect::<Result<Vec<_>, _>>()?;
            Ok(())
        },
        || Ok(run.one_by_one(APPENDS)?),
    )?;

    reading(&journal, &path)
}

fn reading(journal: &Arc<dyn Journal>, path: &Path) -> Result<(), Failure> {
    let mut run = Run::begin(journal, "long")?;
    for _ in 0..LONG_RUN / 1000 {
        run.last = block_on(journal.append(&run.lease, run.last, vec![entry(); 1000]))?;
    }
    let alone = Connection::open(path)?;
    case(
        "journal: read and verify 20,000 records of 2 KiB",
        "SQLite alone, unverified",
        None,
        || {
            let records = journal.read(&RunId::new("long"), Seq(1));
            let count = block_on(records.try_fold(0, async |count, _| Ok(count + 1)))?;
            (count == LONG_RUN).then_some(()).ok_or_else(|| "records are missing".into())
        },
        || {
            let mut rows =
                alone.prepare("SELECT body FROM records WHERE run = 'long' ORDER BY seq")?;
            let bodies = rows.query_map([], |row| row.get::<_, String>(0))?;
            let count = bodies.filter_map(Result::ok).filter(|body| !body.is_empty()).count();
            (count == LONG_RUN).then_some(()).ok_or_else(|| "rows are missing".into())
        },
    )
}

fn body() -> RecordBody {
    RecordBody::Unknown("x".repeat(BODY_BYTES - 2).into())
}

fn entry() -> Entry {
    Entry { time: Timestamp(1), body: body() }
}

/// A run that is driven.
struct Run {
    journal: Arc<dyn Journal>,
    lease: Lease,
    last: Seq,
}

impl Run {
    fn begin(journal: &Arc<dyn Journal>, name: &str) -> Result<Self, JournalError> {
        let lease = block_on(journal.lease(&RunId::new(name), "bench", Duration::from_secs(60)))?;
        Ok(Self { journal: Arc::clone(journal), last: lease.last, lease })
    }

    fn writer(self) -> JournalWriter {
        JournalWriter::new(self.journal, Arc::new(Standing), self.lease)
    }

    async fn append_some(&mut self, count: usize) -> Result<(), JournalError> {
        for _ in 0..count {
            self.last = self.journal.append(&self.lease, self.last, vec![entry()]).await?;
        }
        Ok(())
    }

    fn one_by_one(&mut self, count: usize) -> Result<(), JournalError> {
        block_on(self.append_some(count))
    }
}

/// A table of records, written by SQLite alone.
struct Alone {
    connection: Connection,
    run: RunId,
    last: Seq,
    hash: RecordHash,
}

impl Alone {
    fn open(path: &Path) -> Result<Self, Failure> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
             CREATE TABLE records (run TEXT NOT NULL, seq INTEGER NOT NULL, time INTEGER NOT NULL, \
             format INTEGER NOT NULL, body TEXT NOT NULL, hash TEXT NOT NULL, UNIQUE (run, seq)) STRICT;",
        )?;
        let run = RunId::new("one");
        let hash = RecordHash::of_run(&run);
        Ok(Self { connection, run, last: Seq(0), hash })
    }

    fn append(&mut self) -> Result<(), Failure> {
        let entry = entry();
        let text = entry.text(&self.run)?;
        let seq = Seq(self.last.0 + 1);
        let hash = RecordHash::of_record(self.hash, FORMAT_VERSION, seq, entry.time, &text);
        let insert = "INSERT INTO records VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let row = (self.run.as_str(), seq.0, entry.time.0, FORMAT_VERSION, text, hash.to_string());
        self.connection.prepare_cached(insert)?.execute(row)?;
        (self.last, self.hash) = (seq, hash);
        Ok(())
    }
}

/// Appends on a thread of its own, once for each who asks, until nobody can any more.
fn asked(mut alone: Alone) -> mpsc::Sender<oneshot::Sender<Result<(), String>>> {
    let (queue, asking) = mpsc::channel::<oneshot::Sender<_>>();
    thread::spawn(move || {
        for tell in asking {
            // Who asked waits for it.
            let _ = tell.send(alone.append().map_err(|error| error.to_string()));
        }
    });
    queue
}

/// Measures rounds of a case and of its floor in turn, and prints a line.
#[expect(clippy::print_stdout, reason = "the line is what a benchmark is for")]
fn case(
    name: &str,
    floor: &str,
    bar: Option<f64>,
    mut act: impl FnMut() -> Result<(), Failure>,
    mut act_floor: impl FnMut() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (mut times, mut floors) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let start = Instant::now();
        act()?;
        let took = start.elapsed();
        let start = Instant::now();
        act_floor()?;
        // The first round warms up.
        if round > 0 {
            times.push(took);
            floors.push(start.elapsed());
        }
    }
    let (median, least) = summary(&mut times);
    let (floor_median, floor_least) = summary(&mut floors);
    let ratio = median / floor_median;
    let bar = bar.map(|bar| format!(r#", "bar": {bar:.2}"#)).unwrap_or_default();
    println!(
        r#"{{"case": "{name}", "median_ms": {median:.3}, "min_ms": {least:.3}, "n": {ROUNDS}, "floor": "{floor}", "floor_median": {floor_median:.3}, "floor_min": {floor_least:.3}, "ratio": {ratio:.3}{bar}}}"#
    );
    Ok(())
}

/// Returns the median and the least of some times, in milliseconds.
fn summary(times: &mut [Duration]) -> (f64, f64) {
    times.sort_unstable();
    let millis = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    (millis(times.get(times.len() / 2)), millis(times.first()))
}
