//! Leases between real processes, some of which are killed in the middle.
//!
//! The test starts itself again as another process: the holder of a lease, which says on its standard output what it has done.

#![expect(clippy::disallowed_methods, reason = "the holder that is killed is a process of its own")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use cofferdam_core::{Clock, RunId, Timestamp};
use cofferdam_journal::{
    Entry, Journal, JournalError, Record, RecordBody, Seq, SqliteJournal, verify_chain,
};
use cofferdam_testkit::FixedClock;
use futures::TryStreamExt as _;

use crate::kit;

/// Names the database in the environment of the process that holds.
const HOLDER: &str = "COFFERDAM_TEST_HOLDER";

const HOUR: Duration = Duration::from_secs(3600);

fn clock() -> Arc<dyn Clock> {
    Arc::new(FixedClock::at(1_000_000))
}

fn run() -> RunId {
    RunId::new("r")
}

fn entry(turn: u32) -> Entry {
    Entry { time: Timestamp(1), body: RecordBody::ModelRequested { turn, items: 0 } }
}

/// A process that leases the run for an hour, and appends one record after the other until it is killed.
struct Holder {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Holder {
    fn start(database: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::holder", "--nocapture", "--test-threads", "1"])
            .env(HOLDER, database)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// Waits for the holder's next word of this kind, and returns the number with it.
    fn told(&mut self, word: &str) -> u64 {
        self.told_one_of(&[word]).1
    }

    fn told_one_of<'a>(&mut self, words: &[&'a str]) -> (&'a str, u64) {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the holder has ended");
            for word in words {
                if let Some(number) = line.trim().strip_prefix(word) {
                    return (word, number.trim().parse().unwrap());
                }
            }
        }
    }

    /// Kills it as the kernel does when memory is short, and returns the number of the last record that it was told is there.
    fn kill(mut self) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let lines = std::iter::from_fn(|| {
            let mut line = String::new();
            (self.output.read_line(&mut line).unwrap() > 0).then_some(line)
        });
        // The last line may be torn, as the holder was killed while it wrote it; then it has no end.
        lines
            .filter_map(|line| line.strip_prefix("appended ")?.strip_suffix('\n')?.parse().ok())
            .last()
            .unwrap_or(0)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test of its own: the holder, when the tests below start this program again.
#[test]
fn holder() {
    let Some(database) = std::env::var_os(HOLDER) else { return };
    let journal = SqliteJournal::open(Path::new(&database), clock()).unwrap();
    let say = |word: &str, number: u64| {
        let mut output = std::io::stdout().lock();
        writeln!(output, "\n{word} {number}").unwrap();
        output.flush().unwrap();
    };
    futures::executor::block_on(async {
        let lease = match journal.lease(&run(), "holder", HOUR).await {
            Err(JournalError::Leased { .. }) => return say("refused", 0),
            other => other.unwrap(),
        };
        say("epoch", lease.epoch.0);
        let mut last = lease.last;
        loop {
            let turn = u32::try_from(last.0).unwrap() + 1;
            last = journal.append(&lease, last, vec![entry(turn)]).await.unwrap();
            say("appended", last.0);
        }
    });
}

#[tokio::test]
async fn a_killed_holder_is_taken_over_at_once_and_nothing_it_acknowledged_is_lost() {
    let directory = kit::directory();
    let database = directory.path().join("runs.db");
    let journal = SqliteJournal::open(&database, clock()).unwrap();
    let mut least = 0;
    for round in 0..5 {
        let mut holder = Holder::start(&database);
        let epoch = holder.told("epoch");
        for _ in 0..round {
            holder.told("appended");
        }
        match journal.lease(&run(), "next", HOUR).await {
            Err(JournalError::Leased { owner, .. }) => assert_eq!(owner, "holder"),
            other => panic!("the holder lives, and another got {other:?}"),
        }
        assert!(matches!(journal.remove(&run()).await, Err(JournalError::Leased { .. })));
        least = holder.kill().max(least);

        // The clock stands still: an hour has not passed.
        let lease = journal.lease(&run(), "next", HOUR).await.unwrap();
        assert!(lease.epoch.0 > epoch);
        assert!(lease.last.0 >= least, "{} records, {least} were acknowledged", lease.last);
        least = journal.append(&lease, lease.last, vec![entry(0)]).await.unwrap().0;
        journal.release(&lease).await.unwrap();
    }
    let records: Vec<Record> = journal.read(&run(), Seq(1)).try_collect().await.unwrap();
    verify_chain(&run(), None, &records).unwrap();
    assert_eq!(records.len() as u64, least);
    // What the dead have left beside the database is removed by who opens it next.
    journal.close().await;
    SqliteJournal::open(&database, clock()).unwrap().close().await;
    let left = std::fs::read_dir(directory.path().join("runs.db-leases")).unwrap().count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn of_many_processes_one_drives_the_run() {
    let directory = kit::directory();
    let database = directory.path().join("runs.db");
    // All make the database at once, too.
    let mut holders: Vec<Holder> = (0..6).map(|_| Holder::start(&database)).collect();
    let mut words: Vec<&str> = Vec::new();
    for holder in &mut holders {
        let (word, _) = holder.told_one_of(&["epoch", "refused"]);
        words.push(word);
    }
    words.sort_unstable();
    assert_eq!(words, ["epoch", "refused", "refused", "refused", "refused", "refused"]);
}
