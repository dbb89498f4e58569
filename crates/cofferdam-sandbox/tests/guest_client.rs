//! The guest client against the real program, run as an ordinary process in a temporary directory.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says no more than that it failed"
)]

mod support;

use std::{fs, time::Duration};

use bytes::Bytes;
use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{
    DownloadOptions, ExecEvent, ExecRequest, ExitStatus, FileKind, Files as _, ListOptions,
    LossReason, SandboxError, Signal, TerminalSize, Tree as _, TreeEntry, TreeEntryKind, TreeEvent,
    WriteOptions, exec::ExceededLimit,
};
use futures::{StreamExt as _, stream};
use support::{alive, collect, eventually, open, open_with, path, wait_for};

#[tokio::test]
async fn commands_run_and_say_how_they_ended() {
    let sandbox = open().await;
    let mut request = ExecRequest::shell("echo $FROM $EXTRA; echo two >&2; exit 3");
    request.environment.insert("EXTRA".to_owned(), "request".to_owned());
    assert_eq!(
        sandbox.run(request).await,
        ("sandbox request\n".to_owned(), "two\n".to_owned(), Some(ExitStatus::Code(3)))
    );
    let (_, _, status) = sandbox.run(ExecRequest::shell("kill -9 $$")).await;
    assert_eq!(status, Some(ExitStatus::Signal(9)));

    let mut process = sandbox.client.exec(ExecRequest::program(["true"])).await.unwrap();
    assert!(matches!(process.next().await, Some(Ok(ExecEvent::Started { pid })) if pid > 1));

    let error = sandbox.client.exec(ExecRequest::program(["no-such"])).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot start \"no-such\" in the sandbox: no such file or directory"
    );
    let error = sandbox.client.exec(ExecRequest::program::<_, Vec<u8>>([])).await.unwrap_err();
    assert!(matches!(error, SandboxError::InvalidRequest { .. }));
}

#[tokio::test]
async fn many_commands_run_at_a_time() {
    let sandbox = open_with(|options| options.max_operations = 8).await;
    let runs = (0..100).map(|turn| {
        let sandbox = &sandbox;
        async move { sandbox.run(ExecRequest::shell(format!("echo {turn}"))).await.0 }
    });
    let outputs = futures::future::join_all(runs).await;
    for (turn, output) in outputs.iter().enumerate() {
        assert_eq!(output, &format!("{turn}\n"));
    }
}

#[tokio::test]
async fn standard_input_is_written_in_order_and_closed() {
    let sandbox = open().await;
    let mut request = ExecRequest::shell("cat");
    request.stdin = true;
    let process = sandbox.client.exec(request).await.unwrap();
    let control = process.control();
    let content: String = (0..100_000).map(|line| format!("{line}\n")).collect();
    let writing = async {
        control.write_stdin(Bytes::from(content.clone())).await.unwrap();
        control.close_stdin().await.unwrap();
        control.close_stdin().await.unwrap();
        let error = control.write_stdin(Bytes::from_static(b"x")).await.unwrap_err();
        assert!(matches!(error, SandboxError::StdinClosed));
    };
    let ((), (output, _, status)) = tokio::join!(writing, collect(process));
    assert!(output == content);
    assert_eq!(status, Some(ExitStatus::Code(0)));
    // The command is gone: nothing to do, and no error.
    control.kill_tree().await.unwrap();
    control.signal(Signal::TERM).await.unwrap();

    let process = sandbox.client.exec(ExecRequest::shell("cat")).await.unwrap();
    let error = process.control().write_stdin(Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(error, SandboxError::StdinClosed));
}

