//! The server: one stream, many channels, one turn for each.
//!
//! Nothing is read from a command or a file before its channel has credit and the stream has room, so what nobody
//! reads stays in the command's own pipe. Channels with something to send take turns, one piece each.

use std::{
    collections::BTreeMap,
    error::Error,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

use cofferdam_guest::{
    Exec, Failure, FailureReason, FileRequest, Frame, FrameDecoder, GuestHello, GuestMessage,
    HostHello, HostMessage, ProtocolError, ReceiveWindow, Refusal, SendWindow, Versions,
};

use crate::{
    exec::{Command, News, Stream},
    files::{self, Reading, Writing},
    outcome::{Outcome, bad_request, limit},
    process_tree, sys,
    upload::Upload,
    walk::{Removing, Sending},
    workspace::Workspace,
};

/// The greatest piece that a channel sends in one turn.
const PIECE: usize = 64 * 1024;

/// Waiting bytes above which nothing more is read from commands and files, nor from the host.
const OUT_FULL: usize = 256 * 1024;

/// Serves until the stream ends, then kills every process that was started.
pub(crate) fn serve() -> Result<(), Box<dyn Error>> {
    // What commands inherit. Nothing is delivered here: all signals are blocked first.
    sys::block_signals();
    sys::reset_signal_actions();
    sys::close_range(3, u32::MAX)?;
    sys::hide_from_tracers()?;
    sys::adopt_orphans()?;
    let mut server = Server::new()?;
    let result = server.run();
    server.kill_everything();
    // A reaper that the kernel could not end in time still lives in this memory.
    std::mem::forget(server);
    result
}

struct Server {
    input: File,
    output: File,
    /// Readable when a child has ended.
    children: File,
    decoder: FrameDecoder,
    out: Vec<u8>,
    /// Bytes of `out` that were written already.
    out_start: usize,
    session: Option<Session>,
    /// Reused for every read.
    buffer: Vec<u8>,
}

/// What exists from the greeting on.
struct Session {
    workspace: Workspace,
    max_channels: usize,
    max_execs: usize,
    channels: BTreeMap<u32, Channel>,
    /// Commands whose channel is closed, until their trees are dead.
    dying: Vec<Command>,
    /// Whether processes may have lost their reaper.
    strays: Option<Instant>,
    /// The channel that had the last turn.
    last_turn: u32,
    serial: u64,
}

struct Channel {
    task: Task,
    send: SendWindow,
    receive: ReceiveWindow,
}

enum Task {
    Command(Box<Command>),
    Reading(Reading),
    Writing(Box<Writing>),
    Sending(Box<Sending>),
    Removing(Removing),
    Upload(Box<Upload>),
}

/// What a polled descriptor belongs to.
#[derive(Clone, Copy)]
enum Source {
    Input,
    Output,
    Children,
    Report,
    Stdin(u32),
    CommandOutput,
}

impl Server {
    fn new() -> io::Result<Self> {
        let input = sys::inherited(0)?;
        // A socket is both halves; a pair of pipes or a terminal has its writing half on descriptor 1.
        let output = if sys::stat_open(input.as_fd())?.is(sys::S_IFSOCK) {
            input.try_clone()?
        } else {
            let output = sys::inherited(1)?;
            sys::set_close_on_exec(output.as_fd())?;
            output
        };
        sys::set_close_on_exec(input.as_fd())?;
        sys::set_nonblocking(input.as_fd())?;
        sys::set_nonblocking(output.as_fd())?;
        Ok(Self {
            input: File::from(input),
            output: File::from(output),
            children: File::from(sys::child_signals()?),
            decoder: FrameDecoder::new(),
            out: Vec::new(),
            out_start: 0,
            session: None,
            buffer: vec![0; PIECE],
        })
    }

    fn run(&mut self) -> Result<(), Box<dyn Error>> {
        loop {
            let ready = self.wait()?;
            let mut heard = false;
            for source in ready {
                match source {
                    Source::Input => {
                        if !self.read_input()? {
                            return Ok(());
                        }
                    }
                    Source::Children => {
                        // Only wakes: `reap` looks at all children anyhow.
                        let _ = self.children.read(&mut self.buffer);
                        heard = true;
                    }
                    Source::Stdin(id) => self.feed_stdin(id)?,
                    Source::Report => heard = true,
                    Source::Output | Source::CommandOutput => {}
                }
            }
            if heard {
                self.hear_reports()?;
            }
            self.look_after_trees();
            self.give_turns()?;
            self.write_output()?;
        }
    }

    fn waiting_out(&self) -> usize {
        self.out.len() - self.out_start
    }

    /// Waits until there is something to do, and returns which descriptors are ready.
    fn wait(&mut self) -> io::Result<Vec<Source>> {
        let room = self.waiting_out() < OUT_FULL;
        let mut fds = Vec::new();
        let mut sources = Vec::new();
        let mut add = |fd, events, source| {
            fds.push(sys::PollFd { fd, events, ready: 0 });
            sources.push(source);
        };
        // A host that does not read its answers gets no more of them.
        if room {
            add(self.input.as_raw_fd(), sys::POLLIN, Source::Input);
        }
        if self.waiting_out() > 0 {
            add(self.output.as_raw_fd(), sys::POLLOUT, Source::Output);
        }
        add(self.children.as_raw_fd(), sys::POLLIN, Source::Children);
        let mut due: Option<Instant> = None;
        let mut busy = false;
        if let Some(session) = &self.session {
            due = session.strays;
            for (&id, channel) in &session.channels {
                let credit = channel.send.available() > 0;
                match &channel.task {
                    Task::Command(command) => {
                        if let Some(fd) = command.report_fd() {
                            add(fd, sys::POLLIN, Source::Report);
                        }
                        if let Some(fd) = command.stdin_fd() {
                            add(fd, sys::POLLOUT, Source::Stdin(id));
                        }
                        if room && credit {
                            for stream in [Stream::Stdout, Stream::Stderr] {
                                if let Some(fd) = command.output_fd(stream) {
                                    add(fd, sys::POLLIN, Source::CommandOutput);
                                }
                            }
                        }
                        due = [due, command.due()].into_iter().flatten().min();
                    }
                    Task::Reading(_) | Task::Sending(_) => busy |= room && credit,
                    Task::Removing(_) => busy = true,
                    Task::Writing(_) | Task::Upload(_) => {}
                }
            }
            for command in &session.dying {
                if let Some(fd) = command.report_fd() {
                    add(fd, sys::POLLIN, Source::Report);
                }
                due = [due, command.due()].into_iter().flatten().min();
            }
        }
        let timeout = if busy {
            0
        } else {
            due.map_or(-1, |due| {
                let left = due.saturating_duration_since(Instant::now());
                // Rounded up, so that it does not wake a moment too early and spin.
                i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
            })
        };
        sys::wait_ready(&mut fds, timeout)?;
        Ok(fds
            .iter()
            .zip(sources)
            .filter(|(fd, _)| fd.ready != 0)
            .map(|(_, source)| source)
            .collect())
    }

    /// Reads what the host sent; returns false at the end of the stream.
    fn read_input(&mut self) -> Result<bool, Box<dyn Error>> {
        let length = match self.input.read(&mut self.buffer) {
            Ok(0) => return Ok(false),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let mut decoder = std::mem::take(&mut self.decoder);
        decoder.push(&self.buffer[..length]);
        while let Some(frame) = decoder.next_frame()? {
            self.handle(frame)?;
        }
        self.decoder = decoder;
        Ok(true)
    }

    fn write_output(&mut self) -> io::Result<()> {
        while self.waiting_out() > 0 {
            match self.output.write(&self.out[self.out_start..]) {
                Ok(length) => self.out_start += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // A host that never takes all must not make the part that was written grow.
                    if self.out_start >= OUT_FULL {
                        self.out.drain(..self.out_start);
                        self.out_start = 0;
                    }
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.out_start = 0;
        Ok(())
    }

    fn handle(&mut self, frame: Frame<'_>) -> Result<(), Box<dyn Error>> {
        let channel = frame.channel;
        let unexpected = ProtocolError::Unexpected { channel, kind: frame.kind };
        let message = HostMessage::decode(frame)?;
        let Some(session) = &mut self.session else {
            return match message {
                HostMessage::Hello(hello) if channel == 0 => self.greet(&hello),
                _ => Err(ProtocolError::NotAGreeting.into()),
            };
        };
        if channel == 0 || matches!(message, HostMessage::Hello(_)) {
            return Err(unexpected.into());
        }
        if message.opens() {
            if session.channels.contains_key(&channel) {
                return Err(unexpected.into());
            }
            session.open(channel, message, &mut self.out)?;
        } else if session.channels.contains_key(&channel) {
            session.control(channel, message, &mut self.out)?;
        }
        // Anything else is for a channel that ended while the frame was under way.
        Ok(())
    }

    fn greet(&mut self, hello: &HostHello) -> Result<(), Box<dyn Error>> {
        let version = Versions::SPOKEN.common(hello.versions);
        let workspace = Workspace::open(&hello.workspace);
        let (version, workspace) = match (version, workspace) {
            (Ok(version), Ok(workspace)) => (version, workspace),
            (version, workspace) => {
                let errno = match (&version, &workspace) {
                    (Ok(_), Err(error)) => error.raw_os_error().unwrap_or(sys::EINVAL),
                    _ => 0,
                };
                let versions = Versions::SPOKEN;
                GuestMessage::Refused(Refusal { versions, errno }).encode(0, &mut self.out)?;
                self.write_output()?;
                version?;
                workspace?;
                return Ok(());
            }
        };
        let answer = GuestHello {
            version,
            build: option_env!("CARGO_PKG_VERSION").unwrap_or("unknown").to_owned(),
            pid: std::process::id(),
            uid: sys::user_id(),
        };
        GuestMessage::Hello(answer).encode(0, &mut self.out)?;
        self.session = Some(Session {
            workspace,
            max_channels: usize::try_from(hello.max_channels).unwrap_or(usize::MAX),
            max_execs: usize::try_from(hello.max_execs).unwrap_or(usize::MAX),
            channels: BTreeMap::new(),
            dying: Vec::new(),
            strays: None,
            last_turn: 0,
            serial: 0,
        });
        Ok(())
    }

    fn feed_stdin(&mut self, id: u32) -> Result<(), ProtocolError> {
        match &mut self.session {
            Some(session) => session.feed_stdin(id, &mut self.out),
            None => Ok(()),
        }
    }

    fn hear_reports(&mut self) -> Result<(), ProtocolError> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        let mut failed = Vec::new();
        for (&id, channel) in &mut session.channels {
            let Task::Command(command) = &mut channel.task else {
                continue;
            };
            match command.hear() {
                Some(News::Started(pid)) => {
                    GuestMessage::Started { pid }.encode(id, &mut self.out)?;
                }
                Some(News::Failed(failure)) => failed.push((id, failure)),
                _ => {}
            }
        }
        for (id, failure) in failed {
            if let Some(Channel { task: Task::Command(command), .. }) = session.channels.remove(&id)
            {
                session.dying.push(*command);
            }
            GuestMessage::Failed(failure).encode(id, &mut self.out)?;
        }
        for command in &mut session.dying {
            // What it says no longer matters, only that it ends.
            let _ = command.hear();
        }
        session.reap();
        Ok(())
    }

    fn look_after_trees(&mut self) {
        if let Some(session) = &mut self.session {
            session.look_after_trees();
        }
    }

    /// Lets the channels send in turns until the stream is full or nobody has anything.
    fn give_turns(&mut self) -> Result<(), ProtocolError> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        loop {
            let mut sent = false;
            let after = session.last_turn;
            let turns: Vec<u32> = session
                .channels
                .range(after.saturating_add(1)..)
                .chain(session.channels.range(..=after))
                .map(|(&id, _)| id)
                .collect();
            for id in turns {
                if self.out.len() - self.out_start >= OUT_FULL {
                    return Ok(());
                }
                session.last_turn = id;
                sent |= session.turn(id, &mut self.buffer, &mut self.out)?;
            }
            if !sent {
                return Ok(());
            }
        }
    }

    /// Ends every process below this one.
    fn kill_everything(&mut self) {
        const PATIENCE: Duration = Duration::from_secs(10);
        let start = Instant::now();
        let own = own_pid();
        // A process that the kernel cannot end at once must not keep the sandbox from ending: as first process, this
        // one takes all others with it anyhow.
        while start.elapsed() < PATIENCE {
            match sys::reap_child() {
                sys::Wait::NoChildren => return,
                sys::Wait::Ended(_) => {}
                sys::Wait::Running => {
                    process_tree::kill_below(own, &[]);
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }
}

impl Session {
    fn commands(&self) -> impl Iterator<Item = &Command> {
        let open = self.channels.values().filter_map(|channel| match &channel.task {
            Task::Command(command) => Some(command.as_ref()),
            _ => None,
        });
        open.chain(&self.dying)
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
            HostMessage::Exec(request) => Some(Task::Command(Box::new(self.start(request)?))),
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

    fn start(&self, request: Exec) -> Outcome<Command> {
        if self.commands().count() >= self.max_execs {
            return Err(limit("too many live commands", b"", sys::EMFILE));
        }
        if self.commands().any(|command| command.exec_id == request.exec_id) {
            return Err(Failure {
                errno: sys::EEXIST,
                ..bad_request("a live command has this name already")
            });
        }
        Command::start(&self.workspace, request)
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
        match (message, &mut channel.task) {
            (HostMessage::Window(bytes), _) => channel.send.grant(bytes)?,
            (HostMessage::Data(bytes), task) => {
                channel.receive.arrived(id, bytes.len())?;
                let result = match task {
                    Task::Command(command) => {
                        command.take_stdin(bytes);
                        let held = command.stdin_fd().is_some();
                        if held {
                            return self.feed_stdin(id, out);
                        }
                        Ok(())
                    }
                    Task::Writing(writing) => writing.write(bytes),
                    Task::Upload(upload) => upload.write(bytes),
                    _ => Err(bad_request("this operation takes no data")),
                };
                match result {
                    Ok(()) => {
                        if let Some(credit) = channel.receive.taken(bytes.len()) {
                            GuestMessage::Window(credit).encode(id, out)?;
                        }
                    }
                    Err(failure) => self.fail(id, failure, out)?,
                }
            }
            (HostMessage::EndOfData, Task::Command(command)) => {
                command.end_stdin();
                return self.feed_stdin(id, out);
            }
            (HostMessage::EndOfData, Task::Writing(_) | Task::Upload(_)) => {
                let end = match self.channels.remove(&id).map(|channel| channel.task) {
                    Some(Task::Writing(writing)) => writing.finish().map(|()| GuestMessage::Done),
                    Some(Task::Upload(upload)) => {
                        upload.finish().map(|entries| GuestMessage::Uploaded { entries })
                    }
                    _ => Ok(GuestMessage::Done),
                };
                end.unwrap_or_else(GuestMessage::Failed).encode(id, out)?;
            }
            (HostMessage::Signal(number), Task::Command(command)) => command.signal(number),
            (HostMessage::KillTree, Task::Command(command)) => command.kill_tree(),
            (HostMessage::Resize(size), Task::Command(command)) => command.resize(size),
            (HostMessage::Close, _) => {
                let cancelled = Failure {
                    reason: FailureReason::Cancelled,
                    ..bad_request("closed by the host")
                };
                self.fail(id, cancelled, out)?;
            }
            // A message of a later version, or one that this operation has no use for.
            _ => {}
        }
        Ok(())
    }

    /// Ends a channel with a failure; a command on it is killed.
    fn fail(&mut self, id: u32, failure: Failure, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        if let Some(channel) = self.channels.remove(&id)
            && let Task::Command(mut command) = channel.task
        {
            command.close_pipes();
            command.kill_tree();
            self.dying.push(*command);
        }
        GuestMessage::Failed(failure).encode(id, out)
    }

    fn feed_stdin(&mut self, id: u32, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        if let Some(channel) = self.channels.get_mut(&id)
            && let Task::Command(command) = &mut channel.task
            && let Some(credit) = channel.receive.taken(command.feed_stdin())
        {
            GuestMessage::Window(credit).encode(id, out)?;
        }
        Ok(())
    }

    /// Gives one channel its turn; returns whether it sent something.
    fn turn(
        &mut self,
        id: u32,
        buffer: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, ProtocolError> {
        let Some(channel) = self.channels.get_mut(&id) else {
            return Ok(false);
        };
        let credit = channel.send.available().min(PIECE);
        let mut sent = false;
        let result = match &mut channel.task {
            Task::Command(command) => {
                for stream in [Stream::Stdout, Stream::Stderr] {
                    let credit = channel.send.available().min(PIECE);
                    if credit == 0 {
                        break;
                    }
                    let length = command.read(stream, &mut buffer[..credit]);
                    if length > 0 {
                        channel.send.take(length);
                        let piece = &buffer[..length];
                        match stream {
                            Stream::Stdout => GuestMessage::Stdout(piece),
                            Stream::Stderr => GuestMessage::Stderr(piece),
                        }
                        .encode(id, out)?;
                        sent = true;
                    }
                }
                // The end of a command that has nothing more to say needs no turn of its own.
                loop {
                    match command.farewell() {
                        Some(News::Exited(status)) => {
                            GuestMessage::Exited(status).encode(id, out)?;
                        }
                        Some(_) => break Ok(true),
                        None => break Ok(false),
                    }
                }
            }
            Task::Reading(reading) if credit > 0 => match reading.read(&mut buffer[..credit]) {
                Ok(0) => Ok(true),
                Ok(length) => {
                    channel.send.take(length);
                    GuestMessage::Data(&buffer[..length]).encode(id, out)?;
                    sent = true;
                    Ok(false)
                }
                Err(failure) => Err(failure),
            },
            Task::Sending(sending) if credit > 0 => match sending.ready() {
                Ok([]) => Ok(true),
                Ok(ready) => {
                    let length = ready.len().min(credit);
                    GuestMessage::Data(&ready[..length]).encode(id, out)?;
                    channel.send.take(length);
                    sending.sent(length);
                    sent = true;
                    Ok(false)
                }
                Err(failure) => Err(failure),
            },
            Task::Removing(removing) => removing.advance(),
            _ => Ok(false),
        };
        match result {
            Ok(false) => {}
            Ok(true) => {
                self.channels.remove(&id);
                GuestMessage::Done.encode(id, out)?;
            }
            Err(failure) => self.fail(id, failure, out)?,
        }
        Ok(sent)
    }

    /// Collects children that have ended.
    fn reap(&mut self) {
        while let sys::Wait::Ended(status) = sys::reap_child() {
            // A reaper that was killed left its tree to this process.
            if status & 0x7f != 0 {
                self.strays = Some(Instant::now());
            }
        }
    }

    fn look_after_trees(&mut self) {
        const AGAIN: Duration = Duration::from_millis(2);
        let now = Instant::now();
        for channel in self.channels.values_mut() {
            if let Task::Command(command) = &mut channel.task {
                command.advance_killing(now);
            }
        }
        for command in &mut self.dying {
            command.advance_killing(now);
        }
        self.dying.retain(|command| command.report_fd().is_some());
        if self.strays.is_some_and(|due| due <= now) {
            let reapers: Vec<_> = self.commands().map(Command::reaper).collect();
            let found = process_tree::kill_below(own_pid(), &reapers);
            self.strays = (found > 0).then(|| Instant::now() + AGAIN);
        }
    }
}

fn own_pid() -> sys::Pid {
    sys::Pid::try_from(std::process::id()).unwrap_or(1)
}

fn too_long(error: ProtocolError) -> Failure {
    bad_request(&error.to_string())
}
