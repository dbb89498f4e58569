//! A session: the workspace, the commands and the open channels, and what a host's message does to them.

mod turns;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use cofferdam_guest::{
    Exec, Failure, FailureReason, FileRequest, GuestMessage, HostHello, HostMessage, ProtocolError,
    ReceiveWindow, SendWindow, SessionGrant, Token,
};

use crate::{
    commands::{Commands, Hearing},
    exec::Command,
    files::{self, Reading, Writing},
    outcome::{Outcome, bad_request, limit},
    poll::Waiting,
    port::{Listener, Port},
    process_tree, sys,
    upload::Upload,
    walk::{Removing, Sending},
    watch::Watching,
    workspace::Workspace,
};

/// The greatest part of each output that is kept, in bytes.
const MAX_REPLAY: u32 = 4 << 20;

/// What exists from the greeting on.
#[derive(Debug)]
pub(crate) struct Session {
    workspace: Workspace,
    max_channels: usize,
    max_execs: usize,
    token: Option<Token>,
    /// How long to go on without a connection; zero ends the session with it.
    pub(crate) linger: Duration,
    /// The number of the present connection.
    connection: u32,
    channels: BTreeMap<u32, Channel>,
    commands: Commands,
    /// Whether processes may have lost their reaper.
    strays: Option<Instant>,
    /// The channel that had the last turn.
    last_turn: u32,
    serial: u64,
}

#[derive(Debug)]
struct Channel {
    task: Task,
    send: SendWindow,
    receive: ReceiveWindow,
}

#[derive(Debug)]
enum Task {
    Command(Hearing),
    Reading(Reading),
    Writing(Box<Writing>),
    Sending(Box<Sending>),
    Removing(Removing),
    Upload(Box<Upload>),
    Port(Box<Port>),
    Listener(Box<Listener>),
    Watching(Box<Watching>),
}

impl Channel {
    /// Gives the host credit for bytes that were taken.
    fn give_credit(
        &mut self,
        id: u32,
        bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        match self.receive.taken(bytes) {
            Some(credit) => GuestMessage::Window(credit).encode(id, out),
            None => Ok(()),
        }
    }
}

impl Session {
    /// Starts a session. `reachable` tells whether a host whose connection is lost can come back.
    pub(crate) fn new(workspace: Workspace, hello: &HostHello, reachable: bool) -> Self {
        let request = hello.session.as_ref();
        let linger = request.map_or(0, |request| request.linger_ms);
        Self {
            workspace,
            max_channels: usize::try_from(hello.max_channels).unwrap_or(usize::MAX),
            max_execs: usize::try_from(hello.max_execs).unwrap_or(usize::MAX),
            token: request.map(|request| request.token),
            linger: Duration::from_millis(if reachable { linger.into() } else { 0 }),
            connection: 1,
            channels: BTreeMap::new(),
            commands: Commands::new(
                request.map_or(0, |request| request.replay_bytes.min(MAX_REPLAY) as usize),
                request.is_some(),
            ),
            strays: None,
            last_turn: 0,
            serial: 0,
        }
    }

    /// Returns whether a greeting is of this session's host.
    pub(crate) fn recognises(&self, hello: &HostHello) -> bool {
        match (&self.token, &hello.session) {
            (Some(token), Some(request)) => *token == request.token,
            _ => false,
        }
    }

    /// Goes on with a new connection of the same host.
    pub(crate) fn resume(&mut self, hello: &HostHello) {
        self.disconnect();
        self.connection += 1;
        self.max_channels = usize::try_from(hello.max_channels).unwrap_or(usize::MAX);
        self.max_execs = usize::try_from(hello.max_execs).unwrap_or(usize::MAX);
    }

    /// Ends all channels. Commands go on, and what else was under way is given up.
    pub(crate) fn disconnect(&mut self) {
        self.channels.clear();
        self.commands.detach_all();
        self.last_turn = 0;
    }

