//! One channel: what has arrived on it, and the handle of the caller.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use cofferdam_guest::{
    ExitStatus, Failure, FileRequest, GuestMessage, HostMessage, Metadata, ReceiveWindow,
    SendWindow,
};
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::{connection::Connection, idle::Busy};
use crate::SandboxError;

/// The greatest piece of data sent in one frame.
const PIECE: usize = 64 * 1024;

/// What may arrive on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// A command: `Started`, output, `Exited`.
    Command,
    /// A transfer to the host: `Data`, after `Metadata` if it is a file.
    Incoming { metadata: bool },
    /// A transfer to the guest, or a plain request: only the end.
    Plain,
    /// A tree to the guest: the end is `Uploaded`.
    Upload,
    /// A request that is answered with `Metadata`.
    Description,
}

/// One channel, shared by the reading task and the operation.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) id: u32,
    sort: Sort,
    inbox: Mutex<Inbox>,
    /// Told when something arrived or the connection is lost; one waiter each.
    arrived: Notify,
    credit: Notify,
}

/// Everything that has arrived and was not taken yet. Bounded by credit and by one slot for each kind of message.
#[derive(Debug, Default)]
struct Inbox {
    started: Option<u32>,
    metadata: Option<Metadata>,
    stdout: Output,
    stderr: Output,
    data: BytesMut,
    exited: Option<ExitStatus>,
    exit_taken: bool,
    end: Option<Result<u64, Failure>>,
    receive: ReceiveWindow,
    send: SendWindow,
    /// The operation was dropped; nothing is to be sent any more.
    closed: bool,
    /// Until the command has ended or the caller has dropped the operation.
    busy: Option<Busy>,
}

#[derive(Debug, Default)]
struct Output {
    bytes: BytesMut,
    /// How many of `bytes` came before the exit.
    before_exit: usize,
}

/// Something that a command did.
#[derive(Debug)]
pub(super) enum CommandEvent {
    Stdout(Bytes),
    Stderr(Bytes),
    Exited(ExitStatus),
}

impl Channel {
    pub(super) fn new(id: u32, message: &HostMessage<'_>, busy: Busy) -> Self {
        let sort = match message {
            HostMessage::Exec(_) => Sort::Command,
            HostMessage::ReadFile(_) => Sort::Incoming { metadata: true },
            HostMessage::List(_) | HostMessage::DownloadTree(_) => {
                Sort::Incoming { metadata: false }
            }
            HostMessage::UploadTree(_) => Sort::Upload,
            HostMessage::File(FileRequest::Stat { .. } | FileRequest::ReadLink { .. }) => {
                Sort::Description
            }
            _ => Sort::Plain,
        };
        let inbox = Mutex::new(Inbox { busy: Some(busy), ..Inbox::default() });
        Self { id, sort, inbox, arrived: Notify::new(), credit: Notify::new() }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // No code panics while it holds the lock; if one did, the inbox would still be whole.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets whoever waits look again.
    pub(super) fn wake(&self) {
        self.arrived.notify_one();
        self.credit.notify_one();
    }

    /// Takes in a message; an error says how the guest broke the protocol.
    pub(super) fn deliver(&self, message: &GuestMessage<'_>) -> Result<(), String> {
        let mut guard = self.inbox();
        let inbox = &mut *guard;
        if inbox.end.is_some() {
            return Err(format!("channel {} goes on after its end", self.id));
        }
        let running = inbox.started.is_some();
        match (message, self.sort) {
            (GuestMessage::Started { pid }, Sort::Command) if !running => {
                inbox.started = Some(*pid);
            }
            (GuestMessage::Stdout(bytes), Sort::Command) if running => {
                inbox.receive.arrived(self.id, bytes.len()).map_err(|error| error.to_string())?;
                inbox.stdout.push(bytes, inbox.exited.is_none());
            }
            (GuestMessage::Stderr(bytes), Sort::Command) if running => {
                inbox.receive.arrived(self.id, bytes.len()).map_err(|error| error.to_string())?;
                inbox.stderr.push(bytes, inbox.exited.is_none());
            }
            (GuestMessage::Exited(status), Sort::Command) if running && inbox.exited.is_none() => {
                inbox.exited = Some(*status);
            }
            (
                GuestMessage::Metadata(metadata),
                Sort::Description | Sort::Incoming { metadata: true },
            ) if inbox.metadata.is_none() => {
                inbox.metadata = Some(metadata.clone());
            }
            (GuestMessage::Data(bytes), Sort::Incoming { .. }) => {
                inbox.receive.arrived(self.id, bytes.len()).map_err(|error| error.to_string())?;
                inbox.data.extend_from_slice(bytes);
            }
            (GuestMessage::Window(bytes), _) => {
                inbox.send.grant(*bytes).map_err(|error| error.to_string())?;
            }
            (GuestMessage::Done, Sort::Command) if inbox.exited.is_some() => {
                inbox.end = Some(Ok(0));
                // A caller may keep a command that has ended for as long as it likes.
                inbox.busy = None;
            }
            (GuestMessage::Done, Sort::Incoming { .. } | Sort::Plain) => inbox.end = Some(Ok(0)),
            (GuestMessage::Done, Sort::Description) if inbox.metadata.is_some() => {
                inbox.end = Some(Ok(0));
            }
            (GuestMessage::Uploaded { entries }, Sort::Upload) => inbox.end = Some(Ok(*entries)),
            (GuestMessage::Failed(failure), _) => inbox.end = Some(Err(failure.clone())),
            _ => {
                return Err(format!(
                    "a message of kind {:#04x} has no meaning on channel {} now",
                    message.kind(),
                    self.id
                ));
            }
        }
        drop(guard);
        self.wake();
        Ok(())
    }
}

impl Output {
    fn push(&mut self, bytes: &[u8], before_exit: bool) {
        self.bytes.extend_from_slice(bytes);
        if before_exit {
            self.before_exit += bytes.len();
        }
    }

    /// Takes what came before the exit, or all of it once the exit was told.
    fn take(&mut self, after_exit: bool) -> Option<Bytes> {
        let length = if after_exit { self.bytes.len() } else { self.before_exit };
        self.before_exit = self.before_exit.saturating_sub(length);
        (length > 0).then(|| self.bytes.split_to(length).freeze())
    }
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
        self.wait(|inbox| match (&inbox.metadata, &inbox.end) {
            (Some(metadata), _) => Some(Ok(metadata.clone())),
            (None, Some(Err(failure))) => Some(Err(failure.clone())),
            _ => None,
        })
        .await
    }

    /// Waits until the command runs.
    pub(super) async fn started(&self) -> Result<Result<u32, Failure>, SandboxError> {
        self.wait(|inbox| match (inbox.started, &inbox.end) {
            (Some(pid), _) => Some(Ok(pid)),
            (None, Some(Err(failure))) => Some(Err(failure.clone())),
            _ => None,
        })
        .await
    }

    /// Waits for the next piece of data; `None` is the end.
    pub(super) async fn data(&self) -> Result<Result<Option<Bytes>, Failure>, SandboxError> {
        let piece = self
            .wait(|inbox| {
                if !inbox.data.is_empty() {
                    return Some(Ok(Some(inbox.data.split().freeze())));
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
        (cofferdam_guest::FailureReason::System, errno) if errno != 0 => errno_text(errno),
        _ => failure.message.clone(),
    }
}
