//! The stream to the guest: what waits to be written, which channels are open, and the two tasks.
//!
//! Whoever has something to say writes it at once if the stream takes it: handing every request to a task would cost a
//! switch between threads. The writing task does the waiting.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use cofferdam_guest::{FrameDecoder, GuestMessage, HostMessage, ProtocolError};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    sync::{Notify, Semaphore, watch},
};

use super::{channel::Channel, idle::Activity, operation::Operation};
use crate::{LossReason, SandboxError};

/// Frames that may wait to be written; who wants to add more waits.
const OUTBOX_FRAMES: usize = 64;

/// Bytes read from the stream at a time.
const READ_SIZE: usize = 64 * 1024;

/// Why a connection is over.
#[derive(Debug, Clone)]
enum Loss {
    Lost(LossReason),
    Protocol(String),
}

/// One connection, shared by its tasks and its operations.
pub(super) struct Connection {
    state: Mutex<State>,
    writer: tokio::sync::Mutex<Writer>,
    /// Told when there is something to write that could not be written at once.
    outgoing: Notify,
    outbox_slots: Semaphore,
    channel_slots: Arc<Semaphore>,
    loss: watch::Sender<Option<Loss>>,
    pub(super) activity: Activity,
}

#[derive(Default)]
struct State {
    channels: HashMap<u32, Arc<Channel>>,
    last_channel: u32,
    last_command: u64,
    outbox: VecDeque<Waiting>,
    /// Credit to give, in one sum per channel, so that it cannot pile up before a guest that does not read.
    credit: BTreeMap<u32, u32>,
}

/// The writing half of the stream, and what it has not taken yet.
struct Writer {
    /// `None` once the connection is over, so that the guest sees the end.
    stream: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    bytes: Vec<u8>,
    written: usize,
    /// The slots of the outbox that `bytes` hold.
    slots: usize,
}

/// An encoded frame, and whether it holds one of the outbox's slots.
struct Waiting {
    frame: Vec<u8>,
    slot: bool,
}

