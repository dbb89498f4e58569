//! Sandboxes without namespaces, as on hosts that let nobody make them: what they keep out all the same, what they do not, and
//! their end.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{
    Enforcement, ExecRequest, RootFilesystem, Sandbox, SandboxBackend, SandboxError, SandboxExt,
    SandboxSpec, TerminalSize, Wall, WorkspaceBase,
};
use cofferdam_sandbox_linux::LinuxBackend;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    attempts::{Tried, attempt, call, try_all, try_these},
    host::{eventually, processes_with, run, small, unique},
    targets::Targets,
};

/// Held while a bomb goes off, and by all others: the kernel counts the processes of an ordinary user together, so a bomb at its
/// limit keeps the user's other sandboxes from starting any.
static BOMB: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

fn backend() -> LinuxBackend {
    LinuxBackend::new().without_namespaces()
}

async fn confined() -> Arc<dyn Sandbox> {
    backend().create(&small()).await.expect("a sandbox without namespaces")
}

/// Whether sandboxes are the user of this process, and not one of their own.
fn shared_user() -> bool {
    !rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn it_runs_commands_and_keeps_files() {
    let _bomb = BOMB.read().await;
    let sealed = confined().await;
    let script = "echo x > f && cat f; cd && echo y > g && cat g; t=$(mktemp) && echo z > $t && cat $t; \
                  python3 -c 'print(6 * 7)' 2>&- || echo 42; echo $HOME $TMPDIR";
    let output = run(&*sealed, script).await;
    let text = output.stdout.to_text().into_owned();
    let Some((read, places)) = text.split_once("42\n") else { panic!("{output:?}") };
    assert_eq!(read, "x\ny\nz\n");
    let places: Vec<&Path> = places.split_whitespace().map(Path::new).collect();
    assert_eq!(places.len(), 2);
    let path = WorkspacePath::new("f").expect("a path");
    assert_eq!(sealed.files().read(&path, 0, 9).await.expect("read"), "x\n");
    sealed.close().await.expect("closes");
    assert!(!places[0].parent().expect("its directory").exists(), "the files are left");
}

#[tokio::test]
async fn no_attempt_to_get_out_works_but_looking_at_names() {
    let _bomb = BOMB.read().await;
    let targets = Targets::new();
    let sealed = confined().await;
    let Tried { open, proven, unproven } = try_all(&*sealed, &targets).await;
    println!("{proven} attempts work outside; not proven here: {unproven:#?}");
    // All three only look whether a path is there.
    assert_eq!(
        open,
        [
            "see the home of root",
            "see the host's other directories",
            "see the host's shared memory"
        ]
    );
    assert!(proven >= 25, "only {proven} attempts work outside: the controls are broken");
    sealed.close().await.expect("closes");
}

/// What one process of a user may do to another, or to that user's files, and Landlock knows nothing of.
fn attempts_of_the_same_user() -> Vec<(&'static str, String)> {
    let perl = |code: &str| attempt(&format!("perl -e '{code}'"));
    vec![
        ("change the mode of a host file", attempt("chmod 644 @OUTSIDE/file")),
        ("change the mode of a host directory", attempt("chmod 777 @OUTSIDE")),
        (
            "change the group of a host file",
            attempt("chgrp $(stat -c %g @OUTSIDE/file) @OUTSIDE/file"),
        ),
        ("change the times of a host file", perl("utime(1, 1, \"@OUTSIDE/file\") == 1 or exit 1")),
        (
            "change the times of a host file, by the newest call",
            call(libc::SYS_utimensat, "-100, \"@OUTSIDE/file\", 0, 0"),
        ),
        (
            "set an attribute of a host file",
            call(libc::SYS_setxattr, "\"@OUTSIDE/file\", \"user.probe\", \"x\", 1, 0"),
        ),
        (
            "truncate a host file",
            perl("truncate(\"@OUTSIDE/file\", -s \"@OUTSIDE/file\") or exit 1"),
        ),
        ("link to a host file", attempt("ln @OUTSIDE/file linked")),
        ("list a host directory", attempt("ls @OUTSIDE/.")),
        ("list the host's temporary files", attempt("ls /var/tmp/.")),
        ("read the names of the host's users", attempt("cat /etc/passwd")),
        ("see what a host process is", attempt("cat /proc/@VICTIM/stat")),
        ("list the processes", attempt("ls /proc/.")),
        ("change a limit of a host process", attempt("prlimit --pid @VICTIM --core=0")),
        ("change the priority of a host process", attempt("renice -n 1 -p @VICTIM")),
        (
            "change the priority of a group of processes",
            call(libc::SYS_setpriority, "1, @VICTIM, 1"),
        ),
        (
            "change the disk priority of a host process",
            call(libc::SYS_ioprio_set, "1, @VICTIM, 0x6000"),
        ),
        (
            "choose the processor of a host process",
            attempt("taskset -p $(taskset -p @VICTIM | sed \"s/.* //\") @VICTIM"),
        ),
        (
            "choose the scheduler of a host process",
            call(libc::SYS_sched_setscheduler, "@VICTIM, 3, pack(\"i\", 0)"),
        ),
        ("signal a host process by its group", perl("kill(0, -@VICTIM) or exit 1")),
        ("make a local socket", perl("use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0) or exit 1")),
        (
            "make an internet socket",
            perl("use Socket; socket(S, PF_INET, SOCK_STREAM, 0) or exit 1"),
        ),
        ("make a routing socket", perl("use Socket; socket(S, 16, SOCK_RAW, 0) or exit 1")),
        (
            "make a pair of datagram sockets, which send to any path",
            perl("use Socket; socketpair(A, B, PF_UNIX, SOCK_DGRAM, 0) or exit 1"),
        ),
        (
            "make a pair of raw local sockets, which are datagram sockets",
            perl("use Socket; socketpair(A, B, PF_UNIX, SOCK_RAW, 0) or exit 1"),
        ),
        ("watch a host directory", call(libc::SYS_inotify_init1, "0")),
        ("a semaphore of System V", call(libc::SYS_semget, "@KEY, 1, 01666")),
        ("a message queue of System V", call(libc::SYS_msgget, "@KEY, 01666")),
    ]
}

#[tokio::test]
async fn nothing_is_done_that_one_process_of_a_user_may_do_to_another() {
    let _bomb = BOMB.read().await;
    let targets = Targets::new();
    let sealed = confined().await;
    let Tried { open, proven, unproven } =
        try_these(&*sealed, &targets, attempts_of_the_same_user()).await;
    targets.run_outside(
        "ipcrm -S @KEY; ipcrm -Q @KEY".replace("@KEY", &targets.fill("@KEY")).as_str(),
    );
    println!("{proven} attempts work outside; not proven here: {unproven:#?}");
    assert_eq!(open, [""; 0]);
    assert!(proven >= 25, "only {proven} attempts work outside: the controls are broken");
    // What is the process's own goes on.
    let output = run(
        &*sealed,
        "nice -n 1 true && ulimit -c 0 && perl -e 'use Socket; socketpair(A, B, PF_UNIX, SOCK_STREAM, 0) or exit 1' && \
         touch f && echo fine",
    )
    .await;
    assert_eq!(output.stdout.to_text(), "fine\n", "{output:?}");
    sealed.close().await.expect("closes");
}

/// The processes from a command up to the launcher.
struct Above {
    guest: Pid,
    keeper: Pid,
    launcher: Pid,
}

impl Above {
    /// Looks for the processes above that with exactly these arguments.
    fn of(arguments: &[&str]) -> Self {
        let wanted: Vec<u8> =
            arguments.iter().flat_map(|a| [a.as_bytes(), b"\0"].concat()).collect();
        let mut at = fs::read_dir("/proc")
            .expect("processes")
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| fs::read(path.join("cmdline")).is_ok_and(|found| found == wanted))
            .expect("the command");
        let mut above = Vec::new();
        while above.len() < 64 {
            let status = fs::read_to_string(at.join("status")).expect("a status");
            let parent =
                status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
            at = PathBuf::from("/proc").join(parent.trim());
            let words = fs::read(at.join("cmdline")).unwrap_or_default();
            let pid = Pid::from_raw(parent.trim().parse().expect("a number")).expect("a process");
            above.push((words.split(|&byte| byte == 0).next().unwrap_or_default().to_vec(), pid));
            if let [.., (guest, first), (keeper, second), (launcher, third)] = &above[..]
                && (&guest[..], &keeper[..], &launcher[..])
                    == (
                        &b"cofferdam-guest"[..],
                        &b"cofferdam-launcher"[..],
                        &b"cofferdam-launcher"[..],
                    )
            {
                return Self { guest: *first, keeper: *second, launcher: *third };
            }
        }
        panic!("no guest, keeper and launcher above {arguments:?}");
    }
}

