//! How sandboxes begin and end: nothing of them may outlive the close, the drop, the guest, the launcher or the host.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use cofferdam_core::SandboxLimits;
use cofferdam_sandbox::{
    Enforcement, ExecEvent, ExecRequest, ExitStatus, LossReason, Process, RootFilesystem, Sandbox,
    SandboxBackend, SandboxError, SandboxExt, SandboxSpec, Signal, Wall,
};
use cofferdam_sandbox_linux::LinuxBackend;
use futures::StreamExt;

use crate::host::{
    cgroups_of, eventually, open_to_all, processes_with, run, sandbox, small, unique,
};

/// Leaves a process behind that ignores polite signals and its terminal, and returns its argument. Dropping the returned
/// command would end it too, so the caller keeps it.
async fn leave_behind(sandbox: &dyn Sandbox) -> (String, Process) {
    let seconds = format!("600.{}", unique());
    let script =
        format!("trap '' TERM HUP INT; setsid sleep {seconds} </dev/null >/dev/null 2>&1 &");
    let mut process = sandbox.exec(ExecRequest::shell(script)).await.expect("starts");
    while let Some(event) = process.next().await {
        if matches!(event.expect("an event"), ExecEvent::Exited(_)) {
            break;
        }
    }
    eventually("it runs, so that it can be gone", || processes_with(&["sleep", &seconds]) == 1)
        .await;
    (seconds, process)
}

#[tokio::test]
async fn close_ends_everything_and_is_idempotent() {
    let sealed = sandbox(&small()).await;
    let (seconds, _command) = leave_behind(&*sealed).await;
    let directories = cgroups_of(std::process::id());
    let own: Vec<_> = directories.iter().filter(|d| d.ends_with(sealed.id().as_str())).collect();
    sealed.close().await.expect("closes");
    assert_eq!(processes_with(&["sleep", &seconds]), 0);
    for directory in own {
        assert!(!std::path::Path::new(directory).exists(), "{directory} is left");
    }
    sealed.close().await.expect("closes again");
    let error = sealed.exec(ExecRequest::shell("true")).await.expect_err("it is closed");
    assert_eq!(error.to_string(), "the sandbox is lost: it was closed");
    assert_eq!(sealed.lost().await.to_string(), "the sandbox is lost: it was closed");
}

#[tokio::test]
async fn a_dropped_sandbox_ends_in_the_background() {
    let sealed = sandbox(&small()).await;
    let (seconds, _command) = leave_behind(&*sealed).await;
    let id = sealed.id().clone();
    drop(sealed);
    eventually("its processes end", || processes_with(&["sleep", &seconds]) == 0).await;
    eventually("its cgroups are removed", || {
        !cgroups_of(std::process::id()).iter().any(|d| d.ends_with(id.as_str()))
    })
    .await;
}

#[tokio::test]
async fn a_dropped_creation_leaves_nothing() {
    if !alone("lifecycle::a_dropped_creation_leaves_nothing") {
        return;
    }
    let backend = LinuxBackend::new();
    let spec = small();
    for milliseconds in 0..8 {
        let creation = backend.create(&spec);
        let _ = tokio::time::timeout(Duration::from_millis(milliseconds), creation).await;
    }
    eventually("its cgroups are removed", || cgroups_of(std::process::id()).is_empty()).await;
    // What a launcher has started looks like one until it becomes the guest, or ends.
    eventually("there is one launcher at most", || launchers_of(std::process::id()).len() <= 1)
        .await;
    for launcher in launchers_of(std::process::id()) {
        eventually("no guest is left", || children_of(launcher).is_empty()).await;
    }
    drop(backend);
    eventually("no launcher is left", || launchers_of(std::process::id()).is_empty()).await;
}

/// Runs a test in a process of its own, in which there is no sandbox but its own; returns true there.
fn alone(test: &str) -> bool {
    const ALONE: &str = "COFFERDAM_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", test])
        .env(ALONE, "1")
        .output()
        .expect("starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// Returns the launchers that a process has started and that still live. What a launcher starts has its arguments too, until it
/// becomes the guest.
fn launchers_of(parent: u32) -> Vec<u32> {
    let wanted = format!("cofferdam-launcher\0{parent}\0");
    let mut found = children_of(parent);
    // A process that is only waited for has no arguments any more.
    found.retain(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == wanted)
    });
    found
}

