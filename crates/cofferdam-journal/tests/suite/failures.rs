//! Disks that are full, damaged, read-only, locked or of somebody else: each is told apart, and nothing is lost by it.

#![expect(clippy::disallowed_methods, reason = "small file systems are mounted, where one may")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use cofferdam_core::{RunId, Timestamp};
use cofferdam_journal::{
    Entry, FORMAT_VERSION, Journal, JournalError, Record, RecordBody, RunFilter, Seq,
    SqliteJournal, verify_chain,
};
use cofferdam_testkit::{FixedClock, skip};
use futures::StreamExt as _;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::kit;

const MINUTE: Duration = Duration::from_secs(60);

fn open(path: &Path) -> Result<SqliteJournal, JournalError> {
    SqliteJournal::open(path, Arc::new(FixedClock::at(1)))
}

fn run() -> RunId {
    RunId::new("r")
}

fn entry(turn: u32, length: usize) -> Entry {
    let text = format!("{turn:08} {}", "x".repeat(length));
    Entry { time: Timestamp(1), body: RecordBody::Unknown(text.into()) }
}

/// Makes a journal with a run of some records, and closes it.
async fn made(path: &Path, records: u32) {
    let journal = open(path).unwrap();
    let lease = journal.lease(&run(), "x", MINUTE).await.unwrap();
    let entries = (1..=records).map(|turn| entry(turn, 100)).collect();
    journal.append(&lease, Seq(0), entries).await.unwrap();
    journal.release(&lease).await.unwrap();
    journal.close().await;
}

/// Reads a run as far as it can be read.
async fn read(journal: &SqliteJournal) -> (Vec<Record>, Option<JournalError>) {
    let (mut records, mut error) = (Vec::new(), None);
    let mut stream = journal.read(&run(), Seq(1));
    while let Some(next) = stream.next().await {
        match next {
            Ok(record) => records.push(record),
            Err(found) => error = Some(found),
        }
    }
    verify_chain(&run(), None, &records).unwrap();
    (records, error)
}

/// The message, with the place replaced.
fn message(error: &JournalError, directory: &Path) -> String {
    error.to_string().replace(&directory.display().to_string(), "DIR")
}

#[tokio::test]
async fn what_is_no_journal_is_not_touched() {
    let directory = kit::directory();
    let check = |name: &str, make: &dyn Fn(&Path), expect: &str| {
        let path = directory.path().join(name);
        make(&path);
        let before = fs::read(&path).ok();
        let error = open(&path).unwrap_err();
        assert_eq!(message(&error, directory.path()), expect);
        assert_eq!(fs::read(&path).ok(), before);
    };
    check(
        "text",
        &|path| {
            fs::write(path, "not a database, and longer than the header of one: ".repeat(3))
                .unwrap()
        },
        "DIR/text is not a journal: it is not a SQLite database; it was not touched, name another place",
    );
    check(
        "short",
        &|path| fs::write(path, "x").unwrap(),
        "DIR/short is not a journal: it is not a SQLite database; it was not touched, name another place",
    );
    let database = |path: &Path, sql: &str| {
        Connection::open(path).unwrap().execute_batch(sql).unwrap();
    };
    check(
        "plain.db",
        &|path| database(path, "CREATE TABLE t (x)"),
        "DIR/plain.db is not a journal: it is a SQLite database of no application; it was not touched, name another place",
    );
    check(
        "fossil.db",
        &|path| database(path, "PRAGMA application_id = 252006673; CREATE TABLE t (x)"),
        "DIR/fossil.db is not a journal: it is a SQLite database of another application (0x0f055111); it was not touched, \
         name another place",
    );
    check(
        "directory",
        &|path| fs::create_dir(path).unwrap(),
        "DIR/directory is not a journal: it is not a regular file; it was not touched, name another place",
    );
}

#[tokio::test]
async fn newer_versions() {
    let directory = kit::directory();
    let path = directory.path().join("runs.db");
    made(&path, 3).await;
    let change = |sql: &str| Connection::open(&path).unwrap().execute_batch(sql).unwrap();

    change("UPDATE records SET format = 99 WHERE seq = 3");
    let journal = open(&path).unwrap();
    let (records, error) = read(&journal).await;
    assert_eq!(records.len(), 2);
    let expect = format!(
        "run r has records of journal format 99, and this release reads up to {FORMAT_VERSION}; use a newer release"
    );
    assert_eq!(error.unwrap().to_string(), expect);
    // Nobody goes on with what they do not understand.
    let refused = journal.lease(&run(), "x", MINUTE).await.unwrap_err();
    assert_eq!(refused.to_string(), expect);
    assert_eq!(journal.runs(&RunFilter::default()).await.unwrap().len(), 1);
    journal.close().await;

    change("PRAGMA user_version = 7");
    assert_eq!(
        message(&open(&path).unwrap_err(), directory.path()),
        "the journal DIR/runs.db is a store of version 7, and this release reads up to 1; use a newer release"
    );
}

