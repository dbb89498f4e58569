//! A small blocking client that drives the real program over a socket pair, in a temporary directory.

#![allow(dead_code, reason = "each test file uses its part of the client")]
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
    collections::VecDeque,
    fs::{self, File},
    io::{Read as _, Write as _},
    net::Shutdown,
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use cofferdam_guest::{
    Attach, CommandInfo, Exec, ExitStatus, Failure, FrameDecoder, GuestHello, GuestMessage,
    HostHello, HostMessage, Metadata, PROGRAM, SendWindow, SessionRequest, TOKEN_LENGTH, Token,
    TreeDecoder, TreeEntry, TreeRecord, Versions,
};
use tempfile::TempDir;

/// An owned message from the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Started(u32),
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Exited(ExitStatus),
    Metadata(Metadata),
    Data(Vec<u8>),
    OutputLost(u64, u64),
    Commands(Vec<CommandInfo>),
    Opened,
    Listening(u16),
    Incoming(u32),
    EndOfData,
    Done,
    Uploaded(u64),
    Failed(Failure),
}

/// What a command did until the end of its channel.
#[derive(Debug, Default)]
pub struct Outcome {
    pub pid: Option<u32>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub status: Option<ExitStatus>,
    pub failure: Option<Failure>,
    pub lost: (u64, u64),
}

impl Outcome {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// A running guest.
pub struct Guest {
    pub child: Child,
    pub stream: UnixStream,
    pub hello: GuestHello,
    pub workspace: TempDir,
    pub door: Option<PathBuf>,
    decoder: FrameDecoder,
    waiting: VecDeque<(u32, Event)>,
    credit: std::collections::HashMap<u32, SendWindow>,
    /// Give credit back as soon as something arrives.
    pub generous: bool,
    next: u32,
}

pub fn program() -> &'static Path {
    static PATH: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    &PATH
        .get_or_init(|| {
            let directory = TempDir::new().unwrap();
            let path = directory.path().join("guest");
            fs::write(&path, PROGRAM).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            (directory, path)
        })
        .1
}

#[expect(clippy::disallowed_methods, reason = "the test is the backend of the program")]
pub fn spawn() -> (Child, UnixStream) {
    spawn_with(&mut Command::new(program()))
}

/// Starts a command that runs the program with a socket as its standard input.
pub fn spawn_with(command: &mut Command) -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = command
        .env_clear()
        .env("LEAKED", "yes")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    (child, ours)
}

pub fn host_hello(workspace: &Path) -> HostHello {
    HostHello {
        versions: Versions::SPOKEN,
        workspace: workspace.to_str().unwrap().as_bytes().to_vec(),
        max_channels: 64,
        max_execs: 16,
        session: None,
    }
}

/// A session that lives on for a minute, and keeps 1 KiB of each output.
pub fn session(token: u8) -> SessionRequest {
    SessionRequest { token: Token([token; TOKEN_LENGTH]), linger_ms: 60_000, replay_bytes: 1024 }
}

impl Guest {
    pub fn start() -> Self {
        Self::greet(spawn(), None)
    }

