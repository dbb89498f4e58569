//! Commands that outlive a connection, through the client and with the real program.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says no more than that it failed"
)]

mod support;

use std::{fs, time::Duration};

use cofferdam_sandbox::{
    CommandState, ExecEvent, ExecRequest, ExitStatus, GuestClient, GuestOptions, LossReason,
    OutputPosition, SandboxError, SessionOptions, SessionToken,
};
use futures::StreamExt as _;
use support::{Box, alive, collect, eventually, open, open_with, wait_for};
use tokio::net::UnixStream;

fn session() -> SessionOptions {
    SessionOptions::new(SessionToken([7; 32]), Duration::from_secs(60))
}

async fn open_session() -> Box {
    open_with(|options| options.session = Some(session())).await
}

/// A command whose standard input is open, so that one which reads goes on.
fn named(id: &str, script: &str) -> ExecRequest {
    ExecRequest { id: Some(id.to_owned()), stdin: true, ..ExecRequest::shell(script) }
}

fn from(stdout: u64, stderr: u64) -> OutputPosition {
    OutputPosition { stdout, stderr }
}

#[tokio::test]
async fn a_restarted_host_reads_the_real_output_and_status() {
    let mut sandbox = open_session().await;
    let script = "echo one; until [ -e go ]; do sleep 0.01; done; echo two; echo err >&2; exit 7";
    let mut process = sandbox.client.exec(named("step-17", script)).await.unwrap();
    wait_for(&mut process, "one\n").await;

    // The host is gone, with all that it held.
    sandbox.client.end(LossReason::Closed);
    drop(process);
    fs::write(sandbox.workspace.path().join("go"), "").unwrap();
    sandbox.come_back().await;

    let sessions = sandbox.client.sessions().unwrap();
    let process = sessions.attach("step-17", from(0, 0)).await.unwrap();
    assert_eq!(
        collect(process).await,
        ("one\ntwo\n".to_owned(), "err\n".to_owned(), Some(ExitStatus::Code(7)))
    );
    let list = sessions.list().await.unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(
        (list[0].id.as_str(), list[0].state, list[0].status, list[0].written),
        ("step-17", CommandState::Finished, Some(ExitStatus::Code(7)), from(8, 4))
    );
    // Its name is used, so that no step is done twice, until it is given up.
    let error = sandbox.client.exec(named("step-17", "true")).await.unwrap_err();
    assert!(matches!(error, SandboxError::NotStarted { errno: 17, .. }), "{error}");
    sessions.forget("step-17").await.unwrap();
    let error = sessions.attach("step-17", from(0, 0)).await.unwrap_err();
    assert_eq!(error.to_string(), "the sandbox knows no command named \"step-17\"");
    let error = sessions.forget("step-17").await.unwrap_err();
    assert!(matches!(error, SandboxError::UnknownCommand { .. }), "{error}");
    let (_, _, status) = sandbox.run(named("step-17", "true")).await;
    assert_eq!(status, Some(ExitStatus::Code(0)));
}

#[tokio::test]
async fn a_dropped_process_dies_and_a_detached_one_lives() {
    let sandbox = open_session().await;
    let sessions = sandbox.client.sessions().unwrap();
    let mut dropped = sandbox.client.exec(named("dropped", "echo $$; exec cat")).await.unwrap();
    let pid = wait_for(&mut dropped, "\n").await;
    drop(dropped);
    eventually("the dropped one dies", || !alive(&pid)).await;

    let mut detached = sandbox.client.exec(named("detached", "echo $$; exec cat")).await.unwrap();
    let pid = wait_for(&mut detached, "\n").await;
    let control = detached.control();
    control.write_stdin("before ".into()).await.unwrap();
    detached.detach().await.unwrap();
    let process = sessions.attach("detached", OutputPosition::default()).await.unwrap();
    assert!(alive(&pid));
    process.control().write_stdin("after".into()).await.unwrap();
    process.control().close_stdin().await.unwrap();
    let (output, _, status) = collect(process).await;
    assert_eq!(output, format!("{pid}before after"));
    assert_eq!(status, Some(ExitStatus::Code(0)));
}

