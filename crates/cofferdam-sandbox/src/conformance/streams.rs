//! Cases on the three streams of a command: much, nothing, unread, closed early, in order.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, future::try_join};

use super::{
    case_table,
    support::{
        CaseResult, Told, alive, collect, content_of, equal, holds, pattern, read_until, run,
        with_stdin, write,
    },
    trial::{Stop, Trial},
};
use crate::{ExecEvent, ExecRequest, ExitStatus, SandboxError};

case_table! { "streams":
    huge_output: "1 GiB of output without a line end arrives, counted",
    both_at_once: "8 MiB on each of both streams at once arrive whole",
    errors_apart: "what a program says of its failure is on standard error",
    events_in_order: "`Started` is first, `Exited` comes once, and the command's output is between them",
    closed_by_the_command: "a command that closes its outputs runs on and is told by its code",
    back_pressure: "a command whose output nobody takes is held, and goes on when it is taken",
    stdin_huge: "64 MiB of standard input arrive",
    stdin_in_pieces: "many small writes to standard input stay in order",
    stdin_closed_by_the_command: "writing to a command that has closed its standard input is `Ok`",
    stdin_unread: "writing to a command that reads nothing waits, and is `Ok` when the command ends",
    stdin_after_close: "after standard input was closed, writing is `StdinClosed`",
    stdin_nothing: "writing nothing is `Ok` and not the end",
}

async fn huge_output(trial: &Trial<'_>) -> CaseResult {
    let size = trial.options.huge_output_bytes;
    let sandbox = trial.sandbox_with(|spec| spec.limits.output_bytes = size + (1 << 20)).await?;
    let request = ExecRequest::program(["head", "-c", &*size.to_string(), "/dev/zero"]);
    let mut process = sandbox.exec(request).await?;
    let (mut length, mut zeros, mut status) = (0, true, None);
    while let Some(event) = process.next().await {
        match event? {
            ExecEvent::Stdout(bytes) => {
                length += bytes.len() as u64;
                // A look at each piece, not at each byte.
                zeros &= bytes.first() == Some(&0) && bytes.last() == Some(&0);
            }
            ExecEvent::Exited(ended) => status = Some(ended),
            _ => {}
        }
    }
    equal("the number of bytes", length, size)?;
    holds("the bytes", zeros, "zeros", &"others")?;
    equal("the status", status, Some(ExitStatus::Code(0)))
}

async fn both_at_once(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let content = pattern(8 << 20);
    write(&*sandbox, "large", content.clone()).await?;
    let told = run(&*sandbox, ExecRequest::shell("cat large & cat large >&2; wait")).await?;
    equal("the lengths", (told.stdout.len(), told.stderr.len()), (content.len(), content.len()))?;
    holds("standard output", told.stdout == content, "the file", &"something else")?;
    holds("standard error", told.stderr == content, "the file", &"something else")
}

async fn errors_apart(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    write(&*sandbox, "there", "content").await?;
    let told = run(&*sandbox, ExecRequest::program(["cat", "there", "missing"])).await?;
    equal("standard output", told.text(), "content")?;
    holds("standard error", !told.stderr.is_empty(), "a word on it", &told.stderr)?;
    equal("the status", told.status, Some(ExitStatus::Code(1)))
}

async fn events_in_order(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    for _ in 0..20 {
        let process = sandbox.exec(ExecRequest::program(["echo", "x"])).await?;
        let events: Vec<_> = process.collect().await;
        let events = events.into_iter().collect::<Result<Vec<_>, SandboxError>>()?;
        let expected = matches!(
            &events[..],
            [
                ExecEvent::Started { .. },
                ExecEvent::Stdout(bytes),
                ExecEvent::Exited(ExitStatus::Code(0))
            ] if *bytes == "x\n"
        );
        holds("the events", expected, "Started, Stdout, Exited", &events)?;
    }
    Ok(())
}

async fn closed_by_the_command(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let script = "exec >&- 2>&-; until [ -e go ]; do sleep 0.02; done; exit 3";
    let process = sandbox.exec(ExecRequest::shell(script)).await?;
    write(&*sandbox, "go", "").await?;
    let expected = Told { status: Some(ExitStatus::Code(3)), ..Told::default() };
    equal("what it says", collect(process).await?, expected)
}

