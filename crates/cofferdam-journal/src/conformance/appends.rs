//! What is appended is there: all of it, in order, unchanged, and nothing else.

use cofferdam_core::Timestamp;
use futures::TryStreamExt as _;
use serde_json::json;

use super::{
    case_table,
    support::{CaseResult, LONG, Trial, entry, equal, id, odd, refused, some, turns},
};
use crate::{Entry, JournalError, MAX_RECORD_BYTES, Record, RecordBody, Seq};

case_table! {
    "appends":
    are_numbered: "an append returns the number of its last record, and records are numbered from 1 without gaps",
    keep_order: "records are read in the order in which they were appended",
    are_read_at_once: "what was acknowledged is read",
    a_unit_of_none: "an append of no entry changes nothing and returns the last number",
    too_early_or_late: "an append that expects another last number is refused and writes nothing",
    a_refused_unit_is_not_there: "of a unit with an entry that is too large nothing is written",
    runs_are_apart: "a run's records are not those of another, whatever their ids look like",
    content_is_kept: "a body is read as it was written, whatever is in it",
    times_are_kept: "the time of an entry is kept, whatever it is",
    long_ones: "a body of some megabytes is kept",
    chain_goes_on: "the chain of hashes goes on over leases",
    refusals_in_order: "a former lease is looked for before the last number, and that before the size",
}

async fn are_numbered(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.lease(&run, "a").await?;
    equal("the last number at the beginning", lease.last, Seq(0))?;
    let one = trial.journal.append(&lease, Seq(0), some(1, 1)).await?;
    equal("the number of the first", one, Seq(1))?;
    let five = trial.journal.append(&lease, Seq(1), some(2, 4)).await?;
    equal("the number of the fifth", five, Seq(5))?;
    let numbers: Vec<u64> = trial.all(&run).await?.iter().map(|record| record.seq.0).collect();
    equal("the numbers", numbers, vec![1, 2, 3, 4, 5])
}

async fn keep_order(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.lease(&run, "a").await?;
    let mut last = lease.last;
    for first in (1..60).step_by(3) {
        last = trial.journal.append(&lease, last, some(first, 3)).await?;
    }
    equal("the turns", turns(&trial.all(&run).await?), (1..61).collect::<Vec<_>>())
}

async fn are_read_at_once(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.lease(&run, "a").await?;
    for turn in 1..20 {
        trial.journal.append(&lease, Seq(u64::from(turn) - 1), vec![entry(turn)]).await?;
        equal("records there", trial.all(&run).await?.len(), turn as usize)?;
    }
    Ok(())
}

async fn a_unit_of_none(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.begun(&run, 2).await?;
    equal("the number", trial.journal.append(&lease, Seq(2), vec![]).await?, Seq(2))?;
    equal("records there", trial.all(&run).await?.len(), 2)
}

async fn too_early_or_late(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.begun(&run, 3).await?;
    for expected in [0, 2, 4, u64::MAX] {
        refused!(
            "the append",
            trial.journal.append(&lease, Seq(expected), some(9, 2)).await,
            JournalError::Conflict { actual: Seq(3), .. }
        )?;
    }
    equal("the turns", turns(&trial.all(&run).await?), vec![1, 2, 3])?;
    equal("the next number", trial.journal.append(&lease, Seq(3), some(4, 1)).await?, Seq(4))
}

async fn a_refused_unit_is_not_there(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.begun(&run, 1).await?;
    let large = || odd("x".repeat(MAX_RECORD_BYTES).into());
    refused!(
        "the append",
        trial.journal.append(&lease, Seq(1), vec![entry(2), large(), entry(3)]).await,
        JournalError::TooLarge { .. }
    )?;
    equal("the turns", turns(&trial.all(&run).await?), vec![1])?;
    equal("the next number", trial.journal.append(&lease, Seq(1), some(2, 1)).await?, Seq(2))
}