    /// Starts a guest that listens at a path beside the workspace, and asks for a session.
    #[expect(clippy::disallowed_methods, reason = "the test is the backend of the program")]
    pub fn start_session(request: SessionRequest) -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let door = program().with_file_name(format!("door-{serial}"));
        let mut command = Command::new(program());
        let mut guest = Self::greet(spawn_with(command.arg("--listen").arg(&door)), Some(request));
        guest.door = Some(door);
        guest
    }

    /// Connects at the door and greets; returns whether the guest answers.
    pub fn come_back(&mut self, request: SessionRequest) -> bool {
        let stream = UnixStream::connect(self.door.as_ref().unwrap()).unwrap();
        self.come_back_over(stream, request)
    }

    /// Greets over this stream; returns whether the guest answers.
    pub fn come_back_over(&mut self, mut stream: UnixStream, request: SessionRequest) -> bool {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let hello = HostHello { session: Some(request), ..host_hello(self.workspace.path()) };
        let mut bytes = Vec::new();
        HostMessage::Hello(hello).encode(0, &mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut first = [0];
        if stream.read(&mut first).expect("the guest answers or hangs up") == 0 {
            return false;
        }
        self.stream = stream;
        self.hello.version = 0;
        self.decoder = FrameDecoder::new();
        self.decoder.push(&first);
        self.waiting.clear();
        self.credit.clear();
        while self.hello.version == 0 {
            self.receive_more();
        }
        true
    }

    /// Drops the connection as a host that crashes does.
    pub fn hang_up(&mut self) {
        self.stream.shutdown(Shutdown::Both).unwrap();
    }

    /// Greets a guest that was spawned.
    pub fn greet(spawned: (Child, UnixStream), session: Option<SessionRequest>) -> Self {
        let workspace = TempDir::new().unwrap();
        // For a guest that is another user.
        fs::set_permissions(workspace.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let hello = HostHello { session, ..host_hello(workspace.path()) };
        let mut guest = Self::greet_with(spawned, hello);
        guest.workspace = workspace;
        guest
    }

    /// Greets a guest that was spawned, with these words; the workspace is the caller's.
    pub fn greet_with((child, stream): (Child, UnixStream), hello: HostHello) -> Self {
        let mut guest = Self {
            door: None,
            child,
            stream,
            hello: GuestHello { version: 0, build: String::new(), pid: 0, uid: 0, session: None },
            decoder: FrameDecoder::new(),
            waiting: VecDeque::new(),
            credit: std::collections::HashMap::new(),
            generous: true,
            next: 1,
            workspace: TempDir::new().unwrap(),
        };
        guest.send(0, &HostMessage::Hello(hello));
        while guest.hello.version == 0 {
            guest.receive_more();
        }
        guest
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.workspace.path().join(name)
    }

    pub fn send(&mut self, channel: u32, message: &HostMessage<'_>) {
        let mut bytes = Vec::new();
        message.encode(channel, &mut bytes).unwrap();
        self.stream.write_all(&bytes).unwrap();
    }

    pub fn open(&mut self, message: &HostMessage<'_>) -> u32 {
        let channel = self.next;
        self.next += 1;
        self.credit.insert(channel, SendWindow::default());
        self.send(channel, message);
        channel
    }

    /// Sends data as credit comes; stops when the channel has ended.
    pub fn send_data(&mut self, channel: u32, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let length = self.credit.get_mut(&channel).unwrap().take(bytes.len().min(64 * 1024));
            if length == 0 {
                if self
                    .waiting
                    .iter()
                    .any(|(id, event)| *id == channel && matches!(event, Event::Failed(_)))
                {
                    return;
                }
                self.receive_more();
                continue;
            }
            self.send(channel, &HostMessage::Data(&bytes[..length]));
            bytes = &bytes[length..];
        }
    }

    pub fn receive_more(&mut self) {
        let mut buffer = vec![0; 64 * 1024];
        let length = self.stream.read(&mut buffer).expect("the guest answers in time");
        if length == 0 {
            let mut text = String::new();
            self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
            panic!("the guest ended: {text}");
        }
        self.decoder.push(&buffer[..length]);
        let mut replies = Vec::new();
        while let Some(frame) = self.decoder.next_frame().unwrap() {
            let event = match GuestMessage::decode(frame).unwrap() {
                GuestMessage::Hello(hello) => {
                    self.hello = hello;
                    continue;
                }
                GuestMessage::Window(bytes) => {
                    self.credit.entry(frame.channel).or_default().grant(bytes).unwrap();
                    continue;
                }
                GuestMessage::Started { pid } => Event::Started(pid),
                GuestMessage::Stdout(bytes) => Event::Stdout(bytes.to_vec()),
                GuestMessage::Stderr(bytes) => Event::Stderr(bytes.to_vec()),
                GuestMessage::Data(bytes) => Event::Data(bytes.to_vec()),
                GuestMessage::Exited(status) => Event::Exited(status),
                GuestMessage::Metadata(metadata) => Event::Metadata(metadata),
                GuestMessage::OutputLost { stdout, stderr } => Event::OutputLost(stdout, stderr),
                GuestMessage::Commands(commands) => Event::Commands(commands),
                GuestMessage::Opened => Event::Opened,
                GuestMessage::Listening { port } => Event::Listening(port),
                GuestMessage::Incoming { connection } => Event::Incoming(connection),
                GuestMessage::EndOfData => Event::EndOfData,
                GuestMessage::Done => Event::Done,
                GuestMessage::Uploaded { entries } => Event::Uploaded(entries),
                GuestMessage::Failed(failure) => Event::Failed(failure),
                other => panic!("unexpected {other:?}"),
            };
            if let Event::Stdout(bytes) | Event::Stderr(bytes) | Event::Data(bytes) = &event
                && self.generous
            {
                replies.push((frame.channel, u32::try_from(bytes.len()).unwrap()));
            }
            self.waiting.push_back((frame.channel, event));
        }
        for (channel, bytes) in replies {
            self.send(channel, &HostMessage::Window(bytes));
        }
    }

    /// Waits until the guest has closed the connection.
    pub fn wait_for_end(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("the guest closes it in time");
    }

    /// Returns the next event of any channel.
    pub fn next_of_any(&mut self) -> (u32, Event) {
        while self.waiting.is_empty() {
            self.receive_more();
        }
        self.waiting.pop_front().unwrap()
    }

    /// Returns the next event of a channel.
    pub fn next(&mut self, channel: u32) -> Event {
        loop {
            if let Some(at) = self.waiting.iter().position(|(id, _)| *id == channel) {
                return self.waiting.remove(at).unwrap().1;
            }
            self.receive_more();
        }
    }

    /// Asks for something that is answered by one message.
    pub fn ask(&mut self, message: &HostMessage<'_>) -> Event {
        let channel = self.open(message);
        self.next(channel)
    }

    /// Follows a command to the end of its channel.
    pub fn follow(&mut self, channel: u32) -> Outcome {
        let mut outcome = Outcome::default();
        loop {
            match self.next(channel) {
                Event::Started(pid) => outcome.pid = Some(pid),
                Event::OutputLost(stdout, stderr) => outcome.lost = (stdout, stderr),
                Event::Stdout(bytes) => outcome.stdout.extend(bytes),
                Event::Stderr(bytes) => outcome.stderr.extend(bytes),
                Event::Exited(status) => outcome.status = Some(status),
                Event::Failed(failure) => {
                    outcome.failure = Some(failure);
                    return outcome;
                }
                Event::Done => return outcome,
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Joins a command by its name.
    pub fn attach(&mut self, exec_id: &str, from: (u64, u64)) -> u32 {
        let exec_id = exec_id.as_bytes().to_vec();
        let (stdout_from, stderr_from) = from;
        self.open(&HostMessage::Attach(Attach { exec_id, stdout_from, stderr_from }))
    }

    /// Asks for all commands, by name.
    pub fn list(&mut self) -> Vec<CommandInfo> {
        let channel = self.open(&HostMessage::ListCommands);
        let Event::Commands(commands) = self.next(channel) else { panic!("no list came") };
        assert_eq!(self.next(channel), Event::Done);
        commands
    }

    pub fn run(&mut self, script: &str) -> Outcome {
        let channel = self.open(&HostMessage::Exec(shell(script)));
        self.follow(channel)
    }

    /// Waits for output of a command that contains `text`.
    pub fn wait_for(&mut self, channel: u32, text: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(text) {
            match self.next(channel) {
                Event::Stdout(bytes) => seen.push_str(&String::from_utf8_lossy(&bytes)),
                Event::Started(_) => {}
                other => panic!("unexpected {other:?} after {seen:?}"),
            }
        }
        seen
    }

    /// Collects the data of a reading channel.
    pub fn collect(&mut self, channel: u32) -> Result<Vec<u8>, Failure> {
        let mut content = Vec::new();
        loop {
            match self.next(channel) {
                Event::Data(bytes) => content.extend(bytes),
                Event::Metadata(_) => {}
                Event::Done => return Ok(content),
                Event::Failed(failure) => return Err(failure),
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    pub fn failure(&mut self, message: &HostMessage<'_>) -> Failure {
        let channel = self.open(message);
        self.collect(channel).expect_err("the operation is refused")
    }

    /// Ends the stream and waits for the guest to end.
    pub fn close(mut self) -> std::process::ExitStatus {
        self.stream.shutdown(Shutdown::Both).unwrap();
        self.child.wait().unwrap()
    }

    pub fn resident_bytes(&self) -> u64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // A guest that a failed test leaves behind ends with its stream; it must not outlive the test program.
        let _ = self.stream.shutdown(Shutdown::Both);
        if self.door.is_some() {
            // Its commands end with it: their reapers see to that.
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// Says that a test cannot run here, and why, in the form that the project counts.
pub fn skip(name: &str, reason: &str) {
    cofferdam_testkit::skip(name, reason);
}

/// Lets a guest that is another user be started.
pub fn open_to_all() {
    let directory = program().parent().unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
}

pub fn exec<const N: usize>(argv: [&str; N]) -> Exec {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    Exec {
        exec_id: serial.to_string().into_bytes(),
        argv: argv.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
        environment: vec![(b"PATH".to_vec(), b"/usr/bin:/bin".to_vec())],
        ..Exec::default()
    }
}

pub fn shell(script: &str) -> Exec {
    exec(["sh", "-c", script])
}

/// Returns whether a process is there and no zombie.
pub fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|text| !text[text.rfind(')').unwrap()..].starts_with(") Z"))
}

/// Waits until something holds, for events that only `/proc` shows.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Reads a whole tree stream.
pub fn tree_of(content: &[u8], mut decoder: TreeDecoder) -> Vec<(TreeEntry, Vec<u8>)> {
    let mut entries: Vec<(TreeEntry, Vec<u8>)> = Vec::new();
    decoder.push(content);
    while let Some(record) = decoder.next_record().unwrap() {
        match record {
            TreeRecord::Entry(entry) => entries.push((entry, Vec::new())),
            TreeRecord::Content(bytes) => entries.last_mut().unwrap().1.extend_from_slice(bytes),
            TreeRecord::Skipped { .. } | TreeRecord::End { .. } => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    assert!(decoder.ended());
    entries
}

pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect()
}

pub fn write_file(path: &Path, content: &[u8]) {
    File::create(path).unwrap().write_all(content).unwrap();
}