    /// Returns what was granted of the session that the host asked for.
    pub(crate) fn grant(&self) -> Option<SessionGrant> {
        self.token?;
        Some(SessionGrant {
            connection: self.connection,
            linger_ms: u32::try_from(self.linger.as_millis()).unwrap_or(u32::MAX),
            replay_bytes: u32::try_from(self.commands.replay()).unwrap_or(u32::MAX),
        })
    }

    /// Adds what is to be waited for. `room` tells whether more output can be taken.
    pub(crate) fn wait_for(&self, waiting: &mut Waiting, room: bool) {
        waiting.until(self.strays);
        for channel in self.channels.values() {
            let credit = channel.send.available() > 0;
            match &channel.task {
                Task::Reading(_) | Task::Sending(_) => waiting.busy |= room && credit,
                Task::Removing(_) => waiting.busy |= room,
                Task::Port(port) => port.wait_for(waiting, room && credit),
                Task::Listener(listener) if room => listener.wait_for(waiting),
                Task::Watching(watching) if room => watching.wait_for(waiting, credit),
                Task::Command(_)
                | Task::Writing(_)
                | Task::Upload(_)
                | Task::Listener(_)
                | Task::Watching(_) => {}
            }
        }
        for record in self.commands.iter() {
            let mut hears = false;
            if let Some(channel) = record.channel.and_then(|id| self.channels.get(&id)) {
                hears = room && channel.send.available() > 0;
                if let Task::Command(hearing) = &channel.task
                    && hearing.is_behind(record)
                {
                    waiting.busy |= hears;
                    hears = false;
                }
            }
            record.wait_for(waiting, hears);
        }
    }

    /// Does what became possible by itself: feeds input, hears of ends, kills what is to be killed.
    pub(crate) fn advance(
        &mut self,
        buffer: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        for (channel, failure) in self.commands.hear() {
            if let Some(id) = channel
                && self.channels.remove(&id).is_some()
            {
                GuestMessage::Failed(failure).encode(id, out)?;
            }
        }
        self.reap();
        self.commands.look_after(Instant::now(), buffer);
        for (id, fed) in self.commands.feed() {
            if let Some(channel) = self.channels.get_mut(&id) {
                channel.give_credit(id, fed, out)?;
            }
        }
        for (&id, channel) in &mut self.channels {
            if let Task::Port(port) = &mut channel.task {
                let fed = port.feed();
                channel.give_credit(id, fed, out)?;
            }
        }
        Ok(())
    }

    /// Handles a message of the host.
    pub(crate) fn handle(
        &mut self,
        id: u32,
        message: HostMessage<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        if message.opens() {
            if self.channels.contains_key(&id) {
                return Err(ProtocolError::Unexpected { channel: id, kind: message.kind() });
            }
            self.open(id, message, out)
        } else if self.channels.contains_key(&id) {
            self.control(id, message, out)
        } else {
            // For a channel that ended while the message was under way.
            Ok(())
        }
    }

    fn open(
        &mut self,
        id: u32,
        message: HostMessage<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let task = if self.channels.len() >= self.max_channels {
            Err(limit("too many open channels", b"", sys::EMFILE))
        } else {
            self.task_of(id, message, out)
        };
        match task {
            Ok(Some(task)) => {
                let channel = Channel {
                    task,
                    send: SendWindow::default(),
                    receive: ReceiveWindow::default(),
                };
                self.channels.insert(id, channel);
                Ok(())
            }
            Ok(None) => GuestMessage::Done.encode(id, out),
            Err(failure) => GuestMessage::Failed(failure).encode(id, out),
        }
    }

