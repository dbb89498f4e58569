//! Runs are listed with what is known of them, and removed.

use std::time::Duration;

use cofferdam_core::{RunId, Timestamp};
use serde_json::json;

use super::{
    case_table,
    support::{CaseResult, LONG, Trial, entry, equal, finished, id, odd, refused, some, started},
};
use crate::{JournalError, RunFilter, RunStatus, RunSummary, Seq};

case_table! {
    "lists":
    none: "an empty store has no runs",
    facts: "a run is listed with its agent, its times, its number of records and its last hash",
    statuses: "a run without records is new, and the last record tells whether one is open, paused or finished",
    by_status: "only runs of the asked status are listed",
    holders: "a run is listed with its holder, who is live until the lease expires or is over",
    in_order: "runs are listed in the order of their ids",
    in_pages: "pages are as long as asked, follow each other, and leave nothing out",
    removed: "a removed run is gone, and no other",
    removal_of_a_leased_one: "a run is not removed while it is leased",
    removal_twice: "removing what is not there changes nothing",
    begun_anew: "a removed run can be begun anew, and a former holder stays refused",
}

async fn list(trial: &Trial<'_>) -> Result<Vec<RunSummary>, JournalError> {
    trial.journal.runs(&RunFilter::default()).await
}

fn ids(runs: &[RunSummary]) -> Vec<&str> {
    runs.iter().map(|summary| summary.run.as_str()).collect()
}

async fn none(trial: &Trial<'_>) -> CaseResult {
    equal("runs", list(trial).await?, vec![])
}

async fn facts(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.lease(&run, "a").await?;
    let entries = vec![started("tidy"), entry(1), entry(2)];
    trial.journal.append(&lease, Seq(0), entries).await?;
    let head = trial.all(&run).await?.last().map(|record| record.hash);
    let runs = list(trial).await?;
    equal("runs", ids(&runs), vec!["r"])?;
    let found = &runs[0];
    equal("the agent", found.agent.as_deref(), Some("tidy"))?;
    equal("the beginning", found.started, Some(Timestamp(7)))?;
    equal("the last time", found.updated, Some(Timestamp(2000)))?;
    equal("records", found.records, Seq(3))?;
    equal("the last hash", found.head, head)
}

async fn statuses(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.lease(&run, "a").await?;
    let status = async |expected| {
        let runs = list(trial).await?;
        equal("the status", runs.first().map(|run| run.status), Some(expected))
    };
    status(RunStatus::New).await?;
    let steps = [
        (started("a"), RunStatus::Open),
        (odd(json!({"kind": "run_paused", "reason": {}})), RunStatus::Paused),
        (odd(json!({"kind": "run_resumed"})), RunStatus::Open),
        (finished(), RunStatus::Finished),
    ];
    for (seq, (entry, expected)) in (0..).zip(steps) {
        trial.journal.append(&lease, Seq(seq), vec![entry]).await?;
        status(expected).await?;
    }
    Ok(())
}

async fn by_status(trial: &Trial<'_>) -> CaseResult {
    let mut leases = Vec::new();
    for (name, entries) in
        [("a", vec![]), ("b", some(1, 1)), ("c", vec![finished()]), ("d", some(1, 2))]
    {
        let lease = trial.lease(&id(name), "x").await?;
        trial.journal.append(&lease, Seq(0), entries).await?;
        leases.push(lease);
    }
    for (status, expected) in [
        (RunStatus::New, vec!["a"]),
        (RunStatus::Open, vec!["b", "d"]),
        (RunStatus::Finished, vec!["c"]),
        (RunStatus::Paused, vec![]),
    ] {
        let filter = RunFilter { status: Some(status), ..RunFilter::default() };
        equal(&format!("{status:?}"), ids(&trial.journal.runs(&filter).await?), expected)?;
    }
    let first = RunFilter { status: Some(RunStatus::Open), limit: 1, ..RunFilter::default() };
    equal("one of two", ids(&trial.journal.runs(&first).await?), vec!["b"])
}

