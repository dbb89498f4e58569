//! One operation in the hands of a caller: what it waits for, and what it sends.

use std::{io, sync::Arc};

use bytes::Bytes;
use cofferdam_guest::{CommandInfo, ExitStatus, Failure, FailureReason, HostMessage, Metadata};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    channel::{Channel, Inbox},
    connection::Connection,
};
use crate::SandboxError;

/// The greatest piece of data sent in one frame.
const PIECE: usize = 64 * 1024;

/// Something that a command did.
#[derive(Debug)]
pub(super) enum CommandEvent {
    OutputLost([u64; 2]),
    Stdout(Bytes),
    Stderr(Bytes),
    Exited(ExitStatus),
}

/// An open channel in the hands of a caller. Dropping it ends the operation in the guest.
#[derive(Debug)]
pub(super) struct Operation {
    handle: Handle,
    _permit: OwnedSemaphorePermit,
}

/// What can be sent on a channel, by whoever; sends nothing once the operation is dropped.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    connection: Arc<Connection>,
    channel: Arc<Channel>,
}

impl Operation {
    pub(super) fn new(
        connection: Arc<Connection>,
        channel: Arc<Channel>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self { handle: Handle { connection, channel }, _permit: permit }
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits until `look` finds something in the inbox. What is there is found before a loss is.
    async fn wait<T>(
        &self,
        mut look: impl FnMut(&mut Inbox) -> Option<T>,
    ) -> Result<T, SandboxError> {
        loop {
            let loss = self.handle.connection.loss();
            if let Some(found) = look(&mut self.handle.channel.inbox()) {
                return Ok(found);
            }
            if let Some(error) = loss {
                return Err(error);
            }
            self.handle.channel.arrived.notified().await;
        }
    }

    /// Waits for the end of the channel.
    pub(super) async fn done(&self) -> Result<Result<u64, Failure>, SandboxError> {
        self.wait(|inbox| inbox.end.clone()).await
    }

    /// Waits for the metadata that comes before anything else.
    pub(super) async fn metadata(&self) -> Result<Result<Metadata, Failure>, SandboxError> {
        self.wait(|inbox| answer_or_failure(inbox.metadata.clone(), &inbox.end)).await
    }

    /// Waits until the command runs.
    pub(super) async fn started(&self) -> Result<Result<u32, Failure>, SandboxError> {
        self.wait(|inbox| answer_or_failure(inbox.started, &inbox.end)).await
    }

    /// Waits for the list of commands.
    pub(super) async fn commands(&self) -> Result<Result<Vec<CommandInfo>, Failure>, SandboxError> {
        self.wait(|inbox| answer_or_failure(inbox.commands.take(), &inbox.end)).await
    }

    /// Waits until a connection, a watch or a listener stands; for the last, returns its port.
    pub(super) async fn opened(&self) -> Result<Result<u16, Failure>, SandboxError> {
        self.wait(|inbox| answer_or_failure(inbox.opened, &inbox.end)).await
    }

    /// Waits for the next connection that a listener announces.
    pub(super) async fn incoming(&self) -> Result<Result<u32, Failure>, SandboxError> {
        self.wait(|inbox| answer_or_failure(inbox.incoming.pop_front(), &inbox.end)).await
    }

    /// Waits for the next piece of data; `None` is the end.
    pub(super) async fn data(&self) -> Result<Result<Option<Bytes>, Failure>, SandboxError> {
        let piece = self
            .wait(|inbox| {
                if !inbox.data.is_empty() {
                    return Some(Ok(Some(inbox.data.split().freeze())));
                }
                if inbox.data_ended {
                    return Some(Ok(None));
                }
                inbox.end.as_ref().map(|end| end.clone().map(|_| None))
            })
            .await?;
        if let Ok(Some(bytes)) = &piece {
            self.taken(bytes.len());
        }
        Ok(piece)
    }

    /// Waits for what the command does next; `None` is the end.
    pub(super) async fn command_event(
        &self,
    ) -> Result<Result<Option<CommandEvent>, Failure>, SandboxError> {
        let event = self
            .wait(|inbox| {
                if let Some(lost) = inbox.output_lost.take_if(|lost| *lost != [0; 2]) {
                    inbox.output_lost = Some([0; 2]);
                    return Some(Ok(Some(CommandEvent::OutputLost(lost))));
                }
                let after_exit = inbox.exit_taken;
                if let Some(bytes) = inbox.stdout.take(after_exit) {
                    return Some(Ok(Some(CommandEvent::Stdout(bytes))));
                }
                if let Some(bytes) = inbox.stderr.take(after_exit) {
                    return Some(Ok(Some(CommandEvent::Stderr(bytes))));
                }
                if let (Some(status), false) = (inbox.exited, after_exit) {
                    inbox.exit_taken = true;
                    return Some(Ok(Some(CommandEvent::Exited(status))));
                }
                inbox.end.as_ref().map(|end| end.clone().map(|_| None))
            })
            .await?;
        if let Ok(Some(CommandEvent::Stdout(bytes) | CommandEvent::Stderr(bytes))) = &event {
            self.taken(bytes.len());
        }
        Ok(event)
    }

    /// Gives credit back for bytes that were taken.
    fn taken(&self, length: usize) {
        let credit = self.handle.channel.inbox().receive.taken(length);
        if let Some(credit) = credit {
            self.handle.connection.give_credit(self.handle.channel.id, credit);
        }
    }
}

/// Returns an answer that has come, or the failure that came in its place.
fn answer_or_failure<T>(
    answer: Option<T>,
    end: &Option<Result<u64, Failure>>,
) -> Option<Result<T, Failure>> {
    match (answer, end) {
        (Some(answer), _) => Some(Ok(answer)),
        (None, Some(Err(failure))) => Some(Err(failure.clone())),
        (None, _) => None,
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let ended = {
            let mut inbox = self.handle.channel.inbox();
            inbox.closed = true;
            inbox.busy = None;
            inbox.end.is_some()
        };
        self.handle.connection.close_channel(self.handle.channel.id, ended);
        // A writer that waits for credit is waiting in vain.
        self.handle.channel.wake();
    }
}

impl Handle {
    /// Returns the number of the channel.
    pub(super) fn id(&self) -> u32 {
        self.channel.id
    }

