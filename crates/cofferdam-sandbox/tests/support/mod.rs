//! The real program as an ordinary process in a temporary directory, with a client over it.

#![allow(dead_code, reason = "each test file uses its part of the kit")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says no more than that it failed"
)]
#![allow(
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "a module of several test programs"
)]

use std::{
    collections::BTreeMap,
    fs,
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{
    ExecEvent, ExecRequest, ExitStatus, GuestClient, GuestOptions, LossReason, Process,
};
use futures::StreamExt as _;
use tempfile::TempDir;
use tokio::net::UnixStream;

/// A guest, its client and its workspace.
pub struct Box {
    pub client: GuestClient,
    pub child: Child,
    pub workspace: TempDir,
    pub options: GuestOptions,
    pub door: PathBuf,
}

pub fn program() -> &'static Path {
    static PATH: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    &PATH
        .get_or_init(|| {
            let directory = TempDir::new().unwrap();
            let path = directory.path().join("guest");
            fs::write(&path, cofferdam_guest::PROGRAM).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            (directory, path)
        })
        .1
}

#[expect(clippy::disallowed_methods, reason = "the test is the backend of the program")]
pub fn spawn(arguments: &[&str]) -> (Child, UnixStream) {
    spawn_with(Command::new(program()).args(arguments))
}

/// Starts a command that runs the program with a socket as its standard input.
pub fn spawn_with(command: &mut Command) -> (Child, UnixStream) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn().unwrap();
    ours.set_nonblocking(true).unwrap();
    (child, UnixStream::from_std(ours).unwrap())
}

pub async fn open_with(change: impl FnOnce(&mut GuestOptions)) -> Box {
    let door = new_door();
    let guest = spawn(&["--listen", door.to_str().unwrap()]);
    open_over(guest, door, change).await
}

/// Returns a path for a socket.
pub fn new_door() -> PathBuf {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    program().with_file_name(format!("door-{}", SERIAL.fetch_add(1, Ordering::Relaxed)))
}

/// Connects to a guest that was spawned.
pub async fn open_over(
    (child, stream): (Child, UnixStream),
    door: PathBuf,
    change: impl FnOnce(&mut GuestOptions),
) -> Box {
    let workspace = TempDir::new().unwrap();
    let mut options = GuestOptions {
        workspace: workspace.path().to_str().unwrap().to_owned(),
        environment: BTreeMap::from([
            ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
            ("FROM".to_owned(), "sandbox".to_owned()),
        ]),
        ..GuestOptions::default()
    };
    change(&mut options);
    let client = GuestClient::connect(stream, options.clone()).await.unwrap();
    Box { client, child, workspace, options, door }
}

pub async fn open() -> Box {
    open_with(|_| {}).await
}

impl Box {
    /// Drops the connection as a host that crashes does, and comes back.
    pub async fn come_back(&mut self) {
        self.client.end(LossReason::Closed);
        let stream = UnixStream::connect(&self.door).await.unwrap();
        self.client = GuestClient::resume(stream, self.options.clone()).await.unwrap();
    }

    pub async fn run(&self, request: ExecRequest) -> (String, String, Option<ExitStatus>) {
        collect(self.client.exec(request).await.unwrap()).await
    }
}

impl Drop for Box {
    fn drop(&mut self) {
        self.client.end(LossReason::Closed);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub async fn collect(mut process: Process) -> (String, String, Option<ExitStatus>) {
    let (mut stdout, mut stderr, mut status) = (Vec::new(), Vec::new(), None);
    while let Some(event) = process.next().await {
        match event.unwrap() {
            ExecEvent::Stdout(bytes) => stdout.extend(bytes),
            ExecEvent::Stderr(bytes) => stderr.extend(bytes),
            ExecEvent::Exited(exit) => status = Some(exit),
            _ => {}
        }
    }
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(stdout), text(stderr), status)
}

/// Reads output until it contains `text`.
pub async fn wait_for(process: &mut Process, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        match process.next().await.expect("the command goes on").unwrap() {
            ExecEvent::Stdout(bytes) => seen.push_str(std::str::from_utf8(&bytes).unwrap()),
            ExecEvent::Started { .. } => {}
            other => panic!("unexpected {other:?} after {seen:?}"),
        }
    }
    seen
}

pub fn path(text: &str) -> WorkspacePath {
    WorkspacePath::new(text).unwrap()
}

pub fn alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|text| !text.contains(") Z"))
}

pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect(what);
}