#[tokio::test]
async fn a_damaged_record_hides_nothing_that_is_before_it() {
    let directory = kit::directory();
    let path = directory.path().join("runs.db");
    // More than a page of reading, so that the damage is in the middle of one.
    made(&path, 400).await;
    let check = async |sql: &str, expect: &str| {
        let copy = path.with_file_name("copy.db");
        fs::copy(&path, &copy).unwrap();
        Connection::open(&copy).unwrap().execute_batch(sql).unwrap();
        let journal = open(&copy).unwrap();
        let (records, error) = read(&journal).await;
        assert_eq!(records.len(), 299, "{sql}");
        let expect = format!(
            "record 300 of run r is corrupt: {expect}; restore it from a copy, what is before it is intact"
        );
        assert_eq!(error.unwrap().to_string(), expect, "{sql}");
        journal.close().await;
    };
    let misfit = "its hash does not fit its content";
    check("UPDATE records SET body = replace(body, '300', '301') WHERE seq = 300", misfit).await;
    check("UPDATE records SET time = 2 WHERE seq = 300", misfit).await;
    check("UPDATE records SET format = 1 WHERE seq = 300", misfit).await;
    check(
        "UPDATE records SET hash = replace(hash, substr(hash, 1, 1), 'f') WHERE seq = 300; \
           UPDATE records SET hash = '0' || substr(hash, 2) WHERE seq = 300 AND hash LIKE 'f%'",
        misfit,
    )
    .await;
    check("UPDATE records SET hash = 'x' WHERE seq = 300", "its hash is no hash").await;
    check(
        "UPDATE records SET body = CAST(x'22fe22' AS TEXT) WHERE seq = 300",
        "its body is not UTF-8",
    )
    .await;
    check("UPDATE records SET format = -1 WHERE seq = 300", "its format is no version").await;
    check(
        "UPDATE records SET body = '{' WHERE seq = 300",
        "its body cannot be read as JSON: EOF while parsing an object at line 1 column 1",
    )
    .await;
    let gap = "DELETE FROM records WHERE seq = 300";
    let copy = path.with_file_name("copy.db");
    fs::copy(&path, &copy).unwrap();
    Connection::open(&copy).unwrap().execute_batch(gap).unwrap();
    let (records, error) = read(&open(&copy).unwrap()).await;
    assert_eq!(records.len(), 299);
    assert!(matches!(error, Some(JournalError::Corrupt { seq: Seq(301), .. })));
}

#[tokio::test]
async fn a_flipped_byte_is_found_wherever_it_is() {
    let directory = kit::directory();
    let path = directory.path().join("runs.db");
    made(&path, 60).await;
    let whole = fs::read(&path).unwrap();
    let (original, error) = read(&open(&path).unwrap()).await;
    assert!(error.is_none());
    let mut found = 0;
    for at in (0..whole.len()).step_by(97) {
        let copy = directory.path().join(format!("copy-{at}.db"));
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&copy, bytes).unwrap();
        // Whatever is hit, what is read is a genuine beginning of the run: all of it, or an error says that there is more.
        match open(&copy) {
            Err(_) => found += 1,
            Ok(journal) => {
                let (records, error) = read(&journal).await;
                assert_eq!(records[..], original[..records.len()], "at {at}");
                assert!(error.is_some() || records.len() == 60 || records.is_empty(), "at {at}");
                found += usize::from(records.len() < 60);
                journal.close().await;
            }
        }
        let _ = fs::remove_file(&copy);
    }
    assert!(found > 50, "{found} found");
}

#[tokio::test]
async fn a_cut_database_is_damaged_not_empty() {
    let directory = kit::directory();
    let path = directory.path().join("runs.db");
    made(&path, 400).await;
    let whole = fs::read(&path).unwrap();
    for length in [4096, 8192, whole.len() / 2, whole.len() - 4096] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = match open(&path) {
            Err(error) => error,
            Ok(journal) => {
                let (records, error) = read(&journal).await;
                assert!(records.len() < 400);
                error.unwrap()
            }
        };
        assert!(matches!(error, JournalError::Damaged { .. }), "{length}: {error:?}");
    }
    // An empty database beside a log that is not: SQLite alone would delete the log.
    fs::write(&path, []).unwrap();
    fs::write(directory.path().join("runs.db-wal"), &whole[..5000]).unwrap();
    assert_eq!(
        message(&open(&path).unwrap_err(), directory.path()),
        "the journal DIR/runs.db is damaged: the database is empty, but its log (-wal) is not; keep its files as they are, \
         export what can be read, restore the rest from a copy"
    );
    assert_eq!(fs::read(directory.path().join("runs.db-wal")).unwrap().len(), 5000);
}

