//! Commands of a sandbox in memory: a program's work as a stream of events, and the control of it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use cofferdam_sandbox::{
    ExecEvent, ExecRequest, ExitStatus, Process, ProcessControl, SandboxError, Signal,
    TerminalSize, exec::ExceededLimit,
};
use futures::stream;
use tokio::{sync::watch, time::Instant};

use super::{
    BACKEND, invalid,
    live::{CommandPlace, Live, check_variable, errno_text},
    program::{PIECE, Said, Work},
};
use crate::file_tree::errno::{E2BIG, EAGAIN, ENOTDIR};

/// The longest argument that Linux takes, its NUL left out.
const MAX_ARGUMENT: usize = 128 * 1024 - 1;

/// Bytes of standard input that wait to be read.
const STDIN_BYTES: usize = 64 * 1024;

/// Starts a command.
pub(super) async fn start(live: &Arc<Live>, request: ExecRequest) -> Result<Process, SandboxError> {
    let _place = live.enter().await?;
    let Some(program) = request.argv.first() else {
        return Err(invalid("a command needs a program".to_owned()));
    };
    if request.argv.iter().any(|argument| argument.contains(&0)) {
        return Err(invalid("an argument has a NUL byte".to_owned()));
    }
    let program = String::from_utf8_lossy(program).into_owned();
    let not_started = |errno| SandboxError::NotStarted {
        program: program.clone(),
        reason: errno_text(errno),
        errno,
    };
    let mut environment = live.environment.clone();
    for (name, value) in &request.environment {
        check_variable(name, value)?;
        environment.insert(name.clone(), value.clone());
    }
    if request.argv.iter().any(|argument| argument.len() > MAX_ARGUMENT) {
        return Err(not_started(E2BIG));
    }
    live.pause().await?;
    let directory = request.directory.as_str();
    let is_directory = live.tree().node(directory.as_bytes(), true).map(|node| node.is_directory());
    if !is_directory.map_err(not_started)? {
        return Err(not_started(ENOTDIR));
    }
    let work = Work::find(live, directory, &request.argv, &environment).map_err(not_started)?;
    if request.terminal.is_some() {
        return Err(SandboxError::Unsupported { backend: BACKEND, operation: "terminals" });
    }
    let place = live.start_command().ok_or_else(|| not_started(EAGAIN))?;
    let control = Arc::new(Control {
        live: Arc::clone(live),
        state: Mutex::new(State { open: request.stdin, ..State::default() }),
        writing: tokio::sync::Mutex::default(),
        changed: watch::Sender::new(()),
    });
    let running = Running {
        pid: Some(live.next_pid()),
        started: Instant::now(),
        output_left: live.limits.output_bytes,
        work,
        control: Arc::clone(&control),
        place,
        over: false,
    };
    // A caller that is dropped here drops the command with it.
    live.pause().await?;
    Ok(Process::new(Box::pin(stream::unfold(Some(running), Running::next)), control))
}

/// A command under way. Dropping it ends it.
struct Running {
    /// To be told first.
    pid: Option<u32>,
    started: Instant,
    output_left: u64,
    work: Work,
    control: Arc<Control>,
    place: CommandPlace,
    over: bool,
}

impl Running {
    /// The stream's next event, and what is left of the command; after `None` it must not be polled.
    async fn next(
        running: Option<Self>,
    ) -> Option<(Result<ExecEvent, SandboxError>, Option<Self>)> {
        let mut running = running.filter(|running| !running.over)?;
        let live = Arc::clone(&running.place.0);
        let event = tokio::select! {
            biased;
            error = live.lost() => Err(error),
            event = running.event() => Ok(event),
        };
        running.over = matches!(event, Err(_) | Ok(ExecEvent::Exited(_)));
        Some((event, Some(running)))
    }

    async fn event(&mut self) -> ExecEvent {
        tokio::task::yield_now().await;
        if let Some(pid) = self.pid.take() {
            return ExecEvent::Started { pid };
        }
        let mut changed = self.control.changed.subscribe();
        loop {
            let (signal, stopped) = {
                let state = self.control.state();
                (state.signal, state.stopped)
            };
            if let Some(signal) = signal {
                return ExecEvent::Exited(ExitStatus::Signal(signal));
            }
            let step = if stopped { Step::Wait(None) } else { self.step() };
            match step {
                Step::Event(event) => return self.bounded(event),
                Step::Wait(time) => {
                    let end = self.started + time.unwrap_or(Duration::from_secs(1 << 30));
                    tokio::select! {
                        // The sender is the control, which this command holds.
                        _ = changed.changed() => {}
                        () = tokio::time::sleep_until(end) => {}
                    }
                }
            }
        }
    }

