//! [`ScriptedCommand`]: what one command is to be, and what it does then.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_sandbox::{
    ExecEvent, ExecRequest, ExitStatus, LossReason, Process, ProcessControl, SandboxError, Signal,
    TerminalSize,
};
use futures::{StreamExt, stream};
use tokio::{sync::Notify, time::sleep};

use super::Log;

/// A command that is to come, and its steps.
///
/// The steps are taken in order. A command whose steps do not say how it ends runs until it is killed.
#[derive(Debug, Clone)]
pub struct ScriptedCommand {
    argv: Vec<String>,
    directory: String,
    is_terminal: bool,
    environment: Option<BTreeMap<String, String>>,
    refusal: Option<i32>,
    steps: VecDeque<Step>,
}

#[derive(Debug, Clone)]
enum Step {
    After(Duration),
    Event(ExecEvent),
    /// Wait until exactly this was written.
    Stdin(Vec<u8>),
    Signal(Signal),
    /// Lives on after the exit, as a background process does.
    Linger,
    Lost,
}

impl ScriptedCommand {
    /// Expects a program with arguments, in the workspace, without terminal.
    pub fn new<I, A>(argv: I) -> Self
    where
        I: IntoIterator<Item = A>,
        A: Into<String>,
    {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            directory: ".".into(),
            is_terminal: false,
            environment: None,
            refusal: None,
            steps: VecDeque::new(),
        }
    }

    /// Expects this working directory.
    #[must_use]
    pub fn directory(mut self, directory: &str) -> Self {
        self.directory = directory.into();
        self
    }

    /// Expects a terminal.
    #[must_use]
    pub fn terminal(mut self) -> Self {
        self.is_terminal = true;
        self
    }

    /// Expects exactly these variables; otherwise they are not looked at.
    #[must_use]
    pub fn environment<'a>(
        mut self,
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        self.environment = Some(variables.into_iter().map(own).collect());
        self
    }

    /// Is not started, for the reason that has this error number.
    #[must_use]
    pub fn not_started(mut self, errno: i32) -> Self {
        self.refusal = Some(errno);
        self
    }

    /// Waits, on the runtime's clock.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        self.step(Step::After(time))
    }

    /// Writes to standard output.
    #[must_use]
    pub fn stdout(self, bytes: impl Into<Bytes>) -> Self {
        self.step(Step::Event(ExecEvent::Stdout(bytes.into())))
    }

    /// Writes to standard error.
    #[must_use]
    pub fn stderr(self, bytes: impl Into<Bytes>) -> Self {
        self.step(Step::Event(ExecEvent::Stderr(bytes.into())))
    }

    /// Waits until exactly this has been written to standard input. Writing anything else is a fault.
    #[must_use]
    pub fn expect_stdin(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(Step::Stdin(bytes.into()))
    }

    /// Waits for a signal. Another signal, or one at another time, is a fault.
    #[must_use]
    pub fn expect_signal(self, signal: Signal) -> Self {
        self.step(Step::Signal(signal))
    }

    /// Ends with a code.
    #[must_use]
    pub fn exit(self, code: i32) -> Self {
        self.ends(ExitStatus::Code(code))
    }

    /// Ends in this way.
    #[must_use]
    pub fn ends(self, status: ExitStatus) -> Self {
        self.step(Step::Event(ExecEvent::Exited(status)))
    }

    /// Leaves a background process that lives until it is killed.
    #[must_use]
    pub fn lingers(self) -> Self {
        self.step(Step::Linger)
    }

    /// The sandbox is lost at this point.
    #[must_use]
    pub fn lost(self) -> Self {
        self.step(Step::Lost)
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push_back(step);
        self
    }

    /// Says how a request differs from what was expected.
    pub(super) fn difference(&self, request: &ExecRequest) -> Option<String> {
        let environment = self.environment.clone().unwrap_or_else(|| request.environment.clone());
        let same = request.argv.iter().eq(self.argv.iter().map(|argument| argument.as_bytes()))
            && request.directory.as_str() == self.directory
            && request.terminal.is_some() == self.is_terminal
            && request.stdin == self.is_terminal
            && request.environment == environment;
        if same {
            return None;
        }
        let expected = match &self.environment {
            Some(environment) => format!("{self} with {environment:?}"),
            None => self.to_string(),
        };
        Some(format!("expected {expected}, but {} came", describe(request)))
    }

    pub(super) fn refusal(&self, request: &ExecRequest) -> Option<SandboxError> {
        let errno = self.refusal?;
        let program =
            request.argv.first().map(|program| String::from_utf8_lossy(program).into_owned());
        Some(SandboxError::NotStarted {
            program: program.unwrap_or_default(),
            reason: std::io::Error::from_raw_os_error(errno).to_string(),
            errno,
        })
    }
}

impl fmt::Display for ScriptedCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terminal = if self.is_terminal { " on a terminal" } else { "" };
        write!(f, "{:?} in {:?}{terminal}", self.argv, self.directory)
    }
}

