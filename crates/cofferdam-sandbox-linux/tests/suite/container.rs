//! Inside a Docker container, which denies much of what a sandbox is made of: what is built there, and what is said of it.
//!
//! The tests run this program again in containers of an engine of their own, with the host's programs in an image that has
//! nothing else.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use cofferdam_sandbox::{Enforcement, SandboxBackend, SandboxSpec, Wall};
use cofferdam_sandbox_linux::LinuxBackend;
use cofferdam_testkit::TestEngine;

use crate::host::{run, small, unique};

/// Set for the copy of this program that runs in a container.
const INSIDE: &str = "COFFERDAM_TEST_IN_A_CONTAINER";

/// What the container's rules decide on; limits depend on the host.
const WALLS: [Wall; 6] = [
    Wall::Filesystem,
    Wall::Network,
    Wall::Processes,
    Wall::Privileges,
    Wall::SystemCalls,
    Wall::Teardown,
];

/// An image with empty directories for the host's.
struct Image<'a> {
    engine: &'a TestEngine,
    name: String,
}

impl<'a> Image<'a> {
    fn import(engine: &'a TestEngine) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["usr", "bin", "lib", "lib64", "etc", "tmp", "proc", "sys", "dev", "suite"] {
            std::fs::create_dir(directory.path().join(name)).expect("made");
        }
        let tar = Command::new("tar").arg("-C").arg(directory.path()).args(["-c", "."]).output();
        let tar = tar.expect("tar").stdout;
        let name = format!("cofferdam-test:{}", unique());
        let mut child = engine
            .docker()
            .args(["import", "-", &name])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("docker");
        child.stdin.take().expect("piped").write_all(&tar).expect("read by docker");
        assert!(child.wait().expect("ended").success(), "docker import");
        Self { engine, name }
    }

    /// Runs this program's `inside` in a container and returns the lines that it prints.
    fn run(&self, options: &[&str]) -> String {
        // The build directory may be closed to the container's user.
        let directory = tempfile::tempdir().expect("a directory");
        let suite = directory.path().join("suite");
        std::fs::copy(std::env::current_exe().expect("this program"), &suite).expect("copied");
        crate::host::open_to_all(directory.path());
        let mut command = self.engine.docker();
        command.args(["run", "--rm", "--network", "none", "-e", INSIDE]).env(INSIDE, "1");
        for system in ["/usr", "/bin", "/lib", "/lib64", "/etc"] {
            if Path::new(system).exists() {
                command.args(["-v", &format!("{system}:{system}:ro")]);
            }
        }
        command.arg("-v").arg(format!("{}:/suite:ro", directory.path().display()));
        command.args(options).arg(&self.name).args([
            "/suite/suite",
            "--exact",
            "container::in_a_container_what_is_missing_is_said",
            "--nocapture",
        ]);
        let output = command.output().expect("docker");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{options:?}: {text}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text.lines()
            .filter_map(|line| Some(format!("{}\n", line.split_once("inside: ")?.1)))
            .collect()
    }
}

/// Hides which version of Landlock this kernel has.
fn any_version(text: &str) -> String {
    let mut parts = text.split("Landlock version ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + "Landlock version _" + part.trim_start_matches(|c: char| c.is_ascii_digit())
    })
}

/// Builds sandboxes, and returns what is weaker and what a command found.
async fn inside() -> Vec<String> {
    let mut lines = Vec::new();
    let backend = LinuxBackend::new();
    let guarantees = backend.guarantees().await.expect("a report");
    for wall in WALLS {
        match guarantees.enforcement(wall) {
            Enforcement::Full { .. } => {}
            Enforcement::Weak { mechanism, .. } => lines.push(format!("{wall}: weak: {mechanism}")),
            other => {
                let missing = matches!(other, Enforcement::Missing { .. });
                lines.push(format!("{wall}: {}", if missing { "missing" } else { "unknown" }));
            }
        }
    }
    for require in [vec![], vec![Wall::Filesystem, Wall::Network], vec![Wall::Processes]] {
        let spec = SandboxSpec { require: require.into_iter().collect(), ..small() };
        lines.push(match backend.create(&spec).await {
            Ok(sealed) => {
                let script = "id -un | sed 's/^[0-9]*$/unnamed/'; ls /proc/1/. >/dev/null 2>&1 && echo /proc; \
                              touch /usr/x 2>/dev/null || echo sealed";
                let output = run(&*sealed, script).await;
                sealed.close().await.expect("closes");
                format!("ran: {}", output.stdout.to_text().trim().replace('\n', " "))
            }
            Err(error) => error.to_string(),
        });
    }
    lines
}

#[tokio::test]
async fn in_a_container_what_is_missing_is_said() {
    if std::env::var_os(INSIDE).is_some() {
        inside().await.into_iter().for_each(|line| println!("inside: {line}"));
        return;
    }
    let test = "container::in_a_container_what_is_missing_is_said";
    let Some(engine) = TestEngine::get(test) else { return };
    let image = Image::import(engine);
    // With the default profile there are no namespaces.
    insta::assert_snapshot!(any_version(&image.run(&[])), @"
    file system: weak: Landlock version _: system directories can be read, directories of the sandbox's own written
    processes: weak: Landlock: no signal to and no look into processes outside; no /proc of processes; seccomp: no System V or POSIX communication
    privileges: weak: one unprivileged user of the host, another one for each sandbox; no capabilities, no_new_privs
    teardown: weak: a keeper outside of the sandbox's Landlock domain kills all of the domain in one act when the guest ends, the host closes or dies, or the launcher dies
    ran: unnamed sealed
    the linux backend cannot enforce the file system on this host: Landlock version _: system directories can be read, directories of the sandbox's own written: commands are among the host's files: whether a path is there, its size, owner and times can be found out (asked for with `require`); user namespaces are forbidden here: in a container, allow `clone` with new namespaces in its seccomp profile, or use another backend, such as docker
    the linux backend cannot enforce the processes on this host: Landlock: no signal to and no look into processes outside; no /proc of processes; seccomp: no System V or POSIX communication: the numbers of the host's processes can be found out; programs that read /proc do not work, and what a command leaves in another session is not found when the command is killed, only when the sandbox ends (asked for with `require`); user namespaces are forbidden here: in a container, allow `clone` with new namespaces in its seccomp profile, or use another backend, such as docker
    ");
    let free = ["--security-opt", "seccomp=unconfined"];
    let hidden = image.run(&free);
    insta::assert_snapshot!(hidden, @"
    processes: weak: pid and ipc namespaces, no /proc
    ran: sandbox sealed
    ran: sandbox sealed
    the linux backend cannot enforce the processes on this host: pid and ipc namespaces, no /proc: programs that read /proc do not work, and what a command leaves in the background is not found when the command is killed, only when the sandbox ends (asked for with `require`); start the container with its /proc unmasked (docker: --security-opt systempaths=unconfined)
    ");
    assert_eq!(image.run(&[&free[..], &["--user", "1000:1000"]].concat()), hidden);
    let shown = image.run(&[&free[..], &["--security-opt", "systempaths=unconfined"]].concat());
    insta::assert_snapshot!(shown, @"
    ran: sandbox /proc sealed
    ran: sandbox /proc sealed
    ran: sandbox /proc sealed
    ");
}