    /// Does the next piece of the work.
    fn step(&mut self) -> Step {
        let exited = |code| Step::Event(ExecEvent::Exited(ExitStatus::Code(code)));
        match &mut self.work {
            Work::Say { said, code } => match said.front_mut() {
                None => exited(*code),
                Some(Said::Out(bytes) | Said::Err(bytes)) if bytes.is_empty() => {
                    said.pop_front();
                    self.step()
                }
                Some(Said::Out(bytes)) => Step::Event(ExecEvent::Stdout(piece(bytes))),
                Some(Said::Err(bytes)) => Step::Event(ExecEvent::Stderr(piece(bytes))),
            },
            Work::Zeros { left: 0 } => exited(0),
            Work::Zeros { left } => {
                const ZEROS: &[u8] = &[0; 1 << 20];
                let length = usize::try_from(*left).unwrap_or(ZEROS.len()).min(ZEROS.len());
                *left -= length as u64;
                Step::Event(ExecEvent::Stdout(Bytes::from_static(&ZEROS[..length])))
            }
            Work::Sleep { time } if self.started.elapsed() < *time => Step::Wait(Some(*time)),
            Work::Sleep { .. } => exited(0),
            Work::Echo => match self.control.read() {
                Some(bytes) if bytes.is_empty() => exited(0),
                Some(bytes) => Step::Event(ExecEvent::Stdout(bytes)),
                None => Step::Wait(None),
            },
            Work::Count { bytes } => match self.control.read() {
                Some(read) if read.is_empty() => {
                    let said = VecDeque::from([Said::Out(format!("{bytes}\n").into())]);
                    self.work = Work::Say { said, code: 0 };
                    self.step()
                }
                Some(read) => {
                    *bytes += read.len() as u64;
                    self.step()
                }
                None => Step::Wait(None),
            },
        }
    }

    /// Cuts output at the limit; the command ends when it goes beyond.
    fn bounded(&mut self, event: ExecEvent) -> ExecEvent {
        let length = match &event {
            ExecEvent::Stdout(bytes) | ExecEvent::Stderr(bytes) => bytes.len() as u64,
            _ => 0,
        };
        match self.output_left.checked_sub(length) {
            Some(left) => {
                self.output_left = left;
                event
            }
            None => ExecEvent::Exited(ExitStatus::Limit(ExceededLimit::Output)),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.control.state().ended = true;
        self.control.changed.send_replace(());
    }
}

enum Step {
    Event(ExecEvent),
    /// Until something changes, or so long after the start.
    Wait(Option<Duration>),
}

fn piece(bytes: &mut Bytes) -> Bytes {
    bytes.split_to(bytes.len().min(PIECE))
}

/// The handle of a command.
#[derive(Debug)]
struct Control {
    live: Arc<Live>,
    state: Mutex<State>,
    /// Held while standard input is written, so that pieces stay in order.
    writing: tokio::sync::Mutex<()>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    open: bool,
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    /// What ends the command at its next step.
    signal: Option<i32>,
    stopped: bool,
    ended: bool,
}

impl Control {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a piece of standard input; an empty one is the end, `None` means that nothing is there yet.
    fn read(&self) -> Option<Bytes> {
        let mut state = self.state();
        let piece = state.waiting.pop_front();
        state.waiting_bytes -= piece.as_ref().map_or(0, Bytes::len);
        let end = (!state.open).then(Bytes::new);
        drop(state);
        if piece.is_some() {
            self.changed.send_replace(());
        }
        piece.or(end)
    }

    /// Puts as much as there is room for; returns whether nothing is left to do.
    fn put(&self, bytes: &mut Bytes) -> Result<bool, SandboxError> {
        let mut state = self.state();
        if !state.open {
            return Err(SandboxError::StdinClosed);
        }
        if state.ended || state.signal.is_some() {
            return Ok(true);
        }
        let length = bytes.len().min(STDIN_BYTES - state.waiting_bytes);
        if length > 0 {
            let piece = bytes.split_to(length);
            state.waiting_bytes += length;
            state.waiting.push_back(piece);
            self.changed.send_replace(());
        }
        Ok(!bytes.has_remaining())
    }

    async fn paused(&self, change: impl FnOnce(&mut State) + Send) -> Result<(), SandboxError> {
        self.live.pause().await?;
        change(&mut self.state());
        self.changed.send_replace(());
        self.live.pause().await
    }
}

#[async_trait]
impl ProcessControl for Control {
    async fn write_stdin(&self, mut bytes: Bytes) -> Result<(), SandboxError> {
        let _turn = self.writing.lock().await;
        self.live.pause().await?;
        let mut changed = self.changed.subscribe();
        while !self.put(&mut bytes)? {
            tokio::select! {
                biased;
                error = self.live.lost() => return Err(error),
                // The sender is this control.
                _ = changed.changed() => {}
            }
        }
        self.live.pause().await
    }

    async fn close_stdin(&self) -> Result<(), SandboxError> {
        self.paused(|state| state.open = false).await
    }

    async fn signal(&self, signal: Signal) -> Result<(), SandboxError> {
        self.paused(|state| match signal.0 {
            17 | 23 | 28 => {}
            18 => state.stopped = false,
            19..=22 => state.stopped = true,
            number @ 1..=64 => state.signal = state.signal.or(Some(number)),
            _ => {}
        })
        .await
    }

    async fn kill_tree(&self) -> Result<(), SandboxError> {
        self.paused(|state| state.signal = Some(9)).await
    }

    async fn resize(&self, _size: TerminalSize) -> Result<(), SandboxError> {
        self.paused(|_| {}).await
    }
}
