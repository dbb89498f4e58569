//! A host that lets nobody make user namespaces: one user namespace in which their greatest number is 0, and all else as it is.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use cofferdam_sandbox::{
    Enforcement, SandboxBackend, SandboxError, SandboxSpec, Wall, WorkspaceBase,
};
use cofferdam_sandbox_linux::LinuxBackend;

use crate::host::{eventually, open_to_all, run, small};

const NAME: &str = "no_user_namespaces::root_makes_another_user_instead";
const ORDINARY: &str = "no_user_namespaces::an_ordinary_user_does_without_namespaces";

/// Set for the copy of this program that runs there.
const INSIDE: &str = "COFFERDAM_TEST_NO_USER_NAMESPACES";

#[tokio::test]
async fn root_makes_another_user_instead() {
    if std::env::var_os(INSIDE).is_some() {
        return inside().await;
    }
    run_there(NAME, "").await;
}

/// Nobody has what it takes for any namespace: neither root's capabilities nor a user namespace.
#[tokio::test]
async fn an_ordinary_user_does_without_namespaces() {
    if std::env::var_os(INSIDE).is_some() {
        return ordinary_inside().await;
    }
    run_there(ORDINARY, "setpriv --reuid 1000 --regid 1000 --clear-groups").await;
}

/// Runs a test of this program where nobody can make user namespaces, as root in one, or as a user by such a command.
async fn run_there(name: &str, as_user: &str) {
    if !rustix::process::geteuid().is_root() {
        cofferdam_testkit::skip(name, "only root has users to map");
        return;
    }
    // The build directory may be closed to others.
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("suite");
    fs::copy(std::env::current_exe().expect("this program"), &program).expect("copied");
    open_to_all(directory.path());
    // Only what is started after the users were mapped has capabilities there.
    let script = format!(
        "read go && exec sh -c 'echo 0 > /proc/sys/user/max_user_namespaces && exec {as_user} \"$@\"' sh \"$@\""
    );
    let mut child = Command::new("unshare")
        .args(["--user", "--mount", "sh", "-c", &script, "sh"])
        .arg(&program)
        .args(["--exact", name])
        .current_dir("/")
        .env(INSIDE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let ours = fs::read_link("/proc/self/ns/user").expect("a namespace");
    let theirs = format!("/proc/{}/ns/user", child.id());
    eventually("it is in a namespace of its own", || {
        fs::read_link(&theirs).is_ok_and(|theirs| theirs != ours)
    })
    .await;
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{map}", child.id()), "0 0 4294967295").expect("mapped");
    }
    child.stdin.take().expect("piped").write_all(b"go\n").expect("told");
    let output = child.wait_with_output().expect("ended");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

async fn ordinary_inside() {
    let backend = LinuxBackend::new();
    let sealed = backend.create(&small()).await.expect("a sandbox without namespaces");
    let output =
        run(&*sealed, "id -u; echo x > f && cat f; ls /proc/self/. 2>&- || echo closed").await;
    assert_eq!(output.stdout.to_text(), "1000\nx\nclosed\n", "{output:?}");
    sealed.close().await.expect("closes");

    let guarantees = backend.guarantees().await.expect("a report");
    for wall in [Wall::Filesystem, Wall::Privileges, Wall::Teardown] {
        match guarantees.enforcement(wall) {
            Enforcement::Weak { remedy: Some(remedy), .. } => {
                assert!(remedy.contains("set user.max_user_namespaces above 0"), "{remedy}");
            }
            other => panic!("{wall}: {other:?}"),
        }
    }
    let error =
        backend.create(&SandboxSpec { strict: true, ..small() }).await.expect_err("refused");
    assert!(matches!(error, SandboxError::Unenforceable { .. }), "{error}");
}

async fn inside() {
    let backend = LinuxBackend::new();
    let sealed = backend.create(&small()).await.expect("a weaker sandbox");
    let output = run(
        &*sealed,
        "id -u; touch x && stat -c %u x; awk '/^CapEff/ {print $2}' /proc/self/status",
    )
    .await;
    let text = output.stdout.to_text().into_owned();
    let [user, owner, capabilities] = text.lines().collect::<Vec<_>>()[..] else {
        panic!("{output:?}")
    };
    assert!(user.parse::<u32>().is_ok_and(|user| user > 65535), "user {user}");
    assert_eq!((owner, capabilities), (user, "0000000000000000"));
    sealed.close().await.expect("closes");

    // Whose files a base shows as whose takes a user namespace.
    let found = backend.capabilities().await.expect("a report");
    assert!(!found.workspace_base && found.host_workspace, "{found:?}");
    let base = Some(WorkspaceBase::new("/usr"));
    let error = backend.create(&SandboxSpec { base, ..small() }).await.expect_err("refused");
    assert!(matches!(error, SandboxError::Base { .. }), "{error}");

    let guarantees = backend.guarantees().await.expect("a report");
    let privileges = guarantees.enforcement(Wall::Privileges);
    assert!(matches!(privileges, Enforcement::Weak { .. }), "{privileges:?}");
    let spec = SandboxSpec { require: [Wall::Privileges].into(), ..small() };
    let error = backend.create(&spec).await.expect_err("refused");
    assert!(matches!(error, SandboxError::Unenforceable { wall: Wall::Privileges, .. }), "{error}");
}
