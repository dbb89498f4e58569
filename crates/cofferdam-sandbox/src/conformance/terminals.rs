//! Cases on terminals beyond the plain ones of `exec`: control characters, echo, order, sizes.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join;

use super::{
    case_table,
    support::{CaseResult, collect, equal, gone, on_terminal, read_until, run},
    trial::{Stop, Trial},
};
use crate::{ExitStatus, ProcessControl, Signal, TerminalSize};

case_table! { "terminals":
    echo: "what is typed is shown once by the terminal and once by who prints it",
    no_echo: "what is typed is not shown once echo is off",
    quit: "the byte of Ctrl-\\ ends with signal 3 what runs on a terminal",
    suspend: "the byte of Ctrl-Z stops what runs, and it can go on",
    controlling: "a terminal is the controlling one",
    resize_is_told: "a new size is told by SIGWINCH",
    odd_sizes: "sizes of nothing and of the greatest number are taken",
    order: "standard output and error come in the order in which they were written",
    much: "1 MiB without a line end arrives whole",
    raw_input: "100 000 typed bytes arrive whole on a raw terminal",
    hang_up: "dropping the process ends what runs on the terminal",
}

async fn typed(control: Arc<dyn ProcessControl>, bytes: &'static [u8]) -> CaseResult {
    Ok(control.write_stdin(Bytes::from_static(bytes)).await?)
}

async fn echo(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let process = sandbox.exec(on_terminal("cat", 24, 80)).await?;
    typed(process.control(), b"typed\n").await?;
    process.control().close_stdin().await?;
    equal("output", collect(process).await?.text(), "typed\r\ntyped\r\n")
}

async fn no_echo(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let mut process = sandbox.exec(on_terminal("stty -echo; echo ready; cat", 24, 80)).await?;
    read_until(&mut process, "ready\r\n").await?;
    typed(process.control(), b"typed\n").await?;
    process.control().close_stdin().await?;
    equal("output", collect(process).await?.text(), "typed\r\n")
}

async fn quit(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let mut process = sandbox.exec(on_terminal("echo ready; exec sleep 600", 24, 80)).await?;
    read_until(&mut process, "ready").await?;
    typed(process.control(), b"\x1c").await?;
    equal("the status", collect(process).await?.status, Some(ExitStatus::Signal(3)))
}

async fn suspend(trial: &Trial<'_>) -> CaseResult {
    trial.sees_processes().await?;
    let sandbox = trial.sandbox().await?;
    // The kernel does not stop a group that nobody could set going again, so a shell with job control is in between. What is
    // stopped starts nothing meanwhile: a shell whose child is stopped before it has become its program waits for that child, and
    // whoever waits for the shell to stop waits for ever.
    let script = "set -m; sh -c 'echo $$ ready; read line; echo $line on'; \
                  echo stopped; fg >/dev/null; echo over";
    let mut process = sandbox.exec(on_terminal(script, 24, 80)).await?;
    read_until(&mut process, "ready").await?;
    typed(process.control(), b"\x1a").await?;
    read_until(&mut process, "stopped\r\n").await?;
    typed(process.control(), b"go\n").await?;
    let text = read_until(&mut process, "over").await?;
    equal("it went on", text.contains("go on\r\n"), true)?;
    equal("the status", collect(process).await?.status, Some(ExitStatus::Code(0)))
}

async fn controlling(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let told = run(&*sandbox, on_terminal("echo shown >/dev/tty", 24, 80)).await?;
    equal("output", told.text(), "shown\r\n")
}

async fn resize_is_told(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let script = "trap 'stty size; exit 7' WINCH; echo ready; while :; do sleep 0.02; done";
    let mut process = sandbox.exec(on_terminal(script, 24, 80)).await?;
    read_until(&mut process, "ready\r\n").await?;
    process.control().resize(TerminalSize { rows: 40, columns: 100 }).await?;
    let told = collect(process).await?;
    equal("output", told.text(), "40 100\r\n")?;
    equal("the status", told.status, Some(ExitStatus::Code(7)))
}

async fn odd_sizes(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    for (rows, columns) in [(0, 0), (1, 1), (u16::MAX, u16::MAX)] {
        let mut process =
            sandbox.exec(on_terminal("echo ready; read line; stty size", 24, 80)).await?;
        read_until(&mut process, "ready\r\n").await?;
        process.control().resize(TerminalSize { rows, columns }).await?;
        typed(process.control(), b"\n").await?;
        let text = collect(process).await?.text();
        equal("the size", text.trim(), format!("{rows} {columns}"))?;
        let told = run(&*sandbox, on_terminal("stty size", rows, columns)).await?;
        equal("the size at the start", told.text().trim(), format!("{rows} {columns}"))?;
    }
    Ok(())
}

async fn order(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let script = "i=0; while [ $i -lt 200 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done";
    let told = run(&*sandbox, on_terminal(script, 24, 80)).await?;
    let expected: String = (0..200).map(|i| format!("out {i}\r\nerr {i}\r\n")).collect();
    equal("output", told.text(), expected)
}

async fn much(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let script = "head -c 1048576 /dev/zero | tr '\\0' x";
    let told = run(&*sandbox, on_terminal(script, 24, 80)).await?;
    equal("the number of bytes", told.stdout.len(), 1 << 20)?;
    equal("bytes that are something else", told.stdout.iter().filter(|b| **b != b'x').count(), 0)
}

async fn raw_input(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let script = "stty raw -echo; echo ready; head -c 100000 | wc -c";
    let mut process = sandbox.exec(on_terminal(script, 24, 80)).await?;
    read_until(&mut process, "ready\n").await?;
    let control = process.control();
    let writing =
        async { control.write_stdin(Bytes::from(vec![b'x'; 100_000])).await.map_err(Stop::from) };
    let ((), told) = try_join(writing, collect(process)).await?;
    equal("the bytes counted", told.text().trim(), "100000")
}

async fn hang_up(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let script = "trap '' HUP INT TERM; echo $$; while :; do sleep 600; done";
    let mut process = sandbox.exec(on_terminal(script, 24, 80)).await?;
    let pid = read_until(&mut process, "\n").await?;
    process.control().signal(Signal::HUP).await?;
    drop(process);
    gone(&*sandbox, "the command", &pid).await
}
