//! [`GuestClient`]: the host's side of the guest protocol, over any duplex byte stream.
//!
//! A backend builds its box, starts `cofferdam_guest::PROGRAM` in it, and hands the stream to
//! [`GuestClient::connect`]; the client then is the backend's exec, files and tree.
//!
//! - `connection`: the stream, one task that reads and one that writes, and the table of open channels.
//! - `channel`: what has arrived on one channel; `operation`: the same as a caller sees it, whose drop ends it in the guest.
//! - `process`, `sessions`, `files`, `tree`, `ports`, `watch`: the seams on top.
//! - `idle`: how long nothing was under way.
//!
//! The guest is not trusted. Whatever it sends, in whatever order, the host neither panics nor grows: data is bounded
//! by credit, everything else by one slot per channel, and the first breach of the protocol ends the connection with
//! [`SandboxError::Protocol`]. A guest that falls silent is indistinguishable from a slow one; callers set deadlines.

mod channel;
mod connection;
mod files;
mod idle;
mod operation;
mod ports;
mod process;
mod sessions;
mod tree;
mod watch;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub use cofferdam_guest::Token as SessionToken;
use cofferdam_guest::{
    FrameDecoder, GuestHello, GuestMessage, HostHello, HostMessage, SessionRequest, Versions,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    task::JoinHandle,
};

use self::connection::{Connection, protocol_error};
use crate::{ExecRequest, LossReason, Process, SandboxError, Sessions};

/// What a [`GuestClient`] tells its guest, and what bounds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestOptions {
    /// The workspace: an absolute path in the box. Default `/workspace`.
    pub workspace: String,
    /// Variables of every command; those of an [`ExecRequest`] win. Default: none.
    pub environment: BTreeMap<String, String>,
    /// Bytes of output after which a command is killed. Default 1 GiB.
    pub max_output_bytes: u64,
    /// Operations at a time; more wait. Default 256.
    pub max_operations: u32,
    /// Live commands at a time; more are refused. Default 128.
    pub max_commands: u32,
    /// How long the guest may take to answer the greeting. Default 10 s.
    pub greeting_timeout: Duration,
    /// Time without any operation and any running command after which the connection ends with
    /// [`LossReason::IdleTime`]. Default `None`: never.
    pub idle_time: Option<Duration>,
    /// Asks that commands outlive this connection. Default: everything ends with it.
    pub session: Option<SessionOptions>,
}

/// How commands outlive a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOptions {
    /// What proves to the guest that a later connection is of the same host: 32 bytes that nobody can guess. A backend
    /// makes them, and keeps them where only it can read them.
    pub token: SessionToken,
    /// How long the guest goes on without a connection, if its backend gave it a way to be reached.
    pub linger: Duration,
    /// How much of each of a command's outputs is kept for a later [`crate::Sessions::attach`].
    pub replay_bytes: u32,
}

impl SessionOptions {
    /// Returns options with this token and linger time, which keep 256 KiB of each output.
    #[must_use]
    pub fn new(token: SessionToken, linger: Duration) -> Self {
        Self { token, linger, replay_bytes: 256 * 1024 }
    }
}

impl Default for GuestOptions {
    fn default() -> Self {
        Self {
            workspace: "/workspace".to_owned(),
            environment: BTreeMap::new(),
            max_output_bytes: 1 << 30,
            max_operations: 256,
            max_commands: 128,
            greeting_timeout: Duration::from_secs(10),
            idle_time: None,
            session: None,
        }
    }
}

/// A connection to one guest; implements [`crate::Files`], [`crate::Tree`], [`crate::Ports`], [`crate::Watcher`] and, if
/// the guest granted a session, [`crate::Sessions`].
///
/// Dropping it closes the stream, upon which the guest kills every process in its box and ends, or waits for the next
/// connection if it was asked to linger.
#[derive(Debug)]
pub struct GuestClient {
    connection: Arc<Connection>,
    guest: GuestHello,
    options: GuestOptions,
    reader: JoinHandle<()>,
    idle: Option<JoinHandle<()>>,
}

