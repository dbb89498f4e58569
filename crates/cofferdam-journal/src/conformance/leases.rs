//! One process drives a run, and who drove it before is told apart.

use std::time::Duration;

use super::{
    case_table,
    support::{CaseResult, LONG, Stop, Trial, equal, holds, id, refused, some, turns},
};
use crate::{JournalError, Seq};

case_table! {
    "leases":
    one_at_a_time: "while a lease lives another is refused, and the refusal names the owner and the end",
    same_owner_is_another: "a lease is refused to the same owner too: a name is not who somebody is",
    epochs_rise: "each lease has a higher number than all before it, also after release, expiry and removal",
    release_is_at_once: "after a release the run is leased without a wait",
    released_is_over: "a released lease neither appends nor is renewed",
    release_twice: "releasing again changes nothing, also when another has the run",
    expired_is_taken_over: "an expired lease makes place for another, and only then",
    expired_does_not_append: "an append under an expired lease is refused, though nobody else came",
    expired_is_renewed: "an expired lease is renewed if nobody else came, and appends again",
    former_is_fenced: "after a takeover the former holder neither appends nor renews",
    renewal_extends: "a renewed lease has its number, its new end, and the last record",
    renewal_may_shorten: "a renewal sets the end from now, also to an earlier one",
    dropped_is_over: "a lease that was dropped with all of its clones is over",
    clone_holds: "a lease is held for as long as one clone is there",
    renewed_holds: "a renewed lease holds by itself, when the one that was renewed is dropped",
    no_time_at_all: "a lease of no time is over at once",
    all_time: "a lease of all time is no overflow",
    of_other_runs: "leases of different runs do not exclude each other",
}

async fn one_at_a_time(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.lease(&run, "first").await?;
    match trial.lease(&run, "second").await {
        Err(JournalError::Leased { run: named, owner, expires }) => {
            equal("the run", named, run)?;
            equal("the owner", owner.as_str(), "first")?;
            equal("the end", expires, lease.expires)
        }
        other => holds("the second lease", false, "Leased", &other),
    }
}

async fn same_owner_is_another(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let first = trial.lease(&run, "same").await?;
    refused!("the second", trial.lease(&run, "same").await, JournalError::Leased { .. })?;
    trial.journal.append(&first, first.last, some(1, 1)).await?;
    Ok(())
}

async fn epochs_rise(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let mut epochs = Vec::new();
    let lease = trial.lease(&run, "a").await?;
    epochs.push(lease.epoch);
    trial.journal.release(&lease).await?;
    let lease = trial.lease(&run, "b").await?;
    epochs.push(lease.epoch);
    trial.clock.advance(LONG);
    let lease = trial.lease(&run, "c").await?;
    epochs.push(lease.epoch);
    trial.journal.release(&lease).await?;
    trial.journal.remove(&run).await?;
    let lease = trial.lease(&run, "d").await?;
    epochs.push(lease.epoch);
    holds("the numbers", epochs.is_sorted_by(|a, b| a < b), "rising ones", &epochs)
}

async fn release_is_at_once(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.begun(&run, 2).await?;
    trial.journal.release(&lease).await?;
    let next = trial.lease(&run, "b").await?;
    equal("the last number", next.last, Seq(2))
}

async fn released_is_over(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.begun(&run, 1).await?;
    trial.journal.release(&lease).await?;
    refused!(
        "the append",
        trial.journal.append(&lease, Seq(1), some(2, 1)).await,
        JournalError::Fenced { .. }
    )?;
    refused!("the renewal", trial.journal.renew(&lease, LONG).await, JournalError::Fenced { .. })?;
    equal("the turns", turns(&trial.all(&run).await?), vec![1])
}

async fn release_twice(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let first = trial.lease(&run, "a").await?;
    trial.journal.release(&first).await?;
    trial.journal.release(&first).await?;
    let second = trial.lease(&run, "b").await?;
    trial.journal.release(&first).await?;
    trial.journal.append(&second, Seq(0), some(1, 1)).await?;
    refused!("a third", trial.lease(&run, "c").await, JournalError::Leased { .. })
}

async fn expired_is_taken_over(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let first = trial.begun(&run, 1).await?;
    trial.clock.advance(LONG - Duration::from_millis(1));
    refused!("too early", trial.lease(&run, "b").await, JournalError::Leased { .. })?;
    trial.clock.advance(Duration::from_millis(1));
    let second = trial.lease(&run, "b").await?;
    holds("the number", second.epoch > first.epoch, "a higher one", &second.epoch)?;
    equal("the last number", second.last, Seq(1))?;
    let last = trial.journal.append(&second, Seq(1), some(2, 1)).await?;
    equal("the next number", last, Seq(2))
}

async fn expired_does_not_append(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.begun(&run, 1).await?;
    trial.clock.advance(LONG);
    refused!(
        "the append",
        trial.journal.append(&lease, Seq(1), some(2, 1)).await,
        JournalError::Expired { .. }
    )?;
    equal("the turns", turns(&trial.all(&run).await?), vec![1])
}

