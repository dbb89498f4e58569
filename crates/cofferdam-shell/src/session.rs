//! [`Session`]: one running command, read by a task of its own into bounded memory.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cofferdam_core::{SandboxId, StepId};
use cofferdam_sandbox::{ExecEvent, ExitStatus, OutputPosition, ProcessControl, SandboxError};
use cofferdam_tool::{ToolContext, ToolProgress};
use futures::StreamExt;
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use crate::{
    commands::Command,
    options::ShellOptions,
    output_buffer::{BufferLimits, OutputBuffer},
    truncate::OutputText,
};

/// How long the end of the output is awaited after a command has ended, before what holds its pipes counts as a
/// background process.
const END_GRACE: Duration = Duration::from_millis(50);

/// A command that was started. Dropping the last handle kills it with all its descendants, unless it is left.
///
/// The output is drained even if nobody asks for it, so that a forgotten command is not stopped at a full pipe; it costs
/// the memory of one buffer, and the sandbox's output limit ends one that prints forever.
#[derive(Debug)]
pub(crate) struct Session {
    control: Arc<dyn ProcessControl>,
    name: Option<String>,
    sandbox: SandboxId,
    has_terminal: bool,
    is_left: Arc<AtomicBool>,
    shared: Arc<Shared>,
    /// Ending the task drops the process, which kills its tree.
    reader: AbortHandle,
    idle: BufferLimits,
    attached: BufferLimits,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    buffer: OutputBuffer,
    /// All output that has come, what was there before this process came included.
    received: OutputPosition,
    /// The output of it that was taken.
    taken: OutputPosition,
    /// The last output that came was standard error.
    is_stderr_last: bool,
    exit: Option<ExitStatus>,
    /// A call has said that the command ended and its background processes live on: later ones wait for those.
    is_exit_told: bool,
    /// No more output can come, and nothing of the command is left.
    ended: bool,
    failure: Option<SandboxError>,
    watcher: Option<(StepId, Arc<dyn ToolProgress>)>,
}

/// Why a wait is over.
#[derive(Debug)]
pub(crate) enum Waited {
    /// The command has ended and nothing of it is left.
    Ended(ExitStatus),
    /// The command has ended and left background processes.
    Background(ExitStatus),
    /// The command still runs.
    Running,
    /// The run was cancelled.
    Cancelled,
    /// The sandbox failed.
    Failed(SandboxError),
}

impl Session {
    /// Takes over a command and reads it from now on.
    pub(crate) fn start(
        command: Command,
        sandbox: SandboxId,
        has_terminal: bool,
        options: &ShellOptions,
    ) -> Self {
        Self::resume(command, sandbox, has_terminal, OutputPosition::default(), options)
    }

