//! The guest client against guests that lie: every answer is a typed error, and nothing hangs, panics or grows.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says no more than that it failed"
)]

use std::time::Duration;

use bytes::Bytes;
use cofferdam_core::WorkspacePath;
use cofferdam_guest::{
    ExitStatus, Failure, FailureReason, FileKind, FrameDecoder, GuestHello, GuestMessage,
    HostMessage, INITIAL_WINDOW, MAX_WINDOW, Metadata, PROTOCOL_VERSION, Refusal, ScanEntry,
    Versions, WIDE_WINDOW, encode_end, encode_entry, encode_hard_link, encode_scanned,
};
use cofferdam_sandbox::{
    DownloadOptions, ExecRequest, Files as _, GuestClient, GuestOptions, ListOptions,
    OutputPosition, PortAddress, Ports as _, SandboxError, ScanOptions, SessionOptions,
    SessionToken, Tree as _, WatchOptions, Watcher as _, WriteOptions,
};
use futures::StreamExt as _;
use proptest::{collection::vec, prelude::*};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

fn hello() -> GuestMessage<'static> {
    GuestMessage::Hello(GuestHello {
        version: PROTOCOL_VERSION,
        build: "liar".to_owned(),
        pid: 1,
        uid: 0,
        session: None,
    })
}