async fn holders(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.journal.lease(&run, "who", LONG).await?;
    let holder = async || {
        let holder = list(trial).await?.pop().and_then(|run| run.holder);
        Ok::<_, JournalError>(holder)
    };
    let found = holder().await?;
    equal("the owner", found.as_ref().map(|holder| &*holder.owner), Some("who"))?;
    equal("the number", found.as_ref().map(|holder| holder.epoch), Some(lease.epoch))?;
    equal("the end", found.as_ref().map(|holder| holder.expires), Some(lease.expires))?;
    equal("live", found.map(|holder| holder.live), Some(true))?;
    trial.clock.advance(LONG);
    equal("live after the end", holder().await?.map(|holder| holder.live), Some(false))?;
    let lease = trial.journal.renew(&lease, Duration::from_secs(1)).await?;
    equal("live again", holder().await?.map(|holder| holder.live), Some(true))?;
    trial.journal.release(&lease).await?;
    equal("after the release", holder().await?, None)
}

async fn in_order(trial: &Trial<'_>) -> CaseResult {
    let mut leases = Vec::new();
    for name in ["b", "a", "é", "Z", "10", "9", "aa", "a-"] {
        leases.push(trial.lease(&id(name), "x").await?);
    }
    equal("runs", ids(&list(trial).await?), vec!["10", "9", "Z", "a", "a-", "aa", "b", "é"])
}

async fn in_pages(trial: &Trial<'_>) -> CaseResult {
    let mut leases = Vec::new();
    for number in 0..25 {
        leases.push(trial.lease(&id(&format!("run-{number:02}")), "x").await?);
    }
    let whole = list(trial).await?;
    equal("runs in all", whole.len(), 25)?;
    let (mut found, mut after): (Vec<RunSummary>, Option<RunId>) = (Vec::new(), None);
    loop {
        let filter = RunFilter { after, limit: 10, ..RunFilter::default() };
        let page = trial.journal.runs(&filter).await?;
        equal("the length of a page", page.len(), 10.min(25 - found.len()))?;
        let Some(last) = page.last() else { break };
        after = Some(last.run.clone());
        found.extend(page);
        if found.len() == 25 {
            break;
        }
    }
    equal("all pages", &found, &whole)?;
    let nothing = RunFilter { limit: 0, ..RunFilter::default() };
    equal("a page of none", trial.journal.runs(&nothing).await?, vec![])
}

async fn removed(trial: &Trial<'_>) -> CaseResult {
    let (gone, stays) = (id("gone"), id("gone-not"));
    for run in [&gone, &stays] {
        let lease = trial.begun(run, 3).await?;
        trial.journal.release(&lease).await?;
    }
    trial.journal.remove(&gone).await?;
    equal("records of the removed", trial.all(&gone).await?, vec![])?;
    equal("records of the other", trial.all(&stays).await?.len(), 3)?;
    equal("runs", ids(&list(trial).await?), vec!["gone-not"])
}

async fn removal_of_a_leased_one(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.begun(&run, 2).await?;
    refused!("the removal", trial.journal.remove(&run).await, JournalError::Leased { .. })?;
    trial.journal.append(&lease, Seq(2), some(3, 1)).await?;
    equal("records", trial.all(&run).await?.len(), 3)?;
    trial.clock.advance(LONG);
    trial.journal.remove(&run).await?;
    refused!(
        "an append after the removal",
        trial.journal.append(&lease, Seq(3), some(4, 1)).await,
        JournalError::Fenced { .. }
    )?;
    equal("records after the removal", trial.all(&run).await?, vec![])
}

async fn removal_twice(trial: &Trial<'_>) -> CaseResult {
    trial.journal.remove(&id("never")).await?;
    let run = id("r");
    let lease = trial.begun(&run, 1).await?;
    trial.journal.release(&lease).await?;
    trial.journal.remove(&run).await?;
    trial.journal.remove(&run).await?;
    equal("runs", list(trial).await?, vec![])
}

async fn begun_anew(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let former = trial.begun(&run, 2).await?;
    trial.clock.advance(LONG);
    trial.journal.remove(&run).await?;
    let lease = trial.lease(&run, "b").await?;
    equal("the last number", lease.last, Seq(0))?;
    trial.journal.append(&lease, Seq(0), some(1, 2)).await?;
    refused!(
        "an append of the former holder",
        trial.journal.append(&former, Seq(2), some(3, 1)).await,
        JournalError::Fenced { .. }
    )?;
    equal("records", trial.all(&run).await?.len(), 2)
}
