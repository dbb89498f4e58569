//! Trees that do not want to die, and a guest that does.

#![cfg(all(feature = "program", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says no more than that it failed"
)]

mod support;

use std::process::Command;

use cofferdam_guest::{ExitStatus, HostMessage};
use support::{Event, Guest, alive, program, shell, spawn_with};

/// Kills the tree of a script that says `ready`, and checks that `Done` proves that nothing is left of it. Its processes
/// say their numbers in the file `pids`.
fn kills(script: &str) {
    let mut guest = Guest::start();
    let channel = guest.open(&HostMessage::Exec(shell(script)));
    guest.wait_for(channel, "ready\n");
    guest.send(channel, &HostMessage::KillTree);
    let outcome = guest.follow(channel);
    assert_eq!(outcome.failure, None, "{script}");
    let pids = std::fs::read_to_string(guest.path("pids")).unwrap();
    assert!(!pids.is_empty(), "{script}");
    for pid in pids.split_whitespace() {
        assert!(!alive(pid.parse().unwrap()), "{pid} of {script}");
    }
    assert_eq!(guest.run("echo fine").text(), "fine\n");
}

#[test]
fn daemons_that_forked_twice() {
    kills(
        "(setsid sh -c '(echo $$ >> pids; sleep 300) & echo $! >> pids') & wait; sleep 0.1; echo ready; sleep 300",
    );
}

#[test]
fn stopped_processes() {
    kills(
        "sh -c 'echo $$ >> pids; kill -STOP $$; sleep 300' & until [ -s pids ]; do :; done; echo ready; wait",
    );
}

#[test]
fn processes_that_ignore_every_signal() {
    let ignore = "i=1; while [ $i -lt 65 ]; do trap '' $i 2>/dev/null; i=$((i+1)); done";
    kills(&format!("{ignore}; echo $$ >> pids; echo ready; while :; do sleep 300; done"));
}

#[test]
fn a_bounded_fork_bomb() {
    kills(
        ": > pids; bomb() { echo $(exec sh -c 'echo $PPID') >> pids; \
         if [ $1 -gt 0 ]; then bomb $(($1-1)) & bomb $(($1-1)) & fi; sleep 300; }; \
         bomb 6 & until [ $(wc -l < pids) -gt 60 ]; do sleep 0.01; done; echo ready; wait",
    );
}

#[test]
fn a_stopped_reaper() {
    let mut guest = Guest::start();
    let channel =
        guest.open(&HostMessage::Exec(shell("kill -STOP $PPID; echo ready; exec sleep 300")));
    let Event::Started(pid) = guest.next(channel) else { panic!("it runs") };
    guest.wait_for(channel, "ready\n");
    guest.send(channel, &HostMessage::KillTree);
    assert_eq!(guest.follow(channel).status, Some(ExitStatus::Signal(9)));
    assert!(!alive(pid));
    assert!(guest.close().success());
}

/// Starts a guest as the first process of its own process namespace.
#[expect(clippy::disallowed_methods, reason = "the test is the backend of the program")]
fn first_process() -> Option<Guest> {
    let unshare = |arguments: &[&std::ffi::OsStr]| {
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(arguments);
        command
    };
    let works = unshare(&["true".as_ref()]).status().is_ok_and(|status| status.success());
    works.then(|| Guest::greet(spawn_with(&mut unshare(&[program().as_os_str()])), None))
}

#[test]
fn a_command_that_kills_all_that_it_can() {
    let Some(mut guest) = first_process() else {
        support::skip(
            "a_command_that_kills_all_that_it_can",
            "this host makes no process namespace for an ordinary user",
        );
        return;
    };
    // Only where the guest is the first process is the host out of reach.
    let script = "sleep 300 & setsid sleep 301 & [ \"$(cat /proc/1/comm)\" = guest ] && kill -9 -1; sleep 302";
    let victim = guest.open(&HostMessage::Exec(shell("echo ready; exec sleep 303")));
    guest.wait_for(victim, "ready\n");
    assert_eq!(guest.hello.pid, 1);
    let outcome = guest.run(script);
    assert_eq!(outcome.status, Some(ExitStatus::Signal(9)));
    assert_eq!(guest.follow(victim).status, Some(ExitStatus::Signal(9)));
    // Nothing but the guest and what asks is left.
    let count = "until [ $(ls -d /proc/[0-9]* | wc -l) -le 6 ]; do sleep 0.01; done; pgrep sleep; echo fine";
    assert_eq!(guest.run(count).text(), "fine\n");
}
