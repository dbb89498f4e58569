//! Watching files, through the client and with the real program and the real kernel.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says no more than that it failed"
)]

mod support;

use std::{
    fs, io::Write as _, os::unix::fs::symlink, path::Path, process::Command, time::Duration,
};

use bytes::Bytes;
use cofferdam_sandbox::{
    Files as _, SandboxError, WatchEvent, WatchOptions, Watcher as _, WriteOptions,
};
use futures::{StreamExt as _, stream::BoxStream};
use support::{Box, new_door, open, open_over, path, program, spawn_with};

struct Watch(BoxStream<'static, Result<WatchEvent, SandboxError>>);

impl Watch {
    async fn open(sandbox: &Box, name: &str, recursive: bool) -> Self {
        Self(sandbox.client.watch(&path(name), &WatchOptions { recursive }).await.unwrap())
    }

    async fn next(&mut self) -> String {
        let event = tokio::time::timeout(Duration::from_secs(10), self.0.next());
        text(&event.await.expect("an event in time").expect("the watch goes on").unwrap())
    }

    /// Reads events until one is this; returns those before.
    async fn until(&mut self, last: &str) -> Vec<String> {
        let mut before = Vec::new();
        loop {
            match self.next().await {
                event if event == last => return before,
                event => before.push(event),
            }
        }
    }

    async fn expect<const N: usize>(&mut self, events: [&str; N]) {
        for event in events {
            assert_eq!(self.next().await, event);
        }
    }
}

fn text(event: &WatchEvent) -> String {
    let name = |path: &[u8]| String::from_utf8(path.to_vec()).unwrap();
    match event {
        WatchEvent::Created { path } => format!("created {}", name(path)),
        WatchEvent::Modified { path } => format!("modified {}", name(path)),
        WatchEvent::Removed { path } => format!("removed {}", name(path)),
        WatchEvent::Moved { from, to } => format!("moved {} {}", name(from), name(to)),
        WatchEvent::Overflow => "overflow".to_owned(),
        WatchEvent::Unwatched { path, reason, errno } => {
            format!("unwatched {}: {reason} ({errno})", name(path))
        }
        other => panic!("unexpected {other:?}"),
    }
}

#[tokio::test]
async fn changes_of_a_tree_are_told() {
    let sandbox = open().await;
    let at = |name: &str| sandbox.workspace.path().join(name);
    fs::create_dir_all(at("old/deep")).unwrap();
    fs::write(at("old/deep/file"), "1").unwrap();
    let mut watch = Watch::open(&sandbox, ".", true).await;

    // One change: emptying and writing would be two.
    fs::File::options().append(true).open(at("old/deep/file")).unwrap().write_all(b"2").unwrap();
    watch.expect(["modified old/deep/file"]).await;
    fs::create_dir(at("new")).unwrap();
    watch.expect(["created new"]).await;
    fs::write(at("new/file"), "").unwrap();
    watch.expect(["created new/file"]).await;
    fs::rename(at("new/file"), at("old/moved")).unwrap();
    watch.expect(["moved new/file old/moved"]).await;
    // What is below a directory that has moved is told by its new path.
    fs::rename(at("old"), at("new/old")).unwrap();
    watch.expect(["moved old new/old"]).await;
    fs::remove_file(at("new/old/deep/file")).unwrap();
    watch.expect(["removed new/old/deep/file"]).await;
    // What leaves is gone, and what it does elsewhere is not told.
    let outside = tempfile::TempDir::new_in(sandbox.workspace.path().parent().unwrap()).unwrap();
    fs::rename(at("new/old"), outside.path().join("old")).unwrap();
    watch.expect(["removed new/old"]).await;
    fs::write(outside.path().join("old/deep/unseen"), "").unwrap();
    fs::remove_dir(at("new")).unwrap();
    watch.expect(["removed new"]).await;
}

#[tokio::test]
async fn nothing_in_a_new_directory_is_missed() {
    let sandbox = open().await;
    let mut watch = Watch::open(&sandbox, ".", true).await;
    for turn in 0..20 {
        let directory = format!("d{turn}/a/b");
        fs::create_dir_all(sandbox.workspace.path().join(&directory)).unwrap();
        fs::write(sandbox.workspace.path().join(&directory).join("leaf"), "").unwrap();
    }
    for turn in 0..20 {
        let before = watch.until(&format!("created d{turn}/a/b/leaf")).await;
        assert!(!before.contains(&"overflow".to_owned()), "{before:?}");
    }
}

#[tokio::test]
async fn a_file_written_by_the_host_is_one_change() {
    let sandbox = open().await;
    let mut watch = Watch::open(&sandbox, ".", true).await;
    let write = |name: &'static str| {
        let client = &sandbox.client;
        async move {
            client.write(&path(name), Bytes::from_static(b"x"), &WriteOptions::default()).await
        }
    };
    write("file").await.unwrap();
    watch.expect(["modified file"]).await;
    write("mark").await.unwrap();
    watch.expect(["modified mark"]).await;
}

