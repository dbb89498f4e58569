//! Cases on limits and on the network: each only where the backend claims the wall as full.

use std::{io, net::TcpListener, time::Duration};

use bytes::Bytes;
use cofferdam_core::NetworkAccess;
use futures::StreamExt as _;

use super::{
    case_table,
    support::{CaseResult, equal, errno, holds, mismatch, path, refused, run, shell},
    trial::{Stop, Trial},
};
use crate::{
    ExecEvent, ExecRequest, ExitStatus, LossReason, Sandbox, SandboxError, Wall, WriteOptions,
    exec::ExceededLimit,
};

case_table! { "limits":
    memory: "the memory limit ends what exceeds it; the sandbox lives on or is lost for that reason",
    processes: "no more processes than the limit are started, and room comes back",
    disk: "a full disk is ENOSPC for the seam and for commands, and room comes back",
    output: "a command with more output than the limit is ended for it",
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
            Err(Stop::Failed(super::CaseFailure::Call(SandboxError::NotStarted { .. }))) => {
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
    equal("a later command", shell(&*sandbox, "echo alive").await?, "alive\n")
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
