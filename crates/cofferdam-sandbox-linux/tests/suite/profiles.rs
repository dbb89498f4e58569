//! The profiles of system calls: what each allows that another refuses, tried with real programs.

use cofferdam_sandbox::{Sandbox, SandboxSpec, SystemCallProfile};
use cofferdam_testkit::skip;

use crate::host::{run, sandbox, small};

const PROFILES: [SystemCallProfile; 3] =
    [SystemCallProfile::Default, SystemCallProfile::Debugger, SystemCallProfile::Strict];

/// A system call of Perl that prints `yes` if it works, or the error.
fn call(number: libc::c_long, arguments: &str) -> String {
    format!("perl -e 'my @a = ({arguments}); print syscall({number}, @a) == -1 ? \"$!\" : \"yes\"'")
}

fn socket(arguments: &str) -> String {
    format!("perl -e 'print socket(S, {arguments}) ? \"yes\" : \"$!\"'")
}

/// A child is traced and let go; a child that the kernel kills with its parent needs no care.
fn trace_a_child() -> String {
    let seize = format!("syscall({}, 0x4206, $p, 0, 0)", libc::SYS_ptrace);
    format!(
        "perl -e 'my $p = fork; if (!$p) {{ sleep 5; exit }} my $r = {seize}; my $e = \"$!\"; kill 9, $p; \
         print $r == -1 ? $e : \"yes\"'"
    )
}

async fn in_profile(system_calls: SystemCallProfile) -> std::sync::Arc<dyn Sandbox> {
    sandbox(&SandboxSpec { system_calls, ..small() }).await
}

#[tokio::test]
async fn each_profile_allows_what_it_says() {
    const YES: &str = "yes";
    const NO: &str = "Operation not permitted";
    let cases = [
        // What, then the answer of the default, of the debugger and of the strict profile.
        ("trace a child", trace_a_child(), [NO, YES, NO]),
        ("compare two processes", call(libc::SYS_kcmp, "$$, $$, 1, 0, 0"), [NO, YES, NO]),
        ("no random addresses", call(libc::SYS_personality, "0x0040000"), [NO, YES, NO]),
        ("ask for the personality", call(libc::SYS_personality, "0xffffffff"), [YES, YES, NO]),
        ("shared memory of System V", call(libc::SYS_shmget, "0, 4096, 01600"), [YES, YES, NO]),
        ("lock memory", call(libc::SYS_munlockall, ""), [YES, YES, NO]),
        ("a routing socket", socket("16, 3, 0"), [YES, YES, NO]),
        ("a packet sequence", socket("1, 5, 0"), [YES, YES, NO]),
        ("a stream", socket("2, 1, 0"), [YES, YES, YES]),
        ("a datagram, with flags", socket("1, 2 | 0x80800, 0"), [YES, YES, YES]),
        ("a TCP socket, by its number", socket("2, 1, 6"), [YES, YES, YES]),
        ("a UDP socket, by its number", socket("10, 2 | 0x80800, 17"), [YES, YES, YES]),
        ("a ping socket", socket("2, 2, 1"), [NO, NO, NO]),
        ("a ping socket of version 6", socket("10, 2 | 0x80000, 58"), [NO, NO, NO]),
        ("a multipath stream", socket("2, 1, 262"), [NO, NO, NO]),
        ("a stream of SCTP", socket("2, 1, 132"), [NO, NO, NO]),
        ("a light datagram", socket("2, 2, 136"), [NO, NO, NO]),
        ("a raw socket", socket("2, 3, 6"), [NO, NO, NO]),
        ("a raw socket of version 6, with flags", socket("10, 3 | 0x80800, 17"), [NO, NO, NO]),
        ("a sequence of datagrams", socket("2, 6, 0"), [NO, NO, NO]),
        (
            "a ping socket, by numbers with an upper half",
            call(libc::SYS_socket, "0x100000002, 2, 0x100000001"),
            [NO, NO, NO],
        ),
        ("a crypto socket", socket("38, 5, 0"), [NO, NO, NO]),
        (
            "a pair of another family",
            "perl -e 'print socketpair(A, B, 30, 1, 0) ? \"yes\" : \"$!\"'".into(),
            [NO, NO, NO],
        ),
        ("a user namespace", call(libc::SYS_unshare, "0x10000000"), [NO, NO, NO]),
        ("clone with one", call(libc::SYS_clone, "0x10000011, 0, 0, 0, 0"), [NO, NO, NO]),
        (
            "clone with one, by a call whose arguments no filter sees",
            call(libc::SYS_clone3, "pack(\"Q11\", 0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0), 88"),
            ["Function not implemented"; 3],
        ),
        ("another descriptor table", call(libc::SYS_pidfd_getfd, "0, 0, 0"), [NO, NO, NO]),
        ("a call of the future", call(1000, ""), ["Function not implemented"; 3]),
    ];
    for (number, profile) in PROFILES.into_iter().enumerate() {
        let sealed = in_profile(profile).await;
        for (name, script, expect) in &cases {
            let output = run(&*sealed, script).await;
            assert_eq!(output.stdout.to_text(), expect[number], "{name} with {profile:?}");
        }
        sealed.close().await.expect("closes");
    }
}

