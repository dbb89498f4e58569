//! The names of commands in the sandbox, by which they are found again, and what holds a named command.
//!
//! A call's command is named by the call's idempotency key. If the harness dies, the command goes on for as long as the sandbox
//! lingers, and the next harness joins it by that name: it hears what the command really wrote and how it ended. A name is
//! given up when the result of its call is durable.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use cofferdam_sandbox::{ExecEvent, Process, ProcessControl, Sandbox, SandboxError};
use cofferdam_tool::ToolContext;
use futures::{Stream, StreamExt};

/// Longer keys name no command: with what is added to them they would not be names any more.
const MAX_KEY_BYTES: usize = 200;
/// Calls whose names are kept in mind; the oldest is dropped beyond, and the sandbox forgets its commands by itself.
const MAX_CALLS: usize = 256;
/// How long the end of a killed command is awaited, so that the sandbox keeps how it ended.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Returns the name of a call's command; `None` if the sandbox finds no commands again.
pub(crate) fn command_name(sandbox: &dyn Sandbox, context: &ToolContext) -> Option<String> {
    let key = &context.idempotency_key;
    (sandbox.sessions().is_some() && key.len() <= MAX_KEY_BYTES).then(|| key.to_string())
}

/// The names that are in use, by call.
#[derive(Debug, Default)]
pub(crate) struct Names(Mutex<BTreeMap<Arc<str>, Vec<String>>>);

impl Names {
    /// Notes a name that a call is done with when its result is durable.
    pub(crate) fn note(&self, context: &ToolContext, name: &str) {
        let mut names = self.lock();
        while names.len() >= MAX_CALLS && !names.contains_key(&context.idempotency_key) {
            names.pop_first();
        }
        names.entry(Arc::clone(&context.idempotency_key)).or_default().push(name.to_owned());
    }

    /// Gives up the names of a call.
    pub(crate) async fn forget(&self, sandbox: &dyn Sandbox, context: &ToolContext) {
        let names = self.lock().remove(&context.idempotency_key).unwrap_or_default();
        let Some(sessions) = sandbox.sessions() else { return };
        for name in names {
            // One that still runs keeps its name; the call that hears its end gives it up.
            let _ = sessions.forget(&name).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Vec<String>>> {
        // A panic elsewhere cannot leave the map half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A command that may have a name. Dropping it kills the command with all its descendants, unless it is left.
///
/// A named one is killed and then heard to its end, so that the sandbox knows how it ended: whoever asks for it later is told
/// that it was killed, and not that there never was such a command.
#[derive(Debug)]
pub(crate) struct Command {
    process: Option<Process>,
    control: Arc<dyn ProcessControl>,
    name: Option<String>,
    is_left: Arc<AtomicBool>,
}

impl Command {
    pub(crate) fn new(process: Process, name: Option<String>) -> Self {
        let is_left = Arc::default();
        Self { control: process.control(), process: Some(process), name, is_left }
    }

    /// Returns what, once set, leaves a named command alive when it is dropped, for another process to join.
    pub(crate) fn left(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_left)
    }

    pub(crate) fn control(&self) -> Arc<dyn ProcessControl> {
        Arc::clone(&self.control)
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

impl Stream for Command {
    type Item = Result<ExecEvent, SandboxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(process) = &mut self.process else { return Poll::Ready(None) };
        let event = process.poll_next_unpin(cx);
        if matches!(event, Poll::Ready(None | Some(Err(_)))) {
            self.process = None;
        }
        event
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take().filter(|_| self.name.is_some()) else { return };
        // Without a runtime there is nothing to wait with, and dropping kills as well.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.is_left.load(Ordering::Acquire) {
            // If this fails the sandbox is gone, or goes on without this connection, and the command with it.
            runtime.spawn(process.detach());
            return;
        }
        let control = self.control();
        runtime.spawn(async move {
            let end = async {
                if control.kill_tree().await.is_ok() {
                    while let Some(Ok(_)) = process.next().await {}
                }
            };
            let _ = tokio::time::timeout(END_PATIENCE, end).await;
        });
    }
}
