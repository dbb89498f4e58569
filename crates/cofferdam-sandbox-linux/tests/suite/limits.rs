//! Bombs: each is stopped at its limit, is told from other ends, and leaves the sandbox usable.

use std::{
    cell::Cell,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use cofferdam_core::{SandboxLimits, WorkspacePath};
use cofferdam_sandbox::{
    Enforcement, ExecEvent, ExecRequest, ExitStatus, SandboxBackend, SandboxError, SandboxExt,
    SandboxSpec, Wall, WriteOptions, exec::ExceededLimit,
};
use cofferdam_sandbox_linux::LinuxBackend;
use cofferdam_testkit::skip;
use futures::StreamExt;

use crate::host::{
    cgroups_of, eventually, guest_above, processes_with, run, sandbox, small, unique,
};

/// Fills memory with pages that cannot be shared, up to some MiB.
const MEMORY_BOMB: &str =
    "perl -e 'my @a; for (1..1024) { push @a, chr($_ & 127) x (1 << 20) } print scalar @a'";

/// Forks until it fails, and prints how often it worked.
const COUNT_FORKS: &str = "perl -e 'alarm 30; pipe(R, W); my $k = 0; while ($k < 500) { my $p = fork; last if !defined $p; $k++, next if $p; close W; sysread(R, my $b, 1); exit } print $k'";

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
        return skip(
            "files_count_as_memory",
            "without a memory cgroup files are bounded by the disk limit alone",
        );
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
    let output = run(&*sealed, COUNT_FORKS).await;
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
    // A fifth of a processor for two that want one each: two seconds of the clock give at most 0.4 of work, and what a
    // period may overrun. Processor time is counted, so that it does not matter what else the host does.
    let work = "perl -MTime::HiRes=time -e 'my $end = time + 2; my $p = fork; 1 while time < $end; $p and wait; \
                my ($u, $s, $cu, $cs) = times; printf \"%d\", 1000 * ($u + $s + $cu + $cs) if $p'";
    let output = run(&*sealed, work).await;
    let milliseconds: u32 = output.stdout.to_text().parse().expect("a number");
    println!("{milliseconds} ms of work with a quota of 400 ms");
    assert!((1..=600).contains(&milliseconds), "{milliseconds} ms with a quota of 400 ms");
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
    let busy = sealed.exec(ExecRequest::program(["sleep", &seconds])).await.expect("starts");
    // While the command is held, the sandbox is not idle, and its guest is there to be found.
    let guest = Cell::new(None);
    eventually("it runs below its guest", || {
        guest.set(guest_above(&["sleep", &seconds]));
        guest.get().is_some()
    })
    .await;
    let guest = guest.get().expect("found");
    // From here on it is idle, and the guest can do nothing about it.
    rustix::process::kill_process(guest, rustix::process::Signal::STOP).expect("stopped");
    drop(busy);
    // Nobody asks for the loss.
    eventually("its processes end", || processes_with(&["sleep", &seconds]) == 0).await;
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn memory_is_bounded_over_all_processes_together() {
    const TEST: &str = "memory_is_bounded_over_all_processes_together";
    if !memory_is_full().await {
        return skip(TEST, "without a memory cgroup the bound is on each process alone");
    }
    let sealed = sandbox(&small()).await;
    // Each takes 32 MiB of 256 and stays; the parent counts those that came so far.
    let spread = "perl -e 'pipe(R, W); my @p; for (1..16) { my $p = fork; if (!$p) { close R; my $a = chr(1) x (32 << 20); \
                  syswrite(W, \"x\"); sleep 20; exit } push @p, $p } close W; my $n = 0; $n += sysread(R, my $b, 1) for 1..6; \
                  my $killed = 0; alarm 15; while (!$killed && waitpid(-1, 0) > 0) { $killed++ if ($? & 127) == 9 } kill 9, @p; \
                  print \"$n $killed\"'";
    let output = run(&*sealed, spread).await;
    assert_eq!(output.stdout.to_text(), "6 1", "{output:?}");
    assert_eq!(run(&*sealed, "echo alive").await.stdout.to_text(), "alive\n");
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn a_guest_that_is_killed_for_memory_is_told_as_the_limit() {
    const TEST: &str = "a_guest_that_is_killed_for_memory_is_told_as_the_limit";
    if !memory_is_full().await {
        return skip(TEST, "without a memory cgroup nothing is killed for memory");
    }
    let limits = SandboxLimits { memory_bytes: 64 << 20, disk_bytes: 1 << 30, ..small().limits };
    let sealed = sandbox(&SandboxSpec { limits, ..small() }).await;
    // The guest itself writes the file, and nobody else is there to be killed.
    let path = WorkspacePath::new("big").expect("a path");
    let content = vec![1; 128 << 20].into();
    let error = sealed.files().write(&path, content, &WriteOptions::default()).await;
    error.expect_err("it does not fit");
    let lost = sealed.lost().await;
    assert_eq!(lost.to_string(), "the sandbox is lost: it exceeded its memory limit");
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn processor_time_goes_by_weight() {
    let backend = LinuxBackend::new();
    let guarantees = backend.guarantees().await.expect("a report");
    let weighted = |weight| {
        let limits = SandboxLimits { cpu_weight: Some(weight), ..small().limits };
        SandboxSpec { limits, ..small() }
    };
    if !matches!(guarantees.enforcement(Wall::CpuLimit), Enforcement::Full { .. }) {
        let error = backend.create(&weighted(10)).await.expect_err("it cannot be enforced");
        let text = error.to_string();
        assert!(text.starts_with("the linux backend cannot enforce the cpu limit"), "{text}");
        return;
    }
    // Both want all of the same processor until a moment of the clock, and say how much they got.
    let until = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() + 5;
    let script = format!(
        "exec taskset -c 0 perl -MTime::HiRes=time -e '1 while time < {until}; my ($u, $s) = times; printf \"%d\", 1000 * ($u + $s)'"
    );
    let work = |weight| {
        let (backend, script, spec) = (backend.clone(), script.clone(), weighted(weight));
        async move {
            let sealed = backend.create(&spec).await.expect("a sandbox");
            let output = run(&*sealed, &script).await;
            sealed.close().await.expect("closes");
            output.stdout.to_text().parse::<f64>().expect("a number")
        }
    };
    let (heavy, light) = futures::join!(work(1000), work(100));
    println!("{heavy} ms with weight 1000, {light} ms with weight 100");
    // Ten to one; what the start of each took is in it.
    assert!(heavy > 3.0 * light, "{heavy} ms and {light} ms");
    assert!(light > 0.0);
}

#[tokio::test]
async fn wall_time_ends_a_sandbox_however_busy_it_is() {
    let limits = SandboxLimits { wall_time: Duration::from_millis(500), ..small().limits };
    let sealed = sandbox(&SandboxSpec { limits, ..small() }).await;
    let busy = "trap '' TERM INT HUP; while :; do :; done & while :; do echo x; done";
    let mut process = sealed.exec(ExecRequest::shell(busy)).await.expect("starts");
    let error = loop {
        match process.next().await.expect("an end with a reason") {
            Ok(event) => assert!(!matches!(event, ExecEvent::Exited(_)), "it never exits"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), "the sandbox is lost: it exceeded its wall time");
    sealed.close().await.expect("closes");
}

/// The walls that are limits.
const LIMITS: [Wall; 8] = [
    Wall::MemoryLimit,
    Wall::ProcessLimit,
    Wall::CpuLimit,
    Wall::DiskLimit,
    Wall::OpenFileLimit,
    Wall::OutputLimit,
    Wall::WallTimeLimit,
    Wall::IdleTimeLimit,
];

/// Demands each limit by itself, and returns those for which no sandbox starts.
async fn refused(backend: &LinuxBackend) -> Vec<Wall> {
    let guarantees = backend.guarantees().await.expect("a report");
    let mut refused = Vec::new();
    for wall in LIMITS {
        let spec = SandboxSpec { require: [wall].into(), ..small() };
        match backend.create(&spec).await {
            Ok(sealed) => sealed.close().await.expect("closes"),
            Err(SandboxError::Unenforceable { wall: named, reason, .. }) => {
                assert_eq!(named, wall);
                assert!(reason.contains("`require`"), "{reason}");
                refused.push(wall);
            }
            Err(error) => panic!("{wall}: {error}"),
        }
        let full = matches!(guarantees.enforcement(wall), Enforcement::Full { .. });
        assert_eq!(full, !refused.contains(&wall), "{wall}");
    }
    refused
}

#[tokio::test]
async fn a_required_limit_that_nothing_enforces_stops_the_start() {
    // A parent that is not there stands for a host without cgroups.
    let without = LinuxBackend::with_cgroup_parent("/cofferdam-not-there");
    assert_eq!(refused(&without).await, [Wall::MemoryLimit, Wall::CpuLimit]);
    let here = refused(&LinuxBackend::new()).await;
    println!("refused on this host: {here:?}");
    // What is bounded by other means than cgroups is bounded everywhere.
    assert!(here.iter().all(|wall| [Wall::MemoryLimit, Wall::CpuLimit].contains(wall)), "{here:?}");
}

#[tokio::test]
async fn without_cgroups_processes_are_bounded_all_the_same() {
    let backend = LinuxBackend::with_cgroup_parent("/cofferdam-not-there");
    let sealed = backend.create(&small()).await.expect("a sandbox");
    let output = run(&*sealed, COUNT_FORKS).await;
    let made: u32 = output.stdout.to_text().parse().expect("a number");
    assert!((40..=64).contains(&made), "{made} processes with a limit of 64");
    let output = run(&*sealed, &format!("{MEMORY_BOMB}; exit $?")).await;
    // Not the limit of the sandbox but of one process, so it is the program's own failure.
    assert!(matches!(output.status, Some(ExitStatus::Code(code)) if code != 0), "{output:?}");
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn limits_that_make_no_sense_are_refused() {
    let backend = LinuxBackend::new();
    for (limits, expect) in [
        (
            SandboxLimits { cpu_weight: Some(0), ..small().limits },
            "invalid sandbox request: the limit cpu_weight is not between 1 and 10000",
        ),
        (
            SandboxLimits { cpu_weight: Some(10_001), ..small().limits },
            "invalid sandbox request: the limit cpu_weight is not between 1 and 10000",
        ),
        (
            SandboxLimits { idle_time: Some(Duration::ZERO), ..small().limits },
            "invalid sandbox request: the limit idle_time is 0, which no sandbox can be used with",
        ),
    ] {
        let error = backend.create(&SandboxSpec { limits, ..small() }).await.expect_err("refused");
        assert_eq!(error.to_string(), expect);
    }
}
