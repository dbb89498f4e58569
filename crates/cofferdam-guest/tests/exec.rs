//! Commands, run by the real program as an ordinary process.

#![cfg(all(feature = "program", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says no more than that it failed"
)]

mod support;

use cofferdam_guest::{Exec, ExitStatus, FailureReason, HostMessage, ResourceLimit, TerminalSize};
use support::{Event, Guest, alive, eventually, exec, shell};

#[test]
fn output_and_exit_status_are_told_apart() {
    let mut guest = Guest::start();
    for (script, stdout, stderr, status) in [
        ("echo one; echo two >&2; exit 3", "one\n", "two\n", ExitStatus::Code(3)),
        ("true", "", "", ExitStatus::Code(0)),
        ("kill -TERM $$", "", "", ExitStatus::Signal(15)),
        ("printf a; (sleep 0.05; printf b); printf c", "abc", "", ExitStatus::Code(0)),
    ] {
        let outcome = guest.run(script);
        assert_eq!(outcome.text(), stdout, "{script}");
        assert_eq!(String::from_utf8_lossy(&outcome.stderr), stderr, "{script}");
        assert_eq!(outcome.status, Some(status), "{script}");
        assert!(outcome.pid.is_some(), "{script}");
    }
    assert!(guest.close().success());
}

#[test]
fn a_command_inherits_nothing() {
    let mut guest = Guest::start();
    let mut request = exec(["env"]);
    request.environment = vec![(b"ONLY".to_vec(), b"this".to_vec())];
    let channel = guest.open(&HostMessage::Exec(request));
    assert_eq!(guest.follow(channel).text(), "ONLY=this\n");

    // Descriptor 3 is the listing's own.
    assert_eq!(guest.run("ls /proc/self/fd | tr '\\n' ' '").text(), "0 1 2 3 ");
    let signals = guest.run("grep -E 'Sig(Blk|Ign)' /proc/self/status | tr -d '\\t\\n'").text();
    assert_eq!(signals, "SigBlk:0000000000000000SigIgn:0000000000000000");
    // Its own session, and its own group.
    assert_eq!(
        guest.run("set -- $(cat /proc/$$/stat); [ $5 = $$ ] && [ $6 = $$ ] && echo leads").text(),
        "leads\n"
    );
    assert_eq!(guest.run("umask").text().trim_start_matches('0'), "22\n");
}

#[test]
fn the_working_directory_is_beneath_the_workspace() {
    let mut guest = Guest::start();
    std::fs::create_dir(guest.path("sub")).unwrap();
    std::os::unix::fs::symlink("/", guest.path("out")).unwrap();
    let mut check = |directory: &str, expect: Result<&str, i32>| {
        let request = Exec { directory: directory.as_bytes().to_vec(), ..shell("basename $PWD") };
        let channel = guest.open(&HostMessage::Exec(request));
        let outcome = guest.follow(channel);
        match expect {
            Ok(name) => assert_eq!(outcome.text(), format!("{name}\n"), "{directory}"),
            Err(errno) => assert_eq!(outcome.failure.unwrap().errno, errno, "{directory}"),
        }
    };
    check("sub", Ok("sub"));
    check("sub/../sub", Err(22));
    check("..", Err(22));
    check("/tmp", Err(22));
    check("out", Err(18));
    check("missing", Err(2));
}

#[test]
fn what_cannot_be_started_says_why() {
    let mut guest = Guest::start();
    support::write_file(&guest.path("plain"), b"no program");
    for (argv, errno) in [
        (vec!["no-such-program"], 2),
        (vec!["./plain"], 13),
        (vec!["/"], 13),
        (vec!["sh\0x"], 22),
        (vec![], 22),
    ] {
        let mut request = exec(["x"]);
        request.argv = argv.iter().map(|argument| argument.as_bytes().to_vec()).collect();
        let channel = guest.open(&HostMessage::Exec(request));
        let outcome = guest.follow(channel);
        assert_eq!(outcome.failure.map(|failure| failure.errno), Some(errno), "{argv:?}");
    }
    // The guest is as well as before.
    assert_eq!(guest.run("echo fine").text(), "fine\n");
}

