//! Workspaces on a base, seen from outside, and frozen: what only this backend's walls promise. What every backend promises is in
//! the conformance suite.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use cofferdam_sandbox::{
    HostLayer, HostLayerKind, Sandbox, SandboxBackend, SandboxError, SandboxSpec, WorkspaceBase,
};
use cofferdam_sandbox_linux::LinuxBackend;
use rustix::fs::XattrFlags;

use crate::host::{cgroups_of, eventually, processes_with, run, sandbox, small, unique};

/// A directory on the disk, with a few files of this user.
fn base() -> tempfile::TempDir {
    let base = tempfile::Builder::new()
        .prefix("cofferdam-base-")
        .tempdir_in("/var/tmp")
        .expect("a directory");
    fs::create_dir(base.path().join("dir")).expect("a directory");
    for name in ["file", "dir/one", "dir/two"] {
        fs::write(base.path().join(name), name).expect("a file");
    }
    base
}

fn on(directory: &Path) -> SandboxSpec {
    SandboxSpec { base: Some(WorkspaceBase::new(directory.to_owned())), ..small() }
}

fn set(path: &Path, name: &str, value: &str) {
    rustix::fs::lsetxattr(path, name, value.as_bytes(), XattrFlags::empty()).expect("an attribute");
}

fn layer(sandbox: &dyn Sandbox) -> HostLayer {
    sandbox.host_workspace().expect("it is seen").layer().expect("a layer")
}

/// Where this process finds a name of a layer.
fn seen(layer: &HostLayer, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", layer.directory.as_raw_fd()))
}

/// Names and values of the attributes of a file that begin with a prefix.
fn attributes(path: &Path, prefix: &str) -> Vec<String> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..]).expect("listed");
    let names = String::from_utf8_lossy(&names[..length]).into_owned();
    let with_value = |name: &str| {
        let mut value = [0; 64];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).expect("a value");
        format!("{name}={}", String::from_utf8_lossy(&value[..length]))
    };
    names.split('\0').filter(|name| name.starts_with(prefix)).map(with_value).collect()
}

