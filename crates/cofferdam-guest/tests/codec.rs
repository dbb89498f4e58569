//! The codec alone: what is written is read again, and nothing that comes from outside makes it panic or grow.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says no more than that it failed"
)]

use cofferdam_guest::{
    Address, Attach, Change, CommandInfo, CommandState, DownloadTree, Exec, ExitStatus, Failure,
    FailureReason, FileKind, FileRequest, Frame, FrameDecoder, GuestHello, GuestMessage,
    HEADER_LENGTH, HostHello, HostMessage, INITIAL_WINDOW, ListDirectory, MAX_PAYLOAD, MAX_WINDOW,
    Metadata, ProtocolError, ReadFile, ReceiveWindow, Refusal, ResourceLimit, ScanEntry, ScanTree,
    SendWindow, SessionGrant, SessionRequest, SkipReason, TerminalSize, Token, TreeDecoder,
    TreeEntry, TreeRecord, UploadTree, Versions, WIDE_WINDOW, Watch, WriteFile, encode_end,
    encode_entry, encode_hard_link, encode_scanned, encode_skipped,
};
use proptest::{collection::vec, option, prelude::*};

fn bytes(length: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..length)
}

prop_compose! {
    fn versions()(oldest: u16, newest: u16) -> Versions {
        Versions { oldest, newest }
    }
}

prop_compose! {
    fn terminal()(rows: u16, columns: u16) -> TerminalSize {
        TerminalSize { rows, columns }
    }
}

prop_compose! {
    fn exec()(
        exec_id in bytes(20),
        argv in vec(bytes(40), 0..5),
        environment in vec((bytes(10), bytes(40)), 0..5),
        directory in bytes(30),
        terminal in option::of(terminal()),
        stdin: bool,
        limits in vec(any::<(u32, u64, u64)>(), 0..4),
    ) -> Exec {
        let resource_limits = limits
            .into_iter()
            .map(|(resource, soft, hard)| ResourceLimit { resource, soft, hard })
            .collect();
        Exec { exec_id, argv, environment, directory, terminal, stdin, resource_limits }
    }
}

prop_compose! {
    fn metadata()(kind in 1_u8..10, mode: u32, size: u64, modified_ns: i64, link_target in bytes(40)) -> Metadata {
        let kind = match kind {
            1 => FileKind::Regular,
            2 => FileKind::Directory,
            3 => FileKind::Symlink,
            4 => FileKind::Fifo,
            5 => FileKind::Socket,
            6 => FileKind::CharacterDevice,
            7 => FileKind::BlockDevice,
            other => FileKind::Unknown(other),
        };
        Metadata { kind, mode, size, modified_ns, link_target }
    }
}

fn file_request() -> impl Strategy<Value = FileRequest> {
    (bytes(40), bytes(40), any::<u32>(), any::<bool>(), 0..7_u8).prop_map(
        |(path, other, mode, flag, which)| match which {
            0 => FileRequest::Stat { path, follow: flag },
            1 => FileRequest::MakeDirectory { path, mode, parents: flag },
            2 => FileRequest::Rename { from: path, to: other, replace: flag },
            3 => FileRequest::Remove { path, recursive: flag },
            4 => FileRequest::SetMode { path, mode },
            5 => FileRequest::Symlink { path, target: other },
            _ => FileRequest::ReadLink { path },
        },
    )
}