impl GuestClient {
    /// Greets the guest at the other end of `stream`.
    ///
    /// # Errors
    ///
    /// [`SandboxError::VersionMismatch`], [`SandboxError::Protocol`] if it is no guest, [`SandboxError::Lost`] if it
    /// ends or does not answer in time.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the stream is closed.
    pub async fn connect<S>(stream: S, options: GuestOptions) -> Result<Self, SandboxError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut reading, mut writing) = tokio::io::split(stream);
        let mut decoder = FrameDecoder::new();
        let greeting = greet(&mut reading, &mut writing, &mut decoder, &options);
        let guest = tokio::time::timeout(options.greeting_timeout, greeting)
            .await
            .map_err(|_elapsed| broken("the guest did not answer the greeting in time"))??;
        let connection = Arc::new(Connection::new(options.max_operations, writing));
        let reader =
            tokio::spawn(connection::read_frames(Arc::clone(&connection), reading, decoder));
        tokio::spawn(connection::write_frames(Arc::clone(&connection)));
        let idle = options.idle_time.map(|time| {
            let (connection, reading) = (Arc::clone(&connection), reader.abort_handle());
            tokio::spawn(async move {
                connection.activity.idle_for(time).await;
                connection.end_with(LossReason::IdleTime);
                // Closes the stream, upon which the guest ends.
                reading.abort();
            })
        });
        Ok(Self { connection, guest, options, reader, idle })
    }

    /// Greets a guest that lingers, over a new stream. `options` are those of [`connect`](Self::connect), with the same
    /// token.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect); [`SandboxError::Lost`] also if the guest closes the stream because it does not know
    /// the token, or if it is another guest that knows nothing of earlier connections.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the stream is closed. An earlier connection may be closed too.
    pub async fn resume<S>(stream: S, options: GuestOptions) -> Result<Self, SandboxError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let client = Self::connect(stream, options).await?;
        match client.guest.session {
            Some(session) if session.connection > 1 => Ok(client),
            _ => Err(broken("the guest there is a new one")),
        }
    }

    /// Returns the commands of this and earlier connections, if the guest granted a session.
    #[must_use]
    pub fn sessions(&self) -> Option<&dyn Sessions> {
        self.guest.session.is_some().then_some(self as &dyn Sessions)
    }

    /// Returns what the guest said of itself: release, process id and user in the box.
    #[must_use]
    pub fn guest(&self) -> &GuestHello {
        &self.guest
    }

    /// Starts a command: [`crate::Sandbox::exec`].
    ///
    /// # Errors
    ///
    /// As [`crate::Sandbox::exec`].
    ///
    /// # Cancel safety
    ///
    /// As [`crate::Sandbox::exec`].
    pub async fn exec(&self, request: ExecRequest) -> Result<Process, SandboxError> {
        self.start(request).await
    }

    /// Asks the guest for a sign of life.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Lost`] or [`SandboxError::Protocol`].
    pub async fn ping(&self) -> Result<(), SandboxError> {
        let operation = self.connection.open(&HostMessage::Ping).await?;
        operation
            .done()
            .await?
            .map(drop)
            .map_err(|failure| SandboxError::Protocol { detail: failure.message })
    }

    /// Waits until the connection is over, and says why.
    ///
    /// The future holds nothing of the client, which may be dropped meanwhile.
    pub fn lost(&self) -> impl Future<Output = SandboxError> + Send + 'static + use<> {
        self.connection.lost()
    }

    /// Ends the connection for this reason: every pending call fails with it, and the guest ends.
    ///
    /// If the connection is over already, the first reason stays.
    pub fn end(&self, reason: LossReason) {
        self.connection.end_with(reason);
        self.reader.abort();
        if let Some(idle) = &self.idle {
            idle.abort();
        }
    }
}

impl Drop for GuestClient {
    fn drop(&mut self) {
        self.end(LossReason::Closed);
    }
}

async fn greet<R, W>(
    reading: &mut R,
    writing: &mut W,
    decoder: &mut FrameDecoder,
    options: &GuestOptions,
) -> Result<GuestHello, SandboxError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let hello = HostHello {
        versions: Versions::SPOKEN,
        workspace: options.workspace.clone().into_bytes(),
        max_channels: options.max_operations,
        max_execs: options.max_commands,
        session: options.session.as_ref().map(|session| SessionRequest {
            token: session.token,
            linger_ms: u32::try_from(session.linger.as_millis()).unwrap_or(u32::MAX),
            replay_bytes: session.replay_bytes,
        }),
    };
    let mut bytes = Vec::new();
    HostMessage::Hello(hello)
        .encode(0, &mut bytes)
        .map_err(|error| SandboxError::InvalidRequest { reason: error.to_string() })?;
    writing.write_all(&bytes).await.map_err(|error| broken(&error.to_string()))?;
    writing.flush().await.map_err(|error| broken(&error.to_string()))?;
    let mut buffer = [0; 4096];
    loop {
        if let Some(frame) = decoder.next_frame().map_err(protocol_error)? {
            return match GuestMessage::decode(frame).map_err(protocol_error)? {
                GuestMessage::Hello(guest) if frame.channel == 0 => {
                    let spoken = Versions::SPOKEN;
                    let chosen = Versions { oldest: guest.version, newest: guest.version };
                    spoken.common(chosen).map_err(|_error| mismatch(chosen))?;
                    Ok(guest)
                }
                GuestMessage::Refused(refusal) if refusal.errno != 0 => {
                    Err(SandboxError::InvalidRequest {
                        reason: format!(
                            "the guest cannot open the workspace {:?}: {}",
                            options.workspace,
                            operation::errno_text(refusal.errno)
                        ),
                    })
                }
                GuestMessage::Refused(refusal) => Err(mismatch(refusal.versions)),
                _ => Err(SandboxError::Protocol { detail: "no greeting came first".to_owned() }),
            };
        }
        match reading.read(&mut buffer).await {
            Ok(0) => return Err(broken("the guest ended before its greeting")),
            Ok(length) => decoder.push(&buffer[..length]),
            Err(error) => return Err(broken(&error.to_string())),
        }
    }
}

fn mismatch(guest: Versions) -> SandboxError {
    SandboxError::VersionMismatch {
        guest_min: u32::from(guest.oldest),
        guest_max: u32::from(guest.newest),
        host_min: u32::from(Versions::SPOKEN.oldest),
        host_max: u32::from(Versions::SPOKEN.newest),
    }
}

fn broken(detail: &str) -> SandboxError {
    SandboxError::Lost { reason: LossReason::StreamBroken { detail: detail.to_owned() } }
}