#[test]
fn standard_input_flows_with_credit_and_ends() {
    let mut guest = Guest::start();
    let content = support::pattern(3 << 20);
    let request = Exec { stdin: true, ..shell("cat | cksum; cat | wc -c") };
    let channel = guest.open(&HostMessage::Exec(request));
    guest.send_data(channel, &content);
    guest.send(channel, &HostMessage::EndOfData);
    let outcome = guest.follow(channel);
    assert!(outcome.text().contains(&format!(" {}\n0\n", content.len())), "{:?}", outcome.text());

    // Without standard input there is nothing to read.
    assert_eq!(guest.run("wc -c").text(), "0\n");

    // A command that does not read its input and ends leaves the guest well.
    let request = Exec { stdin: true, ..shell("exec true") };
    let channel = guest.open(&HostMessage::Exec(request));
    guest.send(channel, &HostMessage::Data(&content[..200_000]));
    assert_eq!(guest.follow(channel).status, Some(ExitStatus::Code(0)));
}

#[test]
fn a_signal_reaches_the_process_group() {
    let mut guest = Guest::start();
    let request = shell("trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.01; done");
    let channel = guest.open(&HostMessage::Exec(request));
    guest.wait_for(channel, "ready");
    guest.send(channel, &HostMessage::Signal(2));
    let outcome = guest.follow(channel);
    assert_eq!((outcome.text().as_str(), outcome.status), ("caught\n", Some(ExitStatus::Code(7))));
}

#[test]
fn kill_tree_reaches_daemons_that_left_the_session() {
    let mut guest = Guest::start();
    let other = guest.open(&HostMessage::Exec(shell("echo ready; sleep 300")));
    guest.wait_for(other, "ready");
    let request = shell(
        "setsid sh -c '(trap \"\" TERM HUP; echo $$ > daemon; sleep 300) & exec sleep 301' >/dev/null 2>&1 &
         (setsid setsid sleep 302 &) ; sh -c 'trap \"\" TERM INT HUP; sleep 303' &
         echo ready; wait",
    );
    let channel = guest.open(&HostMessage::Exec(request));
    guest.wait_for(channel, "ready");
    eventually("the daemons run", || children_named(guest.child.id(), "sleep") >= 4);
    guest.send(channel, &HostMessage::KillTree);
    let outcome = guest.follow(channel);
    assert_eq!(outcome.status, Some(ExitStatus::Signal(9)));
    // `Done` means that nothing is left; only the other command's process is.
    assert_eq!(children_named(guest.child.id(), "sleep"), 1);
    guest.send(other, &HostMessage::KillTree);
    assert_eq!(guest.follow(other).status, Some(ExitStatus::Signal(9)));
}

#[test]
fn a_tree_that_forks_all_the_time_is_killed() {
    let mut guest = Guest::start();
    let request = Exec {
        // The limit counts all processes of the user, so the script bounds itself as well.
        ..shell(
            "i=0; f() { while :; do (sleep 0.01; :) & sleep 0.002; done; }; for i in 1 2 3 4; do f & done; echo ready; wait",
        )
    };
    let channel = guest.open(&HostMessage::Exec(request));
    guest.wait_for(channel, "ready");
    guest.send(channel, &HostMessage::KillTree);
    assert_eq!(guest.follow(channel).status, Some(ExitStatus::Signal(9)));
    assert_eq!(children_named(guest.child.id(), "sh"), 0);
}

#[test]
fn closing_the_channel_kills_the_tree_and_keeps_the_guest() {
    let mut guest = Guest::start();
    let channel = guest.open(&HostMessage::Exec(shell("setsid sleep 300 & echo ready; sleep 301")));
    guest.wait_for(channel, "ready");
    guest.send(channel, &HostMessage::Close);
    let failure = guest.follow(channel).failure.unwrap();
    assert_eq!(failure.reason, FailureReason::Cancelled);
    eventually("the tree is dead", || children_named(guest.child.id(), "sleep") == 0);
    assert_eq!(guest.run("echo fine").text(), "fine\n");
}