prop_compose! {
    fn command_info()(
        exec_id in bytes(20),
        pid: u32,
        state in 1_u8..6,
        status in option::of(any::<i32>()),
        sizes: (u64, u64),
    ) -> CommandInfo {
        CommandInfo {
            exec_id,
            pid,
            state: match state {
                1 => CommandState::Running,
                2 => CommandState::Exited,
                3 => CommandState::Finished,
                other => CommandState::Unknown(other),
            },
            status: status.map(ExitStatus::Code),
            stdout_bytes: sizes.0,
            stderr_bytes: sizes.1,
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        bytes(20).prop_map(|path| Change::Created { path }),
        bytes(20).prop_map(|path| Change::Modified { path }),
        bytes(20).prop_map(|path| Change::Removed { path }),
        (bytes(20), bytes(20)).prop_map(|(from, to)| Change::Moved { from, to }),
        Just(Change::Overflow),
        (bytes(20), any::<i32>()).prop_map(|(path, errno)| Change::Unwatched { path, errno }),
        (7_u8..9).prop_map(Change::Unknown),
    ]
}

/// A message, as what can be kept: the borrowed parts are leaked in the test.
fn host_message() -> impl Strategy<Value = HostMessage<'static>> {
    prop_oneof![
        (versions(), bytes(40), any::<(u32, u32)>(), option::of(any::<([u8; 32], u32, u32)>()))
            .prop_map(|(versions, workspace, (max_channels, max_execs), session)| {
                let session = session.map(|(token, linger_ms, replay_bytes)| SessionRequest {
                    token: Token(token),
                    linger_ms,
                    replay_bytes,
                });
                HostMessage::Hello(HostHello {
                    versions,
                    workspace,
                    max_channels,
                    max_execs,
                    session,
                })
            }),
        (bytes(40), any::<(u64, u64)>()).prop_map(|(exec_id, (stdout_from, stderr_from))| {
            HostMessage::Attach(Attach { exec_id, stdout_from, stderr_from })
        }),
        bytes(40).prop_map(|exec_id| HostMessage::Forget { exec_id }),
        bytes(40).prop_map(|path| HostMessage::Connect(Address::Unix { path })),
        any::<u16>().prop_map(|port| HostMessage::Connect(Address::Tcp { port })),
        any::<u16>().prop_map(|port| HostMessage::Listen { port }),
        any::<(u32, u32)>()
            .prop_map(|(listener, connection)| HostMessage::Accept { listener, connection }),
        (bytes(40), any::<bool>())
            .prop_map(|(path, recursive)| HostMessage::Watch(Watch { path, recursive })),
        exec().prop_map(HostMessage::Exec),
        (bytes(40), any::<(u64, u64)>()).prop_map(|(path, (offset, max_bytes))| {
            HostMessage::ReadFile(ReadFile { path, offset, max_bytes })
        }),
        (bytes(40), any::<(u32, bool, bool, bool, Option<u64>)>()).prop_map(
            |(path, (mode, keep_mode, must_be_new, make_parents, expected_size))| {
                HostMessage::WriteFile(WriteFile {
                    path,
                    mode,
                    keep_mode,
                    must_be_new,
                    make_parents,
                    expected_size,
                })
            }
        ),
        (bytes(40), any::<(u32, u32)>()).prop_map(
            |(path, (depth, max_entries))| HostMessage::List(ListDirectory {
                path,
                depth,
                max_entries
            })
        ),
        file_request().prop_map(HostMessage::File),
        bytes(40).prop_map(|path| HostMessage::UploadTree(UploadTree { path })),
        (bytes(40), any::<(u64, u64, bool)>()).prop_map(
            |(path, (max_bytes, max_entries, hard_links))| {
                let request = DownloadTree { path, max_bytes, max_entries, hard_links };
                HostMessage::DownloadTree(request)
            }
        ),
        (bytes(40), any::<u64>())
            .prop_map(|(path, max_entries)| HostMessage::ScanTree(ScanTree { path, max_entries })),
        bytes(200).prop_map(|data| HostMessage::Data(data.leak())),
        any::<u32>().prop_map(HostMessage::Window),
        any::<i32>().prop_map(HostMessage::Signal),
        terminal().prop_map(HostMessage::Resize),
        prop_oneof![
            Just(HostMessage::Ping),
            Just(HostMessage::EndOfData),
            Just(HostMessage::KillTree),
            Just(HostMessage::Close),
            Just(HostMessage::Detach),
            Just(HostMessage::ListCommands),
        ],
        (0x40_u8..0x80, bytes(20))
            .prop_map(|(kind, payload)| HostMessage::Unknown { kind, payload: payload.leak() }),
    ]
}

