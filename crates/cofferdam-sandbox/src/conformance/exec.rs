//! Cases on commands: how they end, what they say, and how they are controlled.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{StreamExt as _, future::try_join_all};

use super::{
    case_table,
    support::{
        CaseResult, Told, collect, content_of, equal, errno, gone, holds, mismatch, not_started,
        on_terminal, path, pattern, read_until, run, shell, with_stdin, write,
    },
    trial::{Stop, Trial},
};
use crate::{
    ExecEvent, ExecRequest, ExitStatus, Process, Sandbox, SandboxError, Signal, TerminalSize,
};

case_table! { "exec":
    exit_codes: "the exit code is the command's",
    exit_code_of_a_program: "a program that is not a shell ends with its own code too",
    death_by_signal: "a command that a signal ends is told as that signal",
    started_comes_first: "the first event is `Started` with the process id",
    program_not_found: "a program that is not there is `NotStarted` with ENOENT",
    program_not_executable: "a file without the execute bit is `NotStarted` with EACCES",
    arguments_are_bytes: "arguments arrive byte for byte",
    streams_apart: "standard output and error are kept apart, each in order",
    binary_output: "output holds all 256 values of a byte",
    large_output: "8 MiB of output arrive whole",
    unread_output: "output that nobody reads holds up neither others nor the end",
    stdin_echo: "standard input arrives and ends when it is closed",
    stdin_large: "1 MiB of standard input arrives whole",
    stdin_closed: "without being asked for, standard input is at its end and cannot be written to",
    environment: "a command gets the variables of spec and request, four more, and no others",
    directory: "a command starts in the directory that was asked for, by default the workspace",
    signal_is_caught: "a signal reaches the command, which may catch it",
    signal_ends: "a signal that is not caught ends the command",
    kill_tree: "killing the tree ends children in a session of their own, and orphans",
    drop_kills_tree: "dropping a process ends its tree",
    background_is_not_waited_for: "a background process holds back neither `Exited` nor its own output",
    control_after_the_end: "control of a command that has ended is `Ok`",
    terminal: "a terminal is one, of the size asked for, on all three streams",
    terminal_resize: "a terminal changes its size",
    terminal_interrupt: "the byte of Ctrl-C interrupts what runs on a terminal",
    terminal_end_of_file: "closing standard input on a terminal is the end of file",
    parallel: "32 commands at a time do not mix up",
}

async fn exit_codes(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    for code in [0, 1, 42, 255] {
        let told = run(&*sandbox, ExecRequest::shell(format!("exit {code}"))).await?;
        equal(&format!("exit {code}"), told.status, Some(ExitStatus::Code(code)))?;
    }
    Ok(())
}

async fn exit_code_of_a_program(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    for (program, code) in [("true", 0), ("false", 1)] {
        let told = run(&*sandbox, ExecRequest::program([program])).await?;
        equal(program, told, Told { status: Some(ExitStatus::Code(code)), ..Told::default() })?;
    }
    Ok(())
}

async fn death_by_signal(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    for signal in [9, 15, 6] {
        let told = run(&*sandbox, ExecRequest::shell(format!("kill -{signal} $$"))).await?;
        equal(&format!("kill -{signal}"), told.status, Some(ExitStatus::Signal(signal)))?;
    }
    Ok(())
}

async fn started_comes_first(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let mut process = sandbox.exec(ExecRequest::shell("echo $$")).await?;
    let Some(Ok(ExecEvent::Started { pid })) = process.next().await else {
        return Err(mismatch("the first event", "Started", &"something else"));
    };
    equal("the shell's own process id", collect(process).await?.text(), format!("{pid}\n"))
}

async fn program_not_found(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    for program in ["no-such-program", "/no/such/program"] {
        match sandbox.exec(ExecRequest::program([program])).await {
            Err(SandboxError::NotStarted { program: named, errno: errno::ENOENT, .. }) => {
                equal("the program named", &*named, program)?;
            }
            other => return Err(mismatch(program, "NotStarted with ENOENT", &other)),
        }
    }
    Ok(())
}

