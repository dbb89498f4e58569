//! One channel: what has arrived on it and was not taken yet.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use cofferdam_guest::{
    CommandInfo, ExitStatus, Failure, FileRequest, GuestMessage, HostMessage, INITIAL_WINDOW,
    Metadata, ReceiveWindow, SendWindow,
};
use tokio::sync::Notify;

use super::idle::Busy;

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
    /// A request that is answered with `Commands`.
    Commands,
    /// A connection: `Opened`, then `Data` and its end.
    Port,
    /// A listener: `Listening`, then `Incoming`.
    Listener,
    /// A watch: `Opened`, then `Data`.
    Watch,
}

/// Connections that a listener may announce before they are taken; the guest announces fewer.
const MAX_ANNOUNCED: usize = 64;

/// One channel, shared by the reading task and the operation.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) id: u32,
    sort: Sort,
    inbox: Mutex<Inbox>,
    /// Credit beyond that of every new channel, to be given with the request.
    pub(super) more_credit: u32,
    /// Told when something arrived or the connection is lost; one waiter each.
    pub(super) arrived: Notify,
    pub(super) credit: Notify,
}

/// Everything that has arrived and was not taken yet. Bounded by credit and by one slot for each kind of message.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) started: Option<u32>,
    pub(super) metadata: Option<Metadata>,
    pub(super) commands: Option<Vec<CommandInfo>>,
    /// The connection, the watch or the listener stands; for the last, its port.
    pub(super) opened: Option<u16>,
    /// Connections that were announced and not taken yet.
    pub(super) incoming: VecDeque<u32>,
    pub(super) output_lost: Option<[u64; 2]>,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    pub(super) data: BytesMut,
    /// No more data comes, though the channel is open.
    pub(super) data_ended: bool,
    pub(super) exited: Option<ExitStatus>,
    pub(super) exit_taken: bool,
    pub(super) end: Option<Result<u64, Failure>>,
    pub(super) receive: ReceiveWindow,
    pub(super) send: SendWindow,
    /// The operation was dropped; nothing is to be sent any more.
    pub(super) closed: bool,
    /// Until a command has ended or the caller has dropped the operation.
    pub(super) busy: Option<Busy>,
}

#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: BytesMut,
    /// How many of `bytes` came before the exit.
    before_exit: usize,
}

impl Channel {
    pub(super) fn new(id: u32, message: &HostMessage<'_>, busy: Busy) -> Self {
        let sort = match message {
            HostMessage::Exec(_) | HostMessage::Attach(_) => Sort::Command,
            HostMessage::ListCommands => Sort::Commands,
            HostMessage::Connect(_) | HostMessage::Accept { .. } => Sort::Port,
            HostMessage::Listen { .. } => Sort::Listener,
            HostMessage::Watch(_) => Sort::Watch,
            HostMessage::ReadFile(_) => Sort::Incoming { metadata: true },
            HostMessage::List(_) | HostMessage::DownloadTree(_) | HostMessage::ScanTree(_) => {
                Sort::Incoming { metadata: false }
            }
            HostMessage::UploadTree(_) => Sort::Upload,
            HostMessage::File(FileRequest::Stat { .. } | FileRequest::ReadLink { .. }) => {
                Sort::Description
            }
            _ => Sort::Plain,
        };
        // Who only waits for something to happen does nothing.
        let busy = (!matches!(sort, Sort::Watch | Sort::Listener)).then_some(busy);
        let mut inbox = Inbox { busy, ..Inbox::default() };
        let more_credit = if brings_much(message) { inbox.receive.widen() } else { 0 };
        let inbox = Mutex::new(inbox);
        Self { id, sort, inbox, more_credit, arrived: Notify::new(), credit: Notify::new() }
    }

    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // No code panics while it holds the lock; if one did, the inbox would still be whole.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets whoever waits look again.
    pub(super) fn wake(&self) {
        self.arrived.notify_one();
        self.credit.notify_one();
    }

    /// Takes in a message, and wakes nobody yet; an error says how the guest broke the protocol.
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
            (GuestMessage::OutputLost { stdout, stderr }, Sort::Command)
                if running && inbox.output_lost.is_none() =>
            {
                inbox.output_lost = Some([*stdout, *stderr]);
            }
            (GuestMessage::Commands(commands), Sort::Commands) if inbox.commands.is_none() => {
                inbox.commands = Some(commands.clone());
            }
            (GuestMessage::Opened, Sort::Port | Sort::Watch) if inbox.opened.is_none() => {
                inbox.opened = Some(0);
            }
            (GuestMessage::Listening { port }, Sort::Listener) if inbox.opened.is_none() => {
                inbox.opened = Some(*port);
            }
            (GuestMessage::Incoming { connection }, Sort::Listener)
                if inbox.opened.is_some() && inbox.incoming.len() < MAX_ANNOUNCED =>
            {
                inbox.incoming.push_back(*connection);
            }
            (GuestMessage::EndOfData, Sort::Port) if inbox.opened.is_some() => {
                inbox.data_ended = true;
            }
            (GuestMessage::Data(bytes), Sort::Port | Sort::Watch)
                if inbox.opened.is_some() && !inbox.data_ended =>
            {
                inbox.receive.arrived(self.id, bytes.len()).map_err(|error| error.to_string())?;
                inbox.data.extend_from_slice(bytes);
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
            (GuestMessage::Done, Sort::Port | Sort::Watch) if inbox.opened.is_some() => {
                inbox.end = Some(Ok(0));
            }
            (GuestMessage::Done, Sort::Commands) if inbox.commands.is_some() => {
                inbox.end = Some(Ok(0));
            }
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
        Ok(())
    }
}

/// Whether what comes may be more than the credit of a new channel.
fn brings_much(message: &HostMessage<'_>) -> bool {
    match message {
        HostMessage::ReadFile(request) => request.max_bytes > INITIAL_WINDOW.into(),
        HostMessage::DownloadTree(_) | HostMessage::ScanTree(_) => true,
        _ => false,
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
    pub(super) fn take(&mut self, after_exit: bool) -> Option<Bytes> {
        let length = if after_exit { self.bytes.len() } else { self.before_exit };
        self.before_exit = self.before_exit.saturating_sub(length);
        (length > 0).then(|| self.bytes.split_to(length).freeze())
    }
}
