//! Cases on the processes of a sandbox: orphans, background work, trees that resist, and the view from within.

use std::time::Duration;

use futures::StreamExt as _;

use super::{
    CaseFailure, case_table,
    support::{
        CaseResult, alive, becomes, collect, equal, gone, holds, none_named, read_until, run, shell,
    },
    trial::{Stop, Trial},
};
use crate::{ExecEvent, ExecRequest, ExitStatus, SandboxError};

case_table! { "processes":
    orphans_are_reaped: "orphans that end leave no zombies",
    few_at_first: "a new sandbox shows few processes, none of them the host's",
    background_lives: "a background process lives as long as its command is held, and not longer",
    stream_ends_with_the_tree: "`Exited` does not wait for what a command leaves behind; the end of the stream does",
    forking_tree: "a tree that forks without end is killed whole",
    deaf_tree: "a tree that ignores signals is killed whole",
    first_process: "commands cannot end the sandbox's first process",
    kill_all: "a command that kills all that it can reach leaves the sandbox alive, or lost and saying so",
    ids_differ: "commands that run at a time have ids of their own",
}

async fn orphans_are_reaped(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    // The middle shell ends at once, so that its children are nobody's.
    let script = "i=0; while [ $i -lt 50 ]; do sh -c 'sleep 0.01 >/dev/null 2>&1 &'; i=$((i+1)); done; \
                  echo made; exec sleep 600";
    let mut process = sandbox.exec(ExecRequest::shell(script)).await?;
    read_until(&mut process, "made\n").await?;
    let script = "cat /proc/[0-9]*/stat 2>&- | grep -q ') Z ' || echo yes; :";
    becomes(&*sandbox, "no zombies", script).await
}

async fn few_at_first(trial: &Trial<'_>) -> CaseResult {
    trial.sees_processes().await?;
    let sandbox = trial.sandbox().await?;
    let found = shell(&*sandbox, "ls -d /proc/[0-9]*").await?;
    holds("the processes", found.lines().count() <= 8, "8 at most", &found)
}

async fn background_lives(trial: &Trial<'_>) -> CaseResult {
    trial.sees_processes().await?;
    let sandbox = trial.sandbox().await?;
    let mut process = sandbox.exec(ExecRequest::shell("sleep 600 & echo $!")).await?;
    let pid = read_until(&mut process, "\n").await?;
    let pid = pid.trim();
    let exited = process.next().await.transpose()?;
    equal("the next event", exited, Some(ExecEvent::Exited(ExitStatus::Code(0))))?;
    shell(&*sandbox, &format!("kill -0 {pid}")).await?;
    drop(process);
    gone(&*sandbox, "the background process", pid).await
}

async fn stream_ends_with_the_tree(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    // It holds none of the command's pipes.
    let script = "sleep 600 </dev/null >/dev/null 2>&1 & echo $!";
    let mut process = sandbox.exec(ExecRequest::shell(script)).await?;
    let pid = read_until(&mut process, "\n").await?;
    let exited = process.next().await.transpose()?;
    equal("the next event", exited, Some(ExecEvent::Exited(ExitStatus::Code(0))))?;
    let early = tokio::time::timeout(Duration::from_millis(200), process.next()).await;
    holds("the stream while something runs", early.is_err(), "to wait", &early)?;
    shell(&*sandbox, &format!("kill -9 {pid}")).await?;
    let end = process.next().await.transpose()?;
    equal("the stream once nothing is left", end, None)
}

async fn forking_tree(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox_with(|spec| spec.limits.processes = 64).await?;
    let script = "echo ready; while :; do (sleep 0.05 &) 2>&-; done";
    let mut process = sandbox.exec(ExecRequest::shell(script)).await?;
    read_until(&mut process, "ready\n").await?;
    process.control().kill_tree().await?;
    equal("the status", collect(process).await?.status, Some(ExitStatus::Signal(9)))?;
    none_named(&*sandbox, "sleep").await
}

async fn deaf_tree(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let deaf = "trap '' HUP INT QUIT TERM; echo $$; while :; do sleep 600; done";
    let script = format!("sh -c \"{}\" & {deaf}", deaf.replace('$', "\\$"));
    let mut process = sandbox.exec(ExecRequest::shell(script)).await?;
    let mut pids = String::new();
    while pids.matches('\n').count() < 2 {
        pids += &read_until(&mut process, "\n").await?;
    }
    process.control().kill_tree().await?;
    equal("the status", collect(process).await?.status, Some(ExitStatus::Signal(9)))?;
    for pid in pids.lines() {
        gone(&*sandbox, "one of the tree", pid).await?;
    }
    Ok(())
}

async fn first_process(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    run(&*sandbox, ExecRequest::shell("kill -TERM 1; kill -INT 1; kill -HUP 1; kill -KILL 1; :"))
        .await?;
    alive(&*sandbox).await
}

async fn kill_all(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let lost = |error: &SandboxError| matches!(error, SandboxError::Lost { .. });
    match sandbox.exec(ExecRequest::shell("kill -9 -1; sleep 600")).await {
        Err(error) if lost(&error) => return Ok(()),
        started => match collect(started?).await {
            Ok(told) => {
                let ended = told.status.is_some_and(|status| !status.success());
                holds("the status", ended, "none, or one of a death", &told.status)?;
            }
            Err(Stop::Failed(CaseFailure::Call(error))) if lost(&error) => {
                return Ok(());
            }
            Err(other) => return Err(other),
        },
    }
    match run(&*sandbox, ExecRequest::program(["echo", "alive"])).await {
        Ok(told) => equal("a later command", told.text(), "alive\n"),
        Err(Stop::Failed(CaseFailure::Call(error))) if lost(&error) => Ok(()),
        Err(other) => Err(other),
    }
}

async fn ids_differ(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let mut pids = Vec::new();
    let mut held = Vec::new();
    for _ in 0..10 {
        let mut process = sandbox.exec(ExecRequest::shell("echo $$; exec sleep 600")).await?;
        pids.push(read_until(&mut process, "\n").await?);
        held.push(process);
    }
    pids.sort_unstable();
    pids.dedup();
    equal("different ids", pids.len(), 10)
}