async fn program_not_executable(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    write(&*sandbox, "plain", "#!/bin/sh\n").await?;
    let result = sandbox.exec(ExecRequest::program(["./plain"])).await;
    not_started("./plain", result, &[errno::EACCES])
}

async fn arguments_are_bytes(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let script = b"for a; do printf '<%s>' \"$a\"; done".to_vec();
    let odd: [&[u8]; 5] = [b"", b"two words", b"a\nb", b"\xff\xfe", b"$HOME '\"*"];
    let argv = [b"sh".to_vec(), b"-c".to_vec(), script, b"name".to_vec()];
    let argv = argv.into_iter().chain(odd.iter().map(|argument| argument.to_vec()));
    let told = run(&*sandbox, ExecRequest::program(argv)).await?;
    let expected: Vec<u8> = odd.iter().flat_map(|a| [b"<", *a, b">"].concat()).collect();
    equal("the arguments", told.stdout, expected)
}

async fn streams_apart(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let script = "i=0; while [ $i -lt 200 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done";
    let told = run(&*sandbox, ExecRequest::shell(script)).await?;
    let lines = |word| (0..200).map(|i| format!("{word} {i}\n")).collect::<String>().into_bytes();
    let status = Some(ExitStatus::Code(0));
    equal("both streams", told, Told { stdout: lines("out"), stderr: lines("err"), status })
}

async fn binary_output(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let octal: String = (0..=255_u8).map(|byte| format!("\\{byte:03o}")).collect();
    let told = run(&*sandbox, ExecRequest::shell(format!("printf '{octal}'"))).await?;
    equal("the bytes", told.stdout, (0..=255).collect::<Vec<u8>>())
}

async fn large_output(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let content = pattern(8 << 20);
    write(&*sandbox, "large", content.clone()).await?;
    let told = run(&*sandbox, ExecRequest::program(["cat", "large"])).await?;
    equal("the number of bytes", told.stdout.len(), content.len())?;
    holds("the bytes", told.stdout == content, "those of the file", &"others")?;
    equal("the status", told.status, Some(ExitStatus::Code(0)))
}

async fn unread_output(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let script = "echo $$ > pid; exec cat /dev/zero";
    let flood = sandbox.exec(ExecRequest::shell(script)).await?;
    let pid = content_of(&*sandbox, "pid").await?;
    for turn in 0..5 {
        let echoed = shell(&*sandbox, &format!("echo {turn}")).await?;
        equal("another command beside it", echoed, format!("{turn}\n"))?;
    }
    drop(flood);
    gone(&*sandbox, "the command that was dropped", &pid).await
}

async fn stdin_echo(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let mut process = sandbox.exec(with_stdin(ExecRequest::program(["cat"]))).await?;
    let control = process.control();
    for line in ["one\n", "two\n"] {
        control.write_stdin(Bytes::from(line)).await?;
        equal("the echo", read_until(&mut process, "\n").await?, line)?;
    }
    control.close_stdin().await?;
    let told = collect(process).await?;
    equal("the end", told, Told { status: Some(ExitStatus::Code(0)), ..Told::default() })?;
    control.close_stdin().await?;
    Ok(())
}

async fn stdin_large(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let content = pattern(1 << 20);
    let process = sandbox.exec(with_stdin(ExecRequest::program(["cat"]))).await?;
    let control = process.control();
    let sent = Bytes::from(content.clone());
    let writing = async {
        control.write_stdin(sent).await?;
        control.close_stdin().await.map_err(Stop::from)
    };
    let ((), told) = futures::future::try_join(writing, collect(process)).await?;
    equal("the number of bytes", told.stdout.len(), content.len())?;
    holds("the bytes", told.stdout == content, "those that were written", &"others")
}

async fn stdin_closed(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let process = sandbox.exec(ExecRequest::program(["cat"])).await?;
    let written = process.control().write_stdin(Bytes::from_static(b"x")).await;
    let expected = matches!(written, Err(SandboxError::StdinClosed));
    holds("writing", expected, "SandboxError::StdinClosed", &written)?;
    let expected = Told { status: Some(ExitStatus::Code(0)), ..Told::default() };
    equal("what `cat` says", collect(process).await?, expected)
}