fn pid_of(number: u32) -> rustix::process::Pid {
    i32::try_from(number).ok().and_then(rustix::process::Pid::from_raw).expect("a pid")
}

/// Returns the children of a process, those that are only waited for included.
fn children_of(parent: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let parent_of = |stat: &str| -> Option<u32> {
        let (_, after_name) = stat.rsplit_once(')')?;
        after_name.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let stat = std::fs::read_to_string(path.join("stat")).ok()?;
            let pid = path.file_name()?.to_str()?.parse().ok()?;
            (parent_of(&stat) == Some(parent)).then_some(pid)
        })
        .collect()
}

/// Set for the copy of this test that is to be killed.
const VICTIM: &str = "COFFERDAM_TEST_KILLED_PARENT";

#[tokio::test]
async fn a_killed_parent_leaves_nothing() {
    if std::env::var_os(VICTIM).is_some() {
        let sealed = sandbox(&small()).await;
        let (seconds, _command) = leave_behind(&*sealed).await;
        println!("\nleft {seconds}");
        return std::future::pending().await;
    }
    let mut parent = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "lifecycle::a_killed_parent_leaves_nothing", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(parent.stdout.take().expect("piped")).lines();
    let seconds = lines
        .find_map(|line| line.expect("text").strip_prefix("left ").map(str::to_owned))
        .expect("it says what it left");
    eventually("it runs", || processes_with(&["sleep", &seconds]) == 1).await;
    parent.kill().expect("killed");
    parent.wait().expect("ended");
    eventually("its sandbox's processes end", || processes_with(&["sleep", &seconds]) == 0).await;
    eventually("its cgroups are removed", || cgroups_of(parent.id()).is_empty()).await;
}

#[tokio::test]
async fn a_killed_launcher_takes_the_sandbox_with_it() {
    if !alone("lifecycle::a_killed_launcher_takes_the_sandbox_with_it") {
        return;
    }
    let sealed = sandbox(&small()).await;
    let (seconds, _command) = leave_behind(&*sealed).await;
    let launchers = launchers_of(std::process::id());
    let [launcher] = launchers[..] else { panic!("one launcher, not {launchers:?}") };
    let pid = pid_of(launcher);
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    let error = sealed.lost().await;
    assert!(
        matches!(error, SandboxError::Lost { reason: LossReason::GuestEnded { .. } }),
        "{error}"
    );
    eventually("its processes end", || processes_with(&["sleep", &seconds]) == 0).await;
    sealed.close().await.expect("nothing is left to close");
    assert_eq!(cgroups_of(std::process::id()), Vec::<String>::new());
}

#[tokio::test]
async fn after_a_killed_launcher_the_next_sandbox_has_a_new_one() {
    if !alone("lifecycle::after_a_killed_launcher_the_next_sandbox_has_a_new_one") {
        return;
    }
    let backend = LinuxBackend::new();
    let (one, two) = (backend.create(&small()).await, backend.create(&small()).await);
    let (one, two) = (one.expect("a sandbox"), two.expect("another"));
    let launchers = launchers_of(std::process::id());
    let [launcher] = launchers[..] else { panic!("one launcher for both, not {launchers:?}") };
    let pid = pid_of(launcher);
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    for sealed in [&one, &two] {
        assert_eq!(
            sealed.lost().await.to_string(),
            "the sandbox is lost: its first process ended (its launcher was killed)"
        );
    }
    let three = backend.create(&small()).await.expect("a third");
    assert_eq!(run(&*three, "echo alive").await.stdout.to_text(), "alive\n");
    for sealed in [one, two, three] {
        sealed.close().await.expect("closes");
    }
}

