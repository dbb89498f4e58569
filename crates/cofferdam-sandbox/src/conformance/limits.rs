//! Cases on limits and on the network: each only where the backend claims the wall as full.

use std::{io, net::TcpListener, time::Duration};

use bytes::Bytes;
use cofferdam_core::NetworkAccess;
use futures::StreamExt as _;

use super::{
    CaseFailure, case_table,
    layout::{file, upload},
    support::{
        CaseResult, alive, equal, errno, holds, mismatch, path, pattern, refused, run, shell,
    },
    trial::{Stop, Trial},
};
use crate::{
    ExecEvent, ExecRequest, ExitStatus, ListOptions, LossReason, Sandbox, SandboxError, Wall,
    WriteOptions, exec::ExceededLimit,
};

case_table! { "limits":
    memory: "the memory limit ends what exceeds it; the sandbox lives on or is lost for that reason",
    processes: "no more processes than the limit are started, and room comes back",
    disk: "a full disk is ENOSPC for the seam and for commands, and room comes back",
    output: "a command with more output than the limit is ended for it",
    output_exact: "exactly as much output as the limit is no fault, one byte more is; both streams count",
    inodes: "a workspace full of names is ENOSPC, and room comes back",
    tree_too_large: "an upload that does not fit is ENOSPC",
    open_files: "a command opens no more files than the limit",
    cpu: "a command gets no more of a processor than its share",
    idle: "a sandbox with which nothing is done ends and says so; work keeps it alive",
    read_only: "a path that is read-only can be read and not written",
    network_none: "without network access, a listener on the host's loopback is not reached",
    network_host: "with the host's network, a listener on the host's loopback is reached",
}

const MIB: u64 = 1 << 20;