async fn runs_are_apart(trial: &Trial<'_>) -> CaseResult {
    let names =
        ["r", "R", "r ", "r%", "_", "r/1", "r/1.2", "'; --", "\u{e9}", "e\u{301}", "", "r\0"];
    let mut leases = Vec::new();
    for (turn, name) in (1..).zip(names) {
        let lease = trial.lease(&id(name), "a").await?;
        trial.journal.append(&lease, Seq(0), vec![entry(turn)]).await?;
        leases.push(lease);
    }
    for (turn, name) in (1..).zip(names) {
        equal(&format!("the turns of {name:?}"), turns(&trial.all(&id(name)).await?), vec![turn])?;
    }
    Ok(())
}

async fn content_is_kept(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.lease(&run, "a").await?;
    let bodies = [
        json!({"kind": "later", "z": 1, "a": [1.5, -0.0, 1e300, u64::MAX, i64::MIN, null]}),
        json!({"kind": "text", "all": "\u{0}\u{1}\"\\/\u{7f}\u{2028}\u{fffd}\u{10ffff}'; DROP TABLE records; --"}),
        json!({"kind": "empty", "": {}, "list": [], "text": ""}),
        json!({"kind": null}),
        json!("a text"),
        json!(7),
        json!(null),
    ];
    let entries: Vec<Entry> = bodies.iter().cloned().map(odd).collect();
    let texts: Vec<String> =
        entries.iter().map(|entry| entry.text(&run)).collect::<Result<_, _>>()?;
    trial.journal.append(&lease, Seq(0), entries).await?;
    let found: Vec<String> =
        trial.all(&run).await?.iter().map(|record| record.text().to_owned()).collect();
    equal("the texts", found, texts)
}

async fn times_are_kept(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.lease(&run, "a").await?;
    let times = [0, 1, 1_780_000_000_123, i64::MAX.unsigned_abs(), 1 << 63, u64::MAX, 5];
    let entries = times.map(|time| Entry { time: Timestamp(time), ..entry(1) });
    trial.journal.append(&lease, Seq(0), entries.to_vec()).await?;
    let found: Vec<u64> = trial.all(&run).await?.iter().map(|record| record.time.0).collect();
    equal("the times", found, times.to_vec())
}

async fn long_ones(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.lease(&run, "a").await?;
    let long = "0123456789abcdef".repeat(1 << 18);
    let entries = vec![entry(1), odd(json!({"kind": "long", "text": long})), entry(2)];
    let text = entries[1].text(&run)?;
    trial.journal.append(&lease, Seq(0), entries).await?;
    let found = trial.all(&run).await?;
    equal("the turns", turns(&found), vec![1, 2])?;
    equal("the long one is the same", found.get(1).is_some_and(|r| r.text() == text), true)
}

async fn chain_goes_on(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    for turn in 1..4 {
        let lease = trial.journal.lease(&run, "a", LONG).await?;
        trial.journal.append(&lease, lease.last, vec![entry(turn)]).await?;
        trial.journal.release(&lease).await?;
    }
    let found = trial.all(&run).await?;
    let mut expected: Vec<Record> = Vec::new();
    for turn in 1..4 {
        expected.push(Record::following(&run, expected.last(), entry(turn))?);
    }
    equal("the records", found, expected)
}

async fn refusals_in_order(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.begun(&run, 1).await?;
    let large = || vec![odd("x".repeat(MAX_RECORD_BYTES).into())];
    refused!(
        "another number and a large entry",
        trial.journal.append(&lease, Seq(0), large()).await,
        JournalError::Conflict { .. }
    )?;
    trial.clock.advance(LONG);
    refused!(
        "an expired lease and another number",
        trial.journal.append(&lease, Seq(0), vec![]).await,
        JournalError::Expired { .. }
    )?;
    let _next = trial.lease(&run, "b").await?;
    refused!(
        "a former lease, which has expired",
        trial.journal.append(&lease, Seq(0), large()).await,
        JournalError::Fenced { .. }
    )?;
    let bodies: Vec<Record> = trial.journal.read(&run, Seq(1)).try_collect().await?;
    equal(
        "the bodies",
        bodies.iter().map(|r| &r.body).collect::<Vec<_>>(),
        vec![&RecordBody::ModelRequested { turn: 1, items: 0 }],
    )
}