#[tokio::test]
async fn what_a_base_says_with_attributes_is_not_followed() {
    let base = base();
    let at = |name: &str| base.path().join(name);
    fs::create_dir(at("redirected")).expect("a directory");
    fs::write(at("hollow"), "hollow").expect("a file");
    fs::write(at("white"), "").expect("a file");
    for (name, attribute, value) in [
        ("dir", "user.overlay.opaque", "y"),
        ("redirected", "user.overlay.redirect", "/dir"),
        ("redirected", "user.overlay.origin", "nonsense"),
        ("hollow", "user.overlay.metacopy", ""),
        ("hollow", "user.overlay.redirect", "/file"),
        ("white", "user.overlay.whiteout", ""),
        ("file", "user.overlay.nlink", "L+1000"),
        ("file", "user.overlay.protattr", "ia"),
    ] {
        set(&at(name), attribute, value);
    }
    let sealed = sandbox(&on(base.path())).await;
    let output =
        run(&*sealed, "ls dir redirected; cat file; echo; cat hollow; stat -c %h file").await;
    let text = output.stdout.to_text().into_owned();
    // A file without its own data is refused, if it is not shown with the data that it has: never with those of another.
    let (shown, refused) = ("dir:\none\ntwo\n\nredirected:\nfile\nhollow1\n", "file\n1\n");
    let expected = text == shown || text == format!("dir:\none\ntwo\n\nredirected:\n{refused}");
    assert!(expected, "{text:?} {}", output.stderr.to_text());
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn nobody_inside_forges_what_the_host_reads_of_an_upper_directory() {
    let base = base();
    let sealed = sandbox(&on(base.path())).await;
    // Attributes of the overlay itself, and a whiteout by its device number.
    let script = format!(
        "mkdir own untouched; echo x > own/file; chmod 750 dir; echo y >> file; \
         for at in own own/file dir file; do for name in opaque redirect metacopy whiteout; do \
           for prefix in user trusted; do \
             perl -e 'syscall({}, $ARGV[0], $ARGV[1], \"y\", 1, 0)' $at $prefix.overlay.$name; \
           done; done; done; mknod file2 c 0 0 2>&-; mknod own/white c 0 0 2>&-; ls; cat file; ls dir",
        libc::SYS_setxattr,
    );
    assert_eq!(
        run(&*sealed, &script).await.stdout.to_text(),
        "dir\nfile\nown\nuntouched\nfiley\none\ntwo\n"
    );
    let layer = layer(&*sealed);
    assert_eq!(layer.kind, HostLayerKind::Upper);
    // What the kernel itself notes of the copies says nothing on their content; what was forged is refused, or has another
    // name, by which it is an attribute like any other.
    let own_notes = ["user.overlay.impure=", "user.overlay.origin=", "user.overlay.overlay."];
    let told = |name: &str| {
        let mut told = attributes(&seen(&layer, name), "user.overlay.");
        told.extend(attributes(&seen(&layer, name), "trusted."));
        told.retain(|attribute| !own_notes.iter().any(|own| attribute.starts_with(own)));
        told
    };
    for name in ["own/file", "dir", "file"] {
        assert_eq!(told(name), Vec::<String>::new(), "{name}");
    }
    // A directory that is made replaces whatever the base has of its name; the kernel may mark it also if that is nothing.
    assert_eq!(told("own"), told("untouched"));
    assert!(!seen(&layer, "file2").exists() && !seen(&layer, "own/white").exists());
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn a_directory_that_replaces_one_of_the_base_is_marked() {
    let base = base();
    let sealed = sandbox(&on(base.path())).await;
    run(&*sealed, "rm -r dir && mkdir dir && echo new > dir/new").await;
    let layer = layer(&*sealed);
    assert_eq!(attributes(&seen(&layer, "dir"), "user.overlay.opaque"), ["user.overlay.opaque=y"]);
    assert_eq!(run(&*sealed, "ls dir").await.stdout.to_text(), "new\n");
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn nothing_inside_tells_where_the_base_is() {
    let base = base();
    let name = base.path().file_name().expect("a name").to_string_lossy().into_owned();
    let sealed = sandbox(&on(base.path())).await;
    let script = format!(
        "cat /proc/self/mountinfo /proc/mounts /proc/1/mountinfo | grep -c {name}; ls -d /workspace/.."
    );
    assert_eq!(run(&*sealed, &script).await.stdout.to_text(), "0\n/workspace/..\n");
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn what_cannot_be_a_base_here_is_refused_and_nothing_is_left() {
    let backend = LinuxBackend::new();
    // A file system of the kernel, whose files change by themselves and belong to nobody else.
    let directory = "/proc/sys";
    let error = backend.create(&on(Path::new(directory))).await.expect_err("refused");
    let named = matches!(&error, SandboxError::Base { directory: named, .. } if named == directory);
    assert!(named, "{error}");
    let sealed = backend.create(&small()).await.expect("a sandbox");
    assert_eq!(run(&*sealed, "echo alive").await.stdout.to_text(), "alive\n");
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn what_is_mounted_below_a_base_is_not_part_of_it() {
    let backend = LinuxBackend::new();
    match backend.create(&on(Path::new("/"))).await {
        Ok(sealed) => {
            let output = run(&*sealed, "ls -A proc sys dev/pts | grep -v :").await;
            assert_eq!(output.stdout.to_text().trim(), "");
            sealed.close().await.expect("closes");
        }
        // An ordinary user may not see what a mount covers.
        Err(error) => assert!(
            matches!(&error, SandboxError::Base { remedy, .. } if remedy.contains("nothing is mounted")),
            "{error}"
        ),
    }
}

#[tokio::test]
async fn the_host_holds_the_workspace_until_close_and_no_longer() {
    let held = |sealed: &dyn Sandbox| {
        let layer = layer(sealed);
        fs::read_link(format!("/proc/self/fd/{}", layer.directory.as_raw_fd())).expect("a name")
    };
    let base = base();
    let sealed = sandbox(&on(base.path())).await;
    assert!(held(&*sealed).ends_with("0/upper"));
    let whole = sandbox(&small()).await;
    assert!(held(&*whole).ends_with("0"));
    let layer = layer(&*sealed);
    run(&*sealed, "head -c 8388608 /dev/zero > large; chmod 000 file").await;
    let files = rustix::fs::fstatvfs(&layer.directory).expect("a file system");
    let used = (files.f_blocks - files.f_bfree) * files.f_frsize;
    assert!((8 << 20..24 << 20).contains(&used), "{used}");
    sealed.close().await.expect("closes");
    // A descriptor that was given away still reads.
    assert_eq!(fs::metadata(seen(&layer, "large")).expect("there").len(), 8 << 20);
    let mode = fs::symlink_metadata(seen(&layer, "file")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0);
    let root = rustix::process::geteuid().is_root();
    assert_eq!(fs::read(seen(&layer, "file")).is_ok(), root, "who may not read it is told so");
    let closed = sealed.host_workspace().expect("it was seen").layer().expect_err("let go");
    assert!(matches!(closed, SandboxError::Lost { .. }), "{closed}");
    whole.close().await.expect("closes");
}

#[tokio::test]
async fn a_strict_sandbox_has_a_base_where_a_plain_one_has() {
    let backend = LinuxBackend::new();
    let base = base();
    let strict = SandboxSpec { strict: true, ..on(base.path()) };
    match backend.create(&strict).await {
        Ok(sealed) => {
            assert_eq!(run(&*sealed, "cat dir/two").await.stdout.to_text(), "dir/two");
            sealed.close().await.expect("closes");
        }
        Err(error) => {
            let without = SandboxSpec { base: None, ..strict };
            let same = backend.create(&without).await.expect_err("a weaker host");
            assert_eq!(error.to_string(), same.to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sandboxes_on_one_base() {
    let backend = LinuxBackend::new();
    let base = base();
    let made = (0..30).map(|number| {
        let (backend, spec) = (backend.clone(), on(base.path()));
        async move {
            let sealed = backend.create(&spec).await.expect("a sandbox");
            let script = format!("echo {number} > file; rm dir/one; cat file; ls dir");
            assert_eq!(run(&*sealed, &script).await.stdout.to_text(), format!("{number}\ntwo\n"));
            sealed
        }
    });
    let sandboxes: Vec<Arc<dyn Sandbox>> = futures::future::join_all(made).await;
    for sealed in sandboxes {
        sealed.close().await.expect("closes");
    }
    assert_eq!(fs::read_to_string(base.path().join("file")).expect("there"), "file");
}

/// Set for the copy of this program that is killed: where the state of its sandbox is, or nothing if it does not linger.
const VICTIM: &str = "COFFERDAM_TEST_FROZEN_VICTIM";

/// Makes a sandbox, freezes it for ten minutes, prints how it is found, and waits to be killed.
#[expect(clippy::print_stdout, reason = "the test that kills it reads this")]
async fn freeze_and_wait(state: &str) {
    let backend = match state {
        "" => LinuxBackend::new(),
        state => LinuxBackend::new().with_state_directory(state),
    };
    let linger = Duration::from_secs(if state.is_empty() { 0 } else { 60 });
    let sealed = backend.create(&SandboxSpec { linger, ..small() }).await.expect("a sandbox");
    let seconds = format!("600.{}", unique());
    let request = cofferdam_sandbox::ExecRequest::program(["sleep", &*seconds]);
    let _process = sealed.exec(request).await.expect("starts");
    let freezer = sealed.freezer().expect("its capabilities say so");
    let _frozen = freezer.freeze(Duration::from_secs(600)).await.expect("frozen");
    let state = serde_json::to_string(&sealed.state()).expect("text");
    println!("\nfrozen {seconds} {state}");
    std::future::pending().await
}

/// Runs a test again as one that freezes a sandbox, kills it, and returns its number, the seconds that a command of the sandbox
/// sleeps, and the state of the sandbox.
fn kill_a_victim(name: &str, state: &str) -> (u32, String, String) {
    let mut parent = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", name, "--nocapture"])
        .env(VICTIM, state)
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(parent.stdout.take().expect("piped")).lines();
    let said = lines
        .find_map(|line| line.expect("text").strip_prefix("frozen ").map(str::to_owned))
        .expect("it says what it froze");
    let (seconds, state) = said.split_once(' ').expect("two words");
    assert_eq!(processes_with(&["sleep", seconds]), 1);
    parent.kill().expect("killed");
    parent.wait().expect("ended");
    (parent.id(), seconds.to_owned(), state.to_owned())
}

/// Whether sandboxes can be frozen here; else the test is skipped.
async fn freezes(name: &str) -> bool {
    let found = LinuxBackend::new().capabilities().await.expect("a report");
    if !found.freeze {
        cofferdam_testkit::skip(name, "this user has no cgroup that freezes");
    }
    found.freeze
}

#[tokio::test]
async fn a_parent_that_is_killed_leaves_nothing_frozen() {
    let name = "workspace::a_parent_that_is_killed_leaves_nothing_frozen";
    if std::env::var_os(VICTIM).is_some() {
        return freeze_and_wait("").await;
    }
    if !freezes(name).await {
        return;
    }
    let (parent, seconds, _) = kill_a_victim(name, "");
    eventually("its sandbox's processes end", || processes_with(&["sleep", &seconds]) == 0).await;
    eventually("its cgroups are removed", || cgroups_of(parent).is_empty()).await;
}

#[tokio::test]
async fn what_outlives_a_killed_parent_goes_on() {
    let name = "workspace::what_outlives_a_killed_parent_goes_on";
    if let Ok(state) = std::env::var(VICTIM) {
        return freeze_and_wait(&state).await;
    }
    if !freezes(name).await {
        return;
    }
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("state");
    let (_, seconds, state) = kill_a_victim(name, directory.to_str().expect("text"));
    let backend = LinuxBackend::new().with_state_directory(&directory);
    let state = serde_json::from_str(&state).expect("a state");
    let sealed = backend.attach(&state).await.expect("it lingers");
    assert_eq!(run(&*sealed, "echo alive > file; cat file").await.stdout.to_text(), "alive\n");
    assert_eq!(fs::read_to_string(seen(&layer(&*sealed), "file")).expect("seen"), "alive\n");
    sealed.close().await.expect("closes");
    assert_eq!(processes_with(&["sleep", &seconds]), 0);
}

#[tokio::test]
async fn the_end_of_a_runtime_lets_a_sandbox_go_on() {
    let name = "workspace::the_end_of_a_runtime_lets_a_sandbox_go_on";
    let backend = LinuxBackend::new();
    if !freezes(name).await {
        return;
    }
    let sealed = backend.create(&small()).await.expect("a sandbox");
    let other = Arc::clone(&sealed);
    let runtime = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let freezing =
            other.freezer().expect("its capabilities say so").freeze(Duration::from_secs(600));
        (runtime.block_on(freezing).expect("frozen"), runtime)
    });
    let (frozen, runtime) = runtime.await.expect("it does not panic");
    runtime.shutdown_background();
    assert_eq!(run(&*sealed, "echo alive").await.stdout.to_text(), "alive\n");
    drop(frozen);
    sealed.close().await.expect("closes");
}
