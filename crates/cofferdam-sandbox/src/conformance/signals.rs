//! Cases on signals: which end a command, which do not, and how each is told.

use bytes::Bytes;
use futures::StreamExt as _;

use super::{
    case_table,
    support::{
        CaseResult, becomes, collect, content_of, equal, gone, mismatch, read_until, run,
        with_stdin,
    },
    trial::{Stop, Trial},
};
use crate::{ExecEvent, ExecRequest, ExitStatus, Process, Sandbox, Signal};

case_table! { "signals":
    every_deadly_one: "each signal that ends a process is told by its number, real-time ones too",
    harmless_ones: "signals that are ignored by default end nothing",
    impossible_ones: "numbers that are no signal change nothing",
    stop_and_continue: "a stopped command goes on where it was",
    reach_the_group: "a signal reaches the children in the command's group",
    from_within: "a command that signals its own group is told as ended by it",
    broken_pipe: "writing into a pipe that nobody reads ends the writer",
}

const STOP: Signal = Signal(19);
const CONTINUE: Signal = Signal(18);

/// Starts `cat` with an open standard input, and takes its first event.
async fn echoing(sandbox: &dyn Sandbox) -> Result<(Process, u32), Stop> {
    let mut process = sandbox.exec(with_stdin(ExecRequest::program(["cat"]))).await?;
    match process.next().await.transpose()? {
        Some(ExecEvent::Started { pid }) => Ok((process, pid)),
        other => Err(mismatch("the first event", "Started", &other)),
    }
}

/// Demands that `cat` still does its work.
async fn echoes(process: &mut Process, line: &'static str) -> CaseResult {
    process.control().write_stdin(Bytes::from_static(line.as_bytes())).await?;
    equal("the echo", read_until(process, "\n").await?, line)
}

async fn every_deadly_one(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    // All but those that stop or are ignored, and but the two that the C library keeps for itself.
    let deadly = (1..=31).filter(|number| !(17..=23).contains(number) && *number != 28);
    for number in deadly.chain(34..=64) {
        let (process, _) = echoing(&*sandbox).await?;
        process.control().signal(Signal(number)).await?;
        let status = collect(process).await?.status;
        equal(&format!("signal {number}"), status, Some(ExitStatus::Signal(number)))?;
    }
    Ok(())
}

async fn harmless_ones(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let (mut process, _) = echoing(&*sandbox).await?;
    for number in [17, 18, 23, 28] {
        process.control().signal(Signal(number)).await?;
        echoes(&mut process, "alive\n").await?;
    }
    Ok(())
}

async fn impossible_ones(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let (mut process, _) = echoing(&*sandbox).await?;
    for number in [0, -1, -9, 65, 1000, i32::MAX, i32::MIN] {
        process.control().signal(Signal(number)).await?;
        echoes(&mut process, "alive\n").await?;
    }
    Ok(())
}

async fn stop_and_continue(trial: &Trial<'_>) -> CaseResult {
    trial.sees_processes().await?;
    let sandbox = trial.sandbox().await?;
    let (mut process, pid) = echoing(&*sandbox).await?;
    let state = |letter| format!("grep -q '^State:.{letter}' /proc/{pid}/status && echo yes; :");
    process.control().signal(STOP).await?;
    becomes(&*sandbox, "stopped", &state('T')).await?;
    process.control().signal(CONTINUE).await?;
    becomes(&*sandbox, "going on", &state('S')).await?;
    echoes(&mut process, "where it was\n").await
}

async fn reach_the_group(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let script = "sleep 600 & echo $!; wait";
    let mut process = sandbox.exec(ExecRequest::shell(script)).await?;
    let child = read_until(&mut process, "\n").await?;
    process.control().signal(Signal::TERM).await?;
    equal("the status", collect(process).await?.status, Some(ExitStatus::Signal(15)))?;
    gone(&*sandbox, "the child", &child).await
}

async fn from_within(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    for number in [1, 2, 9, 15] {
        let told =
            run(&*sandbox, ExecRequest::shell(format!("kill -{number} 0; sleep 600"))).await?;
        let what = format!("signal {number} to the group");
        equal(&what, told.status, Some(ExitStatus::Signal(number)))?;
    }
    Ok(())
}

async fn broken_pipe(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let script = "{ cat /dev/zero; echo $? > code; } | head -c 1 | wc -c";
    let told = run(&*sandbox, ExecRequest::shell(script)).await?;
    equal("what the reader saw", told.text().trim(), "1")?;
    equal("the status", told.status, Some(ExitStatus::Code(0)))?;
    equal("the writer's code", content_of(&*sandbox, "code").await?, "141\n")
}
