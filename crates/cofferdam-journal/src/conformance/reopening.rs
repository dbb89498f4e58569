//! What is left when the store is closed and opened again.

use super::{
    case_table,
    support::{CaseResult, LONG, Trial, all_of, equal, holds, id, refused, some},
};
use crate::{JournalError, RunFilter, Seq};

case_table! {
    "reopening":
    records_stay: "what was acknowledged is there, and the chain goes on",
    epochs_go_on: "leases go on rising, and a former one stays refused",
    removed_stays_removed: "a removed run does not come back",
    lists_stay: "a list is the same",
}

async fn records_stay(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.begun(&run, 40).await?;
    trial.journal.release(&lease).await?;
    let before = trial.all(&run).await?;
    let journal = trial.reopened().await?;
    equal("records", all_of(&*journal, &run).await?, before)?;
    let lease = journal.lease(&run, "b", LONG).await?;
    journal.append(&lease, Seq(40), some(41, 2)).await?;
    equal("records then", all_of(&*journal, &run).await?.len(), 42)
}

async fn epochs_go_on(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let former = trial.begun(&run, 1).await?;
    trial.clock.advance(LONG);
    let journal = trial.reopened().await?;
    let lease = journal.lease(&run, "b", LONG).await?;
    holds("the number", lease.epoch > former.epoch, "a higher one", &lease.epoch)?;
    refused!(
        "the append of the former",
        journal.append(&former, Seq(1), some(2, 1)).await,
        JournalError::Fenced { .. }
    )
}

async fn removed_stays_removed(trial: &Trial<'_>) -> CaseResult {
    let run = id("r");
    let lease = trial.begun(&run, 3).await?;
    trial.journal.release(&lease).await?;
    trial.journal.remove(&run).await?;
    let journal = trial.reopened().await?;
    equal("records", all_of(&*journal, &run).await?, vec![])?;
    equal("runs", journal.runs(&RunFilter::default()).await?, vec![])
}

async fn lists_stay(trial: &Trial<'_>) -> CaseResult {
    for name in ["a", "b"] {
        let lease = trial.begun(&id(name), 2).await?;
        trial.journal.release(&lease).await?;
    }
    let before = trial.journal.runs(&RunFilter::default()).await?;
    let journal = trial.reopened().await?;
    equal("runs", journal.runs(&RunFilter::default()).await?, before)
}
