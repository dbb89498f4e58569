//! Journals of former releases, which every later one must read: records of each format, and a database of each version of
//! the store. Files here are never changed, only added.

use std::{fs, path::Path, sync::Arc, time::Duration};

use cofferdam_core::RunId;
use cofferdam_journal::{
    Chain, Entry, Journal, JournalError, MemoryJournal, Record, RecordBody, RunStatus, Seq,
    SqliteJournal, export, export::verify, verify_chain,
};
use cofferdam_testkit::FixedClock;
use futures::{TryStreamExt as _, executor::block_on};
use proptest::prelude::*;

use crate::kit;

const FORMATS: [(&str, &str); 2] = [
    ("01j0000000format1corpus000", include_str!("corpus/format-1.jsonl")),
    ("01k0000000format2corpus000", include_str!("corpus/format-2.jsonl")),
];

fn records(lines: &str) -> Vec<Record> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn records_of_each_format_are_read_and_verified() {
    for (run, lines) in FORMATS {
        let records = records(lines);
        verify_chain(&RunId::new(run), None, &records).unwrap();
        for (record, line) in records.iter().zip(lines.lines()) {
            // Nothing is lost by reading and writing it again.
            assert_eq!(serde_json::to_string(record).unwrap(), line);
            let later = record.text().contains("later_release")
                || record.text().contains("another_release");
            assert_eq!(matches!(record.body, RecordBody::Unknown(_)), later, "{line}");
        }
    }
}

#[test]
fn this_release_writes_the_newest_format_as_it_was() {
    let (run, lines) = FORMATS[1];
    let run = RunId::new(run);
    let mut written: Vec<Record> = Vec::new();
    for record in records(lines) {
        let entry = Entry { time: record.time, body: record.body.clone() };
        let next = Record::following(&run, written.last(), entry).unwrap();
        assert_eq!(next, record);
        written.push(next);
    }
}

fn open(path: &Path) -> SqliteJournal {
    SqliteJournal::open(path, Arc::new(FixedClock::at(1))).unwrap()
}

#[test]
fn a_database_of_each_version_is_read_and_goes_on() {
    let directory = kit::directory();
    let path = directory.path().join("runs.db");
    fs::write(&path, include_bytes!("corpus/store-1.db")).unwrap();
    let journal = open(&path);
    block_on(async {
        for (run, lines) in FORMATS {
            let run = RunId::new(run);
            let found: Vec<Record> = journal.read(&run, Seq(1)).try_collect().await.unwrap();
            assert_eq!(found, records(lines));
            let lease = journal.lease(&run, "later", Duration::from_secs(9)).await.unwrap();
            let body = RecordBody::ModelRequested { turn: 9, items: 9 };
            let entry = Entry { time: Default::default(), body };
            journal.append(&lease, lease.last, vec![entry]).await.unwrap();
            let found: Vec<Record> = journal.read(&run, Seq(1)).try_collect().await.unwrap();
            verify_chain(&run, None, &found).unwrap();
            assert_eq!(found.len(), lines.lines().count() + 1);
        }
        let runs = journal.runs(&Default::default()).await.unwrap();
        let told: Vec<_> = runs.iter().map(|run| (run.agent.as_deref(), run.status)).collect();
        assert_eq!(told, [(Some("tidy"), RunStatus::Open); 2]);
        journal.close().await;
    });
}

/// A copy of a run of both formats: begun by the first release, gone on with by this one.
fn copy() -> (RunId, Vec<String>) {
    let (run, lines) = FORMATS[0];
    let run = RunId::new(run);
    let directory = kit::directory();
    let journal = open(&directory.path().join("runs.db"));
    block_on(async {
        let lease = journal.lease(&run, "x", Duration::from_secs(9)).await.unwrap();
        let last = journal.restore(&lease, records(lines)).await.unwrap();
        let body = RecordBody::ModelRequested { turn: 9, items: 9 };
        let entry = Entry { time: Default::default(), body };
        journal.append(&lease, last, vec![entry]).await.unwrap();
        let lines: Vec<String> = export(&journal, &run).try_collect().await.unwrap();
        journal.close().await;
        (run, lines)
    })
}

#[test]
fn a_copy_is_verified_without_a_store() {
    let (run, lines) = copy();
    let text = lines.join("\n");
    let imported = verify(text.as_bytes()).unwrap();
    assert_eq!((imported.run, imported.records), (run.clone(), Seq(12)));
    let head = imported.head.unwrap().to_string();
    assert!(lines.last().unwrap().contains(&head));

    let check = |lines: &[String], expect: &str| {
        let error = verify(lines.join("\n").as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), expect);
    };
    let changed = |at: usize, from: &str, to: &str| {
        let mut lines = lines.clone();
        assert!(lines[at].contains(from), "{}", lines[at]);
        lines[at] = lines[at].replacen(from, to, 1);
        lines
    };
    check(
        &lines[..12],
        "line 13 of the copy cannot be taken in: its last line is missing, so records may be, too",
    );
    check(
        &[],
        "line 1 of the copy cannot be taken in: its last line is missing, so records may be, too",
    );
    check(
        &[&lines[..5], &lines[6..]].concat(),
        "record 6 of run 01j0000000format1corpus000 is corrupt: its number does not follow the one before; restore it from \
         a copy, what is before it is intact",
    );
    check(
        &[&lines[..12], &lines[13..]].concat(),
        "line 13 of the copy cannot be taken in: it says that there are 12 records, and 11 came, or their last hash is another",
    );
    check(
        &[&lines[..], &lines[..1]].concat(),
        "line 15 of the copy cannot be taken in: there is more after its end",
    );
    check(
        &changed(0, ":1,", ":7,"),
        "line 1 of the copy cannot be taken in: it is of version 7, not 1",
    );
    // From format 2 on, records do not pass for those of another run either.
    let other = r#"{"cofferdam_journal":1,"run":"another"}"#;
    let first = FORMATS[1].1.lines().next().unwrap();
    check(
        &[other.to_owned(), first.to_owned()],
        "record 1 of run another is corrupt: it does not name the hash of the record before; restore it from a copy, what is \
         before it is intact",
    );
}

