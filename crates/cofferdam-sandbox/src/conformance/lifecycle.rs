//! Cases on the life of sandboxes: how they are told apart, how they end, and what is left.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use cofferdam_core::{SandboxId, SandboxLimits};
use futures::{
    StreamExt as _,
    future::{BoxFuture, Either, join_all, try_join_all},
    stream,
};

use super::{
    case_table,
    support::{
        CaseResult, alive, closed, equal, holds, mismatch, names, path, read_until, run, shell,
        write,
    },
    trial::{Stop, Trial},
};
use crate::{
    DownloadOptions, Enforcement, ExecRequest, ListOptions, LossReason, Sandbox, SandboxError,
    SandboxState, Signal, TreeEntry, TreeEntryKind, TreeEvent, Wall, WriteOptions,
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
    many_more: "200 sandboxes at once (or as many as the options say) each do their own work, and end",
    close_under_way: "closing while everything is under way ends all of it with `Closed`",
    close_from_many: "closing from many tasks at a time is `Ok` in each",
    drop_under_way: "dropping a sandbox ends what is under way; handles that outlive it say that it is lost",
    wall_time_ends_commands: "a command under way at the wall time learns why it ended",
    attach_to_nonsense: "a state that is of no sandbox of this backend is refused",
    demanded_walls: "a wall that is demanded and not full refuses the sandbox by name",
    strict: "a strict sandbox starts only if every wall is full",
    nonsense_limits: "limits of nothing are refused",
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
    let mut process = sandbox.exec(ExecRequest::program(["sleep", "600"])).await?;
    process.next().await;
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
    alive(&*sandbox).await?;
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
        let process = sandbox.exec(ExecRequest::program(["sleep", "600"])).await?;
        drop(process);
        drop(sandbox);
    }
    let sandbox = trial.sandbox().await?;
    equal("a later sandbox", names(&*sandbox, ".").await?, Vec::<String>::new())?;
    alive(&*sandbox).await
}

async fn many(trial: &Trial<'_>) -> CaseResult {
    let work = (0..20).map(|turn| async move {
        let sandbox = trial.sandbox().await?;
        write(&*sandbox, "file", format!("{turn}\n")).await?;
        equal("its only file", names(&*sandbox, ".").await?, ["file"])?;
        let told = run(&*sandbox, ExecRequest::program(["cat", "file"])).await?;
        equal("its own file", told.text(), format!("{turn}\n"))?;
        Ok::<_, Stop>(sandbox)
    });
    let sandboxes = try_join_all(work).await?;
    let names: BTreeSet<_> = sandboxes.iter().map(|sandbox| sandbox.id().as_str()).collect();
    equal("the number of distinct names", names.len(), 20)?;
    for sandbox in &sandboxes {
        alive(&**sandbox).await?;
    }
    Ok(())
}

async fn many_more(trial: &Trial<'_>) -> CaseResult {
    let work = (0..trial.options.at_once).map(|turn| async move {
        let sandbox = trial.sandbox().await?;
        write(&*sandbox, "file", format!("{turn}\n")).await?;
        let told = run(&*sandbox, ExecRequest::program(["cat", "file"])).await?;
        equal("its own file", told.text(), format!("{turn}\n"))?;
        Ok::<_, Stop>(sandbox)
    });
    let sandboxes = try_join_all(work).await?;
    let names: BTreeSet<_> = sandboxes.iter().map(|sandbox| sandbox.id().as_str()).collect();
    equal("the number of distinct names", names.len(), trial.options.at_once)?;
    try_join_all(sandboxes.iter().map(|sandbox| alive(&**sandbox))).await?;
    try_join_all(sandboxes.iter().map(|sandbox| sandbox.close())).await?;
    Ok(())
}