fn encode(messages: &[(u32, GuestMessage<'_>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (channel, message) in messages {
        message.encode(*channel, &mut bytes).unwrap();
    }
    bytes
}

/// Connects to a guest that greets, waits for the first request, and then sends these bytes.
async fn connect(answer: Vec<u8>) -> GuestClient {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    tokio::spawn(lie(theirs, answer));
    GuestClient::connect(ours, GuestOptions::default()).await.unwrap()
}

async fn lie(mut stream: DuplexStream, answer: Vec<u8>) {
    stream.write_all(&encode(&[(0, hello())])).await.unwrap();
    let mut decoder = FrameDecoder::new();
    let mut buffer = vec![0; 4096];
    let mut frames = 0;
    while frames < 2 {
        let length = stream.read(&mut buffer).await.unwrap();
        if length == 0 {
            return;
        }
        decoder.push(&buffer[..length]);
        while decoder.next_frame().unwrap().is_some() {
            frames += 1;
        }
    }
    // The client may hang up in the middle.
    let _ = stream.write_all(&answer).await;
    // Stay, and never read again.
    std::future::pending::<()>().await;
}

/// A guest of the first release of version 1: it greets without a session, and knows no later operation.
async fn old_guest(mut stream: DuplexStream) {
    stream.write_all(&encode(&[(0, hello())])).await.unwrap();
    let mut decoder = FrameDecoder::new();
    let mut buffer = vec![0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        decoder.push(&buffer[..length]);
        let mut answers = Vec::new();
        while let Some(frame) = decoder.next_frame().unwrap() {
            if let 0x1e..=0x7f = frame.kind {
                let failure = Failure {
                    reason: FailureReason::Unsupported,
                    errno: 0,
                    path: Vec::new(),
                    message: "this guest does not know the operation".to_owned(),
                };
                answers.push((frame.channel, GuestMessage::Failed(failure)));
            }
        }
        stream.write_all(&encode(&answers)).await.unwrap();
    }
}

#[tokio::test]
async fn what_an_old_guest_cannot_do_is_told_as_unsupported() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    tokio::spawn(old_guest(theirs));
    let session = SessionOptions::new(SessionToken([1; 32]), Duration::from_secs(60));
    let options = GuestOptions { session: Some(session), ..GuestOptions::default() };
    let client = GuestClient::connect(ours, options).await.unwrap();
    assert!(client.sessions().is_none());
    let sessions: &dyn cofferdam_sandbox::Sessions = &client;
    let check = |error: SandboxError, expect: &str| {
        assert!(matches!(error, SandboxError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(expect), "{error}");
    };
    check(client.connect(&PortAddress::Tcp(80)).await.unwrap_err(), "port forwarding");
    check(client.listen(0).await.unwrap_err(), "port forwarding");
    let watch = client.watch(&root(), &WatchOptions::default()).await;
    check(watch.err().unwrap(), "watching files");
    check(sessions.list().await.unwrap_err(), "listing commands");
    check(sessions.attach("x", OutputPosition::default()).await.unwrap_err(), "attaching");
    check(sessions.forget("x").await.unwrap_err(), "forgetting");
    // And a guest that does not know the session cannot be resumed.
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    tokio::spawn(old_guest(theirs));
    let error = GuestClient::resume(ours, GuestOptions::default()).await.unwrap_err();
    assert!(matches!(error, SandboxError::Lost { .. }), "{error}");
}

fn root() -> WorkspacePath {
    WorkspacePath::root()
}

async fn protocol_error<T: std::fmt::Debug>(
    call: impl Future<Output = Result<T, SandboxError>>,
) -> String {
    let result =
        tokio::time::timeout(Duration::from_secs(10), call).await.expect("an answer in time");
    match result {
        Err(SandboxError::Protocol { detail }) => detail,
        other => panic!("unexpected {other:?}"),
    }
}

fn metadata(kind: FileKind, size: u64) -> Metadata {
    Metadata { kind, mode: 0o644, size, modified_ns: 0, link_target: Vec::new() }
}

async fn greeting(bytes: Vec<u8>) -> SandboxError {
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    theirs.write_all(&bytes).await.unwrap();
    theirs.shutdown().await.unwrap();
    GuestClient::connect(ours, GuestOptions::default()).await.unwrap_err()
}

#[tokio::test]
async fn what_is_no_guest_is_told_apart() {
    let versions = Versions { oldest: 7, newest: 9 };
    let error =
        greeting(encode(&[(0, GuestMessage::Refused(Refusal { versions, errno: 0 }))])).await;
    assert_eq!(error.to_string(), "the guest speaks protocol versions 7 to 9, this host 1 to 1");
    let refusal = Refusal { versions: Versions::SPOKEN, errno: 2 };
    let error = greeting(encode(&[(0, GuestMessage::Refused(refusal))])).await;
    assert_eq!(
        error.to_string(),
        "invalid sandbox request: the guest cannot open the workspace \"/workspace\": no such file or directory"
    );
    let unknown = GuestHello { version: 3, build: String::new(), pid: 1, uid: 0, session: None };
    let error = greeting(encode(&[(0, GuestMessage::Hello(unknown))])).await;
    assert!(matches!(error, SandboxError::VersionMismatch { guest_min: 3, .. }), "{error}");
    for bytes in [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        encode(&[(0, GuestMessage::Done)]),
        encode(&[(1, hello())]),
        vec![0xff; 9],
        vec![9, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    ] {
        let error = greeting(bytes.clone()).await;
        assert!(matches!(error, SandboxError::Protocol { .. }), "{bytes:?}: {error}");
    }
    let error = greeting(Vec::new()).await;
    assert_eq!(
        error.to_string(),
        "the sandbox is lost: the stream to the guest broke (the guest ended before its greeting)"
    );
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_never_greets_is_given_up() {
    let (ours, _theirs) = tokio::io::duplex(1 << 16);
    let error = GuestClient::connect(ours, GuestOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("did not answer the greeting in time"), "{error}");
}

#[tokio::test]
async fn messages_out_of_order_end_the_connection() {
    use GuestMessage::{Data, Done, Exited, Started, Stdout, Unknown, Uploaded, Window};
    let exit = ExitStatus::Code(0);
    let big = vec![0; INITIAL_WINDOW as usize];
    let cases: Vec<(Vec<(u32, GuestMessage<'_>)>, &str)> = vec![
        (vec![(1, Stdout(b"x"))], "a message of kind 0x91 has no meaning on channel 1 now"),
        (vec![(1, Exited(exit))], "a message of kind 0x93 has no meaning on channel 1 now"),
        (vec![(1, Done)], "a message of kind 0x95 has no meaning on channel 1 now"),
        (vec![(1, Data(b"x"))], "a message of kind 0x80 has no meaning on channel 1 now"),
        (vec![(1, hello())], "a message of kind 0x01 has no meaning on channel 1 now"),
        (
            vec![(1, Uploaded { entries: 1 })],
            "a message of kind 0x96 has no meaning on channel 1 now",
        ),
        (
            vec![(1, Unknown { kind: 0xee, payload: b"" })],
            "a message of kind 0xee has no meaning on channel 1 now",
        ),
        (vec![(2, Done)], "channel 2 was never opened"),
        (vec![(0, Done)], "channel 0 was never opened"),
        (vec![(1, Window(MAX_WINDOW))], "window is 17039360 long, more than 16777216"),
        (
            vec![(1, Started { pid: 2 }), (1, Started { pid: 2 })],
            "a message of kind 0x90 has no meaning on channel 1 now",
        ),
        (
            vec![(1, Started { pid: 2 }), (1, Stdout(&big)), (1, Stdout(b"x"))],
            "channel 1 received 1 bytes above its credit",
        ),
        (
            vec![(1, Started { pid: 2 }), (1, Exited(exit)), (1, Done), (1, Done)],
            "channel 1 goes on after its end",
        ),
    ];
    for (messages, expect) in cases {
        let client = connect(encode(&messages)).await;
        let exec = async {
            let mut process = client.exec(ExecRequest::program(["x"])).await?;
            // Hold the process without reading, so that what is wrong is seen by the connection.
            let error = client.lost().await;
            while let Some(event) = process.next().await {
                let _ = event;
            }
            Err::<(), _>(error)
        };
        assert_eq!(protocol_error(exec).await, expect);
        // What comes later fails in the same way.
        assert_eq!(protocol_error(client.ping()).await, expect);
    }
}

#[tokio::test]
async fn a_long_read_comes_with_its_credit() {
    let check = async |max_bytes: u64, expect: Option<u32>| {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        theirs.write_all(&encode(&[(0, hello())])).await.unwrap();
        let client = GuestClient::connect(ours, GuestOptions::default()).await.unwrap();
        let reading = async {
            let read = client.read(&root(), 0, max_bytes).await;
            client.ping().await.unwrap_err();
            read
        };
        let guest = async {
            let mut decoder = FrameDecoder::new();
            let (mut buffer, mut seen, mut credit) = (vec![0; 4096], 0, None);
            // Up to the ping, before which all of the read's own frames come.
            while seen < 3 {
                let length = theirs.read(&mut buffer).await.unwrap();
                decoder.push(&buffer[..length]);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    let message = HostMessage::decode(frame).unwrap();
                    if let HostMessage::Window(bytes) = message {
                        credit = Some((frame.channel, bytes));
                        continue;
                    }
                    if let HostMessage::ReadFile(_) = message {
                        let four = metadata(FileKind::Regular, 4);
                        let answer = [(1, GuestMessage::Metadata(four)), (1, GuestMessage::Done)];
                        theirs.write_all(&encode(&answer)).await.unwrap();
                    }
                    seen += 1;
                }
            }
            drop(theirs);
            credit
        };
        let (read, credit) = tokio::join!(reading, guest);
        assert_eq!((read.unwrap().len(), credit), (0, expect.map(|bytes| (1, bytes))));
    };
    check(u64::from(INITIAL_WINDOW), None).await;
    check(u64::from(INITIAL_WINDOW) + 1, Some(WIDE_WINDOW - INITIAL_WINDOW)).await;
}

#[tokio::test]
async fn answers_beyond_the_request_end_the_connection() {
    let four = metadata(FileKind::Regular, 4);
    let client = connect(encode(&[
        (1, GuestMessage::Metadata(four.clone())),
        (1, GuestMessage::Data(b"more")),
        (1, GuestMessage::Done),
    ]))
    .await;
    assert_eq!(
        protocol_error(client.read(&root(), 0, 3)).await,
        "a file came with more content than was asked for"
    );

    let listing = |paths: &[&str], end: bool| {
        let mut bytes = Vec::new();
        for path in paths {
            encode_entry(path.as_bytes(), &four, &mut bytes);
        }
        if end {
            encode_end(false, &mut bytes);
        }
        encode(&[(1, GuestMessage::Data(&bytes)), (1, GuestMessage::Done)])
    };
    let options = ListOptions { depth: 1, max_entries: 2 };
    for (paths, end, expect) in [
        (vec!["a", "b", "c"], true, "a listing has more entries than were asked for"),
        (vec!["a"], false, "a listing is cut short"),
        (vec!["../a"], true, "\"../a\" is no path in a tree"),
        (vec!["/a"], true, "\"/a\" is no path in a tree"),
        (vec!["a\0"], true, "\"a\\0\" is no path in a tree"),
        (vec!["a//b"], true, "\"a//b\" is no path in a tree"),
    ] {
        let client = connect(listing(&paths, end)).await;
        assert_eq!(protocol_error(client.list(&root(), &options)).await, expect);
    }

    let tree = |metadata: &Metadata, content: &[u8]| {
        let mut bytes = Vec::new();
        encode_entry(b"a", metadata, &mut bytes);
        bytes.extend_from_slice(content);
        encode_end(false, &mut bytes);
        encode(&[(1, GuestMessage::Data(&bytes)), (1, GuestMessage::Done)])
    };
    let bounds = DownloadOptions { max_bytes: 3, max_entries: 10, hard_links: false };
    for (answer, bounds, expect) in [
        (tree(&four, b"more"), bounds, "a tree has too many bytes"),
        (
            tree(&four, b"more"),
            DownloadOptions { max_entries: 0, max_bytes: 9, hard_links: false },
            "a tree has too many entries",
        ),
        (tree(&metadata(FileKind::Fifo, 0), b""), bounds, "a tree has an entry of kind Fifo"),
        (tree(&metadata(FileKind::Regular, 3), b"")[..].to_vec(), bounds, "a tree is cut short"),
    ] {
        let client = connect(answer).await;
        let download = async {
            let mut stream = client.download(&root(), &bounds).await?;
            while let Some(event) = stream.next().await {
                event?;
            }
            Ok(())
        };
        assert_eq!(protocol_error(download).await, expect);
    }
}

#[tokio::test]
async fn scans_are_bounded_and_hold_no_odd_paths() {
    let scanned = |path: &[u8]| {
        let entry = ScanEntry {
            path: path.to_vec(),
            kind: FileKind::Regular,
            mode: 0o644,
            size: 1,
            device: 1,
            inode: 1,
            modified_ns: 0,
            changed_ns: 0,
            links: 1,
            link_target: Vec::new(),
        };
        let mut bytes = Vec::new();
        encode_scanned(&entry, &mut bytes);
        bytes
    };
    let mut linked = Vec::new();
    encode_hard_link(b"a", b"b", &mut linked);
    for (records, expect) in [
        (scanned(b"../a"), "\"../a\" is no path in a tree"),
        (scanned(b"/a"), "\"/a\" is no path in a tree"),
        ([scanned(b"a"), scanned(b"b")].concat(), "a scan has too many entries"),
        (linked, "a scan has an entry of a tree"),
        (scanned(b"a"), "a tree is cut short"),
    ] {
        let client =
            connect(encode(&[(1, GuestMessage::Data(&records)), (1, GuestMessage::Done)])).await;
        let scan = async {
            let mut stream = client.scan(&root(), &ScanOptions { max_entries: 1 }).await?;
            while let Some(event) = stream.next().await {
                event?;
            }
            Ok(())
        };
        assert_eq!(protocol_error(scan).await, expect);
    }
}

#[tokio::test]
async fn a_download_without_hard_links_gets_none() {
    let mut linked = Vec::new();
    encode_hard_link(b"a", b"b", &mut linked);
    let client =
        connect(encode(&[(1, GuestMessage::Data(&linked)), (1, GuestMessage::Done)])).await;
    let download = async {
        let mut stream = client.download(&root(), &DownloadOptions::default()).await?;
        while let Some(event) = stream.next().await {
            event?;
        }
        Ok(())
    };
    assert_eq!(protocol_error(download).await, "a tree has a hard link");
}

#[tokio::test]
async fn a_guest_that_knows_no_scan_is_an_unsupported_operation() {
    let failure = Failure {
        reason: FailureReason::Unsupported,
        errno: 0,
        path: Vec::new(),
        message: "the guest does not know the operation".to_owned(),
    };
    let client = connect(encode(&[(1, GuestMessage::Failed(failure))])).await;
    let mut stream = client.scan(&root(), &ScanOptions::default()).await.unwrap();
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(
        matches!(error, SandboxError::Unsupported { operation: "scan", .. }),
        "not an unsupported operation: {error:?}"
    );
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_failure_is_the_calls_own_and_not_the_connections() {
    let failure = |path: &[u8]| Failure {
        reason: FailureReason::Unknown(99),
        errno: 9999,
        path: path.to_vec(),
        message: "whatever \u{7}".to_owned(),
    };
    let client =
        connect(encode(&[(1, GuestMessage::Failed(failure(b"\xff"))), (2, GuestMessage::Done)]))
            .await;
    let error = client.stat(&root()).await.unwrap_err();
    assert!(matches!(error, SandboxError::File { errno: 9999, .. }), "{error:?}");
    // The second answer came before its question.
    assert!(client.lost().await.is_loss());
}

/// A call that an arbitrary guest answers.
async fn call(client: &GuestClient, which: u8) {
    match which % 6 {
        0 => {
            if let Ok(mut process) = client.exec(ExecRequest::program(["x"])).await {
                while let Some(Ok(_)) = process.next().await {}
            }
        }
        1 => drop(client.read(&root(), 0, 100).await),
        2 => drop(client.list(&root(), &ListOptions::default()).await),
        3 => {
            let content = Bytes::from(vec![0; 600_000]);
            drop(client.write(&root(), content, &WriteOptions::default()).await);
        }
        4 => {
            if let Ok(mut stream) = client.download(&root(), &DownloadOptions::default()).await {
                while let Some(Ok(_)) = stream.next().await {}
            }
        }
        _ => drop(client.stat(&root()).await),
    }
}

/// Runs all calls against a guest that sends these bytes and ends; all of them must end too.
fn survives(answer: Vec<u8>, which: u8) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        theirs.write_all(&encode(&[(0, hello())])).await.unwrap();
        let client = GuestClient::connect(ours, GuestOptions::default()).await.unwrap();
        let guest = async {
            tokio::task::yield_now().await;
            theirs.write_all(&answer).await.unwrap();
            theirs.shutdown().await.unwrap();
        };
        let both = async { tokio::join!(call(&client, which), guest) };
        tokio::time::timeout(Duration::from_secs(10), both).await.expect("the call ends");
        assert!(client.lost().await.is_loss());
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn arbitrary_bytes_from_the_guest(answer in vec(any::<u8>(), 0..400), which: u8) {
        survives(answer, which);
    }

    #[test]
    fn arbitrary_frames_from_the_guest(
        frames in vec((0_u32..3, 0x80_u8..0x99, vec(any::<u8>(), 0..30)), 0..20),
        which: u8,
    ) {
        let mut answer = Vec::new();
        for (channel, kind, payload) in &frames {
            GuestMessage::Unknown { kind: *kind, payload }.encode(*channel, &mut answer).unwrap();
        }
        survives(answer, which);
    }

    #[test]
    fn plausible_messages_from_the_guest(choices in vec((0_u8..12, 0_usize..3000), 0..30), which: u8) {
        let content = vec![1_u8; 3000];
        let found = metadata(FileKind::Regular, 5);
        let messages: Vec<_> = choices
            .iter()
            .map(|(choice, length)| {
                let bytes = &content[..*length];
                let message = match choice {
                    0 => GuestMessage::Started { pid: 5 },
                    1 | 2 => GuestMessage::Stdout(bytes),
                    3 => GuestMessage::Stderr(bytes),
                    4 => GuestMessage::Exited(ExitStatus::Unknown(7, 9)),
                    5 => GuestMessage::Metadata(found.clone()),
                    6..=8 => GuestMessage::Data(bytes),
                    9 => GuestMessage::Window(u32::try_from(*length).unwrap()),
                    10 => GuestMessage::Uploaded { entries: 3 },
                    _ => GuestMessage::Done,
                };
                (1, message)
            })
            .collect();
        survives(encode(&messages), which);
    }
}

#[tokio::test]
async fn a_host_message_is_what_the_guest_decodes() {
    // Keeps the two halves of the protocol together: what the client sends first is a greeting and then the request.
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    theirs.write_all(&encode(&[(0, hello())])).await.unwrap();
    let client = GuestClient::connect(ours, GuestOptions::default()).await.unwrap();
    let (ping, messages) = tokio::join!(
        tokio::time::timeout(Duration::from_secs(5), async {
            tokio::select! { result = client.ping() => result, error = client.lost() => Err(error) }
        }),
        async {
            let mut decoder = FrameDecoder::new();
            let mut kinds = Vec::new();
            let mut buffer = vec![0; 4096];
            while kinds.len() < 2 {
                let length = theirs.read(&mut buffer).await.unwrap();
                decoder.push(&buffer[..length]);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    kinds.push((
                        frame.channel,
                        matches!(HostMessage::decode(frame).unwrap(), HostMessage::Hello(_)),
                    ));
                }
            }
            theirs.write_all(&encode(&[(1, GuestMessage::Done)])).await.unwrap();
            kinds
        }
    );
    ping.unwrap().unwrap();
    assert_eq!(messages, [(0, true), (1, false)]);
}
