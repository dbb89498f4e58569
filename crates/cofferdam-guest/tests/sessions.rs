//! Sessions: a host whose connection is lost comes back, and finds its commands.

#![cfg(all(feature = "program", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says no more than that it failed"
)]

mod support;

use std::{
    os::{fd::OwnedFd, unix::net::UnixListener},
    process::{Command, Stdio},
};

use cofferdam_guest::{
    CommandState, Exec, ExitStatus, FailureReason, HostMessage, SessionGrant, SessionRequest,
};
use support::{Event, Guest, alive, eventually, program, session, shell, spawn_with};

/// A command whose standard input is open, so that one which reads goes on.
fn named(exec_id: &str, script: &str) -> HostMessage<'static> {
    HostMessage::Exec(Exec { exec_id: exec_id.as_bytes().to_vec(), stdin: true, ..shell(script) })
}

/// Waits until a command of this session has finished.
fn wait_until_finished(guest: &mut Guest, exec_id: &str) {
    eventually("the command finishes", || {
        guest.list().iter().any(|command| {
            command.exec_id == exec_id.as_bytes() && command.state == CommandState::Finished
        })
    });
}

#[test]
fn a_command_goes_on_without_a_connection_and_is_found_again() {
    let mut guest = Guest::start_session(session(1));
    let grant = |connection| SessionGrant { connection, linger_ms: 60_000, replay_bytes: 1024 };
    assert_eq!(guest.hello.session, Some(grant(1)));
    let script = "echo one; until [ -e go ]; do sleep 0.01; done; echo two; echo err >&2; exit 3";
    let channel = guest.open(&named("job", script));
    guest.wait_for(channel, "one\n");
    guest.hang_up();
    std::fs::write(guest.path("go"), "").unwrap();

    assert!(guest.come_back(session(1)));
    assert_eq!(guest.hello.session, Some(grant(2)));
    let channel = guest.attach("job", (0, 0));
    let outcome = guest.follow(channel);
    assert_eq!(outcome.text(), "one\ntwo\n");
    assert_eq!(outcome.stderr, b"err\n");
    assert_eq!(outcome.status, Some(ExitStatus::Code(3)));
    assert_eq!(outcome.lost, (0, 0));

    // It is kept, and can be heard from any point, until it is forgotten.
    let list = guest.list();
    assert_eq!(list.len(), 1);
    assert_eq!((list[0].stdout_bytes, list[0].stderr_bytes), (8, 4));
    assert_eq!(list[0].status, Some(ExitStatus::Code(3)));
    let channel = guest.attach("job", (4, 99));
    let outcome = guest.follow(channel);
    assert_eq!((outcome.text().as_str(), outcome.stderr.as_slice()), ("two\n", b"".as_slice()));
    assert_eq!(guest.failure(&named("job", "true")).errno, 17);
    let forget = HostMessage::Forget { exec_id: b"job".to_vec() };
    assert_eq!(guest.ask(&forget), Event::Done);
    assert_eq!(guest.failure(&forget).errno, 3);
    let attach = guest.attach("job", (0, 0));
    assert_eq!(guest.follow(attach).failure.unwrap().errno, 3);
    assert_eq!(guest.list(), []);
}

#[test]
fn what_no_longer_fits_is_counted() {
    let mut guest = Guest::start_session(session(2));
    let script = "until [ -e go ]; do sleep 0.01; done; head -c 100000 /dev/zero; printf end";
    guest.open(&named("long", script));
    guest.hang_up();
    std::fs::write(guest.path("go"), "").unwrap();
    assert!(guest.come_back(session(2)));
    // Nobody hears it, and it does not stand still.
    wait_until_finished(&mut guest, "long");
    let channel = guest.attach("long", (10, 0));
    let outcome = guest.follow(channel);
    assert_eq!(outcome.lost, (100_003 - 1024 - 10, 0));
    assert_eq!(outcome.stdout.len(), 1024);
    assert!(outcome.stdout.ends_with(b"\0\0end"));
}

#[test]
fn only_the_token_lets_in() {
    let mut guest = Guest::start_session(session(3));
    let channel = guest.open(&named("job", "echo ready; exec cat"));
    guest.wait_for(channel, "ready\n");
    let mut stranger = session(3);
    stranger.token.0[31] ^= 1;
    assert!(!guest.come_back(stranger));
    // Nothing has changed: the connection stands, and so does the command on it.
    assert_eq!(guest.ask(&HostMessage::Ping), Event::Done);
    guest.send(channel, &HostMessage::EndOfData);
    assert_eq!(guest.follow(channel).status, Some(ExitStatus::Code(0)));
}

#[test]
fn strangers_crowd_in_vain() {
    use std::{io::Write as _, os::unix::net::UnixStream};
    let mut guest = Guest::start_session(session(4));
    let door = guest.door.clone().unwrap();
    let mut crowd = Vec::new();
    for turn in 0..100 {
        let mut stream = UnixStream::connect(&door).unwrap();
        if turn % 3 == 0 {
            // One may be turned away before it has said its nonsense.
            let _ = stream.write_all(&[turn; 40]);
        }
        crowd.push(stream);
    }
    guest.hang_up();
    assert!(guest.come_back(session(4)));
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", guest.child.id())).unwrap().count();
    assert!(descriptors < 40, "{descriptors} descriptors");
}