    /// As [`Session::start`], with a command whose output up to a position was taken before and does not come again.
    pub(crate) fn resume(
        command: Command,
        sandbox: SandboxId,
        has_terminal: bool,
        taken: OutputPosition,
        options: &ShellOptions,
    ) -> Self {
        let idle = BufferLimits::halves_of(options.max_session_bytes);
        let attached = BufferLimits::halves_of(options.max_call_bytes);
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                buffer: OutputBuffer::new(idle),
                received: taken,
                taken,
                is_stderr_last: false,
                exit: None,
                is_exit_told: false,
                ended: false,
                failure: None,
                watcher: None,
            }),
            changed: Notify::new(),
        });
        let (control, name) = (command.control(), command.name().map(str::to_owned));
        let is_left = command.left();
        let reader = tokio::spawn(read(command, Arc::clone(&shared))).abort_handle();
        Self { control, name, sandbox, has_terminal, is_left, shared, reader, idle, attached }
    }

    pub(crate) fn control(&self) -> &dyn ProcessControl {
        &*self.control
    }

    /// The name by which the sandbox finds the command again.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The sandbox that it runs in.
    pub(crate) fn sandbox(&self) -> &SandboxId {
        &self.sandbox
    }

    pub(crate) fn has_terminal(&self) -> bool {
        self.has_terminal
    }

    /// Lets the command live on when this is dropped, where the sandbox can find it again.
    pub(crate) fn leave(&self) {
        self.is_left.store(true, Ordering::Release);
    }

    /// Returns true once nothing of the command is left.
    pub(crate) fn has_ended(&self) -> bool {
        self.shared.lock().ended
    }

    /// Returns how the command itself ended, if it has.
    pub(crate) fn exit(&self) -> Option<ExitStatus> {
        self.shared.lock().exit
    }

    /// Gives a call the larger buffer and shows output to its watcher until the guard is dropped.
    pub(crate) fn attach(&self, context: &ToolContext) -> Attached<'_> {
        let mut state = self.shared.lock();
        state.buffer.set_limits(self.attached);
        state.watcher = context.progress.clone().map(|watcher| (context.step, watcher));
        Attached(self)
    }

    /// Waits for the command's end, at most until a deadline.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect on the command.
    pub(crate) async fn wait(&self, deadline: Instant, context: &ToolContext) -> Waited {
        let mut deadline = deadline;
        let mut is_short = false;
        loop {
            let changed = self.shared.changed.notified();
            {
                let mut state = self.shared.lock();
                match (state.ended, state.exit) {
                    (true, Some(exit)) => return Waited::Ended(exit),
                    (true, None) => return Waited::Failed(state.take_failure()),
                    (false, Some(_)) if !is_short && !state.is_exit_told => {
                        is_short = true;
                        deadline = Instant::now() + END_GRACE;
                    }
                    (false, _) => {}
                }
            }
            tokio::select! {
                biased;
                () = context.cancel.cancelled() => return Waited::Cancelled,
                () = changed => {}
                () = sleep_until(deadline) => {
                    let mut state = self.shared.lock();
                    state.is_exit_told = state.exit.is_some();
                    return state.exit.map_or(Waited::Running, Waited::Background);
                }
            }
        }
    }

    /// Takes the output that has come since the last time.
    pub(crate) fn take_output(&self) -> OutputText {
        let mut state = self.shared.lock();
        let at_end = state.ended;
        let taken = state.buffer.take(at_end);
        // The first bytes of a character stay: whoever reads on begins with them.
        let kept = state.buffer.waiting_bytes();
        state.taken = state.received;
        let stream =
            if state.is_stderr_last { &mut state.taken.stderr } else { &mut state.taken.stdout };
        *stream = stream.saturating_sub(kept);
        taken
    }

    /// Returns up to where the output was taken.
    pub(crate) fn taken(&self) -> OutputPosition {
        self.shared.lock().taken
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// A call that waits for a session.
#[derive(Debug)]
pub(crate) struct Attached<'a>(&'a Session);

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        let mut state = self.0.shared.lock();
        state.buffer.set_limits(self.0.idle);
        state.watcher = None;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between statements, so a panic elsewhere does not make it unusable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn output(&self, bytes: &[u8], is_stderr: bool) {
        let watcher = {
            let mut state = self.lock();
            state.receive(bytes.len() as u64, is_stderr);
            state.buffer.push(bytes);
            state.watcher.clone()
        };
        if let Some((step, watcher)) = watcher {
            watcher.output(step, bytes);
        }
    }
}

impl State {
    fn receive(&mut self, bytes: u64, is_stderr: bool) {
        self.is_stderr_last = is_stderr;
        let received = &mut self.received;
        let stream = if is_stderr { &mut received.stderr } else { &mut received.stdout };
        *stream = stream.saturating_add(bytes);
    }

    /// The failure is told once; a later call hears that the session is over.
    fn take_failure(&mut self) -> SandboxError {
        self.failure.take().unwrap_or_else(|| SandboxError::Protocol {
            detail: "a command's events ended without its end".into(),
        })
    }
}

async fn read(mut command: Command, shared: Arc<Shared>) {
    while let Some(event) = command.next().await {
        match event {
            Ok(ExecEvent::Stdout(bytes)) => shared.output(&bytes, false),
            Ok(ExecEvent::Stderr(bytes)) => shared.output(&bytes, true),
            Ok(ExecEvent::OutputLost { stdout, stderr }) => {
                let mut state = shared.lock();
                state.receive(stdout, false);
                state.receive(stderr, true);
                state.buffer.lose(stdout.saturating_add(stderr));
            }
            Ok(ExecEvent::Exited(status)) => {
                shared.lock().exit = Some(status);
                shared.changed.notify_waiters();
            }
            Ok(_) => {}
            Err(error) => {
                shared.lock().failure = Some(error);
                break;
            }
        }
    }
    shared.lock().ended = true;
    shared.changed.notify_waiters();
}