/// Starts one of everything that takes its time, and returns it as futures that end with the sandbox.
async fn under_way(
    sandbox: &Arc<dyn Sandbox>,
) -> Result<Vec<BoxFuture<'static, Result<(), SandboxError>>>, Stop> {
    write(&**sandbox, "large", vec![1; 8 << 20]).await?;
    let mut work: Vec<BoxFuture<'static, Result<(), SandboxError>>> = Vec::new();
    for request in [
        ExecRequest::program(["sleep", "600"]),
        ExecRequest::program(["cat", "/dev/zero"]),
        ExecRequest { stdin: true, ..ExecRequest::program(["cat"]) },
    ] {
        let mut process = sandbox.exec(request).await?;
        work.push(Box::pin(async move {
            while let Some(event) = process.next().await {
                event?;
            }
            Ok(())
        }));
    }
    let unfinished = stream::iter([Ok(TreeEvent::Entry(TreeEntry {
        path: b"half".to_vec(),
        mode: 0o644,
        modified_ns: None,
        kind: TreeEntryKind::File { size: 100 },
    }))])
    .chain(stream::pending());
    let (uploading, target) = (Arc::clone(sandbox), path("target")?);
    work.push(Box::pin(async move {
        // The upload itself learns of the end only when its source goes on.
        let upload = uploading.tree().upload(&target, unfinished.boxed());
        match futures::future::select(upload, Box::pin(uploading.lost())).await {
            Either::Left((ended, _)) => ended.map(drop),
            Either::Right((error, _)) => Err(error),
        }
    }));
    for _ in 0..5 {
        let (reading, file) = (Arc::clone(sandbox), path("large")?);
        work.push(Box::pin(async move {
            loop {
                reading.files().read(&file, 0, 16 << 20).await?;
            }
        }));
        let (writing, file) = (Arc::clone(sandbox), path("other")?);
        work.push(Box::pin(async move {
            loop {
                let content = Bytes::from(vec![2; 300_000]);
                writing.files().write(&file, content, &WriteOptions::default()).await?;
            }
        }));
    }
    Ok(work)
}

async fn close_under_way(trial: &Trial<'_>) -> CaseResult {
    for _ in 0..3 {
        let sandbox = trial.sandbox().await?;
        let work = join_all(under_way(&sandbox).await?);
        let closing = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            try_join_all([sandbox.close(), sandbox.close(), sandbox.close()]).await
        };
        let (ends, ended) = tokio::join!(work, closing);
        ended?;
        for end in ends {
            closed("what was under way", end)?;
        }
    }
    Ok(())
}

async fn close_from_many(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let mut process = sandbox.exec(ExecRequest::program(["sleep", "600"])).await?;
    try_join_all((0..50).map(|_| sandbox.close())).await?;
    while let Some(event) = process.next().await {
        if let Err(error) = event {
            return closed("the command", Err::<(), _>(error));
        }
    }
    Err(mismatch("the command", "SandboxError::Lost", &"the end"))
}

async fn drop_under_way(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.backend.create(trial.spec).await?;
    let mut process = sandbox.exec(ExecRequest::program(["sleep", "600"])).await?;
    let control = process.control();
    process.next().await;
    drop(sandbox);
    // A process does not hold its sandbox, so that one forgotten handle keeps no sandbox alive.
    while let Some(event) = process.next().await {
        if let Err(error) = event {
            holds("the command", error.is_loss(), "SandboxError::Lost", &error)?;
            let after = control.signal(Signal::TERM).await;
            let expected = after.as_ref().err().is_none_or(SandboxError::is_loss);
            return holds("a signal afterwards", expected, "Ok or SandboxError::Lost", &after);
        }
    }
    Err(mismatch("the command", "SandboxError::Lost", &"the end"))
}

async fn wall_time_ends_commands(trial: &Trial<'_>) -> CaseResult {
    let limit = Duration::from_secs(1);
    let sandbox = trial.sandbox_with(|spec| spec.limits.wall_time = limit).await?;
    let mut process = sandbox.exec(ExecRequest::program(["sleep", "600"])).await?;
    while let Some(event) = process.next().await {
        match event {
            Ok(_) => {}
            Err(SandboxError::Lost { reason: LossReason::WallTime }) => return Ok(()),
            Err(other) => return Err(mismatch("the command", "LossReason::WallTime", &other)),
        }
    }
    Err(mismatch("the command", "LossReason::WallTime", &"the end"))
}