fn guest_message() -> impl Strategy<Value = GuestMessage<'static>> {
    prop_oneof![
        ("[a-z0-9.]{0,20}", any::<(u16, u32, u32)>(), option::of(any::<(u32, u32, u32)>()))
            .prop_map(|(build, (version, pid, uid), session)| {
                let session = session.map(|(connection, linger_ms, replay_bytes)| SessionGrant {
                    connection,
                    linger_ms,
                    replay_bytes,
                });
                GuestMessage::Hello(GuestHello { version, build, pid, uid, session })
            }),
        any::<(u64, u64)>()
            .prop_map(|(stdout, stderr)| GuestMessage::OutputLost { stdout, stderr }),
        vec(command_info(), 0..5).prop_map(GuestMessage::Commands),
        any::<u16>().prop_map(|port| GuestMessage::Listening { port }),
        any::<u32>().prop_map(|connection| GuestMessage::Incoming { connection }),
        prop_oneof![Just(GuestMessage::Opened), Just(GuestMessage::EndOfData)],
        (versions(), any::<i32>())
            .prop_map(|(versions, errno)| GuestMessage::Refused(Refusal { versions, errno })),
        any::<u32>().prop_map(|pid| GuestMessage::Started { pid }),
        bytes(200).prop_map(|data| GuestMessage::Stdout(data.leak())),
        bytes(200).prop_map(|data| GuestMessage::Stderr(data.leak())),
        bytes(200).prop_map(|data| GuestMessage::Data(data.leak())),
        any::<(u8, i32)>().prop_map(|(tag, value)| GuestMessage::Exited(match tag {
            0 => ExitStatus::Code(value),
            1 => ExitStatus::Signal(value),
            tag => ExitStatus::Unknown(tag, value),
        })),
        metadata().prop_map(GuestMessage::Metadata),
        any::<u32>().prop_map(GuestMessage::Window),
        Just(GuestMessage::Done),
        any::<u64>().prop_map(|entries| GuestMessage::Uploaded { entries }),
        (6_u8.., any::<i32>(), bytes(40), "\\PC{0,40}").prop_map(|(raw, errno, path, message)| {
            GuestMessage::Failed(Failure {
                reason: FailureReason::Unknown(raw),
                errno,
                path,
                message,
            })
        }),
        (0xf0_u8.., bytes(20))
            .prop_map(|(kind, payload)| GuestMessage::Unknown { kind, payload: payload.leak() }),
    ]
}

