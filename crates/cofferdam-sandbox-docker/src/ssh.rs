//! [`SshConnector`]: a connection to a remote engine through the `ssh` program of this host.
//!
//! `ssh` has the user's keys, agent, known hosts and configuration; a library would have to be told all of it again.

use std::{
    io,
    pin::Pin,
    process::Stdio,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use hyper::Uri;
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Join, ReadBuf},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// Starts one `ssh` for each connection; connections to the same place share a login.
#[derive(Debug, Clone)]
pub(crate) struct SshConnector {
    arguments: Vec<String>,
}

impl SshConnector {
    pub(crate) fn new(destination: &str, port: Option<u16>, more: &[String]) -> Self {
        // It may not ask: nobody would answer.
        let mut arguments: Vec<String> =
            ["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"].map(str::to_owned).into();
        if let Some(port) = port {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        arguments.extend_from_slice(more);
        arguments.extend(["--", destination, "docker", "system", "dial-stdio"].map(str::to_owned));
        Self { arguments }
    }

    fn connect(&self) -> io::Result<TokioIo<SshStream>> {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is a backend, and `ssh` its way to the engine"
        )]
        let mut command = std::process::Command::new("ssh");
        command
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = Command::from(command).kill_on_drop(true).spawn()?;
        let (Some(stdout), Some(stdin)) = (child.stdout.take(), child.stdin.take()) else {
            return Err(io::Error::other("`ssh` was started without its streams"));
        };
        Ok(TokioIo::new(SshStream { stream: tokio::io::join(stdout, stdin), _child: child }))
    }
}

impl tower_service::Service<Uri> for SshConnector {
    type Response = TokioIo<SshStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect() })
    }
}

/// The streams of one `ssh`, which ends with them.
#[derive(Debug)]
pub(crate) struct SshStream {
    stream: Join<ChildStdout, ChildStdin>,
    _child: Child,
}

impl AsyncRead for SshStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connection for SshStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}