async fn environment(trial: &Trial<'_>) -> CaseResult {
    trial.sees_processes().await?;
    let ours = [("FROM_SPEC", "spec"), ("IN_BOTH", "spec"), ("ODD", "a=b c\nd ü")];
    let sandbox = trial
        .sandbox_with(|spec| {
            spec.environment.extend(ours.map(|(name, value)| (name.to_owned(), value.to_owned())));
        })
        .await?;
    let request = ExecRequest {
        environment: [("FROM_REQUEST", "request"), ("IN_BOTH", "request")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..ExecRequest::program(["cat", "/proc/self/environ"])
    };
    let text = run(&*sandbox, request).await?.text();
    let pairs: Vec<_> = text
        .split_terminator('\0')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    let found: BTreeMap<_, _> = pairs.iter().copied().collect();
    equal("the number of distinct variables", found.len(), pairs.len())?;
    let mut names: BTreeSet<&str> = trial.spec.environment.keys().map(String::as_str).collect();
    names.extend(["PATH", "HOME", "LANG", "TERM", "FROM_SPEC", "FROM_REQUEST", "IN_BOTH", "ODD"]);
    equal("the names", found.keys().copied().collect::<BTreeSet<_>>(), names)?;
    for (name, value) in [
        ("FROM_SPEC", "spec"),
        ("FROM_REQUEST", "request"),
        ("IN_BOTH", "request"),
        ("ODD", "a=b c\nd ü"),
    ] {
        equal(name, found.get(name).copied(), Some(value))?;
    }
    for name in ["PATH", "HOME", "LANG", "TERM"] {
        let value = found.get(name).copied().unwrap_or_default();
        holds(name, !value.is_empty(), "a value", &value)?;
    }
    Ok(())
}

async fn directory(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    write(&*sandbox, "a/b/file", "below").await?;
    write(&*sandbox, "file", "above").await?;
    let told = run(&*sandbox, ExecRequest::program(["cat", "file"])).await?;
    equal("by default", told.text(), "above")?;
    let at = |directory: &str| {
        Ok::<_, Stop>(ExecRequest {
            directory: path(directory)?,
            ..ExecRequest::program(["cat", "file"])
        })
    };
    equal("in a/b", run(&*sandbox, at("a/b")?).await?.text(), "below")?;
    let missing = sandbox.exec(at("missing")?).await;
    not_started("a directory that is not there", missing, &[errno::ENOENT])
}

async fn signal_is_caught(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let script = "trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.02; done";
    let mut process = sandbox.exec(ExecRequest::shell(script)).await?;
    read_until(&mut process, "ready\n").await?;
    process.control().signal(Signal::TERM).await?;
    let told = collect(process).await?;
    equal("output", told.text(), "caught\n")?;
    equal("the status", told.status, Some(ExitStatus::Code(7)))
}

async fn signal_ends(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::KILL] {
        let process = sandbox.exec(ExecRequest::program(["sleep", "600"])).await?;
        process.control().signal(signal).await?;
        let status = collect(process).await?.status;
        equal("the status", status, Some(ExitStatus::Signal(signal.0)))?;
    }
    Ok(())
}

/// Starts a child in a session of its own (a process group, where there is no `setsid`) and an orphan in another one.
/// Each tells its id from there, so that none is caught before it got away.
const TREE: &str = "command -v setsid >/dev/null && own=setsid || set -m
$own sh -c 'echo $$; exec sleep 600 >/dev/null 2>&1' &
$own sh -c 'sleep 600 >/dev/null 2>&1 & echo $!' &
exec sleep 600";

/// Starts [`TREE`], and returns the ids of the child and the orphan.
async fn start_tree(sandbox: &dyn Sandbox) -> Result<(Process, Vec<String>), Stop> {
    let mut process = sandbox.exec(ExecRequest::shell(TREE)).await?;
    let mut pids = String::new();
    while pids.matches('\n').count() < 2 {
        pids += &read_until(&mut process, "\n").await?;
    }
    Ok((process, pids.lines().map(str::to_owned).collect()))
}