/// Starts a sandbox in which processes hide: in sessions of their own, as orphans, deaf to signals. Returns what they are
/// called by their last argument.
async fn hiding(backend: &LinuxBackend) -> (Arc<dyn Sandbox>, String) {
    let sealed = backend.create(&small()).await.expect("a sandbox");
    let name = format!("4{}", unique());
    let script = format!(
        "trap '' TERM HUP INT; setsid sh -c 'sleep {name} & sleep {name} &' & (setsid sleep {name} &) ; \
         sleep {name} & sleep {name} & wait"
    );
    let mut process = sealed.exec(ExecRequest::shell(&*script)).await.expect("starts");
    // It goes on while nobody listens.
    tokio::spawn(async move { while futures::StreamExt::next(&mut process).await.is_some() {} });
    eventually("all hide", || processes_with(&["sleep", &name]) == 5).await;
    (sealed, name)
}

async fn nothing_hides(name: &str) {
    eventually("all have ended", || processes_with(&["sleep", name]) == 0).await;
}

#[tokio::test]
async fn closing_ends_everything() {
    let _bomb = BOMB.read().await;
    let backend = backend();
    let (sealed, name) = hiding(&backend).await;
    sealed.close().await.expect("closes");
    assert_eq!(processes_with(&["sleep", &name]), 0);
}

