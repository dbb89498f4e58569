//! Cases on sandboxes that stand still for a moment. Skipped where the backend says that it cannot do this.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    case_table,
    support::{
        CaseResult, alive, becomes, collect, content_of, equal, holds, mismatch, read, write,
    },
    trial::{Stop, Trial},
};
use crate::{DEFAULT_FREEZE, ExecRequest, ExitStatus, Freezer, Process, Sandbox, SandboxError};

case_table! { "freeze":
    stands_still: "nothing in a frozen sandbox moves, and a command under way goes on as if nothing had been",
    operations_wait: "an operation on a frozen sandbox waits, and then goes on",
    bound: "a sandbox goes on by itself when the bound is over, and the thaw says so",
    dropped: "dropping the freeze, or the future that makes it, lets the sandbox go on",
    one_at_a_time: "a second freeze waits for the end of the first, and holds then",
    closed_while_frozen: "a frozen sandbox can be closed, and then no more be frozen",
}

/// Makes a sandbox in which a command counts in a file.
async fn counting(trial: &Trial<'_>) -> Result<(Arc<dyn Sandbox>, Process), Stop> {
    trial.can("freeze", |found| found.freeze).await?;
    let sandbox = trial.sandbox().await?;
    let script =
        "i=0; while [ ! -e end ]; do i=$((i+1)); echo $i > next; mv next count; done; echo ended";
    let process = sandbox.exec(ExecRequest::shell(script)).await?;
    content_of(&*sandbox, "count").await?;
    Ok((sandbox, process))
}

fn freezer(sandbox: &dyn Sandbox) -> Result<&dyn Freezer, Stop> {
    sandbox.freezer().ok_or_else(|| mismatch("the freezer", "there, as the backend says", &"none"))
}

/// Demands that the count goes up.
async fn counts_on(sandbox: &dyn Sandbox) -> CaseResult {
    let before = content_of(sandbox, "count").await?;
    let before = before.trim();
    becomes(sandbox, "the count", &format!("[ $(cat count) -gt {before} ] && echo yes; :")).await
}

async fn stands_still(trial: &Trial<'_>) -> CaseResult {
    let (sandbox, process) = counting(trial).await?;
    let frozen = freezer(&*sandbox)?.freeze(DEFAULT_FREEZE).await?;
    let count = || sandbox.host_workspace().map(|workspace| workspace.layer());
    if let Some(layer) = count() {
        use super::host_tree::layer_lines;
        let layer = layer?;
        let before = layer_lines(&layer)?;
        // Long enough for a command that runs to count hundreds.
        tokio::time::sleep(Duration::from_millis(300)).await;
        equal("what the host sees", layer_lines(&layer)?, before)?;
    }
    holds("the thaw", frozen.thaw().await?, "to say that nothing moved", &false)?;
    counts_on(&*sandbox).await?;
    write(&*sandbox, "end", "").await?;
    let told = collect(process).await?;
    equal(
        "the command",
        (told.text(), told.status),
        ("ended\n".to_owned(), Some(ExitStatus::Code(0))),
    )
}

async fn operations_wait(trial: &Trial<'_>) -> CaseResult {
    let (sandbox, _process) = counting(trial).await?;
    let frozen = freezer(&*sandbox)?.freeze(DEFAULT_FREEZE).await?;
    let reading = read(&*sandbox, "count");
    tokio::pin!(reading);
    let early = tokio::time::timeout(Duration::from_millis(200), &mut reading).await;
    holds("reading while it is frozen", early.is_err(), "to wait", &early.is_ok())?;
    frozen.thaw().await?;
    holds("what was read", !reading.await?.is_empty(), "a count", &"nothing")?;
    alive(&*sandbox).await
}

async fn bound(trial: &Trial<'_>) -> CaseResult {
    let (sandbox, _process) = counting(trial).await?;
    let frozen = freezer(&*sandbox)?.freeze(Duration::from_millis(300)).await?;
    // Waits until it goes on by itself.
    counts_on(&*sandbox).await?;
    holds("the thaw", !frozen.thaw().await?, "to say that it had gone on", &true)
}

async fn dropped(trial: &Trial<'_>) -> CaseResult {
    let (sandbox, _process) = counting(trial).await?;
    let long = Duration::from_secs(60);
    drop(freezer(&*sandbox)?.freeze(long).await?);
    counts_on(&*sandbox).await?;
    for micros in [0, 50, 200, 1000, 5000] {
        let freezing = freezer(&*sandbox)?.freeze(long);
        drop(tokio::time::timeout(Duration::from_micros(micros), freezing).await);
        counts_on(&*sandbox).await?;
    }
    Ok(())
}

async fn one_at_a_time(trial: &Trial<'_>) -> CaseResult {
    let (sandbox, _process) = counting(trial).await?;
    let freezer = freezer(&*sandbox)?;
    let first = freezer.freeze(DEFAULT_FREEZE).await?;
    let second = freezer.freeze(DEFAULT_FREEZE);
    tokio::pin!(second);
    let early = tokio::time::timeout(Duration::from_millis(100), &mut second).await;
    holds("a second freeze", early.is_err(), "to wait", &early.is_ok())?;
    first.thaw().await?;
    holds("the second thaw", second.await?.thaw().await?, "to say that nothing moved", &false)?;
    counts_on(&*sandbox).await
}

async fn closed_while_frozen(trial: &Trial<'_>) -> CaseResult {
    let (sandbox, _process) = counting(trial).await?;
    let frozen = freezer(&*sandbox)?.freeze(Duration::from_secs(60)).await?;
    let start = Instant::now();
    sandbox.close().await?;
    holds("closing", start.elapsed() < Duration::from_secs(10), "not to wait", &start.elapsed())?;
    drop(frozen);
    match sandbox.freezer().map(|freezer| freezer.freeze(DEFAULT_FREEZE)) {
        None => Ok(()),
        Some(freezing) => match freezing.await {
            Err(SandboxError::Lost { .. }) => Ok(()),
            other => Err(mismatch("a freeze after close", "SandboxError::Lost", &other)),
        },
    }
}