async fn attach_to_nonsense(trial: &Trial<'_>) -> CaseResult {
    let state = trial.sandbox().await?.state();
    let nowhere = SandboxId::new("no-such-sandbox");
    for (what, state) in [
        ("another backend", SandboxState { backend: "another".to_owned(), ..state.clone() }),
        ("another version", SandboxState { version: 77, ..state.clone() }),
        ("no data", SandboxState { data: serde_json::Value::Null, id: nowhere, ..state }),
    ] {
        let attached = trial.backend.attach(&state).await;
        let expected = matches!(
            attached,
            Err(SandboxError::Lost { .. }
                | SandboxError::Unsupported { .. }
                | SandboxError::InvalidRequest { .. })
        );
        holds(what, expected, "SandboxError::Lost, Unsupported or InvalidRequest", &attached)?;
    }
    Ok(())
}

async fn demanded_walls(trial: &Trial<'_>) -> CaseResult {
    let guarantees = trial.backend.guarantees().await?;
    for wall in [
        Wall::Filesystem,
        Wall::Network,
        Wall::Privileges,
        Wall::SystemCalls,
        Wall::FilesystemSecondWall,
        Wall::MemoryLimit,
        Wall::DiskLimit,
        Wall::CpuLimit,
        Wall::IdleTimeLimit,
        Wall::Teardown,
    ] {
        let full = matches!(guarantees.enforcement(wall), Enforcement::Full { .. });
        let made = trial.sandbox_with(|spec| spec.require.extend([wall])).await;
        let what = format!("demanding the {wall}");
        match made {
            Ok(made) if full => made.close().await?,
            Err(SandboxError::Unenforceable { wall: named, .. }) if !full => {
                equal(&what, named, wall)?;
            }
            other => {
                let expected = if full { "a sandbox" } else { "SandboxError::Unenforceable" };
                return Err(mismatch(&what, expected, &other));
            }
        }
    }
    Ok(())
}

async fn strict(trial: &Trial<'_>) -> CaseResult {
    let weak = trial.backend.guarantees().await?.weaknesses().next().cloned();
    let made = trial.sandbox_with(|spec| spec.strict = true).await;
    match (weak, made) {
        (None, Ok(_)) => Ok(()),
        (Some(weak), Err(SandboxError::Unenforceable { wall, .. })) => {
            equal("the wall named", wall, weak.wall)
        }
        (weak, made) => Err(mismatch(&format!("strict, with {weak:?}"), "what is claimed", &made)),
    }
}

async fn nonsense_limits(trial: &Trial<'_>) -> CaseResult {
    type Change = fn(&mut SandboxLimits);
    let changes: [(&str, Change); 5] = [
        ("no memory", |limits| limits.memory_bytes = 0),
        ("no processes", |limits| limits.processes = 0),
        ("no disk", |limits| limits.disk_bytes = 0),
        ("no open files", |limits| limits.open_files = 0),
        ("no processor", |limits| limits.cpu_millis = Some(0)),
    ];
    for (what, change) in changes {
        let made = trial.sandbox_with(|spec| change(&mut spec.limits)).await;
        let expected = matches!(
            made,
            Err(SandboxError::InvalidRequest { .. } | SandboxError::Unenforceable { .. })
        );
        holds(what, expected, "SandboxError::InvalidRequest or Unenforceable", &made)?;
    }
    Ok(())
}

async fn workspaces_apart(trial: &Trial<'_>) -> CaseResult {
    let (one, two) = (trial.sandbox().await?, trial.sandbox().await?);
    let script = "echo one > mine; echo one > ${TMPDIR:-/tmp}/mine; echo one > ~/mine; sleep 54321 & echo ready; wait";
    let mut process = one.exec(ExecRequest::shell(script)).await?;
    read_until(&mut process, "ready\n").await?;
    let script = "cat mine ${TMPDIR:-/tmp}/mine ~/mine 2>&-; cat /proc/[0-9]*/cmdline 2>&- | tr '\\0' ' '; :";
    let found = shell(&*two, script).await?;
    let apart = !found.contains("one\n") && !found.contains("sleep 54321");
    holds("what the other sees", apart, "nothing of the first", &found)?;
    one.close().await?;
    equal("the other lives on", shell(&*two, "echo alive").await?, "alive\n")
}
