//! One command: its pipes or terminal, its reaper, and the order in which the host hears of it.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};

use cofferdam_guest::{Exec, ExitStatus, Failure, TerminalSize};

use crate::{
    outcome::{Outcome, bad_request, refused},
    process_tree,
    reaper::{Descriptors, Plan, Reaper, Report},
    sys,
    workspace::{Workspace, c_string},
};

/// How long a terminal may still show what an ended command wrote.
const TERMINAL_GRACE: Duration = Duration::from_millis(50);

/// Where programs are looked up when the command has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/usr/bin:/bin";

/// A started command.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) exec_id: Vec<u8>,
    reaper: Reaper,
    command: Option<sys::Pid>,
    program: Vec<u8>,
    /// The pipe from the reaper; `None` when the reaper is gone, so that nothing of the tree is left.
    report: Option<File>,
    stdin: Stdin,
    stdout: Output,
    stderr: Output,
    terminal: Option<File>,
    exit: Option<Exit>,
    killing: Option<Instant>,
}

#[derive(Debug)]
struct Exit {
    status: ExitStatus,
    at: Instant,
    /// Whether a terminal may still show something. Changed by [`Command::advance_patience`] alone and not by the clock, so
    /// that no end is missed between a look and the wait that follows it.
    patient: bool,
}

#[derive(Debug)]
struct Stdin {
    file: Option<File>,
    buffer: Vec<u8>,
    end: bool,
}

#[derive(Debug)]
struct Output {
    file: Option<File>,
    /// What the command itself had left in the pipe when it ended; background processes may add more.
    left_at_exit: Option<u64>,
    dry: bool,
}

/// One of the two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(crate) const BOTH: [Self; 2] = [Self::Stdout, Self::Stderr];
}

impl Command {
    /// Starts a command. Whether it could be executed is told later by [`Command::hear`].
    pub(crate) fn start(workspace: &Workspace, request: Exec) -> Outcome<Self> {
        let Some(program) = request.argv.first().filter(|program| !program.is_empty()).cloned()
        else {
            return Err(bad_request("a command needs a program"));
        };
        let exec_id = request.exec_id.clone();
        let directory = workspace
            .open_as(&request.directory, sys::O_PATH | sys::O_DIRECTORY, 0)
            .map_err(refused("enter working directory", &request.directory))?;
        let mut started =
            Self::launch(request, &program, directory).map_err(refused("start", &program))?;
        started.exec_id = exec_id;
        Ok(started)
    }

    fn launch(request: Exec, program: &[u8], directory: OwnedFd) -> io::Result<Self> {
        let environment = request
            .environment
            .iter()
            .map(|(name, value)| c_string(&[name.as_slice(), b"=", value].concat()))
            .collect::<io::Result<Vec<_>>>()?;
        let programs = candidates(program, &request.environment)?;
        let argv = request
            .argv
            .iter()
            .map(|argument| c_string(argument))
            .collect::<io::Result<Vec<_>>>()?;
        let (report, report_end) = sys::pipe()?;
        let ends = match request.terminal {
            Some(size) => Ends::terminal(size)?,
            None => Ends::pipes(request.stdin)?,
        };
        let plan = Plan {
            programs,
            argv: sys::StringList::new(argv),
            environment: sys::StringList::new(environment),
            terminal: request.terminal.is_some(),
            limits: request.resource_limits,
        };
        let descriptors = Descriptors { stdio: ends.command, directory, report: report_end };
        for fd in [&ends.stdin, &ends.stdout, &ends.stderr].into_iter().flatten() {
            sys::set_nonblocking(fd.as_fd())?;
        }
        sys::set_nonblocking(report.as_fd())?;
        // Last, since nothing may fail once it lives.
        let reaper = Reaper::start(plan, &descriptors)?;
        Ok(Self {
            exec_id: Vec::new(),
            reaper,
            command: None,
            program: program.to_vec(),
            report: Some(File::from(report)),
            stdin: Stdin { file: ends.stdin.map(File::from), buffer: Vec::new(), end: false },
            stdout: Output::new(ends.stdout),
            stderr: Output::new(ends.stderr),
            terminal: ends.terminal.map(File::from),
            exit: None,
            killing: None,
        })
    }

    pub(crate) fn reaper(&self) -> sys::Pid {
        self.reaper.pid
    }

    // What the server polls.

    pub(crate) fn report_fd(&self) -> Option<RawFd> {
        self.report.as_ref().map(AsRawFd::as_raw_fd)
    }

    pub(crate) fn stdin_fd(&self) -> Option<RawFd> {
        let wanted = !self.stdin.buffer.is_empty();
        self.stdin.file.as_ref().filter(|_| wanted).map(AsRawFd::as_raw_fd)
    }

