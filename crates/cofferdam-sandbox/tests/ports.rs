//! Port forwarding, through the client and with the real program. The servers and clients that stand for those inside are
//! on this host's loopback and in the workspace, where the program is an ordinary process.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says no more than that it failed"
)]

mod support;

use std::{io::ErrorKind, os::unix::fs::symlink, time::Duration};

use cofferdam_sandbox::{PortAddress, Ports as _, SandboxError};
use futures::StreamExt as _;
use support::{open, open_with, path};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixListener},
};

/// Answers with what came, once all of it has come.
async fn echo_all(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut content = Vec::new();
    stream.read_to_end(&mut content).await.unwrap();
    stream.write_all(&content).await.unwrap();
    stream.shutdown().await.unwrap();
}

/// Sends content, says that it is all, and reads the answer to its end.
async fn ask(stream: impl AsyncRead + AsyncWrite, content: &[u8]) -> Vec<u8> {
    let (mut reading, mut writing) = tokio::io::split(stream);
    let mut answer = Vec::new();
    let sending = async {
        writing.write_all(content).await.unwrap();
        writing.shutdown().await.unwrap();
    };
    let (_, read) = tokio::join!(sending, reading.read_to_end(&mut answer));
    read.unwrap();
    answer
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect()
}

#[tokio::test]
async fn the_host_reaches_a_server_inside() {
    let sandbox = open().await;
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = PortAddress::Tcp(server.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = server.accept().await {
            tokio::spawn(echo_all(stream));
        }
    });
    for length in [0, 5, 3 << 20] {
        let stream = sandbox.client.connect(&address).await.unwrap();
        assert!(ask(stream, &content(length)).await == content(length), "{length} bytes");
    }
    let many = (0..20_usize).map(|turn| {
        let (client, address) = (&sandbox.client, &address);
        async move {
            let stream = client.connect(address).await.unwrap();
            assert!(ask(stream, &content(turn * 1000)).await == content(turn * 1000));
        }
    });
    futures::future::join_all(many).await;

    let server = UnixListener::bind(sandbox.workspace.path().join("socket")).unwrap();
    tokio::spawn(async move { echo_all(server.accept().await.unwrap().0).await });
    let stream = sandbox.client.connect(&PortAddress::Unix(path("socket"))).await.unwrap();
    assert_eq!(ask(stream, b"by path").await, b"by path");
}

#[tokio::test]
async fn what_does_not_listen_is_a_typed_error() {
    let sandbox = open().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = sandbox.client.listen(port).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot listen on 127.0.0.1:{port} in the sandbox: address already in use")
    );
    drop(taken);
    let error = sandbox.client.connect(&PortAddress::Tcp(port)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot connect to 127.0.0.1:{port} in the sandbox: connection refused")
    );

    // Neither a file nor a socket outside of the workspace.
    let outside = tempfile::TempDir::new().unwrap();
    let _server = UnixListener::bind(outside.path().join("socket")).unwrap();
    std::fs::write(sandbox.workspace.path().join("file"), "").unwrap();
    symlink(outside.path().join("socket"), sandbox.workspace.path().join("out")).unwrap();
    for (name, expect) in [("file", 111), ("out", 18), ("none", 2)] {
        let error = sandbox.client.connect(&PortAddress::Unix(path(name))).await.unwrap_err();
        assert!(matches!(error, SandboxError::Port { errno, .. } if errno == expect), "{error}");
    }
}

#[tokio::test]
async fn commands_reach_the_host() {
    let sandbox = open().await;
    let mut listener = sandbox.client.listen(0).await.unwrap();
    let port = listener.port();
    let inside = |length| async move {
        ask(TcpStream::connect(("127.0.0.1", port)).await.unwrap(), &content(length)).await
    };
    for length in [7, 1 << 20] {
        let serving = async { echo_all(listener.next().await.unwrap().unwrap()).await };
        let (answer, ()) = tokio::join!(inside(length), serving);
        assert!(answer == content(length), "{length} bytes");
    }
    // A crowd waits, and nobody is lost.
    let crowd: Vec<_> = (0..60).map(|turn| tokio::spawn(inside(turn))).collect();
    for _ in 0..60 {
        tokio::spawn(echo_all(listener.next().await.unwrap().unwrap()));
    }
    for (turn, answer) in futures::future::join_all(crowd).await.into_iter().enumerate() {
        assert!(answer.unwrap() == content(turn));
    }
    // What is not listened to is closed.
    drop(listener);
    let refused = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), refused).await.unwrap();
}

#[tokio::test]
async fn a_server_that_sends_and_never_reads_costs_bounded_memory() {
    let sandbox = open_with(|options| options.max_operations = 4).await;
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = PortAddress::Tcp(server.local_addr().unwrap().port());
    let mut stream = sandbox.client.connect(&address).await.unwrap();
    let (mut peer, _) = server.accept().await.unwrap();
    // Neither side reads, so both come to a stop far below what they would send.
    let most = 16 << 20;
    let chunk = vec![1; 64 * 1024];
    let stops = |sent: usize| assert!(sent < most, "{sent} bytes were taken");
    let mut sent = 0;
    while let Ok(result) =
        tokio::time::timeout(Duration::from_millis(300), stream.write_all(&chunk)).await
    {
        result.unwrap();
        sent += chunk.len();
        stops(sent);
    }
    let mut sent = 0;
    while let Ok(result) =
        tokio::time::timeout(Duration::from_millis(300), peer.write_all(&chunk)).await
    {
        result.unwrap();
        sent += chunk.len();
        stops(sent);
    }
    sandbox.client.ping().await.unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/statm", sandbox.child.id())).unwrap();
    let resident: usize = status.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(resident * 4096 < 8 << 20, "{resident} pages");
}

#[tokio::test]
async fn a_dropped_stream_closes_the_connection_and_a_broken_one_says_so() {
    let sandbox = open().await;
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = PortAddress::Tcp(server.local_addr().unwrap().port());
    let mut stream = sandbox.client.connect(&address).await.unwrap();
    let (mut peer, _) = server.accept().await.unwrap();
    stream.write_all(b"last words").await.unwrap();
    drop(stream);
    let mut heard = Vec::new();
    peer.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"last words");

    let mut stream = sandbox.client.connect(&address).await.unwrap();
    let (peer, _) = server.accept().await.unwrap();
    // Closed with something unread, which the system tells as a reset.
    stream.write_all(b"unread").await.unwrap();
    assert_eq!(peer.peek(&mut [0; 6]).await.unwrap(), 6);
    drop(peer);
    let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}