impl Connection {
    pub(super) fn new<W>(max_operations: u32, stream: W) -> Self
    where
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let operations = usize::try_from(max_operations).unwrap_or(usize::MAX);
        let writer =
            Writer { stream: Some(Box::new(stream)), bytes: Vec::new(), written: 0, slots: 0 };
        Self {
            state: Mutex::default(),
            writer: tokio::sync::Mutex::new(writer),
            outgoing: Notify::new(),
            outbox_slots: Semaphore::new(OUTBOX_FRAMES),
            channel_slots: Arc::new(Semaphore::new(operations.min(Semaphore::MAX_PERMITS))),
            loss: watch::Sender::new(None),
            activity: Activity::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; if one did, the state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a channel for an operation.
    pub(super) async fn open(
        self: &Arc<Self>,
        message: &HostMessage<'_>,
    ) -> Result<Operation, SandboxError> {
        let slot = Arc::clone(&self.channel_slots);
        let permit = slot.acquire_owned().await.map_err(|_closed| self.loss_error())?;
        let outbox_slot = self.outbox_slots.acquire().await.map_err(|_closed| self.loss_error())?;
        let channel = {
            let mut state = self.state();
            let id = state
                .last_channel
                .checked_add(1)
                .ok_or(SandboxError::Protocol { detail: "all channels are used up".to_owned() })?;
            let mut frame = Vec::new();
            message
                .encode(id, &mut frame)
                .map_err(|error| SandboxError::InvalidRequest { reason: error.to_string() })?;
            // The loss is set before the channels are told of it, so one of both sees this channel.
            if self.loss.borrow().is_some() {
                return Err(self.loss_error());
            }
            let channel = Arc::new(Channel::new(id, message, self.activity.begin()));
            if channel.more_credit > 0 {
                // A number always fits a frame.
                let _ = HostMessage::Window(channel.more_credit).encode(id, &mut frame);
            }
            state.last_channel = id;
            state.channels.insert(id, Arc::clone(&channel));
            outbox_slot.forget();
            state.outbox.push_back(Waiting { frame, slot: true });
            channel
        };
        self.write_now();
        Ok(Operation::new(Arc::clone(self), channel, permit))
    }

    /// Returns a number for a command that no other of this connection has.
    pub(super) fn next_command(&self) -> u64 {
        let mut state = self.state();
        state.last_command += 1;
        state.last_command
    }

    /// Sends a message, after waiting for room.
    pub(super) async fn send(
        &self,
        channel: u32,
        message: &HostMessage<'_>,
    ) -> Result<(), SandboxError> {
        let slot = self.outbox_slots.acquire().await.map_err(|_closed| self.loss_error())?;
        let mut frame = Vec::new();
        message
            .encode(channel, &mut frame)
            .map_err(|error| SandboxError::InvalidRequest { reason: error.to_string() })?;
        slot.forget();
        self.state().outbox.push_back(Waiting { frame, slot: true });
        self.write_now();
        Ok(())
    }

    /// Forgets a channel; if the guest has not ended it yet, tells it to.
    pub(super) fn close_channel(&self, channel: u32, ended: bool) {
        {
            let mut state = self.state();
            state.credit.remove(&channel);
            if state.channels.remove(&channel).is_none() || ended {
                return;
            }
            let mut frame = Vec::new();
            // An empty message always fits a frame. One per channel, so it needs no slot.
            let _ = HostMessage::Close.encode(channel, &mut frame);
            state.outbox.push_back(Waiting { frame, slot: false });
        }
        self.write_now();
    }

    /// Gives the guest credit on a channel.
    pub(super) fn give_credit(&self, channel: u32, bytes: u32) {
        {
            let mut state = self.state();
            if !state.channels.contains_key(&channel) {
                return;
            }
            let credit = state.credit.entry(channel).or_default();
            *credit = credit.saturating_add(bytes);
        }
        self.write_now();
    }

    /// Writes what waits, as far as the stream takes it without waiting; the rest is the writing task's.
    fn write_now(&self) {
        if let Ok(mut writer) = self.writer.try_lock() {
            // Nobody is woken through this context: if the stream is not ready, the task below asks it again.
            let mut context = Context::from_waker(Waker::noop());
            if matches!(writer.poll_all(self, &mut context), Poll::Ready(Ok(()))) {
                return;
            }
        }
        self.outgoing.notify_one();
    }

    /// Returns why the connection is over, if it is.
    pub(super) fn loss(&self) -> Option<SandboxError> {
        self.loss.borrow().as_ref().map(Loss::to_error)
    }

    fn loss_error(&self) -> SandboxError {
        self.loss().unwrap_or(SandboxError::Lost { reason: LossReason::Closed })
    }

    pub(super) fn lost(&self) -> impl Future<Output = SandboxError> + Send + 'static + use<> {
        let mut loss = self.loss.subscribe();
        async move {
            let closed = SandboxError::Lost { reason: LossReason::Closed };
            // A connection that is dropped is closed first.
            match loss.wait_for(Option::is_some).await {
                Ok(loss) => loss.as_ref().map_or(closed, Loss::to_error),
                Err(_dropped) => closed,
            }
        }
    }

    pub(super) fn end_with(&self, reason: LossReason) {
        self.end(Loss::Lost(reason));
    }

    /// Ends the connection because of what the guest sent.
    pub(super) fn breach(&self, detail: String) {
        self.end(Loss::Protocol(detail));
    }

    fn end(&self, why: Loss) {
        let first = self.loss.send_if_modified(|loss| {
            let first = loss.is_none();
            if first {
                *loss = Some(why);
            }
            first
        });
        if !first {
            return;
        }
        self.outbox_slots.close();
        self.channel_slots.close();
        let channels = {
            let mut state = self.state();
            state.outbox.clear();
            state.credit.clear();
            std::mem::take(&mut state.channels)
        };
        for channel in channels.values() {
            channel.wake();
        }
        match self.writer.try_lock() {
            Ok(mut writer) => writer.stream = None,
            // The writing task has it, and lets go of it when it is told.
            Err(_busy) => self.outgoing.notify_one(),
        }
    }

    /// Hands a message of the guest to its channel.
    fn deliver(
        &self,
        channel: u32,
        message: &GuestMessage<'_>,
    ) -> Result<Option<Arc<Channel>>, String> {
        let open = {
            let state = self.state();
            if channel == 0 || channel > state.last_channel {
                return Err(format!("channel {channel} was never opened"));
            }
            state.channels.get(&channel).map(Arc::clone)
        };
        // Without one, the channel was closed while the message was under way.
        if let Some(open) = &open {
            open.deliver(message)?;
        }
        Ok(open)
    }