proptest! {
    #[test]
    fn host_messages_round_trip(
        messages in vec((any::<u32>(), host_message()), 1..8),
        cut in 1_usize..40,
    ) {
        let mut encoded = Vec::new();
        for (channel, message) in &messages {
            message.encode(*channel, &mut encoded).unwrap();
        }
        let mut decoder = FrameDecoder::new();
        let mut back = Vec::new();
        for piece in encoded.chunks(cut) {
            decoder.push(piece);
            while let Some(frame) = decoder.next_frame().unwrap() {
                let again = HostMessage::decode(frame).unwrap();
                let mut encoded = Vec::new();
                again.encode(frame.channel, &mut encoded).unwrap();
                back.push((frame.channel, encoded));
            }
        }
        prop_assert_eq!(decoder.pending(), 0);
        let sent: Vec<_> = messages
            .iter()
            .map(|(channel, message)| {
                let mut encoded = Vec::new();
                message.encode(*channel, &mut encoded).unwrap();
                (*channel, encoded)
            })
            .collect();
        prop_assert_eq!(back, sent);
    }

    #[test]
    fn one_message_is_the_same_again(host in host_message(), guest in guest_message(), channel: u32) {
        let mut encoded = Vec::new();
        host.encode(channel, &mut encoded).unwrap();
        guest.encode(channel, &mut encoded).unwrap();
        let mut decoder = FrameDecoder::new();
        decoder.push(&encoded);
        prop_assert_eq!(HostMessage::decode(decoder.next_frame().unwrap().unwrap()).unwrap(), host);
        prop_assert_eq!(GuestMessage::decode(decoder.next_frame().unwrap().unwrap()).unwrap(), guest);
    }

    #[test]
    fn change_records_round_trip(changes in vec(change(), 0..10)) {
        let mut payload = Vec::new();
        for change in &changes {
            change.encode(&mut payload);
        }
        prop_assert_eq!(Change::decode_all(&payload).unwrap(), changes);
        payload.pop();
        prop_assert!(payload.is_empty() || Change::decode_all(&payload).is_err());
    }

    /// Arbitrary content under every kind: an answer or an error, and what is understood means the same when written.
    #[test]
    fn arbitrary_payloads_never_panic(kind: u8, payload in bytes(300)) {
        let frame = Frame { channel: 1, kind, payload: &payload };
        if let Ok(message) = HostMessage::decode(frame) {
            let mut encoded = Vec::new();
            message.encode(1, &mut encoded).unwrap();
            prop_assert!(encoded.len() <= payload.len() + HEADER_LENGTH);
        }
        if let Ok(message) = GuestMessage::decode(frame) {
            let mut encoded = Vec::new();
            prop_assert!(message.encode(1, &mut encoded).is_ok());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_grow(pieces in vec(bytes(2000), 0..20)) {
        let mut decoder = FrameDecoder::new();
        'stream: for piece in &pieces {
            decoder.push(piece);
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => {
                        prop_assert!(frame.payload.len() <= MAX_PAYLOAD);
                        let _ = (HostMessage::decode(frame), GuestMessage::decode(frame));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        prop_assert_eq!(decoder.next_frame(), Err(error), "an error stays");
                        break 'stream;
                    }
                }
            }
            prop_assert!(decoder.pending() <= MAX_PAYLOAD + HEADER_LENGTH);
        }
    }

    #[test]
    fn tree_streams_round_trip_in_any_pieces(
        entries in vec((bytes(30), metadata(), bytes(300)), 0..10),
        truncated: bool,
        cut in 1_usize..50,
    ) {
        let mut encoded = Vec::new();
        let mut sent = Vec::new();
        for (path, mut metadata, content) in entries {
            metadata.size = content.len() as u64;
            encode_entry(&path, &metadata, &mut encoded);
            let regular = metadata.kind == FileKind::Regular;
            if regular {
                encoded.extend_from_slice(&content);
            }
            sent.push((TreeEntry { path: path.clone(), metadata }, if regular { content } else { Vec::new() }));
            encode_skipped(&path, SkipReason::Socket, &mut encoded);
            encode_hard_link(&path, b"first", &mut encoded);
            let scanned = ScanEntry {
                path,
                kind: FileKind::Fifo,
                mode: 0o644,
                size: 1,
                device: 2,
                inode: 3,
                modified_ns: -4,
                changed_ns: 5,
                links: 6,
                link_target: Vec::new(),
            };
            encode_scanned(&scanned, &mut encoded);
        }
        encode_end(truncated, &mut encoded);
        let mut decoder = TreeDecoder::with_content();
        let mut back: Vec<(TreeEntry, Vec<u8>)> = Vec::new();
        let mut end = None;
        for piece in encoded.chunks(cut) {
            decoder.push(piece);
            while let Some(record) = decoder.next_record().unwrap() {
                match record {
                    TreeRecord::Entry(entry) => back.push((entry, Vec::new())),
                    TreeRecord::Content(bytes) => back.last_mut().unwrap().1.extend_from_slice(bytes),
                    TreeRecord::Skipped { path, reason } => {
                        prop_assert_eq!((&path, reason), (&back.last().unwrap().0.path, SkipReason::Socket));
                    }
                    TreeRecord::HardLink { path, to } => {
                        prop_assert_eq!((&path, &*to), (&back.last().unwrap().0.path, b"first".as_slice()));
                    }
                    TreeRecord::Scanned(entry) => prop_assert_eq!(&entry.path, &back.last().unwrap().0.path),
                    TreeRecord::End { truncated } => end = Some(truncated),
                }
            }
        }
        prop_assert_eq!(end, Some(truncated));
        prop_assert_eq!(back, sent);
    }

    #[test]
    fn arbitrary_tree_streams_never_panic(pieces in vec(bytes(500), 0..10), with_content: bool) {
        let mut decoder = if with_content { TreeDecoder::with_content() } else { TreeDecoder::without_content() };
        'stream: for piece in &pieces {
            decoder.push(piece);
            loop {
                match decoder.next_record() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => break 'stream,
                }
            }
        }
    }

    /// Whatever is sent and taken, the two sides of a window agree, and it never grows.
    #[test]
    fn the_two_sides_of_a_window_agree(steps in vec((any::<bool>(), 0_usize..300_000), 0..60)) {
        let (mut sender, mut receiver) = (SendWindow::default(), ReceiveWindow::default());
        let mut held = 0;
        for (send, amount) in steps {
            if send {
                let taken = sender.take(amount);
                receiver.arrived(1, taken).unwrap();
                held += taken;
            } else {
                let amount = amount.min(held);
                held -= amount;
                if let Some(credit) = receiver.taken(amount) {
                    sender.grant(credit).unwrap();
                }
            }
            prop_assert!(held + sender.available() <= INITIAL_WINDOW as usize);
        }
        if held == 0 {
            prop_assert!(sender.available() >= INITIAL_WINDOW as usize / 2, "an idle channel can send");
        }
    }
}

