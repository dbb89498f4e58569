//! Cases on the list of sandboxes and on removing one by its name.

use std::{sync::Arc, time::Duration};

use cofferdam_core::SandboxId;
use futures::future::try_join_all;

use super::{
    case_table,
    support::{CaseResult, alive, equal, holds, mismatch},
    trial::{Stop, Trial},
};
use crate::{ListedSandbox, Sandbox, SandboxError};

case_table! { "listing":
    listed: "a sandbox is listed once, with its labels and times, and as connected, until it is closed",
    left_behind: "a sandbox that was left is listed as not connected, and found by the state in the list",
    removed: "removing by name ends a sandbox and tells whoever is connected; again, it is `Ok`",
    removed_alone: "a sandbox to which nobody is connected is removed by its name",
    nobody: "a name that nobody has is removed already, whatever it is",
}

/// How often a list is asked for that is to change.
const PAUSE: Duration = Duration::from_millis(20);

/// Makes a sandbox that lingers where there are such, and tells whether it does.
async fn made(trial: &Trial<'_>) -> Result<(Arc<dyn Sandbox>, bool), Stop> {
    let made = trial.sandbox_with(|spec| {
        spec.linger = Duration::from_secs(60);
        spec.labels.insert("run".to_owned(), "listing".to_owned());
    });
    match made.await {
        Ok(sandbox) => Ok((sandbox, true)),
        Err(SandboxError::Unsupported { .. } | SandboxError::Unenforceable { .. }) => {
            let labels = |spec: &mut crate::SandboxSpec| {
                spec.labels.insert("run".to_owned(), "listing".to_owned());
            };
            Ok((trial.sandbox_with(labels).await?, false))
        }
        Err(error) => Err(error.into()),
    }
}

/// Makes one that lingers and leaves it.
async fn left(trial: &Trial<'_>) -> Result<SandboxId, Stop> {
    let mut spec = trial.spec.clone();
    spec.linger = Duration::from_secs(60);
    match trial.backend.create(&spec).await {
        Ok(sandbox) => Ok(sandbox.id().clone()),
        Err(error @ (SandboxError::Unsupported { .. } | SandboxError::Unenforceable { .. })) => {
            Err(Stop::Skipped(error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

async fn find(trial: &Trial<'_>, id: &SandboxId) -> Result<Vec<ListedSandbox>, Stop> {
    let mut list = trial.backend.list().await?;
    list.retain(|listed| listed.id == *id);
    Ok(list)
}

/// Returns a sandbox as it is listed; skips the case if there is none such and need not be.
async fn the_one(trial: &Trial<'_>, id: &SandboxId, must: bool) -> Result<ListedSandbox, Stop> {
    let mut found = find(trial, id).await?;
    match found.pop() {
        Some(listed) if found.is_empty() => Ok(listed),
        None if !must => {
            let reason = "sandboxes of this backend end with their process and are not listed";
            Err(Stop::Skipped(reason.to_owned()))
        }
        last => Err(mismatch("the list", "the sandbox once", &(last, found))),
    }
}

/// Waits until nobody is connected to a sandbox any more.
async fn alone(trial: &Trial<'_>, id: &SandboxId) -> Result<ListedSandbox, Stop> {
    loop {
        let listed = the_one(trial, id, true).await?;
        if !listed.connected {
            return Ok(listed);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn listed(trial: &Trial<'_>) -> CaseResult {
    let (sandbox, lingers) = made(trial).await?;
    let listed = the_one(trial, sandbox.id(), lingers).await?;
    equal("the backend", &*listed.backend, trial.backend.name())?;
    equal("the label", listed.labels.get("run").map(String::as_str), Some("listing"))?;
    equal("the state", &listed.state, &sandbox.state())?;
    let in_order = listed.expires.is_none_or(|expires| expires > listed.created);
    holds("the times", in_order, "in order", &(listed.created, listed.expires))?;
    equal("somebody is connected", listed.connected, true)?;
    sandbox.close().await?;
    equal("a closed sandbox", find(trial, sandbox.id()).await?, Vec::new())
}

async fn left_behind(trial: &Trial<'_>) -> CaseResult {
    let id = left(trial).await?;
    let listed = alone(trial, &id).await?;
    let sandbox = trial.adopt(trial.backend.attach(&listed.state).await?);
    equal("the name", sandbox.id(), &id)?;
    equal("somebody is connected", the_one(trial, &id, true).await?.connected, true)?;
    alive(&*sandbox).await
}

async fn removed(trial: &Trial<'_>) -> CaseResult {
    let (sandbox, lingers) = made(trial).await?;
    let listed = the_one(trial, sandbox.id(), lingers).await?;
    try_join_all([trial.backend.remove(&listed.id), trial.backend.remove(&listed.id)]).await?;
    let lost = sandbox.lost().await;
    holds("whoever is connected", lost.is_loss(), "SandboxError::Lost", &lost)?;
    equal("the list", find(trial, &listed.id).await?, Vec::new())?;
    let attached = trial.backend.attach(&listed.state).await;
    let gone = matches!(attached, Err(SandboxError::Lost { .. }));
    holds("attaching", gone, "SandboxError::Lost", &attached)?;
    trial.backend.remove(&listed.id).await?;
    sandbox.close().await?;
    Ok(())
}

async fn removed_alone(trial: &Trial<'_>) -> CaseResult {
    let id = left(trial).await?;
    let listed = alone(trial, &id).await?;
    trial.backend.remove(&id).await?;
    equal("the list", find(trial, &id).await?, Vec::new())?;
    let attached = trial.backend.attach(&listed.state).await;
    let gone = matches!(attached, Err(SandboxError::Lost { .. }));
    holds("attaching", gone, "SandboxError::Lost", &attached)
}

async fn nobody(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    for name in ["no-such-sandbox", "", "..", "../..", "/", "a/b", &"x".repeat(5000)] {
        trial.backend.remove(&SandboxId::new(name)).await?;
    }
    alive(&*sandbox).await
}
