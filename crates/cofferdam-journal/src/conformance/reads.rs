//! Reading: from any place, any number, in order.

use futures::{StreamExt as _, TryStreamExt as _};

use super::{
    case_table,
    support::{CaseResult, Trial, equal, id, some, turns},
};
use crate::{Record, Seq};

case_table! {
    "reads":
    from_a_place: "reading begins at the number that is asked for; 0 is the beginning",
    past_the_end: "there is nothing after the end",
    of_no_run: "a run that is not there reads as empty, and is not made by being read",
    many: "a run of thousands of records is read whole and in order",
    while_appending: "what was acknowledged before a read began is in it, whatever is appended meanwhile",
    two_at_once: "readers do not disturb each other",
    dropped_in_the_middle: "a reader that is dropped in the middle disturbs nobody",
}

async fn from_a_place(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let _lease = trial.begun(&run, 5).await?;
    let whole = trial.all(&run).await?;
    for from in 0..6 {
        let found: Vec<Record> = trial.journal.read(&run, Seq(from)).try_collect().await?;
        let skipped = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
        equal(&format!("records from {from}"), &found[..], &whole[skipped..])?;
    }
    Ok(())
}

async fn past_the_end(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let _lease = trial.begun(&run, 3).await?;
    for from in [4, 5, 1000, i64::MAX.unsigned_abs(), u64::MAX] {
        let found: Vec<Record> = trial.journal.read(&run, Seq(from)).try_collect().await?;
        equal(&format!("records from {from}"), found, vec![])?;
    }
    Ok(())
}

async fn of_no_run(trial: &Trial<'_>) -> CaseResult {
    equal("records", trial.all(&id("nobody")).await?, vec![])?;
    equal("runs", trial.journal.runs(&Default::default()).await?, vec![])
}

async fn many(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.lease(&run, "a").await?;
    let mut last = lease.last;
    for first in (1..3001).step_by(500) {
        last = trial.journal.append(&lease, last, some(first, 500)).await?;
    }
    equal("the turns", turns(&trial.all(&run).await?), (1..3001).collect::<Vec<_>>())
}

async fn while_appending(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.begun(&run, 600).await?;
    let mut reader = trial.journal.read(&run, Seq(1));
    let mut found = Vec::new();
    let mut last = Seq(600);
    while let Some(record) = reader.next().await {
        found.push(record?);
        if found.len().is_multiple_of(200) && last.0 < 700 {
            let next = u32::try_from(last.0).unwrap_or(u32::MAX) + 1;
            last = trial.journal.append(&lease, last, some(next, 50)).await?;
        }
    }
    let expected: Vec<u32> = (1..=u32::try_from(found.len()).unwrap_or(u32::MAX)).collect();
    equal("the turns", turns(&found), expected)?;
    equal("no fewer than were there", found.len() >= 600, true)
}

async fn two_at_once(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let _lease = trial.begun(&run, 700).await?;
    let both = trial.journal.read(&run, Seq(1)).zip(trial.journal.read(&run, Seq(301)));
    let pairs: Vec<_> = both.collect().await;
    equal("pairs", pairs.len(), 400)?;
    for (first, second) in pairs {
        equal("the distance", second?.seq.0 - first?.seq.0, 300)?;
    }
    Ok(())
}

async fn dropped_in_the_middle(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.begun(&run, 600).await?;
    for taken in [0, 1, 300] {
        let found: Vec<_> = trial.journal.read(&run, Seq(1)).take(taken).collect().await;
        equal("records taken", found.len(), taken)?;
    }
    trial.journal.append(&lease, Seq(600), some(601, 1)).await?;
    equal("records there", trial.all(&run).await?.len(), 601)
}