    pub(crate) fn output_fd(&self, stream: Stream) -> Option<RawFd> {
        self.output(stream).file.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn output(&self, stream: Stream) -> &Output {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }

    /// Returns when the server must look at this command again even if no descriptor is ready.
    pub(crate) fn due(&self) -> Option<Instant> {
        // Once the grace is over, only what can be read holds the end up: that needs no clock.
        let grace =
            self.exit.as_ref().filter(|exit| exit.patient).map(|exit| exit.at + TERMINAL_GRACE);
        [self.killing, grace].into_iter().flatten().min()
    }

    // What the host asks.

    /// Returns the bytes for standard input that it has not taken yet.
    pub(crate) fn stdin_held(&self) -> usize {
        self.stdin.buffer.len()
    }

    /// Takes bytes for standard input; if it is closed they are dropped.
    pub(crate) fn take_stdin(&mut self, bytes: &[u8]) {
        if self.stdin.file.is_some() && !self.stdin.end {
            self.stdin.buffer.extend_from_slice(bytes);
        }
    }

    pub(crate) fn end_stdin(&mut self) {
        if self.terminal.is_some() {
            // What Ctrl-D sends; the terminal itself stays open.
            self.stdin.buffer.push(4);
        } else {
            self.stdin.end = true;
        }
    }

    /// Writes what standard input takes; returns how many bytes are no longer held.
    pub(crate) fn feed_stdin(&mut self) -> usize {
        let mut written = 0;
        if let Some(file) = &mut self.stdin.file {
            while written < self.stdin.buffer.len() {
                match file.write(&self.stdin.buffer[written..]) {
                    Ok(length) => written += length,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // Nobody reads it any more: the rest goes nowhere, as into a closed pipe.
                    Err(_) => {
                        written = self.stdin.buffer.len();
                        self.stdin.file = None;
                        break;
                    }
                }
            }
        }
        self.stdin.buffer.drain(..written);
        if self.stdin.end && self.stdin.buffer.is_empty() {
            self.stdin.file = None;
        }
        written
    }

    /// Signals the command's process group; nothing happens once the command has ended.
    pub(crate) fn signal(&self, number: i32) {
        if let (Some(command), None) = (self.command, &self.exit) {
            // The session that it leads has its number, so the group cannot be another one.
            let _ = sys::send_signal(-command, number);
        }
    }

    pub(crate) fn resize(&self, size: TerminalSize) {
        if let Some(terminal) = &self.terminal {
            // A terminal that is gone has no size.
            let _ = sys::set_terminal_size(terminal.as_fd(), size.rows, size.columns);
        }
    }

    /// Starts to kill the tree; [`Command::advance_killing`] goes on until nothing is left.
    pub(crate) fn kill_tree(&mut self) {
        if self.report.is_some() && self.killing.is_none() {
            self.killing = Some(Instant::now());
        }
    }

    pub(crate) fn advance_killing(&mut self, now: Instant) {
        const AGAIN: Duration = Duration::from_millis(2);
        if self.report.is_none() {
            self.killing = None;
        } else if self.killing.is_some_and(|due| due <= now) {
            // Where no process can be seen, its group is what is known of it.
            if process_tree::kill_below(self.reaper.pid, &[]) == 0 {
                self.signal(sys::SIGKILL);
            }
            self.killing = Some(Instant::now() + AGAIN);
        }
    }

    /// Stops listening to the command's outputs.
    pub(crate) fn close_pipes(&mut self) {
        self.stdin.file = None;
        self.stdin.buffer = Vec::new();
        self.stdout.file = None;
        self.stderr.file = None;
        self.terminal = None;
    }

    // What the host hears.

    /// Reads what the reaper reports; returns why the command could not be started, if that is it.
    pub(crate) fn hear(&mut self) -> Option<Failure> {
        let mut bytes = [0; Report::LENGTH];
        match self.report.as_mut()?.read(&mut bytes) {
            Ok(Report::LENGTH) => match Report::from_bytes(bytes) {
                Report::Started(pid) => self.command = Some(pid),
                Report::Failed(errno) => {
                    self.close_pipes();
                    return Some(refused("start", &self.program)(sys::error(errno)));
                }
                Report::Ended(status) => self.ended(exit_status(status)),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The reaper is gone. If it said nothing of an end, somebody killed it.
            _ => {
                self.report = None;
                self.reaper.free();
                self.ended(ExitStatus::Signal(sys::SIGKILL));
                // The command may have killed it before it could tell the number. It ran, so that is what the host
                // hears, with a number that no process has; nothing is sent to it, since it has ended.
                self.command.get_or_insert(0);
            }
        }
        None
    }

    /// Returns the command's number in the box, once it is known.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.command.map(|pid| u32::try_from(pid).unwrap_or(0))
    }

    fn ended(&mut self, status: ExitStatus) {
        if self.exit.is_some() {
            return;
        }
        let patient = self.terminal.is_some();
        self.exit = Some(Exit { status, at: Instant::now(), patient });
        for output in [&mut self.stdout, &mut self.stderr] {
            output.note_left();
        }
    }

    /// Reads a piece of an output; 0 means that nothing is there now.
    pub(crate) fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> usize {
        let output = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        output.read(buffer)
    }

    /// Waits no longer for a terminal whose command ended long enough ago.
    pub(crate) fn advance_patience(&mut self, now: Instant) {
        if let Some(exit) = &mut self.exit {
            exit.patient &= now < exit.at + TERMINAL_GRACE;
        }
    }

    /// Returns how the command ended, once all that it had written itself was read.
    pub(crate) fn exited(&self) -> Option<ExitStatus> {
        let exit = self.exit.as_ref()?;
        let drained = |output: &Output| output.drained(exit.patient);
        (drained(&self.stdout) && drained(&self.stderr)).then_some(exit.status)
    }

    /// Returns how the command ended, even if there is more to read.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        self.exit.as_ref().map(|exit| exit.status)
    }