#[tokio::test]
async fn a_log_that_was_cut_off_ends_the_run_at_a_whole_commit() {
    let directory = kit::directory();
    let path = directory.path().join("runs.db");
    let journal = open(&path).unwrap();
    let lease = journal.lease(&run(), "x", MINUTE).await.unwrap();
    for turn in 0..10 {
        let unit = vec![entry(turn, 500), entry(turn, 6000)];
        journal.append(&lease, Seq(u64::from(turn) * 2), unit).await.unwrap();
    }
    let log = fs::read(directory.path().join("runs.db-wal")).unwrap();
    let database = fs::read(&path).unwrap();
    let mut lengths = Vec::new();
    for length in (0..=log.len()).step_by(1999).chain([log.len()]) {
        let copy = directory.path().join(format!("copy-{length}.db"));
        fs::write(&copy, &database).unwrap();
        fs::write(directory.path().join(format!("copy-{length}.db-wal")), &log[..length]).unwrap();
        let journal = open(&copy).unwrap();
        let (records, error) = read(&journal).await;
        assert!(error.is_none());
        assert_eq!(records.len() % 2, 0, "half of a unit");
        lengths.push(records.len());
        journal.close().await;
    }
    assert!(lengths.is_sorted());
    assert_eq!(lengths.last(), Some(&20));
}