#[tokio::test]
async fn dropping_ends_everything() {
    let _bomb = BOMB.read().await;
    let backend = backend();
    let (sealed, name) = hiding(&backend).await;
    drop(sealed);
    drop(backend);
    nothing_hides(&name).await;
}

#[tokio::test]
async fn whoever_of_those_above_is_killed_everything_ends() {
    let _bomb = BOMB.read().await;
    for victim in ["guest", "keeper", "launcher"] {
        let backend = backend();
        let (sealed, name) = hiding(&backend).await;
        let (other, other_name) = hiding(&backend).await;
        let above = Above::of(&["sleep", &name]);
        let pid = match victim {
            "guest" => above.guest,
            "keeper" => above.keeper,
            _ => above.launcher,
        };
        kill_process(pid, Signal::KILL).expect("killed");
        nothing_hides(&name).await;
        let lost = sealed.lost().await;
        assert!(matches!(lost, SandboxError::Lost { .. }), "{victim}: {lost}");
        // Others of the same launcher stay, unless it was that.
        if victim == "launcher" {
            nothing_hides(&other_name).await;
        } else {
            assert_eq!(processes_with(&["sleep", &other_name]), 5, "{victim}");
            assert_eq!(run(&*other, "echo alive").await.stdout.to_text(), "alive\n");
        }
        let again = backend.create(&small()).await.expect("another one");
        again.close().await.expect("closes");
    }
}

#[tokio::test]
async fn a_fork_bomb_ends_with_its_sandbox() {
    let _bomb = BOMB.write().await;
    let sealed = confined().await;
    // It rests when it is at its limit: others work on this machine.
    let script =
        format!("while (1) {{ defined(fork) or select(undef, undef, undef, 0.2) }} # {}", unique());
    let arguments = ["perl", "-e", &*script];
    let mut process = sealed.exec(ExecRequest::program(arguments)).await.expect("starts");
    tokio::spawn(async move { while futures::StreamExt::next(&mut process).await.is_some() {} });
    eventually("it spreads", || processes_with(&arguments) > 10).await;
    sealed.close().await.expect("closes");
    assert_eq!(processes_with(&arguments), 0);
}