#[test]
fn a_new_connection_replaces_a_live_one() {
    let mut guest = Guest::start_session(session(5));
    let channel = guest.open(&named("job", "echo ready; exec cat"));
    guest.wait_for(channel, "ready\n");
    let mut before = guest.stream.try_clone().unwrap();
    assert!(guest.come_back(session(5)));
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut before, &mut rest).unwrap();
    let channel = guest.attach("job", (0, 0));
    guest.wait_for(channel, "ready\n");
    // Standard input goes on over the new channel.
    guest.send(channel, &HostMessage::EndOfData);
    assert_eq!(guest.follow(channel).status, Some(ExitStatus::Code(0)));
}

#[test]
fn one_channel_hears_a_command_and_the_last_one_wins() {
    let mut guest = Guest::start_session(session(6));
    let first = guest.open(&named("job", "echo ready; exec cat"));
    guest.wait_for(first, "ready\n");
    let second = guest.attach("job", (0, 0));
    assert_eq!(guest.follow(first).failure.unwrap().reason, FailureReason::Cancelled);
    guest.wait_for(second, "ready\n");
    // Closing kills; detaching does not.
    guest.send(second, &HostMessage::Detach);
    assert_eq!(guest.follow(second).failure.unwrap().reason, FailureReason::Cancelled);
    let third = guest.attach("job", (0, 0));
    let Event::Started(pid) = guest.next(third) else { panic!("it runs") };
    guest.send(third, &HostMessage::Close);
    assert_eq!(guest.follow(third).failure.unwrap().reason, FailureReason::Cancelled);
    eventually("the command dies", || !alive(pid));
    assert_eq!(guest.list(), []);
}

#[test]
fn without_a_host_the_guest_ends_and_takes_all_with_it() {
    let request = SessionRequest { linger_ms: 50, ..session(7) };
    let mut guest = Guest::start_session(request);
    let channel = guest.open(&named("job", "setsid sleep 1000 & echo $!; wait"));
    let Event::Started(shell) = guest.next(channel) else { panic!("it runs") };
    let sleep: u32 = guest.wait_for(channel, "\n").trim().parse().unwrap();
    guest.hang_up();
    assert!(guest.child.wait().unwrap().success());
    assert!(!alive(shell) && !alive(sleep));
}

#[test]
fn without_a_door_a_session_ends_with_its_connection() {
    let mut guest = Guest::greet(support::spawn(), Some(session(8)));
    assert_eq!(guest.hello.session.unwrap().linger_ms, 0);
    guest.hang_up();
    assert!(guest.child.wait().unwrap().success());
}

#[test]
fn the_oldest_ended_commands_make_room() {
    let mut guest = Guest::start_session(session(9));
    for turn in 0..70 {
        let channel = guest.open(&named(&format!("job-{turn}"), "printf x"));
        assert_eq!(guest.follow(channel).text(), "x");
    }
    let list = guest.list();
    assert_eq!(list.len(), 64);
    assert_eq!(list[0].exec_id, b"job-6");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test is the backend of the program")]
fn the_door_may_be_descriptor_three() {
    let directory = tempfile::TempDir::new().unwrap();
    let door = directory.path().join("door");
    let listener = UnixListener::bind(&door).unwrap();
    let mut shell_command = Command::new("sh");
    shell_command
        .args(["-c", "exec \"$0\" 3<&1 >/dev/null"])
        .arg(program())
        .stdout(Stdio::from(OwnedFd::from(listener)));
    let mut guest = Guest::greet(spawn_with(&mut shell_command), Some(session(10)));
    guest.door = Some(door);
    // Commands do not see it.
    assert_eq!(guest.run("ls /proc/self/fd | tr '\\n' ' '").text(), "0 1 2 3 ");
    guest.hang_up();
    assert!(guest.come_back(session(10)));
    assert_eq!(guest.ask(&HostMessage::Ping), Event::Done);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test is the backend of the program")]
fn a_relay_carries_a_connection() {
    let mut guest = Guest::start_session(session(11));
    let channel = guest.open(&named("job", "echo ready; exec sleep 1000"));
    guest.wait_for(channel, "ready\n");
    guest.hang_up();
    // Beside the guest, a relay with pipes as an engine gives them; here both ends are one socket.
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec \"$0\" --relay \"$1\" >&0"])
        .arg(program())
        .arg(guest.door.as_ref().unwrap());
    let (mut relay, stream) = spawn_with(&mut command);
    assert!(guest.come_back_over(stream, session(11)));
    let channel = guest.attach("job", (0, 0));
    guest.wait_for(channel, "ready\n");
    guest.hang_up();
    assert!(relay.wait().unwrap().success());
}