#[tokio::test]
async fn signals_terminals_and_the_tree_are_controlled() {
    let sandbox = open().await;
    // The shell waits by itself: it would say so on standard error if the signal met a child.
    let mut request = ExecRequest::shell("trap 'echo caught; exit 7' TERM; echo ready; read line");
    request.stdin = true;
    let mut process = sandbox.client.exec(request).await.unwrap();
    wait_for(&mut process, "ready\n").await;
    process.control().signal(Signal::TERM).await.unwrap();
    assert_eq!(
        collect(process).await,
        ("caught\n".to_owned(), String::new(), Some(ExitStatus::Code(7)))
    );

    let script = "trap 'stty size; exit' WINCH; stty size; while :; do sleep 0.01; done";
    let mut request = ExecRequest::shell(script);
    request.terminal = Some(TerminalSize { rows: 7, columns: 50 });
    let mut process = sandbox.client.exec(request).await.unwrap();
    wait_for(&mut process, "7 50\r\n").await;
    process.control().resize(TerminalSize { rows: 8, columns: 60 }).await.unwrap();
    wait_for(&mut process, "8 60\r\n").await;

    let script = "setsid sleep 300 & echo $!; wait";
    let mut process = sandbox.client.exec(ExecRequest::shell(script)).await.unwrap();
    let pid = wait_for(&mut process, "\n").await;
    process.control().kill_tree().await.unwrap();
    assert_eq!(collect(process).await.2, Some(ExitStatus::Signal(9)));
    assert!(!alive(&pid));
}

#[tokio::test]
async fn dropping_the_process_kills_its_tree() {
    let sandbox = open().await;
    let script = "setsid sleep 300 & echo $!; sleep 301";
    let mut process = sandbox.client.exec(ExecRequest::shell(script)).await.unwrap();
    let pid = wait_for(&mut process, "\n").await;
    let control = process.control();
    drop(process);
    eventually("the daemon is dead", || !alive(&pid)).await;
    control.kill_tree().await.unwrap();
    sandbox.client.ping().await.unwrap();
}

#[tokio::test]
async fn a_background_process_outlives_its_command_until_the_stream_is_dropped() {
    let sandbox = open().await;
    let mut process = sandbox.client.exec(ExecRequest::shell("sleep 300 & echo $!")).await.unwrap();
    let pid = wait_for(&mut process, "\n").await;
    assert_eq!(process.next().await.unwrap().unwrap(), ExecEvent::Exited(ExitStatus::Code(0)));
    assert!(alive(&pid));
    drop(process);
    eventually("it is dead", || !alive(&pid)).await;
}

#[tokio::test]
async fn output_beyond_the_limit_kills_the_command() {
    let sandbox = open_with(|options| options.max_output_bytes = 100_000).await;
    let (stdout, _, status) = sandbox.run(ExecRequest::program(["yes"])).await;
    assert_eq!(stdout.len(), 100_000);
    assert_eq!(status, Some(ExitStatus::Limit(ExceededLimit::Output)));
    let (stdout, _, status) = sandbox.run(ExecRequest::shell("yes | head -c 100000")).await;
    assert_eq!((stdout.len(), status), (100_000, Some(ExitStatus::Code(0))));
}

#[tokio::test]
async fn output_that_nobody_reads_holds_nobody_up() {
    let sandbox = open().await;
    let mut flood = sandbox.client.exec(ExecRequest::program(["yes"])).await.unwrap();
    for turn in 0..20 {
        let (output, _, _) = sandbox.run(ExecRequest::shell(format!("echo {turn}"))).await;
        assert_eq!(output, format!("{turn}\n"));
    }
    // What waited is there, and no more than the credit.
    let mut seen = 0;
    while seen < 1 << 20 {
        if let ExecEvent::Stdout(bytes) = flood.next().await.unwrap().unwrap() {
            assert!(bytes.len() <= 256 * 1024);
            seen += bytes.len();
        }
    }
}