#[test]
fn a_background_process_that_holds_the_pipe_does_not_delay_the_exit() {
    let mut guest = Guest::start();
    let channel = guest.open(&HostMessage::Exec(shell(
        "(while [ ! -e go ]; do sleep 0.01; done; echo late) & echo early",
    )));
    let mut events = vec![guest.next(channel), guest.next(channel), guest.next(channel)];
    assert!(matches!(events.remove(0), Event::Started(_)));
    assert_eq!(events, [Event::Stdout(b"early\n".to_vec()), Event::Exited(ExitStatus::Code(0))]);
    support::write_file(&guest.path("go"), b"");
    assert_eq!(guest.next(channel), Event::Stdout(b"late\n".to_vec()));
    assert_eq!(guest.next(channel), Event::Done);
}

#[test]
fn a_background_flood_does_not_delay_the_exit() {
    let mut guest = Guest::start();
    let channel = guest.open(&HostMessage::Exec(shell("yes & echo early")));
    while !matches!(guest.next(channel), Event::Exited(ExitStatus::Code(0))) {}
    guest.send(channel, &HostMessage::KillTree);
    while guest.next(channel) != Event::Done {}
}

#[test]
fn unread_output_costs_bounded_memory_and_starves_nobody() {
    let mut guest = Guest::start();
    guest.generous = false;
    let flood = guest.open(&HostMessage::Exec(exec(["yes"])));
    let mut seen = 0;
    while seen < 256 * 1024 {
        if let Event::Stdout(bytes) = guest.next(flood) {
            seen += bytes.len();
        }
    }
    assert_eq!(seen, 256 * 1024);
    for turn in 0..20 {
        assert_eq!(guest.run(&format!("echo {turn}")).text(), format!("{turn}\n"));
    }
    let resident = guest.resident_bytes();
    assert!(resident < 4 << 20, "{resident} bytes resident");
    guest.send(flood, &HostMessage::Window(1000));
    assert!(matches!(guest.next(flood), Event::Stdout(bytes) if bytes.len() == 1000));
    guest.send(flood, &HostMessage::Close);
    assert!(matches!(guest.next(flood), Event::Failed(_)));
}

#[test]
fn a_terminal_has_a_size_that_can_change() {
    let mut guest = Guest::start();
    let request = Exec {
        terminal: Some(TerminalSize { rows: 33, columns: 101 }),
        ..shell(
            "trap 'stty size; exit 0' WINCH; stty size; test -t 0 -a -t 1 -a -t 2 && echo all; while :; do sleep 0.01; done",
        )
    };
    let channel = guest.open(&HostMessage::Exec(request));
    let seen = guest.wait_for(channel, "all\r\n");
    assert_eq!(seen, "33 101\r\nall\r\n");
    guest.send(channel, &HostMessage::Resize(TerminalSize { rows: 40, columns: 120 }));
    let outcome = guest.follow(channel);
    assert_eq!(
        (outcome.text().as_str(), outcome.status),
        ("40 120\r\n", Some(ExitStatus::Code(0)))
    );
}

#[test]
fn a_terminal_takes_control_characters() {
    let mut guest = Guest::start();
    let terminal = Some(TerminalSize { rows: 24, columns: 80 });
    let channel = guest.open(&HostMessage::Exec(Exec { terminal, ..exec(["cat"]) }));
    guest.send(channel, &HostMessage::Data(b"hello\r"));
    guest.wait_for(channel, "hello\r\nhello\r\n");
    guest.send(channel, &HostMessage::EndOfData);
    assert_eq!(guest.follow(channel).status, Some(ExitStatus::Code(0)));

    // Not a shell: dash may lose an interrupt that comes while it forks.
    let channel = guest.open(&HostMessage::Exec(Exec { terminal, ..exec(["cat"]) }));
    guest.send(channel, &HostMessage::Data(b"ready\r"));
    guest.wait_for(channel, "ready\r\nready\r\n");
    guest.send(channel, &HostMessage::Data(&[3]));
    assert_eq!(guest.follow(channel).status, Some(ExitStatus::Signal(2)));
}

#[test]
fn all_that_a_terminal_shows_comes_before_the_exit() {
    let mut guest = Guest::start();
    for _ in 0..20 {
        let request =
            Exec { terminal: Some(TerminalSize { rows: 24, columns: 80 }), ..shell("seq 1 2000") };
        let channel = guest.open(&HostMessage::Exec(request));
        let outcome = guest.follow(channel);
        assert!(outcome.text().ends_with("\r\n2000\r\n"));
        assert_eq!(outcome.text().lines().count(), 2000);
    }
}