#[tokio::test]
async fn a_command_that_kills_all_it_can_reaches_nobody_outside() {
    let _bomb = BOMB.read().await;
    let targets = Targets::new();
    let backend = backend();
    let (other, name) = hiding(&backend).await;
    let sealed = backend.create(&small()).await.expect("a sandbox");
    // It may take its own sandbox down.
    let _ = sealed.run(ExecRequest::shell("kill -9 -1; sleep 1"), 1 << 10).await;
    assert_eq!(processes_with(&["sleep", &name]), 5);
    assert!(targets.run_outside(&targets.fill("kill -0 @VICTIM && echo alive")).contains("alive"));
    other.close().await.expect("closes");
    drop(sealed);
}

#[tokio::test]
async fn the_wall_time_ends_it() {
    let _bomb = BOMB.read().await;
    let mut spec = small();
    spec.limits.wall_time = Duration::from_secs(1);
    let sealed = backend().create(&spec).await.expect("a sandbox");
    let lost = sealed.lost().await;
    let expected =
        matches!(lost, SandboxError::Lost { reason: cofferdam_sandbox::LossReason::WallTime });
    assert!(expected, "{lost}");
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_by_name() {
    let _bomb = BOMB.read().await;
    let backend = backend();
    let root = RootFilesystem::Directory("/usr".into());
    let refusal = |spec: SandboxSpec| {
        let backend = &backend;
        async move { backend.create(&spec).await.expect_err("refused") }
    };
    let error = refusal(SandboxSpec { root, ..small() }).await;
    assert!(matches!(error, SandboxError::Unenforceable { wall: Wall::Filesystem, .. }), "{error}");
    let error = refusal(SandboxSpec { base: Some(WorkspaceBase::new("/usr")), ..small() }).await;
    assert!(matches!(error, SandboxError::Base { .. }), "{error}");
    let error = refusal(SandboxSpec { strict: true, ..small() }).await;
    assert!(matches!(error, SandboxError::Unenforceable { .. }), "{error}");
    for wall in
        [Wall::Filesystem, Wall::Processes, Wall::Privileges, Wall::DiskLimit, Wall::Teardown]
    {
        let error = refusal(SandboxSpec { require: [wall].into(), ..small() }).await;
        let named =
            matches!(&error, SandboxError::Unenforceable { wall: named, .. } if *named == wall);
        assert!(named, "{error}");
    }
    let place = tempfile::tempdir().expect("a directory");
    let lingering = LinuxBackend::new().with_state_directory(place.path().join("state"));
    let spec = SandboxSpec { linger: Duration::from_secs(60), ..small() };
    let error = lingering.without_namespaces().create(&spec).await.expect_err("refused");
    assert!(matches!(error, SandboxError::Unsupported { .. }), "{error}");

    let walls = [Wall::Network, Wall::SystemCalls, Wall::OpenFileLimit, Wall::WallTimeLimit];
    let spec = SandboxSpec { require: walls.into(), ..small() };
    let sealed = backend.create(&spec).await.expect("what is demanded stands");
    assert!(sealed.ports().is_none() && sealed.watcher().is_none());
    let terminal = Some(TerminalSize { rows: 24, columns: 80 });
    let started = sealed.exec(ExecRequest { terminal, ..ExecRequest::program(["true"]) }).await;
    match started {
        Err(SandboxError::Unsupported { .. }) => assert!(shared_user()),
        Ok(_) => assert!(!shared_user()),
        Err(other) => panic!("{other}"),
    }
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn what_it_can_and_guarantees_is_said() {
    let _bomb = BOMB.read().await;
    let backend = backend();
    let found = backend.capabilities().await.expect("a report");
    assert!(found.host_workspace && !found.workspace_base && !found.linger, "{found:?}");
    assert!(found.notes.iter().any(|note| note.contains("laid over its base")), "{found:?}");
    let guarantees = backend.guarantees().await.expect("a report");
    for guarantee in guarantees.weaknesses() {
        if let Enforcement::Weak { remedy, .. } | Enforcement::Missing { remedy, .. } =
            &guarantee.enforcement
        {
            assert!(remedy.is_some(), "{guarantee:?}");
        }
    }
    assert!(matches!(guarantees.enforcement(Wall::Filesystem), Enforcement::Weak { .. }));
}