#[tokio::test]
async fn files_are_written_read_and_listed() {
    let sandbox = open().await;
    let files = &sandbox.client;
    let content = Bytes::from(vec![7; 3 << 20]);
    let options = WriteOptions::default();
    files.write(&path("a/b/file"), content.clone(), &options).await.unwrap();
    assert_eq!(files.read(&path("a/b/file"), 0, u64::MAX).await.unwrap(), content);
    assert_eq!(files.read(&path("a/b/file"), 3, 10).await.unwrap().len(), 10);
    assert_eq!(files.read(&path("a/b/file"), 4 << 20, 10).await.unwrap().len(), 0);

    let found = files.stat(&path("a/b/file")).await.unwrap();
    assert_eq!((found.kind, found.size, found.mode), (FileKind::File, 3 << 20, 0o644));
    std::os::unix::fs::symlink("b/file", sandbox.workspace.path().join("a/link")).unwrap();
    let found = files.stat(&path("a/link")).await.unwrap();
    assert_eq!(
        (found.kind, found.link_target.as_deref()),
        (FileKind::Link, Some(b"b/file".as_slice()))
    );

    files.make_directory(&path("a-side/deep"), 0o700).await.unwrap();
    files.make_directory(&path("a-side/deep"), 0o700).await.unwrap();
    let listing = files
        .list(&WorkspacePath::root(), &ListOptions { depth: 9, max_entries: 100 })
        .await
        .unwrap();
    let names: Vec<_> =
        listing.entries.iter().map(|entry| String::from_utf8_lossy(&entry.path)).collect();
    assert_eq!(names, ["a", "a-side", "a-side/deep", "a/b", "a/b/file", "a/link"]);
    let few = ListOptions { depth: 9, max_entries: 2 };
    assert!(files.list(&WorkspacePath::root(), &few).await.unwrap().truncated);

    files.rename(&path("a/b/file"), &path("moved"), false).await.unwrap();
    files.write(&path("other"), Bytes::new(), &options).await.unwrap();
    let error = files.rename(&path("other"), &path("moved"), false).await.unwrap_err();
    assert!(matches!(error, SandboxError::File { operation: "rename", errno: 17, .. }));
    files.rename(&path("other"), &path("moved"), true).await.unwrap();
    files.remove(&path("a"), true).await.unwrap();
    let error = files.read(&path("a/b/file"), 0, 1).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read \"a/b/file\" in the workspace: no such file or directory"
    );
    let new = WriteOptions { must_be_new: true, ..options };
    let error = files.write(&path("moved"), content, &new).await.unwrap_err();
    assert!(matches!(error, SandboxError::File { operation: "write", errno: 17, .. }));
}

#[tokio::test]
async fn a_dropped_write_leaves_the_old_content() {
    let sandbox = open().await;
    let files = &sandbox.client;
    let options = WriteOptions::default();
    files.write(&path("file"), Bytes::from_static(b"old"), &options).await.unwrap();
    let big = Bytes::from(vec![1; 8 << 20]);
    {
        let target = path("file");
        let writing = files.write(&target, big, &options);
        // The first poll opens the channel; the content needs many more.
        assert!(futures::poll!(std::pin::pin!(writing)).is_pending());
    }
    files.ping().await.unwrap();
    assert_eq!(files.read(&path("file"), 0, 100).await.unwrap(), b"old".as_slice());
    eventually("the unfinished file is removed", || {
        fs::read_dir(sandbox.workspace.path()).unwrap().count() == 1
    })
    .await;
}

fn tree() -> Vec<TreeEvent> {
    let entry = |path: &str, mode, kind| {
        TreeEvent::Entry(TreeEntry {
            path: path.as_bytes().to_vec(),
            mode,
            modified_ns: Some(1_500_000_000_000_000_001),
            kind,
        })
    };
    let mut events = vec![
        entry("", 0o755, TreeEntryKind::Directory),
        entry("empty", 0o700, TreeEntryKind::Directory),
        entry("files", 0o755, TreeEntryKind::Directory),
    ];
    for file in 0..2000 {
        let content = format!("content of {file}");
        let kind = TreeEntryKind::File { size: content.len() as u64 };
        events.push(entry(&format!("files/{file:04}"), 0o600 + file % 0o100, kind));
        events.push(TreeEvent::Content(Bytes::from(content)));
    }
    events.push(entry("link", 0o777, TreeEntryKind::Link { target: b"/nowhere".to_vec() }));
    events
}

#[tokio::test]
async fn a_tree_comes_back_as_it_went() {
    let sandbox = open().await;
    let sent = tree();
    let entries = sent.iter().filter(|event| matches!(event, TreeEvent::Entry(_))).count();
    let uploaded = sandbox
        .client
        .upload(&path("target"), stream::iter(sent.clone().into_iter().map(Ok)).boxed())
        .await
        .unwrap();
    assert_eq!(uploaded, entries as u64);
    let options = DownloadOptions::default();
    let mut download = sandbox.client.download(&path("target"), &options).await.unwrap();
    let mut back: Vec<TreeEvent> = Vec::new();
    while let Some(event) = download.next().await {
        match (event.unwrap(), back.last_mut()) {
            // Content may be cut anywhere.
            (TreeEvent::Content(more), Some(TreeEvent::Content(bytes))) => {
                *bytes = [bytes.as_ref(), more.as_ref()].concat().into();
            }
            (event, _) => back.push(event),
        }
    }
    assert_eq!(back.len(), sent.len());
    for (back, sent) in back.iter().zip(&sent) {
        assert_eq!(back, sent);
    }
}