#[test]
fn an_ended_command_that_nobody_reads_costs_no_time() {
    let mut guest = Guest::start();
    guest.generous = false;
    let request = Exec {
        terminal: Some(TerminalSize { rows: 24, columns: 80 }),
        ..shell("stty -opost; head -c 280000 /dev/zero; exit 3")
    };
    let channel = guest.open(&HostMessage::Exec(request));
    let mut seen = 0;
    while seen < 256 * 1024 {
        if let Event::Stdout(bytes) = guest.next(channel) {
            seen += bytes.len();
        }
    }
    // Its output is held back by the lack of credit, so its end is too; the guest has nothing to do.
    let before = cpu_ticks(guest.child.id());
    std::thread::sleep(std::time::Duration::from_millis(500));
    let spent = cpu_ticks(guest.child.id()) - before;
    assert!(spent < 10, "{spent} ticks of 10 ms");
    guest.send(channel, &HostMessage::Window(1 << 20));
    guest.generous = true;
    assert_eq!(guest.follow(channel).status, Some(ExitStatus::Code(3)));
}

#[test]
fn the_end_of_the_stream_ends_everything() {
    let mut guest = Guest::start();
    let channel = guest
        .open(&HostMessage::Exec(shell("setsid sleep 300 & trap '' TERM HUP; echo $$; sleep 301")));
    let pid: u32 = guest.wait_for(channel, "\n").trim().parse().unwrap();
    assert!(alive(pid));
    assert!(guest.close().success());
    // The guest ends last.
    assert!(!alive(pid));
}

#[test]
fn nothing_outlives_a_guest_that_was_killed() {
    let mut guest = Guest::start();
    let channel = guest.open(&HostMessage::Exec(shell("setsid sleep 300 & echo $! $$; sleep 301")));
    let line = guest.wait_for(channel, "\n");
    let pids: Vec<u32> = line.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    guest.child.kill().unwrap();
    eventually("both are gone", || pids.iter().all(|&pid| !alive(pid)));
}

#[test]
fn a_command_that_kills_its_reaper_gains_nothing() {
    let mut guest = Guest::start();
    let outcome = guest.run("setsid sleep 300 & sleep 301 & kill -9 $PPID; sleep 302");
    assert_eq!(outcome.status, Some(ExitStatus::Signal(9)));
    eventually("the tree is dead", || children_named(guest.child.id(), "sleep") == 0);
    assert_eq!(guest.run("echo fine").text(), "fine\n");
}

#[test]
fn limits_and_names_are_enforced() {
    let mut guest = Guest::start();
    let mut request = shell("ulimit -n");
    request.resource_limits = vec![ResourceLimit { resource: 7, soft: 77, hard: 88 }];
    let channel = guest.open(&HostMessage::Exec(request));
    assert_eq!(guest.follow(channel).text(), "77\n");

    let request = shell("echo ready; sleep 300");
    let twin = Exec { exec_id: request.exec_id.clone(), ..shell("true") };
    let first = guest.open(&HostMessage::Exec(request));
    guest.wait_for(first, "ready");
    let channel = guest.open(&HostMessage::Exec(twin));
    assert_eq!(guest.follow(channel).failure.unwrap().errno, 17);

    let mut refused = None;
    for _ in 0..16 {
        let channel = guest.open(&HostMessage::Exec(shell("echo ready; sleep 300")));
        match guest.next(channel) {
            Event::Failed(failure) => refused = Some(failure.reason),
            _ => {
                guest.wait_for(channel, "ready");
            }
        }
    }
    assert_eq!(refused, Some(FailureReason::Limit));
}

/// Returns the processor time that a process has used.
fn cpu_ticks(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = text[text.rfind(')').unwrap() + 2..].split(' ');
    fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

/// Counts the live processes with this name below a process.
fn children_named(root: u32, name: &str) -> usize {
    let mut count = 0;
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        for child in children.unwrap_or_default().split_whitespace() {
            let pid: u32 = child.parse().unwrap();
            let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            count += usize::from(comm.trim() == name && alive(pid));
            parents.push(pid);
        }
    }
    count
}
