//! [`Ports`] over the guest.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use async_trait::async_trait;
use cofferdam_guest::{Address, Failure, HostMessage};
use futures::{StreamExt as _, stream};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    GuestClient,
    connection::Connection,
    files::wire,
    operation::{Operation, failure_text, unsupported},
};
use crate::{PortAddress, PortListener, PortStream, Ports, SandboxError};

/// Bytes between a caller and the stream to the guest, each way.
const BUFFER: usize = 64 * 1024;

#[async_trait]
impl Ports for GuestClient {
    async fn connect(&self, address: &PortAddress) -> Result<PortStream, SandboxError> {
        let request = match address {
            PortAddress::Tcp(port) => Address::Tcp { port: *port },
            PortAddress::Unix(path) => Address::Unix { path: wire(path) },
        };
        let operation = self.connection.open(&HostMessage::Connect(request)).await?;
        open(operation, "connect to", address).await
    }

    async fn listen(&self, port: u16) -> Result<PortListener, SandboxError> {
        let operation = self.connection.open(&HostMessage::Listen { port }).await?;
        let refused = |failure: Failure| refused("listen on", &PortAddress::Tcp(port), &failure);
        let port = operation.opened().await?.map_err(refused)?;
        let listening = (Arc::clone(&self.connection), operation, PortAddress::Tcp(port));
        let connections = stream::unfold(Some(listening), |listening| async {
            let (connection, operation, address) = listening?;
            match accept(&connection, &operation, &address).await {
                Ok(stream) => Some((Ok(stream), Some((connection, operation, address)))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(PortListener::new(port, connections.boxed()))
    }
}

/// Takes the next connection of a listener.
async fn accept(
    connection: &Arc<Connection>,
    listener: &Operation,
    address: &PortAddress,
) -> Result<PortStream, SandboxError> {
    const ACCEPT: &str = "accept on";
    let number =
        listener.incoming().await?.map_err(|failure| refused(ACCEPT, address, &failure))?;
    let request = HostMessage::Accept { listener: listener.handle().id(), connection: number };
    open(connection.open(&request).await?, ACCEPT, address).await
}

/// Waits until a connection stands, and makes a stream of it.
async fn open(
    operation: Operation,
    action: &'static str,
    address: &PortAddress,
) -> Result<PortStream, SandboxError> {
    operation.opened().await?.map_err(|failure| refused(action, address, &failure))?;
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let failure = Arc::new(OnceLock::new());
    let dropped = CancellationToken::new();
    tokio::spawn(carry(operation, theirs, Arc::clone(&failure), dropped.clone()));
    Ok(PortStream::new(Carried { _dropped: dropped.drop_guard(), stream: ours, failure }))
}

fn refused(operation: &'static str, address: &PortAddress, failure: &Failure) -> SandboxError {
    unsupported("port forwarding", failure).unwrap_or_else(|| SandboxError::Port {
        operation,
        address: address.to_string(),
        reason: failure_text(failure),
        errno: failure.errno,
    })
}

/// The caller's end of a connection.
struct Carried {
    // First, so that the task knows that the caller has gone before it sees the stream close.
    _dropped: DropGuard,
    stream: DuplexStream,
    /// Why the connection broke, if it did.
    failure: Arc<OnceLock<(io::ErrorKind, String)>>,
}

/// Carries bytes both ways until both are at their end, the connection breaks, or the caller has gone.
async fn carry(
    operation: Operation,
    stream: DuplexStream,
    failure: Arc<OnceLock<(io::ErrorKind, String)>>,
    dropped: CancellationToken,
) {
    let (mut from_caller, mut to_caller) = tokio::io::split(stream);
    let sending = async {
        let mut buffer = vec![0; BUFFER];
        // A loss is told by the other way.
        while let Ok(length @ 1..) = from_caller.read(&mut buffer).await {
            if operation.handle().send_data(&buffer[..length]).await.is_err() {
                return;
            }
        }
        let _ = operation.handle().send(&HostMessage::EndOfData).await;
    };
    let receiving = async {
        loop {
            let broken = match operation.data().await {
                Ok(Ok(Some(piece))) => match to_caller.write_all(&piece).await {
                    Ok(()) => continue,
                    Err(_caller_gone) => return,
                },
                Ok(Ok(None)) => None,
                Ok(Err(failure)) => {
                    let kind = io::Error::from_raw_os_error(failure.errno).kind();
                    Some((kind, failure_text(&failure)))
                }
                Err(error) => Some((io::ErrorKind::ConnectionAborted, error.to_string())),
            };
            let over = broken.is_some();
            if let Some(broken) = broken {
                // Only this sets it.
                let _ = failure.set(broken);
            }
            let _ = to_caller.shutdown().await;
            if over {
                return;
            }
            // The other way may go on; its end, or a failure, comes with the end of the channel.
            let _ = operation.done().await;
            return;
        }
    };
    // Once the caller has gone, what it wrote is still sent, and nothing is waited for.
    let receiving = async {
        tokio::select! {
            () = receiving => {}
            () = dropped.cancelled() => {}
        }
    };
    tokio::pin!(sending, receiving);
    let sent = tokio::select! {
        () = &mut receiving => false,
        () = &mut sending => true,
    };
    match (sent, dropped.is_cancelled()) {
        (true, _) => receiving.await,
        (false, true) => sending.await,
        (false, false) => {}
    }
}

impl AsyncRead for Carried {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        match self.failure.get() {
            Some((kind, reason)) if buffer.filled().len() == before && buffer.remaining() > 0 => {
                Poll::Ready(Err(io::Error::new(*kind, reason.clone())))
            }
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Carried {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