#[tokio::test]
async fn the_last_to_attach_hears_the_command() {
    let sandbox = open_session().await;
    let mut first = sandbox.client.exec(named("job", "echo ready; exec cat")).await.unwrap();
    wait_for(&mut first, "ready\n").await;
    let sessions = sandbox.client.sessions().unwrap();
    let mut second = sessions.attach("job", OutputPosition::default()).await.unwrap();
    wait_for(&mut second, "ready\n").await;
    let error = first.next().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("is heard by another process"), "{error}");
    // The first one is no longer its process, and its drop kills nothing.
    drop(first);
    second.control().close_stdin().await.unwrap();
    assert_eq!(collect(second).await.2, Some(ExitStatus::Code(0)));
}

#[tokio::test]
async fn lost_output_is_counted() {
    let sandbox = open_with(|options| {
        options.session = Some(SessionOptions { replay_bytes: 100, ..session() });
    })
    .await;
    let request = named("long", "until [ -e go ]; do sleep 0.01; done; seq 1000; seq 10 >&2");
    sandbox.client.exec(request).await.unwrap().detach().await.unwrap();
    fs::write(sandbox.workspace.path().join("go"), "").unwrap();
    let sessions = sandbox.client.sessions().unwrap();
    while sessions.list().await.unwrap()[0].state != CommandState::Finished {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut process = sessions.attach("long", from(93, 0)).await.unwrap();
    assert!(matches!(process.next().await, Some(Ok(ExecEvent::Started { .. }))));
    // `seq 1000` writes 3893 bytes.
    let lost = ExecEvent::OutputLost { stdout: 3893 - 100 - 93, stderr: 0 };
    assert_eq!(process.next().await.unwrap().unwrap(), lost);
    let (stdout, stderr, _) = collect(process).await;
    assert_eq!((stdout.len(), stderr.len()), (100, 21));
    assert!(stdout.ends_with("999\n1000\n"));
}

#[tokio::test]
async fn commands_without_a_name_get_one_that_no_connection_repeats() {
    let mut sandbox = open_session().await;
    for _ in 0..2 {
        for _ in 0..2 {
            assert_eq!(
                sandbox.run(ExecRequest::program(["true"])).await.2,
                Some(ExitStatus::Code(0))
            );
        }
        sandbox.come_back().await;
    }
    let list = sandbox.client.sessions().unwrap().list().await.unwrap();
    let names: Vec<&str> = list.iter().map(|command| command.id.as_str()).collect();
    assert_eq!(names, ["command-1-1", "command-1-2", "command-2-1", "command-2-2"]);
    for id in ["", &"x".repeat(257)] {
        let error = sandbox.client.exec(named(id, "true")).await.unwrap_err();
        assert!(matches!(error, SandboxError::InvalidRequest { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_stranger_is_turned_away_and_a_new_guest_is_told_apart() {
    let sandbox = open_session().await;
    let options = GuestOptions {
        session: Some(SessionOptions { token: SessionToken([8; 32]), ..session() }),
        ..sandbox.options.clone()
    };
    let stream = UnixStream::connect(&sandbox.door).await.unwrap();
    let error = GuestClient::resume(stream, options.clone()).await.unwrap_err();
    assert!(matches!(error, SandboxError::Lost { .. }), "{error}");
    sandbox.client.ping().await.unwrap();

    let (mut child, stream) = support::spawn(&[]);
    let error = GuestClient::resume(stream, options).await.unwrap_err();
    assert!(error.to_string().contains("the guest there is a new one"), "{error}");
    eventually("it ends with its stream", || child.try_wait().unwrap().is_some()).await;
}

#[tokio::test]
async fn without_a_session_nothing_is_kept() {
    let sandbox = open().await;
    assert!(sandbox.client.sessions().is_none());
    let process = sandbox.client.exec(ExecRequest::shell("exec cat")).await.unwrap();
    let error = process.detach().await.unwrap_err();
    assert!(matches!(error, SandboxError::Unsupported { .. }), "{error}");
}