async fn kill_tree(trial: &Trial<'_>) -> CaseResult {
    trial.sees_processes().await?;
    let sandbox = trial.sandbox().await?;
    let (mut process, pids) = start_tree(&*sandbox).await?;
    process.control().kill_tree().await?;
    let next = process.next().await.transpose()?;
    equal("the next event", next, Some(ExecEvent::Exited(ExitStatus::Signal(9))))?;
    for pid in pids {
        gone(&*sandbox, "a descendant", &pid).await?;
    }
    // Not earlier: dropping it would end the tree too.
    drop(process);
    Ok(())
}

async fn drop_kills_tree(trial: &Trial<'_>) -> CaseResult {
    trial.sees_processes().await?;
    let sandbox = trial.sandbox().await?;
    let (process, pids) = start_tree(&*sandbox).await?;
    drop(process);
    for pid in pids {
        gone(&*sandbox, "a descendant", &pid).await?;
    }
    Ok(())
}

async fn background_is_not_waited_for(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    // The background process speaks only once it is told to, which is after `Exited` was seen.
    let script = "(while ! [ -e go ]; do sleep 0.02; done; echo late) & echo now";
    let mut process = sandbox.exec(ExecRequest::shell(script)).await?;
    equal("output before", read_until(&mut process, "\n").await?, "now\n")?;
    let next = process.next().await.transpose()?;
    equal("the next event", next, Some(ExecEvent::Exited(ExitStatus::Code(0))))?;
    write(&*sandbox, "go", "").await?;
    equal("output after", collect(process).await?.text(), "late\n")
}

async fn control_after_the_end(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let process = sandbox.exec(with_stdin(ExecRequest::shell("exit 0"))).await?;
    let control = process.control();
    collect(process).await?;
    control.signal(Signal::TERM).await?;
    control.kill_tree().await?;
    control.resize(TerminalSize::default()).await?;
    control.write_stdin(Bytes::from_static(b"x")).await?;
    control.close_stdin().await?;
    equal("a later command", shell(&*sandbox, "echo alive").await?, "alive\n")
}

async fn terminal(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let script = "for d in 0 1 2; do [ -t $d ] && echo $d; done; stty size; echo error >&2";
    let told = run(&*sandbox, on_terminal(script, 31, 97)).await?;
    equal("output", told.text(), "0\r\n1\r\n2\r\n31 97\r\nerror\r\n")?;
    equal("standard error apart", told.stderr, b"")?;
    let script = "for d in 0 1 2; do [ -t $d ] && echo $d; done; :";
    equal("terminals without asking", shell(&*sandbox, script).await?, "")
}

async fn terminal_resize(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let script = "stty size; while [ \"$(stty size)\" = '24 80' ]; do sleep 0.02; done; stty size";
    let mut process = sandbox.exec(on_terminal(script, 24, 80)).await?;
    equal("the size before", read_until(&mut process, "\n").await?, "24 80\r\n")?;
    process.control().resize(TerminalSize { rows: 50, columns: 132 }).await?;
    equal("the size after", collect(process).await?.text(), "50 132\r\n")
}

async fn terminal_interrupt(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let mut process = sandbox.exec(on_terminal("echo ready; exec sleep 600", 24, 80)).await?;
    read_until(&mut process, "ready").await?;
    process.control().write_stdin(Bytes::from_static(b"\x03")).await?;
    equal("the status", collect(process).await?.status, Some(ExitStatus::Signal(2)))
}

async fn terminal_end_of_file(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let process = sandbox.exec(on_terminal("stty -echo; cat", 24, 80)).await?;
    let control = process.control();
    control.close_stdin().await?;
    equal("the status", collect(process).await?.status, Some(ExitStatus::Code(0)))
}

async fn parallel(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let runs = (0..32).map(|turn| {
        let sandbox = &*sandbox;
        let script =
            format!("i=0; while [ $i -lt 100 ]; do echo {turn}; i=$((i+1)); done; exit {turn}");
        async move { run(sandbox, ExecRequest::shell(script)).await }
    });
    for (turn, told) in (0..).zip(try_join_all(runs).await?) {
        equal("output", told.text(), format!("{turn}\n").repeat(100))?;
        equal("the status", told.status, Some(ExitStatus::Code(turn)))?;
    }
    Ok(())
}