async fn expired_is_renewed(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.begun(&run, 1).await?;
    trial.clock.advance(LONG * 3);
    let renewed = trial.journal.renew(&lease, LONG).await?;
    equal("the number of the lease", renewed.epoch, lease.epoch)?;
    equal("the last number", renewed.last, Seq(1))?;
    refused!("another", trial.lease(&run, "b").await, JournalError::Leased { .. })?;
    let last = trial.journal.append(&lease, Seq(1), some(2, 1)).await?;
    equal("the next number", last, Seq(2))
}

async fn former_is_fenced(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let first = trial.begun(&run, 1).await?;
    trial.clock.advance(LONG);
    let second = trial.lease(&run, "b").await?;
    match trial.journal.append(&first, Seq(1), some(7, 1)).await {
        Err(JournalError::Fenced { held, newest, .. }) => {
            equal("the former number", held, first.epoch)?;
            holds("the newest number", newest >= second.epoch, "that of the second", &newest)?;
        }
        other => holds("the append", false, "Fenced", &other)?,
    }
    refused!("the renewal", trial.journal.renew(&first, LONG).await, JournalError::Fenced { .. })?;
    trial.journal.append(&second, Seq(1), some(2, 1)).await?;
    refused!(
        "the append after that of the second",
        trial.journal.append(&first, Seq(2), some(7, 1)).await,
        JournalError::Fenced { .. }
    )?;
    equal("the turns", turns(&trial.all(&run).await?), vec![1, 2])
}

async fn renewal_extends(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.begun(&run, 2).await?;
    trial.clock.advance(LONG / 2);
    let renewed = trial.journal.renew(&lease, LONG).await?;
    equal("the number of the lease", renewed.epoch, lease.epoch)?;
    let further = renewed.expires.0.checked_sub(lease.expires.0);
    equal("milliseconds further", further, Some(30_000))?;
    equal("the last number", renewed.last, Seq(2))?;
    trial.clock.advance(LONG - Duration::from_millis(1));
    refused!("another", trial.lease(&run, "b").await, JournalError::Leased { .. })?;
    trial.journal.append(&renewed, Seq(2), some(3, 1)).await?;
    Ok(())
}

async fn renewal_may_shorten(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.lease(&run, "a").await?;
    trial.journal.renew(&lease, Duration::from_millis(5)).await?;
    trial.clock.advance(Duration::from_millis(5));
    let next = trial.lease(&run, "b").await?;
    holds("the number", next.epoch > lease.epoch, "a higher one", &next.epoch)
}

fn needs_holds(trial: &Trial<'_>) -> CaseResult {
    if trial.options.sees_dropped_leases {
        return Ok(());
    }
    Err(Stop::Skipped("the options say that dropped leases are not seen".to_owned()))
}

async fn dropped_is_over(trial: &Trial<'_>) -> CaseResult {
    needs_holds(trial)?;
    let run = id("r");
    let lease = trial.begun(&run, 1).await?;
    let former = lease.epoch;
    drop(lease);
    let next = trial.lease(&run, "b").await?;
    holds("the number", next.epoch > former, "a higher one", &next.epoch)?;
    equal("the last number", next.last, Seq(1))
}

async fn clone_holds(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.lease(&run, "a").await?;
    let clone = lease.clone();
    drop(lease);
    refused!("another", trial.lease(&run, "b").await, JournalError::Leased { .. })?;
    trial.journal.append(&clone, Seq(0), some(1, 1)).await?;
    Ok(())
}

async fn renewed_holds(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.lease(&run, "a").await?;
    let renewed = trial.journal.renew(&lease, LONG).await?;
    drop(lease);
    refused!("another", trial.lease(&run, "b").await, JournalError::Leased { .. })?;
    trial.journal.append(&renewed, Seq(0), some(1, 1)).await?;
    Ok(())
}

async fn no_time_at_all(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.journal.lease(&run, "a", Duration::ZERO).await?;
    refused!(
        "the append",
        trial.journal.append(&lease, Seq(0), some(1, 1)).await,
        JournalError::Expired { .. }
    )?;
    let next = trial.lease(&run, "b").await?;
    holds("the number", next.epoch > lease.epoch, "a higher one", &next.epoch)
}

async fn all_time(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.journal.lease(&run, "a", Duration::MAX).await?;
    trial.journal.append(&lease, Seq(0), some(1, 1)).await?;
    trial.clock.advance(LONG * 1_000_000);
    refused!("another", trial.lease(&run, "b").await, JournalError::Leased { .. })?;
    trial.journal.append(&lease, Seq(1), some(2, 1)).await?;
    Ok(())
}

async fn of_other_runs(trial: &Trial<'_>) -> CaseResult {
    let mut leases = Vec::new();
    for name in ["a", "b", "c"] {
        leases.push(trial.lease(&id(name), "same").await?);
    }
    for lease in &leases {
        trial.journal.append(lease, Seq(0), some(1, 2)).await?;
    }
    trial.journal.release(&leases[0]).await?;
    trial.journal.append(&leases[1], Seq(2), some(3, 1)).await?;
    Ok(())
}