async fn memory(trial: &Trial<'_>) -> CaseResult {
    trial.needs(Wall::MemoryLimit).await?;
    let sandbox = trial
        .sandbox_with(|spec| {
            (spec.limits.memory_bytes, spec.limits.disk_bytes) = (128 * MIB, 16 * MIB);
        })
        .await?;
    let script = "x=0123456789abcdef; while :; do x=$x$x; done";
    let out_of_memory = |error: &SandboxError| {
        matches!(error, SandboxError::Lost { reason: LossReason::OutOfMemory })
    };
    let mut process = sandbox.exec(ExecRequest::shell(script)).await?;
    let mut status = None;
    while let Some(event) = process.next().await {
        match event {
            Ok(ExecEvent::Exited(ended)) => status = Some(ended),
            Ok(_) => {}
            Err(error) if out_of_memory(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    let expected = matches!(status, Some(ExitStatus::Limit(ExceededLimit::Memory)))
        || status.is_some_and(|status| status.shell_code() == 137);
    holds("the status", expected, "the memory limit, or signal 9", &status)?;
    match sandbox.exec(ExecRequest::program(["true"])).await {
        Ok(_) => Ok(()),
        Err(error) if out_of_memory(&error) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn processes(trial: &Trial<'_>) -> CaseResult {
    const LIMIT: u32 = 16;
    trial.needs(Wall::ProcessLimit).await?;
    let sandbox = trial.sandbox_with(|spec| spec.limits.processes = LIMIT).await?;
    let mut running = Vec::new();
    let stopped = loop {
        match sandbox.exec(ExecRequest::program(["sleep", "600"])).await {
            Ok(process) => running.push(process),
            Err(error) => break error,
        }
        holds("commands that run", running.len() <= LIMIT as usize, "16 at most", &running.len())?;
    };
    let expected = matches!(stopped, SandboxError::NotStarted { .. });
    holds("the first beyond the limit", expected, "SandboxError::NotStarted", &stopped)?;
    holds("commands that run", running.len() >= 4, "at least 4 of 16", &running.len())?;
    drop(running);
    // The kernel gives a place back only when the killed process has been waited for.
    loop {
        match run(&*sandbox, ExecRequest::program(["echo", "again"])).await {
            Ok(told) => return equal("a later command", told.text(), "again\n"),
            Err(Stop::Failed(CaseFailure::Call(SandboxError::NotStarted { .. }))) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(other) => return Err(other),
        }
    }
}

async fn disk(trial: &Trial<'_>) -> CaseResult {
    trial.needs(Wall::DiskLimit).await?;
    let sandbox = trial.sandbox_with(|spec| spec.limits.disk_bytes = 8 * MIB).await?;
    let mut written = 0;
    let full = loop {
        let file = path(&format!("file{written}"))?;
        let content = Bytes::from(vec![1; 1 << 20]);
        match sandbox.files().write(&file, content, &WriteOptions::default()).await {
            Ok(()) => written += 1,
            error => break error,
        }
        holds("MiB written", written <= 8, "8 at most", &written)?;
    };
    refused("the first beyond the limit", full, Some(errno::ENOSPC))?;
    holds("MiB written", written >= 6, "at least 6 of 8", &written)?;
    let told = run(&*sandbox, ExecRequest::shell("head -c 4194304 /dev/zero > more")).await?;
    let failed = told.status.is_some_and(|status| !status.success());
    holds("a command that writes more", failed, "a failure", &told.status)?;
    shell(&*sandbox, "rm -f more file*; head -c 4194304 /dev/zero > more").await?;
    Ok(())
}

async fn output(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox_with(|spec| spec.limits.output_bytes = MIB).await?;
    let told = run(&*sandbox, ExecRequest::program(["cat", "/dev/zero"])).await?;
    equal("the status", told.status, Some(ExitStatus::Limit(ExceededLimit::Output)))?;
    let length = told.stdout.len() as u64;
    holds("the output", length <= 2 * MIB, "about 1 MiB", &length)?;
    alive(&*sandbox).await
}

async fn output_exact(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox_with(|spec| spec.limits.output_bytes = MIB).await?;
    let head = |bytes: u64| ExecRequest::program(["head", "-c", &*bytes.to_string(), "/dev/zero"]);
    let told = run(&*sandbox, head(MIB)).await?;
    equal("the status at the limit", told.status, Some(ExitStatus::Code(0)))?;
    equal("the output at the limit", told.stdout.len() as u64, MIB)?;
    let told = run(&*sandbox, head(MIB + 1)).await?;
    let limit = Some(ExitStatus::Limit(ExceededLimit::Output));
    equal("the status beyond the limit", told.status, limit)?;
    let script = "head -c 600000 /dev/zero; head -c 600000 /dev/zero >&2; sleep 600";
    equal("both streams", run(&*sandbox, ExecRequest::shell(script)).await?.status, limit)
}

async fn inodes(trial: &Trial<'_>) -> CaseResult {
    const LIMIT: u64 = 200;
    trial.needs(Wall::DiskLimit).await?;
    let sandbox = trial.sandbox_with(|spec| spec.limits.disk_inodes = LIMIT).await?;
    let mut made = 0;
    let full = loop {
        let name = path(&format!("file{made}"))?;
        match sandbox.files().write(&name, Bytes::new(), &WriteOptions::default()).await {
            Ok(()) => made += 1,
            error => break error,
        }
        holds("names made", made <= LIMIT, "200 at most", &made)?;
    };
    refused("the first beyond the limit", full, Some(errno::ENOSPC))?;
    holds("names made", made >= LIMIT / 2, "at least 100 of 200", &made)?;
    for number in 0..10 {
        sandbox.files().remove(&path(&format!("file{number}"))?, false).await?;
    }
    sandbox.files().write(&path("again")?, Bytes::new(), &WriteOptions::default()).await?;
    Ok(())
}

async fn tree_too_large(trial: &Trial<'_>) -> CaseResult {
    trial.needs(Wall::DiskLimit).await?;
    let sandbox = trial.sandbox_with(|spec| spec.limits.disk_bytes = 4 * MIB).await?;
    let events = (0..8).flat_map(|n| file(format!("f{n}"), 0o644, &pattern(1 << 20))).collect();
    refused("the upload", upload(&*sandbox, ".", events).await, Some(errno::ENOSPC))?;
    sandbox.files().remove(&path("f0")?, false).await?;
    alive(&*sandbox).await
}

async fn open_files(trial: &Trial<'_>) -> CaseResult {
    trial.needs(Wall::OpenFileLimit).await?;
    let sandbox = trial.sandbox_with(|spec| spec.limits.open_files = 64).await?;
    let script = "ulimit -n; ulimit -Hn; ulimit -n 65 2>&- && echo raised; :";
    equal("the limits", shell(&*sandbox, script).await?, "64\n64\n")?;
    alive(&*sandbox).await
}

async fn cpu(trial: &Trial<'_>) -> CaseResult {
    trial.needs(Wall::CpuLimit).await?;
    trial.sees_processes().await?;
    let sandbox = trial.sandbox_with(|spec| spec.limits.cpu_millis = Some(100)).await?;
    let script = "while :; do :; done & sleep 2; cut -d' ' -f14,15 /proc/$!/stat; kill $!";
    // In ticks of a hundredth of a second, as everywhere on Linux; 20 would be the share.
    let text = shell(&*sandbox, script).await?;
    let ticks: u64 = text.split_whitespace().filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    holds("ticks of 200", (1..=60).contains(&ticks), "about 20", &text)
}

async fn idle(trial: &Trial<'_>) -> CaseResult {
    trial.needs(Wall::IdleTimeLimit).await?;
    let limit = Duration::from_secs(1);
    let sandbox = trial.sandbox_with(|spec| spec.limits.idle_time = Some(limit)).await?;
    let told = run(&*sandbox, ExecRequest::program(["sleep", "2"])).await?;
    equal("a command that takes longer", told.status, Some(ExitStatus::Code(0)))?;
    for _ in 0..8 {
        tokio::time::sleep(limit / 4).await;
        sandbox.files().list(&path(".")?, &ListOptions::default()).await?;
    }
    match sandbox.lost().await {
        SandboxError::Lost { reason: LossReason::IdleTime } => {}
        other => return Err(mismatch("lost", "LossReason::IdleTime", &other)),
    }
    let after = sandbox.exec(ExecRequest::program(["true"])).await;
    holds("exec", matches!(after, Err(SandboxError::Lost { .. })), "SandboxError::Lost", &after)
}

async fn read_only(trial: &Trial<'_>) -> CaseResult {
    let fixed = path("fixed")?;
    let made = trial.sandbox_with(|spec| spec.read_only = vec![fixed]).await;
    let sandbox = match made {
        Ok(sandbox) => sandbox,
        Err(error @ (SandboxError::Unenforceable { .. } | SandboxError::Unsupported { .. })) => {
            return Err(Stop::Skipped(error.to_string()));
        }
        Err(error) => return Err(mismatch("creating", "a sandbox or a refusal by name", &error)),
    };
    sandbox
        .files()
        .write(&path("fixed/file")?, Bytes::from_static(b"x"), &WriteOptions::default())
        .await?;
    equal(
        "reading",
        run(&*sandbox, ExecRequest::program(["cat", "fixed/file"])).await?.text(),
        "x",
    )?;
    let script = "echo y > fixed/file; echo z > fixed/new; rm -rf fixed; mv fixed moved; ls -R";
    let told = run(&*sandbox, ExecRequest::shell(script)).await?;
    equal("what is left", told.text(), ".:\nfixed\n\n./fixed:\nfile\n")?;
    equal("the content", sandbox.files().read(&path("fixed/file")?, 0, 9).await?, "x")
}

/// Connects to the host's loopback from a sandbox, and returns whether the listener saw it.
async fn reaches_host(sandbox: &dyn Sandbox) -> Result<bool, Stop> {
    let failed = |error: io::Error| SandboxError::Host {
        operation: "listen on its loopback",
        source: Box::new(error),
    };
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    let script = format!(
        "if command -v bash >&2; then bash -c ': </dev/tcp/127.0.0.1/{port}'
         elif command -v python3 >&2; then python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}), 5)'
         elif command -v perl >&2; then perl -MIO::Socket -e 'IO::Socket::INET->new(PeerAddr => \"127.0.0.1:{port}\") or exit 1'
         else echo none; fi; :"
    );
    if shell(sandbox, &script).await? == "none\n" {
        let tools = "the root file system has no bash, python3 or perl to connect with";
        return Err(Stop::Skipped(tools.to_owned()));
    }
    match listener.accept() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(failed(error).into()),
    }
}

async fn network_none(trial: &Trial<'_>) -> CaseResult {
    trial.needs(Wall::Network).await?;
    let sandbox = trial.sandbox_with(|spec| spec.network = NetworkAccess::None).await?;
    equal("the listener was reached", reaches_host(&*sandbox).await?, false)
}

async fn network_host(trial: &Trial<'_>) -> CaseResult {
    match trial.sandbox_with(|spec| spec.network = NetworkAccess::Host).await {
        Ok(sandbox) => equal("the listener was reached", reaches_host(&*sandbox).await?, true),
        Err(error @ (SandboxError::Unenforceable { .. } | SandboxError::Unsupported { .. })) => {
            Err(Stop::Skipped(error.to_string()))
        }
        Err(error) => Err(mismatch("creating", "a sandbox or a refusal by name", &error)),
    }
}