    /// Starts what a message asks for; `None` is done already.
    fn task_of(
        &mut self,
        id: u32,
        message: HostMessage<'_>,
        out: &mut Vec<u8>,
    ) -> Outcome<Option<Task>> {
        let workspace = &self.workspace;
        Ok(match message {
            HostMessage::Exec(request) => Some(Task::Command(self.start(id, request)?)),
            HostMessage::Attach(request) => {
                let from = [request.stdout_from, request.stderr_from];
                let (hearing, before) = self
                    .commands
                    .attach(&request.exec_id, id, from)
                    .ok_or_else(|| no_such_command("attach to"))?;
                if let Some(before) = before
                    && self.channels.remove(&before).is_some()
                {
                    let failure = cancelled("another channel hears the command now");
                    GuestMessage::Failed(failure).encode(before, out).map_err(too_long)?;
                }
                Some(Task::Command(hearing))
            }
            HostMessage::Forget { exec_id } => {
                if !self.commands.forget(&exec_id) {
                    return Err(no_such_command("forget"));
                }
                None
            }
            HostMessage::ListCommands => {
                let list = self.commands.list();
                GuestMessage::Commands(list).encode(id, out).map_err(too_long)?;
                None
            }
            HostMessage::Connect(address) => {
                Some(Task::Port(Box::new(Port::connect(workspace, &address)?)))
            }
            HostMessage::Listen { port } => Some(Task::Listener(Box::new(Listener::open(port)?))),
            HostMessage::Accept { listener, connection } => {
                let listening = self.channels.get_mut(&listener).map(|channel| &mut channel.task);
                let Some(Task::Listener(listener)) = listening else {
                    return Err(bad_request("there is no such listener"));
                };
                Some(Task::Port(Box::new(listener.take(connection)?)))
            }
            HostMessage::Watch(request) => {
                Some(Task::Watching(Box::new(Watching::open(workspace, &request)?)))
            }
            HostMessage::ReadFile(request) => {
                let (reading, metadata) = Reading::open(workspace, request)?;
                GuestMessage::Metadata(metadata).encode(id, out).map_err(too_long)?;
                Some(Task::Reading(reading))
            }
            HostMessage::WriteFile(request) => {
                self.serial += 1;
                Some(Task::Writing(Box::new(Writing::open(workspace, request, self.serial)?)))
            }
            HostMessage::List(request) => {
                Some(Task::Sending(Box::new(Sending::list(workspace, &request)?)))
            }
            HostMessage::DownloadTree(request) => {
                Some(Task::Sending(Box::new(Sending::download(workspace, &request)?)))
            }
            HostMessage::ScanTree(request) => {
                Some(Task::Sending(Box::new(Sending::scan(workspace, &request)?)))
            }
            HostMessage::UploadTree(request) => {
                Some(Task::Upload(Box::new(Upload::open(workspace, &request)?)))
            }
            HostMessage::File(FileRequest::Remove { path, recursive: true }) => {
                Removing::open(workspace, &path)?.map(Task::Removing)
            }
            HostMessage::File(request) => {
                if let Some(metadata) = files::perform(workspace, &request)? {
                    GuestMessage::Metadata(metadata).encode(id, out).map_err(too_long)?;
                }
                None
            }
            HostMessage::Ping => None,
            _ => {
                return Err(Failure {
                    reason: FailureReason::Unsupported,
                    errno: 0,
                    path: Vec::new(),
                    message: "this guest does not know the operation".to_owned(),
                });
            }
        })
    }

    fn start(&mut self, channel: u32, request: Exec) -> Outcome<Hearing> {
        if self.commands.live() >= self.max_execs {
            return Err(limit("too many live commands", b"", sys::EMFILE));
        }
        if self.commands.knows(&request.exec_id) {
            return Err(Failure {
                errno: sys::EEXIST,
                ..bad_request("a command has this name already")
            });
        }
        let command = Command::start(&self.workspace, request)?;
        Ok(self.commands.add(command, channel))
    }