async fn back_pressure(trial: &Trial<'_>) -> CaseResult {
    const PIECES: u64 = 1024;
    let sandbox = trial.sandbox().await?;
    let script = format!(
        "i=0; while [ $i -lt {PIECES} ]; do head -c 65536 /dev/zero; i=$((i+1)); echo $i > count; done"
    );
    let process = sandbox.exec(ExecRequest::shell(script)).await?;
    let mut counts = Vec::new();
    // It is held once the count stands still for half a second.
    while counts.len() < 10 || counts[counts.len() - 10..].iter().any(|c| Some(c) != counts.last())
    {
        counts.push(content_of(&*sandbox, "count").await?);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let count = counts.pop().unwrap_or_default();
    let pieces = count.trim().parse().unwrap_or(u64::MAX);
    holds("pieces of 64 KiB that nobody took", pieces <= PIECES / 2, "512 at most", &count)?;
    let told = collect(process).await?;
    equal("what came in the end", told.stdout.len() as u64, PIECES << 16)
}

async fn stdin_huge(trial: &Trial<'_>) -> CaseResult {
    const PIECES: usize = 64;
    let sandbox = trial.sandbox().await?;
    let process = sandbox.exec(with_stdin(ExecRequest::program(["wc", "-c"]))).await?;
    let control = process.control();
    let writing = async {
        let piece = Bytes::from(pattern(1 << 20));
        for _ in 0..PIECES {
            control.write_stdin(piece.clone()).await?;
        }
        control.close_stdin().await.map_err(Stop::from)
    };
    let ((), told) = try_join(writing, collect(process)).await?;
    equal("the bytes counted", told.text().trim(), (PIECES << 20).to_string())
}

async fn stdin_in_pieces(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let content = Bytes::from(pattern(40_000));
    let process = sandbox.exec(with_stdin(ExecRequest::program(["cat"]))).await?;
    let control = process.control();
    let writing = async {
        let mut rest = content.clone();
        let mut length = 1;
        while !rest.is_empty() {
            control.write_stdin(rest.split_to(length.min(rest.len()))).await?;
            length = length % 97 + 1;
        }
        control.close_stdin().await.map_err(Stop::from)
    };
    let ((), told) = try_join(writing, collect(process)).await?;
    holds("the bytes", told.stdout == content, "those written, in order", &told.stdout.len())
}

async fn stdin_closed_by_the_command(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let script = "exec <&-; echo closed; until [ -e go ]; do sleep 0.02; done; exit 5";
    let mut process = sandbox.exec(with_stdin(ExecRequest::shell(script))).await?;
    read_until(&mut process, "closed\n").await?;
    for _ in 0..4 {
        process.control().write_stdin(Bytes::from(vec![0; 1 << 20])).await?;
    }
    write(&*sandbox, "go", "").await?;
    equal("the status", collect(process).await?.status, Some(ExitStatus::Code(5)))
}

async fn stdin_unread(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let process = sandbox.exec(with_stdin(ExecRequest::program(["sleep", "600"]))).await?;
    let control = process.control();
    let writing = control.write_stdin(Bytes::from(vec![0; 64 << 20]));
    let mut writing = Box::pin(writing);
    let early = tokio::time::timeout(Duration::from_millis(300), &mut writing).await;
    holds("writing 64 MiB that nobody reads", early.is_err(), "to wait", &early)?;
    alive(&*sandbox).await?;
    control.kill_tree().await?;
    writing.await?;
    equal("the status", collect(process).await?.status, Some(ExitStatus::Signal(9)))
}

async fn stdin_after_close(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let process = sandbox.exec(with_stdin(ExecRequest::program(["sleep", "600"]))).await?;
    let control = process.control();
    control.write_stdin(Bytes::from_static(b"x")).await?;
    control.close_stdin().await?;
    let written = control.write_stdin(Bytes::from_static(b"y")).await;
    let expected = matches!(written, Err(SandboxError::StdinClosed));
    holds("writing", expected, "SandboxError::StdinClosed", &written)
}

async fn stdin_nothing(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let mut process = sandbox.exec(with_stdin(ExecRequest::program(["cat"]))).await?;
    let control = process.control();
    control.write_stdin(Bytes::new()).await?;
    control.write_stdin(Bytes::from_static(b"line\n")).await?;
    equal("the echo", read_until(&mut process, "\n").await?, "line\n")?;
    control.close_stdin().await?;
    equal("the end", collect(process).await?.status, Some(ExitStatus::Code(0)))
}