#[tokio::test]
async fn the_end_of_a_runtime_ends_its_own_sandboxes_only() {
    let backend = LinuxBackend::new();
    let sealed = backend.create(&small()).await.expect("a sandbox");
    let other = backend.clone();
    // Its tasks end with it, so nobody hears how its sandbox ends.
    let (seconds, runtime) = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (seconds, _) = runtime.block_on(async {
            let lonely = other.create(&small()).await.expect("a sandbox");
            leave_behind(&*lonely).await
        });
        (seconds, runtime)
    })
    .await
    .expect("it does not panic");
    runtime.shutdown_background();
    eventually("the other's processes end", || processes_with(&["sleep", &seconds]) == 0).await;
    // The launcher is the same for both, and does not mind.
    assert_eq!(run(&*sealed, "echo alive").await.stdout.to_text(), "alive\n");
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn a_command_cannot_end_the_sandbox() {
    let sealed = sandbox(&small()).await;
    for attack in
        ["kill -9 1", "sleep 0.1; kill -9 -1", "kill -TERM 1", "kill -STOP 1", "kill -SEGV 1"]
    {
        run(&*sealed, attack).await;
        assert_eq!(run(&*sealed, "echo alive").await.stdout.to_text(), "alive\n", "{attack}");
    }
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn wall_time_ends_a_sandbox_by_itself() {
    let limits = SandboxLimits { wall_time: Duration::from_millis(300), ..small().limits };
    let sealed = sandbox(&SandboxSpec { limits, ..small() }).await;
    assert_eq!(sealed.lost().await.to_string(), "the sandbox is lost: it exceeded its wall time");
    let error = sealed.exec(ExecRequest::shell("true")).await.expect_err("it is gone");
    assert!(error.is_loss(), "{error}");
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn a_command_that_ignores_signals_is_killed_with_its_children() {
    let sealed = sandbox(&small()).await;
    let seconds = format!("600.{}", unique());
    let script = format!(
        "trap '' TERM INT HUP; setsid sleep {seconds} & echo ready; while :; do sleep 1; done"
    );
    let mut process = sealed.exec(ExecRequest::shell(script)).await.expect("starts");
    while let Some(event) = process.next().await {
        if matches!(event.expect("an event"), ExecEvent::Stdout(_)) {
            break;
        }
    }
    let control = process.control();
    control.signal(Signal::TERM).await.expect("sent");
    eventually("its child runs", || processes_with(&["sleep", &seconds]) == 1).await;
    control.kill_tree().await.expect("killed");
    let mut status = None;
    while let Some(event) = process.next().await {
        if let ExecEvent::Exited(exited) = event.expect("an event") {
            status = Some(exited);
        }
    }
    assert_eq!(status, Some(ExitStatus::Signal(9)));
    eventually("its children end", || processes_with(&["sleep", &seconds]) == 0).await;
    sealed.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_sandboxes_at_once() {
    let backend = LinuxBackend::new();
    let creations = (0..50).map(|number| {
        let backend = backend.clone();
        async move {
            let sealed = backend.create(&small()).await.expect("a sandbox");
            let output = run(&*sealed, &format!("echo {number} > n; cat n; ls | wc -l")).await;
            assert_eq!(output.stdout.to_text(), format!("{number}\n1\n"));
            sealed
        }
    });
    let sandboxes = futures::future::join_all(creations).await;
    let closed = futures::future::join_all(sandboxes.iter().map(|sealed| sealed.close())).await;
    closed.into_iter().for_each(|result| result.expect("closes"));
}

/// Makes a root directory with one program, the one static program at hand: its input is at its end, so it ends at once.
fn root_with_one_program() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    open_to_all(root.path());
    std::fs::create_dir(root.path().join("bin")).expect("made");
    let program = root.path().join("bin/only");
    std::fs::write(&program, cofferdam_guest::PROGRAM).expect("written");
    open_to_all(&program);
    root
}

async fn run_the_one_program(sealed: &dyn Sandbox) -> Option<ExitStatus> {
    let request = ExecRequest::program(["/bin/only"]);
    sealed.run(request, 1024).await.expect("starts").status
}

#[tokio::test]
async fn a_given_root_is_the_root() {
    let root = root_with_one_program();
    let spec = SandboxSpec { root: RootFilesystem::Directory(root.path().to_owned()), ..small() };
    let sealed = LinuxBackend::new().create(&spec).await.expect("a sandbox");
    let error =
        sealed.exec(ExecRequest::shell("true")).await.expect_err("the host's shell is not there");
    assert!(matches!(&error, SandboxError::NotStarted { errno: 2, .. }), "{error}");
    assert_eq!(run_the_one_program(&*sealed).await, Some(ExitStatus::Code(0)));
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn any_number_of_roots_can_be_used_in_turn() {
    let backend = LinuxBackend::new();
    // More than are kept ready, and each again after it was forgotten.
    let roots: Vec<_> = (0..10).map(|_| root_with_one_program()).collect();
    for root in roots.iter().chain(&roots) {
        let spec =
            SandboxSpec { root: RootFilesystem::Directory(root.path().to_owned()), ..small() };
        let sealed = backend.create(&spec).await.expect("a sandbox");
        assert_eq!(run_the_one_program(&*sealed).await, Some(ExitStatus::Code(0)));
        sealed.close().await.expect("closes");
    }
}

#[tokio::test]
async fn a_root_with_many_files_is_no_harder() {
    let root = root_with_one_program();
    // Each is copied into the root, and they are more than fits a socket's buffer.
    for number in 0..30 {
        let file = root.path().join(format!("file{number}"));
        std::fs::write(&file, vec![b'x'; 16 << 10]).expect("written");
        open_to_all(&file);
    }
    let spec = SandboxSpec { root: RootFilesystem::Directory(root.path().to_owned()), ..small() };
    let sealed = LinuxBackend::new().create(&spec).await.expect("a sandbox");
    assert_eq!(run_the_one_program(&*sealed).await, Some(ExitStatus::Code(0)));
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn what_cannot_be_enforced_is_refused_by_name() {
    let backend = LinuxBackend::new();
    let path = cofferdam_core::WorkspacePath::new("src").expect("a path");
    let read_only = SandboxSpec { read_only: vec![path], ..small() };
    let no_memory =
        SandboxSpec { limits: SandboxLimits { memory_bytes: 0, ..small().limits }, ..small() };
    let environment = [("A=B".to_owned(), String::new())].into();
    let impossible = SandboxSpec { environment, ..small() };
    for (spec, expect) in [
        (impossible, "invalid sandbox request: no environment can hold the variable \"A=B\""),
        (
            read_only,
            "the linux backend cannot enforce the file system on this host: read-only workspace paths (src) are not \
             built by this backend; keep what must not change outside of the workspace, or compare it afterwards",
        ),
        (
            no_memory,
            "invalid sandbox request: the limit memory_bytes is 0, which no sandbox can run with",
        ),
    ] {
        let error = backend.create(&spec).await.expect_err("refused");
        assert_eq!(error.to_string(), expect);
    }
}

#[tokio::test]
async fn strict_is_refused_exactly_where_a_wall_is_weak() {
    let backend = LinuxBackend::new();
    let guarantees = backend.guarantees().await.expect("a report");
    println!("{guarantees:#?}");
    assert!(matches!(guarantees.enforcement(Wall::Filesystem), Enforcement::Full { .. }));
    let weakest = guarantees.weaknesses().next().map(|weakness| weakness.wall);
    let spec = SandboxSpec { strict: true, ..small() };
    match (weakest, backend.create(&spec).await) {
        (None, Ok(sealed)) => sealed.close().await.expect("closes"),
        (Some(weak), Err(SandboxError::Unenforceable { wall, reason, .. })) => {
            assert_eq!(wall, weak);
            assert!(reason.contains("strict"), "{reason}");
        }
        (weakest, result) => panic!("weakest wall {weakest:?}, but {result:?}"),
    }
}

#[tokio::test]
async fn sandboxes_cannot_be_attached_to() {
    let backend = LinuxBackend::new();
    let sealed = sandbox(&small()).await;
    let error = backend.attach(&sealed.state()).await.expect_err("unsupported");
    assert!(matches!(error, SandboxError::Unsupported { .. }), "{error}");
    sealed.close().await.expect("closes");
}
