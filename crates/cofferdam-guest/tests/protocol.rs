//! The greeting, and hosts that break the protocol, against the real program.

#![cfg(all(feature = "program", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says no more than that it failed"
)]

mod support;

use std::io::{Read as _, Write as _};

use cofferdam_guest::{
    FailureReason, FrameDecoder, GuestMessage, HEADER_LENGTH, HostHello, HostMessage, MAX_WINDOW,
    PROTOCOL_VERSION, Refusal, Versions,
};
use proptest::prelude::*;
use support::{Event, Guest, host_hello, program, spawn};

/// Sends bytes to a fresh guest and returns what it answers, its exit code and its diagnostics.
fn talk(bytes: &[u8]) -> (Vec<u8>, Option<i32>, String) {
    let (mut child, mut stream) = spawn();
    // The guest may end before all is written.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (answer, child.wait().unwrap().code(), text)
}

fn refusal(hello: HostHello) -> Refusal {
    let mut bytes = Vec::new();
    HostMessage::Hello(hello).encode(0, &mut bytes).unwrap();
    let (answer, code, _) = talk(&bytes);
    assert_eq!(code, Some(1));
    let mut decoder = FrameDecoder::new();
    decoder.push(&answer);
    match GuestMessage::decode(decoder.next_frame().unwrap().unwrap()).unwrap() {
        GuestMessage::Refused(refusal) => refusal,
        other => panic!("unexpected {other:?}"),
    }
}

#[test]
fn the_guest_introduces_itself() {
    let guest = Guest::start();
    assert_eq!(guest.hello.version, PROTOCOL_VERSION);
    assert_eq!(guest.hello.build, env!("CARGO_PKG_VERSION"));
    assert_eq!(guest.hello.pid, guest.child.id());
    assert!(guest.close().success());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test is the backend of the program")]
fn pipes_to_the_host_are_widened() {
    let workspace = tempfile::TempDir::new().unwrap();
    let ((theirs_in, mut to_guest), (mut from_guest, theirs_out)) =
        (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    let mut child =
        std::process::Command::new(program()).stdin(theirs_in).stdout(theirs_out).spawn().unwrap();
    let mut bytes = Vec::new();
    HostMessage::Hello(host_hello(workspace.path())).encode(0, &mut bytes).unwrap();
    to_guest.write_all(&bytes).unwrap();
    let mut header = [0; HEADER_LENGTH];
    from_guest.read_exact(&mut header).unwrap();
    for size in
        [rustix::pipe::fcntl_getpipe_size(&to_guest), rustix::pipe::fcntl_getpipe_size(&from_guest)]
    {
        assert_eq!(size.unwrap(), 1 << 20);
    }
    drop(to_guest);
    let mut rest = Vec::new();
    from_guest.read_to_end(&mut rest).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn no_common_version_is_refused() {
    let workspace = tempfile::TempDir::new().unwrap();
    let versions = Versions { oldest: 1000, newest: 2000 };
    let refused = refusal(HostHello { versions, ..host_hello(workspace.path()) });
    assert_eq!(refused, Refusal { versions: Versions::SPOKEN, errno: 0 });
}

#[test]
fn a_missing_workspace_is_refused() {
    let refused = refusal(host_hello(std::path::Path::new("/no/such/place")));
    assert_eq!(refused.errno, 2);
}

#[test]
fn an_operation_of_the_future_is_refused_and_the_guest_lives() {
    let mut guest = Guest::start();
    let failure = guest.failure(&HostMessage::Unknown { kind: 0x7e, payload: b"anything" });
    assert_eq!(failure.reason, FailureReason::Unsupported);
    // On an open channel, what is not understood is passed over.
    let channel = guest.open(&HostMessage::Exec(support::shell("echo ready; cat")));
    guest.send(channel, &HostMessage::Unknown { kind: 0xfe, payload: b"anything" });
    assert_eq!(guest.follow(channel).text(), "ready\n");
    // So is what comes for a channel that is no more.
    guest.send(channel, &HostMessage::KillTree);
    guest.send(channel, &HostMessage::Data(b"late"));
    assert_eq!(guest.ask(&HostMessage::Ping), Event::Done);
}

#[test]
fn broken_streams_end_the_guest_with_a_reason() {
    let workspace = tempfile::TempDir::new().unwrap();
    let mut hello = Vec::new();
    HostMessage::Hello(host_hello(workspace.path())).encode(0, &mut hello).unwrap();
    let ping = |channel| {
        let mut bytes = Vec::new();
        HostMessage::Ping.encode(channel, &mut bytes).unwrap();
        bytes
    };
    let write = {
        let mut bytes = Vec::new();
        let request = cofferdam_guest::UploadTree { path: Vec::new() };
        HostMessage::UploadTree(request).encode(1, &mut bytes).unwrap();
        bytes
    };
    let window = {
        let mut bytes = Vec::new();
        HostMessage::Window(MAX_WINDOW).encode(1, &mut bytes).unwrap();
        bytes
    };
    for (bytes, expect) in [
        (ping(1), "does not start with a guest greeting"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "announces"),
        ([hello.clone(), ping(0)].concat(), "no meaning on channel 0"),
        ([hello.clone(), hello.clone()].concat(), "no meaning on channel 0"),
        ([hello.clone(), write.clone(), ping(1)].concat(), "no meaning on channel 1"),
        ([hello.clone(), write, window].concat(), "window is"),
        ([hello.clone(), vec![1, 0, 0, 0, 1, 0, 0, 0, 0x1d, 0]].concat(), "1 bytes too many"),
        ([hello, vec![0xff; HEADER_LENGTH]].concat(), "announces 4294967295 bytes"),
    ] {
        let (_, code, text) = talk(&bytes);
        assert_eq!(code, Some(1), "{expect}");
        assert!(text.contains(expect), "{text:?} lacks {expect:?}");
    }
}

#[test]
fn the_end_of_the_stream_is_no_error() {
    let (answer, code, text) = talk(b"");
    assert_eq!((answer.len(), code, text.as_str()), (0, Some(0), ""));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever comes, the guest ends by itself, with a reason and not by a signal.
    #[test]
    fn arbitrary_frames_end_in_an_answer_or_an_error(
        frames in proptest::collection::vec(
            (1_u32..4, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)),
            0..12,
        ),
        tail in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let workspace = tempfile::TempDir::new().unwrap();
        let mut bytes = Vec::new();
        HostMessage::Hello(host_hello(workspace.path())).encode(0, &mut bytes).unwrap();
        for (channel, kind, payload) in &frames {
            HostMessage::Unknown { kind: *kind, payload }.encode(*channel, &mut bytes).unwrap();
        }
        bytes.extend_from_slice(&tail);
        let (answer, code, text) = talk(&bytes);
        prop_assert!(matches!(code, Some(0 | 1)), "{:?} {}", code, text);
        let mut decoder = FrameDecoder::new();
        decoder.push(&answer);
        while let Some(frame) = decoder.next_frame().unwrap() {
            GuestMessage::decode(frame).unwrap();
        }
        prop_assert_eq!(decoder.pending(), 0);
    }
}