#[test]
fn bounds_are_typed_errors() {
    let mut decoder = FrameDecoder::new();
    decoder.push(&[0x01, 0x00, 0x04, 0x00, 7, 0, 0, 0, 0x80]);
    let oversized = ProtocolError::Oversized { channel: 7, kind: 0x80, length: 0x0004_0001 };
    assert_eq!(decoder.next_frame(), Err(oversized.clone()));
    assert_eq!(
        oversized.to_string(),
        "frame of kind 0x80 on channel 7 announces 262145 bytes, more than 262144"
    );

    let mut out = vec![1, 2, 3];
    let big = vec![0; MAX_PAYLOAD + 1];
    assert!(matches!(
        HostMessage::Data(&big).encode(1, &mut out),
        Err(ProtocolError::Oversized { length: 262_145, .. })
    ));
    assert_eq!(out, [1, 2, 3]);
    assert!(HostMessage::Data(&big[1..]).encode(1, &mut out).is_ok());

    let mut window = SendWindow::default();
    assert!(matches!(window.grant(MAX_WINDOW), Err(ProtocolError::Bound { what: "window", .. })));
    assert_eq!(window.available(), INITIAL_WINDOW as usize);
    let mut window = ReceiveWindow::default();
    assert_eq!(
        window.arrived(3, INITIAL_WINDOW as usize + 5),
        Err(ProtocolError::Overrun { channel: 3, excess: 5 })
    );
    // Widened once, and no more while that is outstanding.
    assert_eq!(window.widen(), WIDE_WINDOW - INITIAL_WINDOW);
    assert_eq!(window.widen(), 0);
    assert_eq!(window.arrived(3, WIDE_WINDOW as usize), Ok(()));
    assert_eq!(window.arrived(3, 1), Err(ProtocolError::Overrun { channel: 3, excess: 1 }));
}

#[test]
fn hostile_counts_are_refused_before_memory_is_taken() {
    let check = |kind: u8, payload: &[u8], expect: &str| {
        let error = HostMessage::decode(Frame { channel: 1, kind, payload }).unwrap_err();
        assert_eq!(error.to_string(), expect);
    };
    // A path of four gigabytes, and one of a byte more than allowed.
    check(0x14, &[0xff, 0xff, 0xff, 0xff], "path is 4294967295 long, more than 4096");
    check(0x14, &[0x01, 0x10, 0, 0], "path is 4097 long, more than 4096");
    check(0x14, &[4, 0, 0, 0, b'a'], "host message is cut short");
    // An empty name, and a million arguments.
    check(0x10, &[0, 0, 0, 0, 0x40, 0x42, 0x0f, 0], "arguments is 1000000 long, more than 16384");
    check(0x01, b"HTTP", "the stream does not start with a guest greeting");
    check(0x84, &[0], "host message has 1 bytes too many");
    check(0x14, &[0, 0, 0, 0, 2], "host message has the unknown value 2");
}

#[test]
fn the_newest_common_version_is_chosen() {
    let range = |oldest, newest| Versions { oldest, newest };
    for (ours, theirs, expect) in [
        (range(1, 1), range(1, 1), Some(1)),
        (range(1, 5), range(3, 9), Some(5)),
        (range(3, 9), range(1, 5), Some(5)),
        (range(1, 2), range(3, 4), None),
        (range(3, 4), range(1, 2), None),
        (range(1, 2), range(9, 0), None),
    ] {
        assert_eq!(ours.common(theirs).ok(), expect, "{ours:?} {theirs:?}");
    }
}