#[tokio::test]
async fn a_tree_that_cannot_be_is_refused() {
    let sandbox = open().await;
    let file = |path: &str, size| {
        Ok(TreeEvent::Entry(TreeEntry {
            path: path.as_bytes().to_vec(),
            mode: 0o644,
            modified_ns: None,
            kind: TreeEntryKind::File { size },
        }))
    };
    let content = |text: &'static str| Ok(TreeEvent::Content(Bytes::from_static(text.as_bytes())));
    let directory = path("there");
    sandbox.client.make_directory(&path("there/file"), 0o755).await.unwrap();
    for (events, expect) in [
        (vec![file("../x", 0)], "invalid sandbox request: \"../x\" is no path in a tree"),
        (
            vec![file("a", 3), content("ab")],
            "invalid sandbox request: the last file of the tree lacks 1 bytes",
        ),
        (
            vec![file("a", 1), file("b", 0)],
            "invalid sandbox request: the file before \"b\" lacks 1 bytes",
        ),
        (
            vec![file("a", 1), content("ab")],
            "invalid sandbox request: a file of the tree has more content than its size",
        ),
        (vec![file("file", 0)], "cannot upload to \"file\" in the workspace: is a directory"),
        (
            vec![Err(SandboxError::StdinClosed)],
            "standard input of the command is closed; start it with standard input open or on a terminal",
        ),
    ] {
        let error =
            sandbox.client.upload(&directory, stream::iter(events).boxed()).await.unwrap_err();
        assert_eq!(error.to_string(), expect);
    }
    let few = DownloadOptions { max_entries: 0, ..DownloadOptions::default() };
    let mut download = sandbox.client.download(&directory, &few).await.unwrap();
    let mut last = None;
    while let Some(event) = download.next().await {
        last = Some(event);
    }
    let error = last.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "cannot download \"file\" in the workspace: too many entries");
}

#[tokio::test]
async fn a_lost_guest_ends_every_call_with_the_reason() {
    let mut sandbox = open().await;
    let mut process = sandbox.client.exec(ExecRequest::program(["sleep", "300"])).await.unwrap();
    assert!(matches!(process.next().await, Some(Ok(ExecEvent::Started { .. }))));
    let kill = async {
        tokio::task::yield_now().await;
        sandbox.child.kill().unwrap();
    };
    let (event, ()) = tokio::join!(process.next(), kill);
    assert!(matches!(
        event,
        Some(Err(SandboxError::Lost { reason: LossReason::StreamBroken { .. } }))
    ));
    assert!(process.next().await.is_none());
    let stat = sandbox.client.stat(&path("x")).await.unwrap_err();
    assert!(stat.is_loss(), "{stat}");
    // The stream has ended, so there is nothing to kill any more.
    process.control().kill_tree().await.unwrap();
    assert!(sandbox.client.lost().await.is_loss());
}

#[tokio::test]
async fn ending_the_client_ends_the_guest_and_all_calls() {
    let mut sandbox = open().await;
    let mut process = sandbox.client.exec(ExecRequest::program(["sleep", "300"])).await.unwrap();
    sandbox.client.end(LossReason::WallTime);
    assert!(matches!(process.next().await, Some(Ok(ExecEvent::Started { .. }))));
    let error = process.next().await.unwrap().unwrap_err();
    assert!(matches!(error, SandboxError::Lost { reason: LossReason::WallTime }));
    let error = sandbox.client.ping().await.unwrap_err();
    assert!(matches!(error, SandboxError::Lost { reason: LossReason::WallTime }));
    let status = tokio::task::spawn_blocking({
        let pid = sandbox.child.id();
        move || {
            while alive(&pid.to_string()) {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    });
    tokio::time::timeout(Duration::from_secs(20), status).await.unwrap().unwrap();
    assert!(sandbox.child.wait().unwrap().success());
}