/// A file system in memory with so many bytes, which is unmounted at the end.
struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    /// `None`, with the reason said aloud, where nothing can be mounted.
    fn mount(test: &str, bytes: u32) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let options = format!("size={bytes}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "journal-test"])
            .arg(directory.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { directory }),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                skip(
                    test,
                    &format!("a tmpfs cannot be mounted here, which needs root: {}", why.trim()),
                );
                None
            }
            Err(error) => {
                skip(test, &format!("mount cannot be started: {error}"));
                None
            }
        }
    }

    fn remount(&self, options: &str) {
        let status = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(self.directory.path())
            .status();
        assert!(status.unwrap().success());
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("runs.db")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a connection may be about to be closed on its thread.
        let _ = Command::new("umount").arg("-l").arg(self.directory.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_can_be_made_room_on() {
    let Some(disk) = SmallDisk::mount("a_full_disk", 1 << 20) else { return };
    let journal = open(&disk.path()).unwrap();
    let lease = journal.lease(&run(), "x", MINUTE).await.unwrap();
    let mut last = Seq(0);
    let error = loop {
        match journal.append(&lease, last, vec![entry(1, 8000)]).await {
            Ok(next) => last = next,
            Err(error) => break error,
        }
    };
    assert!(last.0 > 10, "{last} records in a MiB");
    assert_eq!(
        message(&error, disk.directory.path()),
        "there is no space left for the journal DIR/runs.db; make some and try again, nothing was written"
    );
    assert!(error.retry().is_retryable());
    let (records, error) = read(&journal).await;
    assert!(error.is_none());
    assert_eq!(records.len() as u64, last.0);

    disk.remount("size=8m");
    last = journal.append(&lease, last, vec![entry(2, 8000)]).await.unwrap();
    drop(lease);
    journal.close().await;
    let (records, error) = read(&open(&disk.path()).unwrap()).await;
    assert!(error.is_none());
    assert_eq!(records.len() as u64, last.0);
}

#[tokio::test]
async fn of_those_who_share_a_commit_only_who_must_fail_fails() {
    let Some(disk) = SmallDisk::mount("shared commit on a full disk", 1 << 20) else { return };
    let journal = open(&disk.path()).unwrap();
    let mut leases = Vec::new();
    for number in 0..8 {
        leases.push(journal.lease(&RunId::new(format!("r{number}")), "x", MINUTE).await.unwrap());
    }
    let mut appends = Vec::new();
    for (number, lease) in leases.iter().enumerate() {
        let length = if number == 3 { 2 << 20 } else { 1000 };
        appends.push(journal.append(lease, Seq(0), vec![entry(1, length)]));
    }
    for (number, result) in futures::future::join_all(appends).await.into_iter().enumerate() {
        match result {
            Ok(Seq(1)) => assert_ne!(number, 3),
            Err(JournalError::Full { .. }) => assert_eq!(number, 3),
            other => panic!("{number}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_full_disk_from_the_beginning() {
    let Some(disk) = SmallDisk::mount("a_full_disk_from_the_beginning", 16 << 10) else { return };
    let error = open(&disk.path()).unwrap_err();
    assert!(matches!(error, JournalError::Full { .. }), "{error:?}");
    disk.remount("size=4m");
    made(&disk.path(), 3).await;
}

#[tokio::test]
async fn a_disk_that_may_not_be_written() {
    let Some(disk) = SmallDisk::mount("a_disk_that_may_not_be_written", 4 << 20) else { return };
    made(&disk.path(), 3).await;
    disk.remount("ro");
    let error = open(&disk.path()).unwrap_err();
    assert!(matches!(error, JournalError::ReadOnly { .. }), "{error:?}");
    let another = disk.directory.path().join("another.db");
    let error = open(&another).unwrap_err();
    assert_eq!(
        message(&error, disk.directory.path()),
        "the journal DIR/another.db cannot be written: Read-only file system (os error 30); change the permissions or name \
         another place"
    );
    disk.remount("rw");
    let (records, error) = read(&open(&disk.path()).unwrap()).await;
    assert!(error.is_none());
    assert_eq!(records.len(), 3);
}

#[tokio::test]
async fn a_directory_that_is_not_there() {
    let directory = kit::directory();
    let error = open(&directory.path().join("no/runs.db")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the journal's store could not make its database; read again to know what is there"
    );
}

#[tokio::test]
async fn an_append_sees_what_other_connections_did() {
    let check = async |sql: &str, expect: &str| {
        let directory = kit::directory();
        let path = directory.path().join("runs.db");
        let journal = open(&path).unwrap();
        let lease = journal.lease(&run(), "x", MINUTE).await.unwrap();
        // From the second on, it knows the end of the run.
        for turn in 1..=2 {
            let last = Seq(u64::from(turn));
            let appended = journal.append(&lease, Seq(last.0 - 1), vec![entry(turn, 10)]).await;
            assert_eq!(appended.unwrap(), last);
        }
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let told = match journal.append(&lease, Seq(2), vec![entry(3, 10)]).await {
            Ok(last) => {
                let (records, error) = read(&journal).await;
                assert!(error.is_none() && records.len() as u64 == last.0, "{error:?}");
                format!("record {last}")
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(told, expect, "{sql}");
    };
    check("UPDATE runs SET owner = 'x'", "record 3").await;
    check(
        "UPDATE runs SET epoch = 2; UPDATE newest_epoch SET epoch = 2",
        "run r was taken over, released or removed: lease 1 is no longer the newest, 2 is; stop driving it",
    )
    .await;
    check(
        "UPDATE runs SET expires = 1",
        "lease 1 on run r expired at 1970-01-01T00:00:00.001Z; renew it before anything else is done",
    )
    .await;
    check(
        "DELETE FROM records WHERE seq = 2",
        "run r has 1 records, not 2; read what was added and decide again",
    )
    .await;
    check(
        "INSERT INTO records SELECT run, 3, time, format, body, hash FROM records WHERE seq = 2",
        "run r has 3 records, not 2; read what was added and decide again",
    )
    .await;
}

#[tokio::test]
async fn a_program_that_keeps_it_locked() {
    let directory = kit::directory();
    let path = directory.path().join("runs.db");
    let journal = open(&path).unwrap();
    let lease = journal.lease(&run(), "x", MINUTE).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = journal.append(&lease, Seq(0), vec![entry(1, 10)]).await.unwrap_err();
    assert_eq!(
        message(&error, directory.path()),
        "another program keeps the journal DIR/runs.db locked; end it or try again later, nothing was written"
    );
    assert!(read(&journal).await.0.is_empty());
    other.execute_batch("ROLLBACK").unwrap();
    journal.append(&lease, Seq(0), vec![entry(1, 10)]).await.unwrap();
}

#[tokio::test]
async fn a_closed_journal_says_so() {
    let directory = kit::directory();
    let journal = open(&directory.path().join("runs.db")).unwrap();
    journal.close().await;
    journal.close().await;
    let error = journal.lease(&run(), "x", MINUTE).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the journal's store could not lease a run; read again to know what is there"
    );
    assert!(
        matches!(read(&journal).await, (records, Some(JournalError::Store { .. })) if records.is_empty())
    );
}

#[test]
fn files_are_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = kit::directory();
    let path = directory.path().join("runs.db");
    futures::executor::block_on(async {
        let journal = open(&path).unwrap();
        let _lease = journal.lease(&run(), "x", MINUTE).await.unwrap();
        for name in ["runs.db", "runs.db-wal", "runs.db-shm", "runs.db-leases", "runs.db-leases/1"]
        {
            let mode = fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{name} has mode {mode:o}");
        }
    });
}
