//! What a command has and sees in a sandbox: what programs need works, and its neighbours are not there.
//!
//! What it must not be able to do is tried by the escape suite: `cargo xtask suite security`.

use crate::host::{run, sandbox, small};

#[tokio::test]
async fn what_programs_need_works() {
    let sealed = sandbox(&small()).await;
    for (name, script) in [
        (
            "its own loopback",
            "perl -MIO::Socket::INET -e 'my $l = IO::Socket::INET->new(Listen => 1, LocalAddr => \"127.0.0.1\") or die; my $c = IO::Socket::INET->new(PeerAddr => \"127.0.0.1\", PeerPort => $l->sockport) or die; print \"ok\"'",
        ),
        (
            "a Unix socket in the workspace",
            "perl -MIO::Socket::UNIX -e 'my $l = IO::Socket::UNIX->new(Listen => 1, Local => \"s\") or die; IO::Socket::UNIX->new(Peer => \"s\") or die; print \"ok\"'",
        ),
        (
            "pipes and devices",
            "head -c 4 /dev/urandom | wc -c | grep -q 4 && echo x > /dev/null && printf ok",
        ),
        ("shared memory", "echo x > /dev/shm/x && printf ok"),
        ("temporary files", "f=$(mktemp) && rm $f && printf ok"),
        ("a home", "cd && touch .profile && printf ok"),
        ("its user's name", "[ $(id -un) = sandbox ] && printf ok"),
        ("threads", "perl -e 'use Config; print \"ok\"'"),
        ("a program of its own", "cp $(command -v env) t && ./t >/dev/null && printf ok"),
        (
            "links and renames between directories",
            "mkdir a b && touch a/f && mv a/f b/g && ln b/g a/h && ln -s a/h l && printf ok",
        ),
        ("a fifo", "mkfifo p && (echo x > p &) && read x < p && printf ok"),
        ("signals to its own", "sleep 60 & kill $! && printf ok"),
        ("its own process list", "ps -o pid= | grep -q . && printf ok"),
        (
            "the processors and the memory",
            "[ $(nproc) -ge 1 ] && grep -q MemTotal /proc/meminfo && printf ok",
        ),
        ("standard streams by name", "echo ok > /dev/stdout"),
        ("the time zone", "date +%Z | grep -q . && printf ok"),
    ] {
        let output = run(&*sealed, script).await;
        assert_eq!(
            (output.stdout.to_text().trim_end(), output.stderr.to_text().as_ref()),
            ("ok", ""),
            "{name}"
        );
        run(&*sealed, "rm -rf /workspace/* /workspace/.[a-z]*").await;
    }
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn two_sandboxes_share_nothing() {
    let (one, two) = (sandbox(&small()).await, sandbox(&small()).await);
    run(&*one, "touch /workspace/x /tmp/x /dev/shm/x ~/x; (sleep 61 &)").await;
    let seen = run(&*two, "ls -A /workspace /tmp /dev/shm ~; ps ax | grep -c '[s]leep 61'").await;
    assert_eq!(seen.stdout.to_text(), "/dev/shm:\n\n/home/sandbox:\n\n/tmp:\n\n/workspace:\n0\n");
    one.close().await.expect("closes");
    two.close().await.expect("closes");
}

/// The whole of what a command sees of its surroundings, so that a change to it is seen in review. The first of the two
/// `/proc` lies below the second; it is that of a pid namespace that has ended.
#[tokio::test]
async fn the_surroundings_of_a_command() {
    let sealed = sandbox(&small()).await;
    let output = run(
        &*sealed,
        "env | sort; pwd; id -u; id -g; ls -A /; ls /dev; ls /proc/self/fd | paste -sd ' '; \
         grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; cat /proc/self/cgroup | cut -d: -f3 | sort -u; \
         awk '{print $2, $4}' /proc/mounts | grep -E '^/(usr|workspace|tmp|proc)? ' | sed 's/,relatime.*//'",
    )
    .await;
    insta::with_settings!({ filters => vec![
        // Which of the top links and directories are there depends on the distribution.
        (r"(?m)^(lib32|libx32|lib64|lib|sbin|bin)\n", ""),
    ]}, {
        insta::assert_snapshot!(output.stdout.to_text(), @"
        HOME=/home/sandbox
        LANG=C.UTF-8
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
        PWD=/workspace
        TERM=xterm
        /workspace
        1000
        1000
        dev
        etc
        home
        proc
        run
        tmp
        usr
        var
        workspace
        fd
        full
        null
        ptmx
        pts
        random
        shm
        stderr
        stdin
        stdout
        tty
        urandom
        zero
        0 1 2 3
        CapInh:	0000000000000000
        CapPrm:	0000000000000000
        CapEff:	0000000000000000
        CapBnd:	0000000000000000
        CapAmb:	0000000000000000
        NoNewPrivs:	1
        Seccomp:	2
        /
        / ro,nosuid,nodev
        /usr ro,nosuid,nodev
        /proc ro,nosuid,nodev,noexec
        /workspace rw,nosuid,nodev
        /tmp rw,nosuid,nodev
        /proc ro,nosuid,nodev,noexec
        ");
    });
    sealed.close().await.expect("closes");
}