#[test]
fn a_run_is_restored_from_its_copy() {
    let (run, lines) = copy();
    let mut import = cofferdam_journal::Import::new();
    let found: Vec<Record> = lines.iter().filter_map(|line| import.line(line).unwrap()).collect();
    import.finish().unwrap();
    let directory = kit::directory();
    let journal = open(&directory.path().join("runs.db"));
    block_on(async {
        let lease = journal.lease(&run, "x", Duration::from_secs(9)).await.unwrap();
        let (first, rest) = found.split_at(5);
        assert_eq!(journal.restore(&lease, first.to_vec()).await.unwrap(), Seq(5));
        // Not a part twice, not a part that leaves something out, not a changed one.
        let again = journal.restore(&lease, first.to_vec()).await;
        assert!(matches!(again, Err(JournalError::Conflict { .. })), "{again:?}");
        let gap = journal.restore(&lease, rest[1..].to_vec()).await;
        assert!(matches!(gap, Err(JournalError::Conflict { .. })), "{gap:?}");
        let mut changed = rest.to_vec();
        changed[2].time.0 += 1;
        let changed = journal.restore(&lease, changed).await;
        assert!(matches!(changed, Err(JournalError::Corrupt { seq: Seq(8), .. })), "{changed:?}");
        assert_eq!(journal.restore(&lease, rest.to_vec()).await.unwrap(), Seq(12));
        assert_eq!(journal.restore(&lease, vec![]).await.unwrap(), Seq(12));
        let again: Vec<String> = export(&journal, &run).try_collect().await.unwrap();
        assert_eq!(again, lines);
    });
}

#[test]
fn a_copy_of_a_run_that_is_not_there_has_no_records() {
    let journal = MemoryJournal::new(Arc::new(FixedClock::at(1)));
    let lines: Vec<String> = block_on(export(&journal, &RunId::new("r")).try_collect()).unwrap();
    assert_eq!(
        lines,
        [r#"{"cofferdam_journal":1,"run":"r"}"#, r#"{"end":{"records":0,"head":null}}"#]
    );
    assert_eq!(verify(lines.join("\n").as_bytes()).unwrap().records, Seq(0));
}

/// Takes a line as a record of a run: it is refused, or it is genuine and written again as it is.
fn hostile(line: &[u8]) -> Result<(), TestCaseError> {
    let Ok(record) = serde_json::from_slice::<Record>(line) else { return Ok(()) };
    let again = serde_json::to_vec(&record).unwrap();
    prop_assert_eq!(&serde_json::from_slice::<Record>(&again).unwrap(), &record);
    for (run, lines) in FORMATS {
        let run = RunId::new(run);
        for genuine in records(lines) {
            let mut chain =
                match records(lines).iter().find(|before| before.seq.0 + 1 == record.seq.0) {
                    Some(before) => Chain::after(run.clone(), before.seq, before.hash),
                    None => Chain::new(run.clone()),
                };
            if chain.check(&record).is_ok() && genuine.seq == record.seq {
                // A first record of format 1 is not bound to its run, so a genuine one passes for that of the other run as well.
                let mut all = FORMATS.iter().flat_map(|(_, lines)| records(lines));
                prop_assert!(all.any(|genuine| genuine == record), "{record:?}");
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_genuine(line in prop::collection::vec(any::<u8>(), 0..200)) {
        hostile(&line)?;
        let _ = verify(&line[..]);
    }

    #[test]
    fn changed_lines_are_refused_or_genuine(
        format in 0..FORMATS.len(),
        at in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..4u8, any::<u8>()), 1..4),
    ) {
        let lines: Vec<&str> = FORMATS[format].1.lines().collect();
        let mut line = lines[at.index(lines.len())].as_bytes().to_vec();
        for (place, how, byte) in changes {
            let place = place.index(line.len());
            match how {
                0 => line[place] = byte,
                1 => line.insert(place, byte),
                2 => {
                    line.remove(place);
                }
                _ => line.truncate(place + 1),
            }
        }
        hostile(&line)?;
    }

    #[test]
    fn a_changed_copy_never_passes_for_another(
        line in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut lines: Vec<Vec<u8>> = COPY.with(|(_, lines)| {
            lines.iter().map(|line| line.as_bytes().to_vec()).collect()
        });
        let line = line.index(lines.len());
        let place = place.index(lines[line].len());
        let before = std::mem::replace(&mut lines[line][place], byte);
        let result = verify(&lines.join(&b'\n')[..]);
        // The name of a run of format 1 is not in its hashes; the record of format 2 at its end is bound to them alone.
        prop_assert!(result.is_err() || before == byte || line == 0, "{result:?}");
    }
}

thread_local! {
    static COPY: (RunId, Vec<String>) = copy();
}

/// Deep nesting must not be deep recursion.
#[test]
fn nesting_has_a_bound() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let line = format!(
        r#"{{"format":2,"seq":1,"time":1,"body":{deep},"previous":"{0}","hash":"{0}"}}"#,
        "0".repeat(64)
    );
    let error = serde_json::from_str::<Record>(&line).unwrap_err();
    assert!(error.to_string().contains("recursion limit"), "{error}");
}
