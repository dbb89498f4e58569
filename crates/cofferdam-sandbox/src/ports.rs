//! [`Ports`]: connections into a sandbox and out of it, carried by the guest's stream.
//!
//! Nothing is opened that was not asked for by name: the sandbox's network stays as it is, and the host opens no socket.

use std::{
    fmt::{self, Debug},
    io,
    pin::Pin,
    task::{Context, Poll},
};

use async_trait::async_trait;
use cofferdam_core::WorkspacePath;
use futures::{Stream, stream::BoxStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::SandboxError;

/// Forwards connections between the host and the inside of a sandbox.
#[async_trait]
pub trait Ports: Debug + Send + Sync + 'static {
    /// Connects to a server that runs inside.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Port`] if nobody listens there.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no connection is left.
    async fn connect(&self, address: &PortAddress) -> Result<PortStream, SandboxError>;

    /// Listens on a port of the loopback inside, 127.0.0.1, so that commands can reach the host through it. Port 0 lets the
    /// system choose. It listens until the listener is dropped.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Port`] if the port is taken.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing listens.
    async fn listen(&self, port: u16) -> Result<PortListener, SandboxError>;
}

/// An address inside a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PortAddress {
    /// A TCP port of the loopback, 127.0.0.1.
    Tcp(u16),
    /// A Unix stream socket in the workspace.
    Unix(WorkspacePath),
}

impl fmt::Display for PortAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "127.0.0.1:{port}"),
            Self::Unix(path) => f.write_str(path.as_str()),
        }
    }
}

/// A connection: bytes both ways, each of which can be shut down alone.
///
/// Dropping it closes both ways; what the other end has not taken yet may be lost. To be sure, shut it down and read to
/// the end.
pub struct PortStream(Box<dyn Duplex>);

/// What a [`PortStream`] is made of.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl PortStream {
    /// Makes one of a stream; for backends.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Box::new(stream))
    }
}

impl AsyncRead for PortStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PortStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Debug for PortStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortStream").finish_non_exhaustive()
    }
}

/// A port inside that the host listens on: a stream of connections. Dropping it ends the listening; connections stay.
///
/// Connections that nobody takes wait, a bounded number of them in the guest and the rest in the system.
pub struct PortListener {
    port: u16,
    connections: BoxStream<'static, Result<PortStream, SandboxError>>,
}

impl PortListener {
    /// Puts a listener together; for backends.
    pub fn new(
        port: u16,
        connections: BoxStream<'static, Result<PortStream, SandboxError>>,
    ) -> Self {
        Self { port, connections }
    }

    /// Returns the port inside.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Stream for PortListener {
    type Item = Result<PortStream, SandboxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.as_mut().poll_next(cx)
    }
}

impl Debug for PortListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortListener").field("port", &self.port).finish_non_exhaustive()
    }
}
