//! A system that has no more to give: each want is a failure of the channel that met it, and the guest lives.

#![cfg(all(feature = "program", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says no more than that it failed"
)]

mod support;

use std::process::Command;

use cofferdam_guest::{
    Address, Exec, ExitStatus, FailureReason, HostHello, HostMessage, ReadFile, ResourceLimit,
    UploadTree, Watch, WriteFile,
};
use support::{Event, Guest, host_hello, pattern, program, shell, spawn_with};

const EAGAIN: i32 = 11;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;

/// Starts a guest by way of a program that changes what it may use.
#[expect(clippy::disallowed_methods, reason = "the test is the backend of the program")]
fn start_by(arguments: &[&str]) -> Guest {
    let mut command = Command::new(arguments[0]);
    Guest::greet(spawn_with(command.args(&arguments[1..]).arg(program())), None)
}

fn read(path: &str) -> HostMessage<'static> {
    HostMessage::ReadFile(ReadFile {
        path: path.as_bytes().to_vec(),
        offset: 0,
        max_bytes: u64::MAX,
    })
}

#[test]
fn no_descriptors() {
    let mut guest = start_by(&["prlimit", "--nofile=24", "--"]);
    guest.generous = false;
    std::fs::write(guest.path("big"), vec![0; 1 << 20]).unwrap();
    // Each of these stops for want of credit and holds its file; listeners take the very last descriptors.
    let mut held = Vec::new();
    for message in [read("big"), HostMessage::Listen { port: 0 }] {
        let failure = loop {
            let channel = guest.open(&message);
            match guest.next(channel) {
                Event::Metadata(_) | Event::Listening(_) => held.push(channel),
                Event::Failed(failure) => break failure,
                other => panic!("unexpected {other:?}"),
            }
            assert!(held.len() < 30, "the limit is not there");
        };
        assert_eq!((failure.reason, failure.errno), (FailureReason::System, EMFILE));
    }
    let write = WriteFile {
        path: b"new".to_vec(),
        mode: 0o644,
        keep_mode: false,
        must_be_new: false,
        make_parents: false,
        expected_size: None,
    };
    for message in [
        HostMessage::Exec(shell("true")),
        HostMessage::WriteFile(write),
        HostMessage::UploadTree(UploadTree { path: b"tree".to_vec() }),
        HostMessage::Connect(Address::Tcp { port: 1 }),
        HostMessage::Listen { port: 0 },
        HostMessage::Watch(Watch { path: Vec::new(), recursive: true }),
    ] {
        let failure = guest.failure(&message);
        assert_eq!((failure.reason, failure.errno), (FailureReason::System, EMFILE), "{message:?}");
    }
    assert_eq!(guest.ask(&HostMessage::Ping), Event::Done);
    for channel in held {
        guest.send(channel, &HostMessage::Close);
    }
    assert_eq!(guest.run("echo again").text(), "again\n");
}

#[test]
fn no_room_on_the_disk() {
    let workspace = "mount -t tmpfs -o size=256k none \"$0\" && exec \"$1\"";
    let directory = tempfile::TempDir::new().unwrap();
    let place = directory.path().to_str().unwrap();
    let unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"];
    if !works(&[&unshare[..], &["mount -t tmpfs none \"$0\"", place]].concat()) {
        support::skip("no_room_on_the_disk", "this host mounts nothing for an ordinary user");
        return;
    }
    #[expect(clippy::disallowed_methods, reason = "the test is the backend of the program")]
    let mut command = Command::new(unshare[0]);
    command.args(&unshare[1..]).args([workspace, place]).arg(program());
    let hello = HostHello { ..host_hello(directory.path()) };
    let mut guest = Guest::greet_with(spawn_with(&mut command), hello);
    let request = WriteFile {
        path: b"file".to_vec(),
        mode: 0o644,
        keep_mode: false,
        must_be_new: false,
        make_parents: true,
        expected_size: None,
    };
    let channel = guest.open(&HostMessage::WriteFile(request));
    guest.send_data(channel, &pattern(1 << 20));
    let Event::Failed(failure) = guest.next(channel) else { panic!("there is no room") };
    assert_eq!((failure.reason, failure.errno), (FailureReason::System, ENOSPC));

    let mut tree = Vec::new();
    for name in ["a", "b", "c"] {
        let metadata = cofferdam_guest::Metadata {
            kind: cofferdam_guest::FileKind::Regular,
            mode: 0o644,
            size: 150_000,
            modified_ns: cofferdam_guest::NO_TIME,
            link_target: Vec::new(),
        };
        cofferdam_guest::encode_entry(name.as_bytes(), &metadata, &mut tree);
        tree.extend(pattern(150_000));
    }
    cofferdam_guest::encode_end(false, &mut tree);
    let channel = guest.open(&HostMessage::UploadTree(UploadTree { path: Vec::new() }));
    guest.send_data(channel, &tree);
    let Event::Failed(failure) = guest.next(channel) else { panic!("there is no room") };
    assert_eq!((failure.errno, failure.path.as_slice()), (ENOSPC, b"b".as_slice()));
    // The unfinished write left nothing, and what was whole is whole.
    assert_eq!(guest.run("rm b; ls -A; cat a | wc -c").text(), "a\n150000\n");
}

#[test]
fn no_more_processes() {
    // The limit counts the processes of a user, so it needs one that nobody else is, and root is under none.
    let arguments = ["setpriv", "--reuid=64321", "--clear-groups", "prlimit", "--nproc=6", "--"];
    if !works(&[&arguments[..], &["true"]].concat()) {
        support::skip("no_more_processes", "only root can start a guest as another user");
        return;
    }
    support::open_to_all();
    let mut guest = start_by(&arguments);
    // Two processes for each: the reaper and the command.
    let mut live = Vec::new();
    let failure = loop {
        let channel = guest.open(&HostMessage::Exec(support::exec(["sleep", "300"])));
        match guest.next(channel) {
            Event::Started(_) => live.push(channel),
            Event::Failed(failure) => break failure,
            other => panic!("unexpected {other:?}"),
        }
        assert!(live.len() < 10, "the limit is not there");
    };
    assert_eq!((failure.reason, failure.errno), (FailureReason::System, EAGAIN));
    assert_eq!(guest.ask(&HostMessage::Ping), Event::Done);
    for channel in live {
        guest.send(channel, &HostMessage::KillTree);
        assert_eq!(guest.follow(channel).status, Some(ExitStatus::Signal(9)));
    }
    assert_eq!(guest.run("echo again").text(), "again\n");
}

#[test]
fn no_memory_for_a_command() {
    const RLIMIT_AS: u32 = 9;
    let mut guest = Guest::start();
    let limit = ResourceLimit { resource: RLIMIT_AS, soft: 64 << 10, hard: 64 << 10 };
    let request = Exec { resource_limits: vec![limit], ..shell("true") };
    let channel = guest.open(&HostMessage::Exec(request));
    let outcome = guest.follow(channel);
    // The kernel refuses the program, or kills it where it is too late for that.
    assert!(
        outcome.failure.is_some_and(|failure| failure.reason == FailureReason::System)
            || matches!(outcome.status, Some(ExitStatus::Signal(_) | ExitStatus::Code(127)))
    );
    assert_eq!(guest.run("echo again").text(), "again\n");
}

#[expect(clippy::disallowed_methods, reason = "the test is the backend of the program")]
fn works(arguments: &[&str]) -> bool {
    Command::new(arguments[0]).args(&arguments[1..]).status().is_ok_and(|status| status.success())
}
