//! Sandboxes that outlive the process that made them: what is found again, and what ends them for good.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use cofferdam_core::{SandboxId, SandboxLimits};
use cofferdam_sandbox::{
    CommandState, ExecEvent, ExecRequest, ExitStatus, HostLayerKind, LossReason, OutputPosition,
    Process, Sandbox, SandboxBackend, SandboxError, SandboxExt as _, SandboxSpec, SandboxState,
    WorkspaceBase, exec::ExceededLimit,
};
use cofferdam_sandbox_linux::LinuxBackend;
use futures::StreamExt as _;
use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, kill_process},
};

use crate::host::{cgroups_where, eventually, processes_with, run, small, unique};

/// A state directory of a test's own.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn directory(&self) -> PathBuf {
        self.0.path().join("state")
    }

    /// Returns a backend as another process has it, which knows nothing but the directory.
    fn backend(&self) -> LinuxBackend {
        LinuxBackend::new().with_state_directory(self.directory())
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory()).into_iter().flatten();
        entries.map(|entry| entry.expect("an entry").file_name().display().to_string()).collect()
    }

    /// Returns the supervisor of a sandbox.
    fn supervisor(&self, id: &SandboxId) -> Pid {
        let text = fs::read(self.directory().join(id.as_str()).join("state.json")).expect("state");
        let state: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        let pid = state["supervisor"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        pid.and_then(Pid::from_raw).expect("a process")
    }

    /// Demands that nothing is left of a sandbox.
    async fn check_gone(&self, id: &SandboxId, supervisor: Pid) {
        let name = id.as_str().to_owned();
        let cgroups = || cgroups_where(|directory| directory.ends_with(&name));
        eventually("its cgroups are removed", || cgroups().is_empty()).await;
        eventually("its supervisor ends", || {
            rustix::process::test_kill_process(supervisor).is_err()
        })
        .await;
        assert!(!self.directory().join(&name).exists(), "its directory is left");
    }
}

fn lingering(time: Duration) -> SandboxSpec {
    SandboxSpec { linger: time, ..small() }
}

fn long() -> SandboxSpec {
    lingering(Duration::from_secs(60))
}

fn named(id: &str, script: &str) -> ExecRequest {
    ExecRequest { id: Some(id.to_owned()), ..ExecRequest::shell(script) }
}

/// Starts a command that runs until the sandbox ends, leaves it, and returns its argument.
async fn run_on(sandbox: &dyn Sandbox) -> String {
    let seconds = format!("600.{}", unique());
    let request = named("on", &format!("trap '' TERM HUP INT; sleep {seconds}; :"));
    sandbox.exec(request).await.expect("starts").detach().await.expect("left");
    eventually("it runs, so that it can be gone", || processes_with(&["sleep", &seconds]) == 1)
        .await;
    seconds
}

/// Reads a command to its end.
async fn hear(mut process: Process) -> (String, Option<ExitStatus>) {
    let (mut output, mut status) = (Vec::new(), None);
    while let Some(event) = process.next().await {
        match event.expect("an event") {
            ExecEvent::Stdout(bytes) => output.extend(bytes),
            ExecEvent::Exited(ended) => status = Some(ended),
            _ => {}
        }
    }
    (String::from_utf8_lossy(&output).into_owned(), status)
}

fn reason(error: SandboxError) -> LossReason {
    match error {
        SandboxError::Lost { reason } => reason,
        other => panic!("not a loss: {other}"),
    }
}

/// Tells the copy of the test that is to be killed where the state directory is.
const VICTIM: &str = "COFFERDAM_TEST_LINGER_VICTIM";