#[tokio::test]
async fn one_level_and_one_file() {
    let sandbox = open().await;
    let at = |name: &str| sandbox.workspace.path().join(name);
    fs::create_dir(at("sub")).unwrap();
    fs::write(at("file"), "").unwrap();
    let mut level = Watch::open(&sandbox, ".", false).await;
    let mut file = Watch::open(&sandbox, "file", true).await;
    fs::write(at("sub/unseen"), "").unwrap();
    fs::write(at("file"), "more").unwrap();
    level.expect(["modified file"]).await;
    file.expect(["modified "]).await;
    fs::remove_file(at("file")).unwrap();
    assert!(!level.until("removed file").await.contains(&"created sub/unseen".to_owned()));
    file.until("removed ").await;

    let error = sandbox.client.watch(&path("none"), &WatchOptions::default()).await.err().unwrap();
    assert!(matches!(error, SandboxError::File { errno: 2, .. }), "{error}");
}

#[tokio::test]
async fn links_are_not_followed() {
    let sandbox = open().await;
    let outside = tempfile::TempDir::new().unwrap();
    symlink(outside.path(), sandbox.workspace.path().join("before")).unwrap();
    let mut watch = Watch::open(&sandbox, ".", true).await;
    symlink(outside.path(), sandbox.workspace.path().join("after")).unwrap();
    fs::write(outside.path().join("secret"), "").unwrap();
    watch.expect(["created after"]).await;
    fs::write(sandbox.workspace.path().join("mark"), "").unwrap();
    watch.expect(["created mark"]).await;
}

#[tokio::test]
async fn a_reader_that_is_too_slow_hears_of_it_and_the_watch_goes_on() {
    let sandbox = open().await;
    let mut watch = Watch::open(&sandbox, ".", true).await;
    // Names so long that credit and bounds are used up far below their number.
    let name = |turn: usize| format!("{turn:0>200}");
    for turn in 0..8_000 {
        fs::write(sandbox.workspace.path().join(name(turn)), "").unwrap();
    }
    let before = watch.until("overflow").await;
    assert!(before.len() < 8_000);
    // Whatever else was missed is told by the same word; then a change is heard again.
    fs::write(sandbox.workspace.path().join("mark"), "").unwrap();
    watch.until("created mark").await;
    let statm = fs::read_to_string(format!("/proc/{}/statm", sandbox.child.id())).unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(pages * 4096 < 16 << 20, "{pages} pages");
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the test is the backend of the program")]
async fn watches_beyond_the_limit_are_told_as_such() {
    let inside = "echo 3 > /proc/sys/user/max_inotify_watches && exec \"$@\"";
    let unshare = |argv: &[&Path]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", inside, "sh"]).args(argv);
        command
    };
    if !unshare(&[Path::new("true")]).status().is_ok_and(|status| status.success()) {
        cofferdam_testkit::skip(
            "watches_beyond_the_limit_are_told_as_such",
            "this host makes no user namespace, in which alone the limit can be lowered",
        );
        return;
    }
    let guest = spawn_with(&mut unshare(&[program()]));
    let sandbox = open_over(guest, new_door(), |_| {}).await;
    for name in ["a", "b", "c", "d"] {
        fs::create_dir(sandbox.workspace.path().join(name)).unwrap();
    }
    let mut watch = Watch::open(&sandbox, ".", true).await;
    for _ in 0..2 {
        let event = watch.next().await;
        assert!(event.starts_with("unwatched ") && event.ends_with("(28)"), "{event}");
    }
    // And one that has no room at all is a failure.
    let error = sandbox.client.watch(&path("d"), &WatchOptions::default()).await;
    let second = error.err().map(|error| error.to_string());
    assert_eq!(
        second.as_deref(),
        Some("cannot watch \"d\" in the workspace: no space left on device")
    );
}