    /// Handles a message on an open channel.
    fn control(
        &mut self,
        id: u32,
        message: HostMessage<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let Some(channel) = self.channels.get_mut(&id) else {
            return Ok(());
        };
        match message {
            HostMessage::Window(bytes) => return channel.send.grant(bytes),
            HostMessage::Data(bytes) => {
                channel.receive.arrived(id, bytes.len())?;
                let taken = match &mut channel.task {
                    Task::Command(hearing) => Ok(self
                        .commands
                        .get(hearing.key)
                        .map_or(0, |record| record.take_stdin(bytes))),
                    Task::Writing(writing) => writing.write(bytes).map(|()| bytes.len()),
                    Task::Upload(upload) => upload.write(bytes).map(|()| bytes.len()),
                    Task::Port(port) => {
                        port.take(bytes);
                        Ok(port.feed())
                    }
                    _ => Err(bad_request("this operation takes no data")),
                };
                match taken {
                    Ok(taken) => channel.give_credit(id, taken, out)?,
                    Err(failure) => self.fail(id, failure, out)?,
                }
            }
            HostMessage::EndOfData
                if matches!(channel.task, Task::Writing(_) | Task::Upload(_)) =>
            {
                let end = match self.channels.remove(&id).map(|channel| channel.task) {
                    Some(Task::Writing(writing)) => writing.finish().map(|()| GuestMessage::Done),
                    Some(Task::Upload(upload)) => {
                        upload.finish().map(|entries| GuestMessage::Uploaded { entries })
                    }
                    _ => Ok(GuestMessage::Done),
                };
                end.unwrap_or_else(GuestMessage::Failed).encode(id, out)?;
            }
            HostMessage::EndOfData if matches!(channel.task, Task::Port(_)) => {
                if let Task::Port(port) = &mut channel.task {
                    port.end();
                }
            }
            HostMessage::Close => self.fail(id, cancelled("closed by the host"), out)?,
            message => {
                if let Task::Command(hearing) = &channel.task {
                    let key = hearing.key;
                    return self.control_command(id, key, &message, out);
                }
                // A message of a later version, or one that this operation has no use for.
            }
        }
        Ok(())
    }

    fn control_command(
        &mut self,
        id: u32,
        key: crate::commands::Key,
        message: &HostMessage<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let Some(record) = self.commands.get(key) else {
            return Ok(());
        };
        match message {
            HostMessage::EndOfData => record.end_stdin(),
            HostMessage::Signal(number) => record.command.signal(*number),
            HostMessage::KillTree => record.command.kill_tree(),
            HostMessage::Resize(size) => record.command.resize(*size),
            HostMessage::Detach => {
                record.channel = None;
                self.channels.remove(&id);
                GuestMessage::Failed(cancelled("detached by the host")).encode(id, out)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Ends a channel with a failure; a command on it is killed.
    fn fail(&mut self, id: u32, failure: Failure, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        if let Some(channel) = self.channels.remove(&id)
            && let Task::Command(hearing) = channel.task
        {
            self.commands.doom(hearing.key);
        }
        GuestMessage::Failed(failure).encode(id, out)
    }

    /// Collects children that have ended, and kills what lost its reaper.
    fn reap(&mut self) {
        const AGAIN: Duration = Duration::from_millis(2);
        loop {
            match sys::reap_child() {
                // A reaper that was killed left its tree to this process.
                sys::Wait::Ended(status) if status & 0x7f != 0 => {
                    self.strays = Some(Instant::now());
                }
                sys::Wait::Ended(_) => {}
                // A command has stopped its reaper. Nobody would tell of its end, so it goes on.
                sys::Wait::Stopped(reaper) => drop(sys::send_signal(reaper, sys::SIGCONT)),
                sys::Wait::Running | sys::Wait::NoChildren => break,
            }
        }
        if self.strays.is_some_and(|due| due <= Instant::now()) {
            let found = process_tree::kill_below(own_pid(), &self.commands.reapers());
            self.strays = (found > 0).then(|| Instant::now() + AGAIN);
        }
    }
}

pub(crate) fn own_pid() -> sys::Pid {
    sys::Pid::try_from(std::process::id()).unwrap_or(1)
}

fn cancelled(message: &str) -> Failure {
    Failure { reason: FailureReason::Cancelled, ..bad_request(message) }
}

fn no_such_command(action: &str) -> Failure {
    let message = format!("there is no command of this name to {action}");
    Failure { errno: sys::ESRCH, ..bad_request(&message) }
}

fn too_long(error: ProtocolError) -> Failure {
    bad_request(&error.to_string())
}