#[tokio::test(flavor = "multi_thread")]
async fn after_the_death_of_its_process_the_sandbox_and_its_commands_are_found() {
    if let Some(directory) = std::env::var_os(VICTIM) {
        let backend = LinuxBackend::new().with_state_directory(PathBuf::from(directory));
        let mut spec = long();
        spec.environment.insert("WORD".to_owned(), "value".to_owned());
        spec.labels.insert("run".to_owned(), "7".to_owned());
        let sandbox = backend.create(&spec).await.expect("a sandbox");
        let ended = sandbox.exec(named("ended", "echo told; exit 3")).await.expect("starts");
        assert_eq!(hear(ended).await.1, Some(ExitStatus::Code(3)));
        let script = "echo one; until [ -e go ]; do sleep 0.02; done; echo $WORD; exit 7";
        let mut process = sandbox.exec(named("step", script)).await.expect("starts");
        while !matches!(process.next().await, Some(Ok(ExecEvent::Stdout(_)))) {}
        let state = serde_json::to_string(&sandbox.state()).expect("JSON");
        println!("\nleft {state}");
        return std::future::pending().await;
    }
    let place = Place::new();
    let mut victim = Command::new(std::env::current_exe().expect("this program"))
        .args([
            "--exact",
            "linger::after_the_death_of_its_process_the_sandbox_and_its_commands_are_found",
            "--nocapture",
        ])
        .env(VICTIM, place.directory())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(victim.stdout.take().expect("piped")).lines();
    let state = lines
        .find_map(|line| line.expect("text").strip_prefix("left ").map(str::to_owned))
        .expect("it says what it left");
    victim.kill().expect("killed");
    victim.wait().expect("ended");

    let state: SandboxState = serde_json::from_str(&state).expect("a state");
    let backend = place.backend();
    let listed = backend.list().await.expect("a list");
    let [listed] = &listed[..] else { panic!("one sandbox, not {listed:?}") };
    assert_eq!((&listed.state, &*listed.labels["run"]), (&state, "7"));
    let sandbox = backend.attach(&state).await.expect("found");
    let sessions = sandbox.sessions().expect("sessions");
    let commands = sessions.list().await.expect("a list");
    let told: Vec<_> =
        commands.iter().map(|command| (&*command.id, command.state, command.status)).collect();
    assert_eq!(
        told,
        [
            ("ended", CommandState::Finished, Some(ExitStatus::Code(3))),
            ("step", CommandState::Running, None)
        ]
    );
    let from_start = OutputPosition::default();
    let ended = sessions.attach("ended", from_start).await.expect("found");
    assert_eq!(hear(ended).await, ("told\n".to_owned(), Some(ExitStatus::Code(3))));
    let again = sandbox.exec(named("step", "echo twice > trace")).await.expect_err("it is known");
    assert!(matches!(again, SandboxError::InvalidRequest { .. } | SandboxError::NotStarted { .. }));
    let process = sessions.attach("step", from_start).await.expect("found");
    run(&*sandbox, "touch go").await;
    assert_eq!(hear(process).await, ("one\nvalue\n".to_owned(), Some(ExitStatus::Code(7))));
    assert_eq!(run(&*sandbox, "ls; echo $WORD").await.stdout.to_text(), "go\nvalue\n");

    let supervisor = place.supervisor(&state.id);
    sandbox.close().await.expect("closes");
    place.check_gone(&state.id, supervisor).await;
    assert_eq!(place.names(), Vec::<String>::new());
    let gone = reason(backend.attach(&state).await.expect_err("it is gone"));
    assert!(matches!(gone, LossReason::Removed { .. }), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_supervisor_takes_the_sandbox_with_it() {
    let place = Place::new();
    let backend = place.backend();
    let sandbox = backend.create(&long()).await.expect("a sandbox");
    let seconds = run_on(&*sandbox).await;
    let supervisor = place.supervisor(sandbox.id());
    kill_process(supervisor, Signal::KILL).expect("killed");
    assert_eq!(
        sandbox.lost().await.to_string(),
        "the sandbox is lost: its first process ended (its launcher was killed)"
    );
    eventually("its processes end", || processes_with(&["sleep", &seconds]) == 0).await;
    sandbox.close().await.expect("closes");
    place.check_gone(sandbox.id(), supervisor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_supervisor_that_was_killed_alone_has_left_is_swept() {
    let place = Place::new();
    let sandbox = place.backend().create(&long()).await.expect("a sandbox");
    let seconds = run_on(&*sandbox).await;
    let (id, state) = (sandbox.id().clone(), sandbox.state());
    let supervisor = place.supervisor(&id);
    drop(sandbox);
    kill_process(supervisor, Signal::KILL).expect("killed");
    eventually("its processes end", || processes_with(&["sleep", &seconds]) == 0).await;
    assert!(place.directory().join(id.as_str()).exists());
    let backend = place.backend();
    assert_eq!(backend.list().await.expect("a list"), Vec::new());
    let gone = reason(backend.attach(&state).await.expect_err("it is gone"));
    assert!(matches!(gone, LossReason::Removed { .. }), "{gone}");
    // What a program does that starts afterwards.
    backend.guarantees().await.expect("a report");
    place.check_gone(&id, supervisor).await;
    backend.remove(&id).await.expect("it is gone already");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_nobody_comes_back_to_ends_whatever_runs_in_it() {
    let place = Place::new();
    let backend = place.backend();
    let spec = lingering(Duration::from_millis(500));
    let sandbox = backend.create(&spec).await.expect("a sandbox");
    // As long as somebody is attached the time does not run.
    tokio::time::sleep(Duration::from_millis(800)).await;
    let seconds = run_on(&*sandbox).await;
    let (id, state) = (sandbox.id().clone(), sandbox.state());
    let supervisor = place.supervisor(&id);
    drop(sandbox);
    place.check_gone(&id, supervisor).await;
    assert_eq!(processes_with(&["sleep", &seconds]), 0);
    assert_eq!(
        backend.attach(&state).await.expect_err("it is gone").to_string(),
        "the sandbox is lost: it was removed (nobody was connected to it for its linger time)"
    );
    assert_eq!(place.names(), [format!("{id}.ended")]);
    backend.remove(&id).await.expect("forgotten");
    assert_eq!(place.names(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wall_time_goes_on_without_anybody() {
    let place = Place::new();
    let backend = place.backend();
    let limits = SandboxLimits { wall_time: Duration::from_secs(2), ..small().limits };
    let spec = SandboxSpec { limits, ..long() };
    let alone = backend.create(&spec).await.expect("a sandbox");
    let attached = backend.create(&spec).await.expect("a sandbox");
    let (state, other) = (alone.state(), attached.state());
    drop((alone, attached));
    let attached = backend.attach(&other).await.expect("found");
    let told = attached.run(ExecRequest::program(["sleep", "600"]), 1024).await;
    assert_eq!(reason(told.expect_err("it ended")), LossReason::WallTime);
    assert_eq!(reason(attached.lost().await), LossReason::WallTime);
    attached.close().await.expect("closes");
    eventually("the other ends", || !place.directory().join(state.id.as_str()).exists()).await;
    let lost = backend.attach(&state).await.expect_err("it ended");
    assert_eq!(reason(lost), LossReason::WallTime);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_after_attaching_as_before() {
    let place = Place::new();
    let backend = place.backend();
    let sandbox = backend.create(&long()).await.expect("a sandbox");
    let state = sandbox.state();
    drop(sandbox);
    let sandbox = backend.attach(&state).await.expect("found");
    let script = "x=0123456789abcdef; while :; do x=$x$x; done";
    let told = sandbox.run(ExecRequest::shell(script), 1024).await.expect("it ended");
    if cgroups_where(|directory| directory.ends_with(state.id.as_str())).is_empty() {
        cofferdam_testkit::skip("limits_hold_after_attaching_as_before", "no cgroup can be made");
    } else {
        assert_eq!(told.status, Some(ExitStatus::Limit(ExceededLimit::Memory)));
    }
    sandbox.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_sandbox_ends_also_after_attaching() {
    let place = Place::new();
    let backend = place.backend();
    let limits = SandboxLimits { idle_time: Some(Duration::from_secs(1)), ..small().limits };
    let spec = SandboxSpec { limits, ..long() };
    let sandbox = backend.create(&spec).await.expect("a sandbox");
    let state = sandbox.state();
    let supervisor = place.supervisor(&state.id);
    drop(sandbox);
    let sandbox = backend.attach(&state).await.expect("found");
    assert_eq!(reason(sandbox.lost().await), LossReason::IdleTime);
    place.check_gone(&state.id, supervisor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_attaches_takes_the_place_of_who_was_there() {
    let place = Place::new();
    let backend = place.backend();
    let first = backend.create(&long()).await.expect("a sandbox");
    let seconds = run_on(&*first).await;
    let second = place.backend().attach(&first.state()).await.expect("found");
    let lost = first.exec(ExecRequest::shell("true")).await.expect_err("it was replaced");
    assert!(lost.is_loss(), "{lost}");
    assert!(first.lost().await.is_loss());
    drop(first);
    assert_eq!(run(&*second, "echo alive").await.stdout.to_text(), "alive\n");
    assert_eq!(processes_with(&["sleep", &seconds]), 1);
    second.close().await.expect("closes");
    assert_eq!(processes_with(&["sleep", &seconds]), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_is_dropped_leaves_nothing() {
    let place = Place::new();
    let backend = place.backend();
    for milliseconds in [0, 1, 2, 4, 6, 8, 12, 16, 24] {
        let limit = Duration::from_millis(milliseconds);
        if let Ok(made) = tokio::time::timeout(limit, backend.create(&long())).await {
            made.expect("a sandbox").close().await.expect("closes");
        }
    }
    eventually("nothing is in the state directory", || place.names().is_empty()).await;
    assert_eq!(backend.list().await.expect("a list"), Vec::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_cannot_be_built_leaves_nothing() {
    let place = Place::new();
    let backend = place.backend();
    let root = cofferdam_sandbox::RootFilesystem::Directory(PathBuf::from("/nowhere/at/all"));
    let error = backend.create(&SandboxSpec { root, ..long() }).await.expect_err("refused");
    assert!(!error.is_loss(), "{error}");
    eventually("nothing is in the state directory", || place.names().is_empty()).await;
}

#[tokio::test]
async fn lingering_needs_a_directory_and_says_so() {
    let error = LinuxBackend::new().create(&long()).await.expect_err("refused");
    assert_eq!(
        error.to_string(),
        "the linux backend does not support lingering without a directory for its state \
         (`LinuxBackend::with_state_directory`)"
    );
    let place = Place::new();
    fs::create_dir(place.directory()).expect("made");
    crate::host::open_to_all(&place.directory());
    let error = place.backend().create(&long()).await.expect_err("refused");
    assert!(error.to_string().contains("it is open to others (mode 755)"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_not_linger_is_not_found_by_others() {
    let place = Place::new();
    let backend = place.backend();
    let sandbox = backend.create(&small()).await.expect("a sandbox");
    let lost = reason(backend.attach(&sandbox.state()).await.expect_err("refused"));
    assert!(matches!(lost, LossReason::Removed { .. }), "{lost}");
    assert_eq!(backend.list().await.expect("a list"), Vec::new());
    sandbox.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_sees_the_workspace_and_may_stop_it_also_after_attaching() {
    let place = Place::new();
    let base = tempfile::Builder::new()
        .prefix("cofferdam-base-")
        .tempdir_in("/var/tmp")
        .expect("a directory");
    fs::write(base.path().join("below"), "below").expect("a file");
    let backend = place.backend();
    let capable = backend.capabilities().await.expect("capabilities");
    assert!(capable.linger);
    let on_base = SandboxSpec { base: Some(WorkspaceBase::new(base.path())), ..long() };
    for (spec, kind, can) in [
        (long(), HostLayerKind::Whole, capable.host_workspace),
        (on_base, HostLayerKind::Upper, capable.workspace_base),
    ] {
        if !can {
            cofferdam_testkit::skip(
                "the_host_sees_the_workspace_and_may_stop_it_also_after_attaching",
                &format!("{kind:?}: {:?}", capable.notes),
            );
            continue;
        }
        let sandbox = backend.create(&spec).await.expect("a sandbox");
        run(&*sandbox, "echo above > above").await;
        let state = sandbox.state();
        drop(sandbox);
        let sandbox = place.backend().attach(&state).await.expect("found");
        let layer = sandbox.host_workspace().expect("it is seen").layer().expect("a layer");
        assert_eq!(layer.kind, kind);
        let names = fs::read_dir(format!("/proc/self/fd/{}", layer.directory.as_raw_fd()));
        let names: Vec<_> =
            names.expect("listed").map(|entry| entry.expect("an entry").file_name()).collect();
        assert_eq!(names, ["above"], "{kind:?}");
        if let Some(freezer) = sandbox.freezer() {
            let frozen = freezer.freeze(Duration::from_secs(60)).await.expect("it stands still");
            // As one does that is killed: the supervisor lets it go on.
            std::mem::forget(frozen);
            drop(sandbox);
        }
        let sandbox = backend.attach(&state).await.expect("it goes on");
        assert_eq!(run(&*sandbox, "cat above").await.stdout.to_text(), "above\n");
        sandbox.close().await.expect("closes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sandbox_is_made_of_is_kept_as_long_as_it_lives() {
    let place = Place::new();
    let backend = place.backend();
    if !backend.capabilities().await.expect("capabilities").workspace_base {
        let reason = "this host shows no base";
        return cofferdam_testkit::skip("what_a_sandbox_is_made_of_is_kept", reason);
    }
    let base = tempfile::Builder::new()
        .prefix("cofferdam-base-")
        .tempdir_in("/var/tmp")
        .expect("a directory");
    let open = || fs::File::open(base.path()).expect("opened");
    let others_may = || flock(open(), FlockOperation::NonBlockingLockExclusive).is_ok();
    let lock = Arc::new(OwnedFd::from(open()));
    flock(&lock, FlockOperation::LockShared).expect("locked");
    let spec = SandboxSpec {
        base: Some(WorkspaceBase::new(base.path()).with_lock(Arc::clone(&lock))),
        ..long()
    };
    let sandbox = backend.create(&spec).await.expect("a sandbox");
    let state = sandbox.state();
    // As when this process has ended.
    drop((sandbox, spec, lock));
    assert!(!others_may());
    let sandbox = backend.attach(&state).await.expect("found");
    assert!(!others_may());
    sandbox.close().await.expect("closes");
    eventually("nobody keeps it", others_may).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_inside_leads_to_the_state_the_door_or_the_supervisor() {
    let place = Place::new();
    let backend = place.backend();
    let first = backend.create(&long()).await.expect("a sandbox");
    let second = backend.create(&long()).await.expect("a sandbox");
    let directory = place.directory().join(first.id().as_str());
    let files = ["door", "supervisor", "state.json"].map(|name| directory.join(name));
    assert!(files.iter().all(|file| file.exists()));
    let paths = files.map(|file| file.display().to_string()).join(" ");
    let script = format!(
        "for f in {paths}; do [ -e $f ] && echo $f; done; \
         grep -c -e door -e supervisor /proc/net/unix /proc/self/mountinfo; \
         ls /proc/self/fd | tr '\\n' ' '; echo; \
         ls /proc/1/fd 2>&1 | grep -c denied; \
         cat /proc/1/environ /proc/1/cmdline 2>/dev/null | grep -c state"
    );
    // `ls` has its directory open besides.
    let expect = "/proc/net/unix:0\n/proc/self/mountinfo:0\n0 1 2 3 \n1\n0\n";
    for sandbox in [&first, &second] {
        assert_eq!(run(&**sandbox, &script).await.stdout.to_text(), expect);
    }
    first.close().await.expect("closes");
    second.close().await.expect("closes");
}

/// Twenty handles to sandboxes of one backend, each left and attached to again, all at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn many_are_left_and_found_at_the_same_time() {
    let place = Place::new();
    let backend = Arc::new(place.backend());
    let lives = (0..20).map(|number| {
        let backend = Arc::clone(&backend);
        async move {
            let sandbox = backend.create(&long()).await.expect("a sandbox");
            run(&*sandbox, &format!("echo {number} > file")).await;
            let state = sandbox.state();
            drop(sandbox);
            let sandbox = backend.attach(&state).await.expect("found");
            assert_eq!(run(&*sandbox, "cat file").await.stdout.to_text(), format!("{number}\n"));
            sandbox.close().await.expect("closes");
        }
    });
    futures::future::join_all(lives).await;
    assert_eq!(place.names(), Vec::<String>::new());
    assert!(Path::new(&place.directory()).exists());
}
