//! Cases on the life of sandboxes: how they are told apart, how they end, and what is left.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, future::try_join_all, stream};

use super::{
    case_table,
    support::{CaseResult, closed, equal, holds, mismatch, path, read_until, shell, write},
    trial::{Stop, Trial},
};
use crate::{
    DownloadOptions, ExecRequest, ListOptions, LossReason, SandboxError, SandboxState, WriteOptions,
};

case_table! { "lifecycle":
    guarantees: "guarantees name the backend and each wall at most once, in order",
    state: "a state names backend and sandbox, and survives being written down",
    close_is_idempotent: "closing twice, and at the same time, is `Ok`",
    closed_is_lost: "every call after close is `Lost` with `Closed`",
    close_ends_commands: "a command under way learns that the sandbox was closed",
    lost_waits: "`lost` waits, may be dropped, and then tells `Closed`",
    wall_time: "a sandbox ends at its wall time and says so",
    attach_after_close: "a closed sandbox cannot be attached to",
    drop_closes: "sandboxes that are dropped without close do not stand in the way of others",
    many: "20 sandboxes at once each do their own work",
    workspaces_apart: "no sandbox sees the files or processes of another",
}

async fn guarantees(trial: &Trial<'_>) -> CaseResult {
    let found = trial.backend.guarantees().await?;
    equal("the backend", found.backend, trial.backend.name())?;
    let walls: Vec<_> = found.walls.iter().map(|guarantee| guarantee.wall).collect();
    holds("the walls", walls.is_sorted_by(|a, b| a < b), "in order, each once", &walls)
}

async fn state(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let state = sandbox.state();
    equal("the backend", &*state.backend, trial.backend.name())?;
    equal("the sandbox", &state.id, sandbox.id())?;
    equal("the version", state.version, 1)?;
    let text = serde_json::to_string(&state).map_err(|error| error.to_string());
    let read = text.and_then(|text| {
        serde_json::from_str::<SandboxState>(&text).map_err(|error| error.to_string())
    });
    equal("written down and read", read, Ok::<_, String>(state))
}

async fn close_is_idempotent(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    try_join_all([sandbox.close(), sandbox.close()]).await?;
    sandbox.close().await?;
    Ok(())
}

async fn closed_is_lost(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    write(&*sandbox, "file", "x").await?;
    sandbox.close().await?;
    let (files, file) = (sandbox.files(), path("file")?);
    closed("exec", sandbox.exec(ExecRequest::program(["true"])).await.map(drop))?;
    closed("read", files.read(&file, 0, 1).await)?;
    closed("write", files.write(&file, Bytes::new(), &WriteOptions::default()).await)?;
    closed("list", files.list(&path(".")?, &ListOptions::default()).await)?;
    closed("stat", files.stat(&file).await)?;
    closed("make a directory", files.make_directory(&path("d")?, 0o755).await)?;
    closed("rename", files.rename(&file, &path("g")?, true).await)?;
    closed("remove", files.remove(&file, false).await)?;
    closed("upload", sandbox.tree().upload(&path(".")?, stream::empty().boxed()).await)?;
    let first = match sandbox.tree().download(&path(".")?, &DownloadOptions::default()).await {
        Ok(mut events) => events.next().await.transpose().map(drop),
        Err(error) => Err(error),
    };
    closed("download", first)?;
    closed("lost", Err::<(), _>(sandbox.lost().await))
}

async fn close_ends_commands(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let mut process = sandbox.exec(ExecRequest::shell("echo ready; exec sleep 600")).await?;
    read_until(&mut process, "ready\n").await?;
    sandbox.close().await?;
    match process.next().await {
        Some(event) => closed("the next event", event),
        None => Err(mismatch("the next event", "SandboxError::Lost", &"the end")),
    }
}

async fn lost_waits(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let early = tokio::time::timeout(Duration::from_millis(50), sandbox.lost()).await;
    holds("a live sandbox", early.is_err(), "not lost", &early)?;
    equal("after dropping `lost`", shell(&*sandbox, "echo alive").await?, "alive\n")?;
    let (lost, ended) = tokio::join!(sandbox.lost(), sandbox.close());
    ended?;
    closed("lost", Err::<(), _>(lost))
}

async fn wall_time(trial: &Trial<'_>) -> CaseResult {
    let limit = Duration::from_secs(1);
    let sandbox = trial.sandbox_with(|spec| spec.limits.wall_time = limit).await?;
    match sandbox.lost().await {
        SandboxError::Lost { reason: LossReason::WallTime } => {}
        other => return Err(mismatch("lost", "LossReason::WallTime", &other)),
    }
    let after = sandbox.exec(ExecRequest::program(["true"])).await;
    holds("exec", matches!(after, Err(SandboxError::Lost { .. })), "SandboxError::Lost", &after)
}

async fn attach_after_close(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let state = sandbox.state();
    sandbox.close().await?;
    let attached = trial.backend.attach(&state).await;
    let expected =
        matches!(attached, Err(SandboxError::Lost { .. } | SandboxError::Unsupported { .. }));
    holds("attach", expected, "SandboxError::Lost or Unsupported", &attached)
}

async fn drop_closes(trial: &Trial<'_>) -> CaseResult {
    for _ in 0..5 {
        let sandbox = trial.backend.create(trial.spec).await?;
        let mut process = sandbox.exec(ExecRequest::shell("echo ready; exec sleep 600")).await?;
        read_until(&mut process, "ready\n").await?;
        drop(process);
        drop(sandbox);
    }
    let sandbox = trial.sandbox().await?;
    equal("a later sandbox", shell(&*sandbox, "ls -A; echo alive").await?, "alive\n")
}

async fn many(trial: &Trial<'_>) -> CaseResult {
    let work = (0..20).map(|turn| async move {
        let sandbox = trial.sandbox().await?;
        write(&*sandbox, "file", format!("{turn}\n")).await?;
        equal("its own file", shell(&*sandbox, "ls; cat file").await?, format!("file\n{turn}\n"))?;
        Ok::<_, Stop>(sandbox)
    });
    let sandboxes = try_join_all(work).await?;
    let names: BTreeSet<_> = sandboxes.iter().map(|sandbox| sandbox.id().as_str()).collect();
    equal("the number of distinct names", names.len(), 20)?;
    for sandbox in &sandboxes {
        equal("alive beside the others", shell(&**sandbox, "echo alive").await?, "alive\n")?;
    }
    Ok(())
}

async fn workspaces_apart(trial: &Trial<'_>) -> CaseResult {
    let (one, two) = (trial.sandbox().await?, trial.sandbox().await?);
    let script =
        "echo one > mine; echo one > /tmp/mine; echo one > ~/mine; sleep 54321 & echo ready; wait";
    let mut process = one.exec(ExecRequest::shell(script)).await?;
    read_until(&mut process, "ready\n").await?;
    let script = "cat mine /tmp/mine ~/mine 2>&-; cat /proc/[0-9]*/cmdline 2>&- | tr '\\0' ' '; :";
    let found = shell(&*two, script).await?;
    let apart = !found.contains("one\n") && !found.contains("sleep 54321");
    holds("what the other sees", apart, "nothing of the first", &found)?;
    one.close().await?;
    equal("the other lives on", shell(&*two, "echo alive").await?, "alive\n")
}