/// Describes a request in the same words as a scripted command.
pub(super) fn describe(request: &ExecRequest) -> String {
    let argv: Vec<_> =
        request.argv.iter().map(|argument| String::from_utf8_lossy(argument)).collect();
    let terminal = if request.terminal.is_some() { " on a terminal" } else { "" };
    let stdin = if request.stdin { " with open standard input" } else { "" };
    format!("{argv:?} in {:?}{terminal}{stdin} with {:?}", request.directory, request.environment)
}

/// A command that runs.
#[derive(Debug)]
pub(super) struct Running {
    pid: u32,
    is_terminal: bool,
    state: Mutex<RunningState>,
    changed: Notify,
    log: Arc<Log>,
}

#[derive(Debug)]
struct RunningState {
    steps: VecDeque<Step>,
    written: Vec<u8>,
    signal: Option<Signal>,
    is_killed: bool,
    exited: bool,
    ended: bool,
}

impl Running {
    pub(super) fn start(command: ScriptedCommand, pid: u32, log: Arc<Log>) -> Process {
        let mut steps = command.steps;
        steps.push_front(Step::Event(ExecEvent::Started { pid }));
        let running = Arc::new(Self {
            pid,
            is_terminal: command.is_terminal,
            state: Mutex::new(RunningState {
                steps,
                written: Vec::new(),
                signal: None,
                is_killed: false,
                exited: false,
                ended: false,
            }),
            changed: Notify::new(),
            log,
        });
        let guard = KillOnDrop(Arc::clone(&running));
        let events = stream::unfold(guard, |guard| async move {
            let event = guard.0.next().await?;
            Some((event, guard))
        });
        Process::new(events.boxed(), running)
    }

    fn lock(&self) -> MutexGuard<'_, RunningState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn next(&self) -> Option<Result<ExecEvent, SandboxError>> {
        loop {
            let changed = self.changed.notified();
            let pause = {
                let mut state = self.lock();
                if state.is_killed {
                    let has_told = std::mem::replace(&mut state.exited, true);
                    state.ended = true;
                    return (!has_told).then_some(Ok(ExecEvent::Exited(ExitStatus::Signal(9))));
                }
                match state.steps.front().cloned() {
                    None if state.exited => {
                        state.ended = true;
                        return None;
                    }
                    None | Some(Step::Linger) => None,
                    Some(Step::Event(event)) => {
                        state.steps.pop_front();
                        state.exited |= matches!(event, ExecEvent::Exited(_));
                        // With nothing left behind there is nothing to kill.
                        state.ended = state.exited && state.steps.is_empty();
                        return Some(Ok(event));
                    }
                    Some(Step::Lost) => {
                        state.steps.clear();
                        state.exited = true;
                        let detail = "scripted".to_owned();
                        return Some(Err(SandboxError::Lost {
                            reason: LossReason::StreamBroken { detail },
                        }));
                    }
                    Some(Step::After(time)) => Some(time),
                    Some(Step::Stdin(bytes)) if state.written == bytes => {
                        state.written.clear();
                        state.steps.pop_front();
                        continue;
                    }
                    Some(Step::Signal(signal)) if state.signal == Some(signal) => {
                        state.signal = None;
                        state.steps.pop_front();
                        continue;
                    }
                    Some(Step::Stdin(_) | Step::Signal(_)) => None,
                }
            };
            match pause {
                Some(time) => tokio::select! {
                    () = changed => {}
                    () = sleep(time) => {
                        self.lock().steps.pop_front();
                    }
                },
                None => changed.await,
            }
        }
    }

    fn kill(&self) {
        let mut state = self.lock();
        if !state.ended && !state.is_killed {
            state.is_killed = true;
            self.log.lock().killed.push(self.pid);
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

struct KillOnDrop(Arc<Running>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill();
        let state = self.0.lock();
        if !state.written.is_empty() {
            let written = String::from_utf8_lossy(&state.written);
            self.0
                .log
                .fault(format!("command {} did not expect to be sent {written:?}", self.0.pid));
        }
    }
}

#[async_trait]
impl ProcessControl for Running {
    async fn write_stdin(&self, bytes: Bytes) -> Result<(), SandboxError> {
        let mut state = self.lock();
        if !self.is_terminal || state.exited {
            return Err(SandboxError::StdinClosed);
        }
        state.written.extend_from_slice(&bytes);
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    async fn close_stdin(&self) -> Result<(), SandboxError> {
        Ok(())
    }

    async fn signal(&self, signal: Signal) -> Result<(), SandboxError> {
        let mut state = self.lock();
        if state.exited {
            return Ok(());
        }
        match state.steps.front() {
            Some(Step::Signal(expected)) if *expected == signal => state.signal = Some(signal),
            _ => self.log.fault(format!("command {} did not expect {signal:?}", self.pid)),
        }
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    async fn kill_tree(&self) -> Result<(), SandboxError> {
        self.kill();
        Ok(())
    }

    async fn resize(&self, _: TerminalSize) -> Result<(), SandboxError> {
        Ok(())
    }
}