    /// Returns whether nothing of the tree is left and all output was read.
    pub(crate) fn finished(&mut self) -> bool {
        if self.report.is_some() || self.exited().is_none() {
            return false;
        }
        // The pipe may live on in a process that received it from the tree; that is not awaited.
        for output in [&mut self.stdout, &mut self.stderr] {
            if output.file.is_some() && output.drained(false) {
                output.note_left();
                if output.drained(false) {
                    output.file = None;
                }
            }
        }
        self.stdout.file.is_none() && self.stderr.file.is_none()
    }
}

impl Output {
    fn new(end: Option<OwnedFd>) -> Self {
        Self { file: end.map(File::from), left_at_exit: None, dry: false }
    }

    fn note_left(&mut self) {
        self.dry = false;
        self.left_at_exit =
            self.file.as_ref().map(|file| sys::readable_bytes(file.as_fd()).unwrap_or(0));
    }

    /// Returns whether all that the ended command wrote was read. A terminal passes bytes on with some delay, so with
    /// `patient` only its end counts.
    fn drained(&self, patient: bool) -> bool {
        self.file.is_none() || (!patient && (self.dry || self.left_at_exit == Some(0)))
    }

    fn read(&mut self, buffer: &mut [u8]) -> usize {
        let Some(file) = &mut self.file else {
            return 0;
        };
        match file.read(buffer) {
            Ok(length) if length > 0 => {
                self.dry = false;
                if let Some(left) = &mut self.left_at_exit {
                    *left = left.saturating_sub(length as u64);
                }
                length
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.dry = true;
                0
            }
            // The end; a terminal that nobody holds open any more answers with an error.
            _ => {
                self.file = None;
                0
            }
        }
    }
}

/// Both sides of a command's standard descriptors.
struct Ends {
    command: [OwnedFd; 3],
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
}

impl Ends {
    fn pipes(stdin: bool) -> io::Result<Self> {
        let (command_stdin, our_stdin) = if stdin {
            let (reading, writing) = sys::pipe()?;
            (reading, Some(writing))
        } else {
            (sys::open_path(c"/dev/null", sys::O_RDONLY)?, None)
        };
        let (stdout, command_stdout) = sys::pipe()?;
        let (stderr, command_stderr) = sys::pipe()?;
        Ok(Self {
            command: [command_stdin, command_stdout, command_stderr],
            stdin: our_stdin,
            stdout: Some(stdout),
            stderr: Some(stderr),
            terminal: None,
        })
    }

    fn terminal(size: TerminalSize) -> io::Result<Self> {
        let (controller, peer) = sys::open_terminal()?;
        sys::set_terminal_size(controller.as_fd(), size.rows, size.columns)?;
        Ok(Self {
            command: [peer.try_clone()?, peer.try_clone()?, peer],
            stdin: Some(controller.try_clone()?),
            stdout: Some(controller.try_clone()?),
            stderr: None,
            terminal: Some(controller),
        })
    }
}

/// Returns the paths at which a program may be: itself if it has a `/`, else in each directory of `PATH`.
fn candidates(program: &[u8], environment: &[(Vec<u8>, Vec<u8>)]) -> io::Result<Vec<CString>> {
    if program.contains(&b'/') {
        return Ok(vec![c_string(program)?]);
    }
    let path = environment
        .iter()
        .find(|(name, _)| name == b"PATH")
        .map_or(DEFAULT_PATH, |(_, value)| value);
    path.split(|&byte| byte == b':')
        .filter(|directory| !directory.is_empty())
        .map(|directory| c_string(&[directory, b"/", program].concat()))
        .collect()
}

/// Reads a raw status of `wait`.
fn exit_status(status: i32) -> ExitStatus {
    match status & 0x7f {
        0 => ExitStatus::Code((status >> 8) & 0xff),
        signal => ExitStatus::Signal(signal),
    }
}
