//! Many at once, and calls that are dropped at every point.

use std::{future::poll_fn, sync::Arc, task::Poll};

use cofferdam_core::Timestamp;
use futures::future::join_all;

use super::{
    case_table,
    support::{CaseResult, LONG, Trial, all_of, entry, equal, holds, id, some, turns},
};
use crate::{Entry, JournalError, JournalWriter, RecordBody, Seq};

case_table! {
    "races":
    one_gets_the_lease: "of many who ask for a lease at once one gets it",
    one_is_first: "of many appends at once that expect the same number one is done",
    many_runs: "appends to many runs at once are all done, each in its own order",
    one_refused_among_many: "an append that is refused does not disturb those beside it",
    one_writer_for_many: "parallel appends of one writer are each there once, with the number they were told",
    dropped_appends: "an append that is dropped at any point is there whole or not at all",
    dropped_appends_of_a_writer: "a writer goes on after appends that were dropped, and none of its records is there twice",
    dropped_leases: "a lease that was dropped while it was asked for does not stay",
}

async fn one_gets_the_lease(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let owners: Vec<String> = (0..20).map(|number| format!("owner {number}")).collect();
    let results = join_all(owners.iter().map(|owner| trial.lease(&run, owner))).await;
    let granted = results.iter().filter(|result| result.is_ok()).count();
    equal("leases granted", granted, 1)?;
    let others = results.iter().filter(|r| matches!(r, Err(JournalError::Leased { .. }))).count();
    equal("leases refused", others, 19)
}

async fn one_is_first(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.begun(&run, 1).await?;
    let appends = (2..22).map(|turn| trial.journal.append(&lease, Seq(1), some(turn, 2)));
    let results = join_all(appends).await;
    let done = results.iter().filter(|result| matches!(result, Ok(Seq(3)))).count();
    equal("appends done", done, 1)?;
    let refused =
        results.iter().filter(|r| matches!(r, Err(JournalError::Conflict { .. }))).count();
    equal("appends refused", refused, 19)?;
    equal("records", trial.all(&run).await?.len(), 3)
}

async fn many_runs(trial: &Trial<'_>) -> CaseResult {
    let results = join_all((0..16).map(async |number| {
        let run = id(&format!("run-{number}"));
        let lease = trial.lease(&run, "x").await?;
        let mut last = lease.last;
        for turn in 1..9 {
            last = trial.journal.append(&lease, last, vec![entry(turn)]).await?;
        }
        equal("the turns", turns(&trial.all(&run).await?), (1..9).collect::<Vec<_>>())
    }))
    .await;
    results.into_iter().collect()
}

async fn one_refused_among_many(trial: &Trial<'_>) -> CaseResult {
    let mut leases = Vec::new();
    for number in 0..12 {
        leases.push(trial.begun(&id(&format!("run-{number}")), 1).await?);
    }
    let expected = |number: usize| if number.is_multiple_of(3) { Seq(9) } else { Seq(1) };
    let appends = leases.iter().enumerate();
    let results = join_all(
        appends.map(|(number, lease)| trial.journal.append(lease, expected(number), some(2, 1))),
    )
    .await;
    for (number, (result, lease)) in results.iter().zip(&leases).enumerate() {
        let refused = number.is_multiple_of(3);
        let as_it_should = match result {
            Ok(Seq(2)) => !refused,
            Err(JournalError::Conflict { .. }) => refused,
            _ => false,
        };
        holds("the result", as_it_should, "Ok(Seq(2)), or Conflict for each third", result)?;
        let there = trial.all(&lease.run).await?.len();
        equal("records there", there, if refused { 1 } else { 2 })?;
    }
    Ok(())
}

fn unit(turn: u32) -> Vec<RecordBody> {
    let body = |items| RecordBody::ModelRequested { turn, items };
    vec![body(1), body(2)]
}

async fn one_writer_for_many(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.lease(&run, "a").await?;
    let writer = JournalWriter::new(Arc::clone(&trial.journal), trial.clock.clone(), lease);
    let numbers = join_all((1..41).map(async |turn| {
        let last = writer.append_all(unit(turn)).await?;
        Ok::<_, JournalError>((turn, last))
    }))
    .await;
    let found = trial.all(&run).await?;
    equal("records", found.len(), 80)?;
    for result in numbers {
        let (turn, last) = result?;
        let at = |seq: u64| {
            let at = usize::try_from(seq).ok()?.checked_sub(1)?;
            found.get(at).map(|record| record.body.clone())
        };
        equal("the second of a unit", at(last.0), Some(unit(turn)[1].clone()))?;
        equal("the first of a unit", at(last.0 - 1), Some(unit(turn)[0].clone()))?;
    }
    Ok(())
}

/// Polls a future some times, each after it has asked for it, and drops it. Returns true if it was done before.
async fn dropped_after<T>(polls: usize, future: impl Future<Output = T>) -> bool {
    let mut future = Box::pin(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            // It has had its turn; whether the store has gone on meanwhile is chance, as it is in life.
            Poll::Pending if left == 0 => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn dropped_appends(trial: &Trial<'_>) -> CaseResult {
    for polls in 0..12 {
        let run = id(&format!("run-{polls}"));
        let lease = trial.begun(&run, 1).await?;
        let done = dropped_after(polls, trial.journal.append(&lease, Seq(1), some(2, 3))).await;
        let last = trial.journal.renew(&lease, LONG).await?.last;
        let expected = if done { "4" } else { "1 or 4" };
        holds("the last number", last == Seq(4) || (!done && last == Seq(1)), expected, &last)?;
        trial.journal.append(&lease, last, some(9, 1)).await?;
        let found = turns(&trial.all(&run).await?);
        let whole = if last == Seq(4) { vec![1, 2, 3, 4, 9] } else { vec![1, 9] };
        equal("the turns", found, whole)?;
    }
    Ok(())
}

async fn dropped_appends_of_a_writer(trial: &Trial<'_>) -> CaseResult {
    for polls in 0..12 {
        let run = id(&format!("run-{polls}"));
        let lease = trial.lease(&run, "a").await?;
        let writer = JournalWriter::new(Arc::clone(&trial.journal), trial.clock.clone(), lease);
        let (leads, follows) = futures::join!(
            dropped_after(polls, writer.append_all(unit(1))),
            writer.append_all(unit(2))
        );
        follows?;
        let dropped = dropped_after(polls, writer.append_all(unit(3))).await;
        writer.append_all(unit(4)).await?;
        let found = turns(&trial.all(&run).await?);
        for (turn, acknowledged) in [(1, leads), (2, true), (3, dropped), (4, true)] {
            let there = found.iter().filter(|found| **found == turn).count();
            let right = there == 2 || (there == 0 && !acknowledged);
            holds(&format!("records of unit {turn}"), right, "2, or 0 if it was dropped", &there)?;
        }
        holds("the order", found.is_sorted(), "that of the calls", &found)?;
    }
    Ok(())
}

async fn dropped_leases(trial: &Trial<'_>) -> CaseResult {
    for polls in 0..8 {
        let run = id(&format!("run-{polls}"));
        dropped_after(polls, trial.lease(&run, "dropped")).await;
        if !trial.options.sees_dropped_leases {
            trial.clock.advance(LONG);
        }
        let lease = trial.lease(&run, "next").await?;
        let entry = Entry { time: Timestamp(1), ..entry(1) };
        trial.journal.append(&lease, Seq(0), vec![entry]).await?;
        equal("records", all_of(&*trial.journal, &run).await?.len(), 1)?;
    }
    Ok(())
}