    /// Sends a message, unless the operation has ended.
    pub(super) async fn send(&self, message: &HostMessage<'_>) -> Result<(), SandboxError> {
        if self.is_over() {
            return Ok(());
        }
        self.connection.send(self.channel.id, message).await
    }

    /// Returns whether the guest has ended the channel, or the caller has dropped it.
    pub(super) fn is_over(&self) -> bool {
        let inbox = self.channel.inbox();
        inbox.closed || inbox.end.is_some()
    }

    /// Sends data as credit comes. If the operation ends meanwhile, the rest is dropped.
    ///
    /// Only one caller at a time may do this on one channel.
    pub(super) async fn send_data(&self, mut bytes: &[u8]) -> Result<(), SandboxError> {
        while !bytes.is_empty() {
            if let Some(error) = self.connection.loss() {
                return Err(error);
            }
            let length = {
                let mut inbox = self.channel.inbox();
                if inbox.closed || inbox.end.is_some() {
                    return Ok(());
                }
                inbox.send.take(bytes.len().min(PIECE))
            };
            if length == 0 {
                self.channel.credit.notified().await;
                continue;
            }
            let (piece, rest) = bytes.split_at(length);
            self.connection.send(self.channel.id, &HostMessage::Data(piece)).await?;
            bytes = rest;
        }
        Ok(())
    }
}

/// Returns what an error number means, in lower case and without the number.
pub(super) fn errno_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

/// Returns why an operation failed, in words.
pub(super) fn failure_text(failure: &Failure) -> String {
    match (failure.reason, failure.errno) {
        (FailureReason::System, errno) if errno != 0 => errno_text(errno),
        _ => failure.message.clone(),
    }
}

/// Returns the error for an operation that the guest does not know, if that is the failure.
pub(super) fn unsupported(operation: &'static str, failure: &Failure) -> Option<SandboxError> {
    (failure.reason == FailureReason::Unsupported)
        .then_some(SandboxError::Unsupported { backend: "guest's", operation })
}