#[tokio::test]
async fn the_guest_is_traced_by_nobody() {
    let sealed = in_profile(SystemCallProfile::Debugger).await;
    let output = run(&*sealed, &call(libc::SYS_ptrace, "0x4206, 1, 0, 0")).await;
    assert_eq!(output.stdout.to_text(), "Operation not permitted");
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn a_tracer_works_in_the_debugger_profile_only() {
    for (profile, expect) in
        [(SystemCallProfile::Default, false), (SystemCallProfile::Debugger, true)]
    {
        let sealed = in_profile(profile).await;
        if run(&*sealed, "command -v strace").await.stdout.to_text().is_empty() {
            skip(
                "profiles::a_tracer_works_in_the_debugger_profile_only",
                "strace is not installed",
            );
            return;
        }
        let output =
            run(&*sealed, "strace -f -o trace sh -c 'true; echo ran'; grep -c execve trace").await;
        let worked = output.stdout.to_text().starts_with("ran\n");
        assert_eq!(worked, expect, "{profile:?}: {output:?}");
        sealed.close().await.expect("closes");
    }
}

#[tokio::test]
async fn usual_programs_run_in_the_strict_profile() {
    let sealed = in_profile(SystemCallProfile::Strict).await;
    for (name, needs, script) in [
        (
            "a shell",
            "sh",
            "x=$(echo a | tr a b); (exit 3) || [ $? = 3 ] && [ $x = b ] && printf ok",
        ),
        (
            "files",
            "cp",
            "mkdir -p d && cp -a /etc/passwd d/p && mv d/p d/q && ln -s q d/l && sort d/l | head -1 >/dev/null && \
             du -s d >/dev/null && tar cf t.tar d && rm -r d && tar xf t.tar && [ -s d/q ] && printf ok",
        ),
        ("Perl", "perl", "perl -MIO::Socket::INET -e 'print \"ok\"'"),
        (
            "Python",
            "python3",
            "python3 -c 'import subprocess, threading, socket, tempfile, asyncio\n\
             t = threading.Thread(target=lambda: None); t.start(); t.join()\n\
             assert subprocess.run([\"true\"]).returncode == 0\n\
             a, b = socket.socketpair(); a.send(b\"x\"); assert b.recv(1) == b\"x\"\n\
             asyncio.run(asyncio.sleep(0))\n\
             tempfile.NamedTemporaryFile().close()\n\
             print(\"ok\", end=\"\")'",
        ),
    ] {
        if run(&*sealed, &format!("command -v {needs}")).await.stdout.to_text().is_empty() {
            skip(
                "profiles::usual_programs_run_in_the_strict_profile",
                &format!("{needs} is not installed"),
            );
            continue;
        }
        let output = run(&*sealed, script).await;
        assert_eq!(
            (output.stdout.to_text().as_ref(), output.stderr.to_text().as_ref()),
            ("ok", ""),
            "{name}"
        );
    }
    sealed.close().await.expect("closes");
}
