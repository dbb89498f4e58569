//! Bombs: each is stopped at its limit, is told from other ends, and leaves the sandbox usable.

use std::time::{Duration, Instant};

use cofferdam_core::SandboxLimits;
use cofferdam_sandbox::{
    Enforcement, ExecEvent, ExecRequest, ExitStatus, SandboxBackend, SandboxExt, SandboxSpec, Wall,
    exec::ExceededLimit,
};
use cofferdam_sandbox_linux::LinuxBackend;
use futures::StreamExt;

use crate::host::{cgroups_of, eventually, parent_of, processes_with, run, sandbox, small, unique};

/// Fills memory with pages that cannot be shared, up to some MiB.
const MEMORY_BOMB: &str =
    "perl -e 'my @a; for (1..1024) { push @a, chr($_ & 127) x (1 << 20) } print scalar @a'";

async fn memory_is_full() -> bool {
    let guarantees = LinuxBackend::new().guarantees().await.expect("a report");
    matches!(guarantees.enforcement(Wall::MemoryLimit), Enforcement::Full { .. })
}

#[tokio::test]
async fn a_memory_bomb_is_stopped_and_named() {
    let sealed = sandbox(&small()).await;
    let request = ExecRequest::program([
        "perl",
        "-e",
        "my @a; for (1..1024) { push @a, chr($_ & 127) x (1 << 20) } print 1",
    ]);
    let output = cofferdam_sandbox::SandboxExt::run(&*sealed, request, 1 << 20).await.expect("ran");
    if memory_is_full().await {
        assert_eq!(output.status, Some(ExitStatus::Limit(ExceededLimit::Memory)));
        let by_shell = run(&*sealed, &format!("{MEMORY_BOMB}; exit $?")).await;
        assert_eq!(by_shell.status, Some(ExitStatus::Limit(ExceededLimit::Memory)), "{by_shell:?}");
    } else {
        // The fallback makes allocations fail, and the program says so itself.
        assert!(output.status.is_some_and(|status| !status.success()), "{output:?}");
    }
    assert_eq!(output.stdout.to_text(), "");
    assert_eq!(run(&*sealed, "echo alive").await.stdout.to_text(), "alive\n");
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn files_count_as_memory() {
    if !memory_is_full().await {
        println!(
            "not proven here: without a memory cgroup files are bounded by the disk limit alone"
        );
        return;
    }
    let limits = SandboxLimits { memory_bytes: 64 << 20, disk_bytes: 1 << 30, ..small().limits };
    let sealed = sandbox(&SandboxSpec { limits, ..small() }).await;
    let output = run(&*sealed, "exec head -c 500M /dev/zero > big").await;
    assert_eq!(output.status, Some(ExitStatus::Limit(ExceededLimit::Memory)), "{output:?}");
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn a_kill_is_not_taken_for_a_limit() {
    let sealed = sandbox(&small()).await;
    assert_eq!(run(&*sealed, "kill -9 $$").await.status, Some(ExitStatus::Signal(9)));
    assert_eq!(run(&*sealed, "exit 137").await.status, Some(ExitStatus::Code(137)));
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn a_fork_bomb_stops_at_the_limit() {
    let sealed = sandbox(&small()).await;
    let count = "perl -e 'alarm 30; pipe(R, W); my $k = 0; while ($k < 500) { my $p = fork; last if !defined $p; $k++, next if $p; close W; sysread(R, my $b, 1); exit } print $k'";
    let output = run(&*sealed, count).await;
    let made: u32 = output.stdout.to_text().parse().expect("a number");
    assert!((40..=64).contains(&made), "{made} processes with a limit of 64");
    // A real one, in the background, does not lock anybody out for ever.
    run(&*sealed, "perl -e 'for (1..20) { fork } ' & wait").await;
    // What the bomb left is killed in the background, and until then there may be no place for another process.
    let deadline = Instant::now() + Duration::from_secs(20);
    let alive = loop {
        match sealed.run(ExecRequest::shell("echo alive"), 1 << 10).await {
            Ok(output) if output.status.is_some_and(ExitStatus::success) => break output,
            found => assert!(Instant::now() < deadline, "nobody gets in again: {found:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(alive.stdout.to_text(), "alive\n");
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn the_disk_is_bounded_over_all_writable_places_together() {
    let sealed = sandbox(&small()).await;
    let fill = "for d in /workspace ~ /tmp /dev/shm; do head -c 20M /dev/zero > $d/fill 2>/dev/null; done; \
                cat /workspace/fill ~/fill /tmp/fill /dev/shm/fill | wc -c";
    let output = run(&*sealed, fill).await;
    let bytes: u64 = output.stdout.to_text().trim().parse().expect("a number");
    assert!((30 << 20..=32 << 20).contains(&bytes), "{bytes} bytes with a limit of 32 MiB");
    let output = run(&*sealed, "head -c 1M /dev/zero > more").await;
    assert!(output.stderr.to_text().contains("No space left on device"), "{output:?}");
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn files_are_bounded_in_number_and_in_claimed_size() {
    let sealed = sandbox(&small()).await;
    let output = run(&*sealed, "perl -e 'for (1..5000) { open(F, \">\", \"f$_\") or last; close F } opendir(D, \".\"); print scalar(readdir D)' >/dev/null; ls | wc -l").await;
    let files: u64 = output.stdout.to_text().trim().parse().expect("a number");
    assert!((1900..=2000).contains(&files), "{files} files with a limit of 2000");
    let sparse =
        run(&*sealed, "rm -f f*; truncate -s 1T huge; echo $?; [ -s huge ] || echo none").await;
    assert!(sparse.stdout.to_text().ends_with("none\n"), "{sparse:?}");
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn open_files_are_bounded() {
    let sealed = sandbox(&small()).await;
    let output = run(&*sealed, "perl -e 'my @f; while (open(my $f, \"<\", \"/dev/null\")) { push @f, $f } print scalar @f, \" $!\"'; ulimit -n 100000 2>&1 | grep -c .").await;
    let text = output.stdout.to_text().into_owned();
    assert!(text.contains("Too many open files") && text.ends_with("1\n"), "{text}");
    let count: u32 = text.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    assert!(count < 128, "{count} files with a limit of 128");
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn the_processor_is_bounded_where_there_is_a_cgroup() {
    let limits = SandboxLimits { cpu_millis: Some(200), ..small().limits };
    let spec = SandboxSpec { limits, ..small() };
    let backend = LinuxBackend::new();
    let guarantees = backend.guarantees().await.expect("a report");
    let created = backend.create(&spec).await;
    if !matches!(guarantees.enforcement(Wall::CpuLimit), Enforcement::Full { .. }) {
        let error = created.expect_err("it cannot be enforced");
        assert!(
            error.to_string().starts_with("the linux backend cannot enforce the cpu limit"),
            "{error}"
        );
        return;
    }
    let sealed = created.expect("a sandbox");
    // A fifth of a processor: a second of time gives two tenths of work.
    let output = run(&*sealed, "perl -MTime::HiRes=time -e 'my $t = time; 1 while time < $t + 1; my ($u, $s) = times; printf \"%d\", 100 * ($u + $s)'").await;
    let hundredths: u32 = output.stdout.to_text().parse().expect("a number");
    assert!(
        (5..=40).contains(&hundredths),
        "{hundredths} hundredths of a second of work in a second"
    );
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn endless_output_is_bounded() {
    let limits = SandboxLimits { output_bytes: 8 << 20, ..small().limits };
    let sealed = sandbox(&SandboxSpec { limits, ..small() }).await;
    let mut process = sealed.exec(ExecRequest::program(["yes"])).await.expect("starts");
    let (mut bytes, mut status) = (0, None);
    while let Some(event) = process.next().await {
        match event.expect("an event") {
            ExecEvent::Stdout(piece) => bytes += piece.len(),
            ExecEvent::Exited(exited) => status = Some(exited),
            _ => {}
        }
    }
    assert_eq!(status, Some(ExitStatus::Limit(ExceededLimit::Output)));
    assert!((8 << 20..9 << 20).contains(&bytes), "{bytes} bytes with a limit of 8 MiB");
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn an_idle_sandbox_is_closed_and_says_so() {
    let idle = Duration::from_millis(400);
    let limits = SandboxLimits { idle_time: Some(idle), ..small().limits };
    let sealed = sandbox(&SandboxSpec { limits, ..small() }).await;
    // A running command is no idleness, however silent; nor is a pause shorter than the limit.
    assert_eq!(run(&*sealed, "sleep 1; echo alive").await.stdout.to_text(), "alive\n");
    let mut ended = sealed.exec(ExecRequest::shell("true")).await.expect("starts");
    while ended.next().await.is_some() {}
    let since = Instant::now();
    let error = sealed.lost().await;
    assert_eq!(error.to_string(), "the sandbox is lost: it was idle for longer than its limit");
    assert!(since.elapsed() >= idle / 2, "{:?}", since.elapsed());
    let error = sealed.exec(ExecRequest::shell("true")).await.expect_err("it is gone");
    assert_eq!(error.to_string(), "the sandbox is lost: it was idle for longer than its limit");
    sealed.close().await.expect("closes");
    let left = cgroups_of(std::process::id());
    assert!(!left.iter().any(|directory| directory.ends_with(sealed.id().as_str())), "{left:?}");
}

#[tokio::test]
async fn an_idle_sandbox_is_closed_also_if_its_guest_is_stopped() {
    let limits = SandboxLimits { idle_time: Some(Duration::from_millis(300)), ..small().limits };
    let sealed = sandbox(&SandboxSpec { limits, ..small() }).await;
    let seconds = format!("600.{}", unique());
    let started = "until grep -q sleep /proc/$!/comm; do :; done";
    run(&*sealed, &format!("sleep {seconds} </dev/null >/dev/null 2>&1 & {started}")).await;
    // The guest is the parent of what is left behind.
    let guest = parent_of(&["sleep", &seconds]).expect("it runs");
    rustix::process::kill_process(guest, rustix::process::Signal::STOP).expect("stopped");
    // Nobody asks for the loss.
    eventually("its processes end", || processes_with(&["sleep", &seconds]) == 0).await;
    sealed.close().await.expect("closes");
}