    /// Takes everything that waits to be written, and how many slots it held.
    fn take_outgoing(&self) -> (Vec<u8>, usize) {
        let mut state = self.state();
        let mut bytes = Vec::new();
        let mut slots = 0;
        for waiting in state.outbox.drain(..) {
            bytes.extend_from_slice(&waiting.frame);
            slots += usize::from(waiting.slot);
        }
        for (channel, credit) in std::mem::take(&mut state.credit) {
            // A number always fits a frame.
            let _ = HostMessage::Window(credit).encode(channel, &mut bytes);
        }
        (bytes, slots)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Connection")
            .field("open_channels", &state.channels.len())
            .field("waiting_frames", &state.outbox.len())
            .field("loss", &*self.loss.borrow())
            .finish_non_exhaustive()
    }
}

impl Loss {
    fn to_error(&self) -> SandboxError {
        match self {
            Self::Lost(reason) => SandboxError::Lost { reason: reason.clone() },
            Self::Protocol(detail) => SandboxError::Protocol { detail: detail.clone() },
        }
    }
}

/// Turns a refusal of the codec to the error of the seam.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(super) fn protocol_error(error: ProtocolError) -> SandboxError {
    SandboxError::Protocol { detail: error.to_string() }
}

/// Reads frames until the stream or the protocol breaks.
pub(super) async fn read_frames<R>(
    connection: Arc<Connection>,
    mut stream: R,
    mut decoder: FrameDecoder,
) where
    R: AsyncRead + Send + Unpin,
{
    let mut buffer = vec![0; READ_SIZE];
    loop {
        if let Err(detail) = deliver_all(&connection, &mut decoder) {
            return connection.breach(detail);
        }
        let detail = match stream.read(&mut buffer).await {
            Ok(0) => "the guest closed it".to_owned(),
            Err(error) => error.to_string(),
            Ok(length) => {
                decoder.push(&buffer[..length]);
                continue;
            }
        };
        return connection.end_with(LossReason::StreamBroken { detail });
    }
}

/// Delivers all frames that have arrived, and then wakes who waits for them: the answer to a small request comes in several
/// frames at once, and its caller is woken once for all of them.
fn deliver_all(connection: &Connection, decoder: &mut FrameDecoder) -> Result<(), String> {
    let mut told: Option<Arc<Channel>> = None;
    let result = loop {
        let delivered = decoder.next_frame().map_err(|error| error.to_string()).and_then(|frame| {
            let Some(frame) = frame else { return Ok(None) };
            let message = GuestMessage::decode(frame).map_err(|error| error.to_string())?;
            connection.deliver(frame.channel, &message).map(Some)
        });
        match delivered {
            Ok(Some(Some(channel))) => {
                if let Some(before) = told.replace(channel)
                    && told.as_ref().is_some_and(|now| now.id != before.id)
                {
                    before.wake();
                }
            }
            Ok(Some(None)) => {}
            Ok(None) => break Ok(()),
            Err(detail) => break Err(detail),
        }
    };
    if let Some(last) = told {
        last.wake();
    }
    result
}

/// Writes what waits until the connection is over.
pub(super) async fn write_frames(connection: Arc<Connection>) {
    let writing = async {
        loop {
            {
                let mut writer = connection.writer.lock().await;
                poll_fn(|context| writer.poll_all(&connection, context)).await?;
            }
            connection.outgoing.notified().await;
        }
    };
    let result: io::Result<()> = tokio::select! {
        result = writing => result,
        _ = connection.lost() => Ok(()),
    };
    if let Err(error) = result {
        connection.end_with(LossReason::StreamBroken { detail: error.to_string() });
    }
    connection.writer.lock().await.stream = None;
}

impl Writer {
    /// Writes until nothing waits any more, in the outbox or here.
    fn poll_all(
        &mut self,
        connection: &Connection,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let Some(stream) = &mut self.stream else {
                return Poll::Ready(Ok(()));
            };
            if self.written < self.bytes.len() {
                let waiting = &self.bytes[self.written..];
                match Pin::new(stream).poll_write(context, waiting) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(length)) => self.written += length,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
                continue;
            }
            match Pin::new(stream).poll_flush(context) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
            connection.outbox_slots.add_permits(std::mem::take(&mut self.slots));
            (self.bytes, self.slots) = connection.take_outgoing();
            self.written = 0;
            if self.bytes.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
