//! A container engine of the tests' own, and images for it, made of what is on this host.
//!
//! The engine has its own directories, socket, control groups and images, no bridge and no firewall rules. It is started once
//! for each test program, and ends with it, however that ends: a shell waits for the death of the test and removes what is
//! left.

use std::{
    fs, io,
    os::unix::{
        fs::{MetadataExt as _, symlink},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use cofferdam_sandbox::{RootFilesystem, SandboxSpec};
use cofferdam_sandbox_docker::{DockerBackend, DockerBackendBuilder, DockerEndpoint};

/// How long an engine may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long one request may take in tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Ends the engine when the test program ends, waits for it, and removes its files.
const KEEPER: &str = r#"
    directory=$1; shift
    # The engine leaves the network namespace that it made mounted.
    end() {
        exec 2>/dev/null
        kill "$engine"; wait "$engine"
        # One that was killed before leaves shims, and mounts of its own.
        kill -9 $(grep -lazx "$directory/exec/containerd/containerd.sock" /proc/[0-9]*/cmdline | cut -d/ -f3)
        umount "$directory"/exec/netns/* "$directory"/data/overlay2/*/merged "$directory/data"
        find /sys/fs/cgroup -depth -type d -path "*/${directory##*/}*" -exec rmdir {} +
        rm -rf "$directory"; exit
    }
    trap end TERM
    "$@" </dev/null >"$directory/log" 2>&1 &
    engine=$!
    wait "$engine"
"#;

/// An engine that listens.
#[derive(Debug)]
pub(crate) struct TestEngine {
    directory: PathBuf,
    socket: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
}

impl TestEngine {
    /// Returns the engine of this test program; `None`, and a skip that says why, if there can be none.
    pub(crate) fn get(test: &str) -> Option<&'static Self> {
        static ENGINE: OnceLock<Result<TestEngine, String>> = OnceLock::new();
        match ENGINE.get_or_init(|| Self::start(&[])) {
            Ok(engine) => Some(engine),
            Err(reason) => {
                cofferdam_testkit::skip(test, reason);
                None
            }
        }
    }

    /// Starts an engine with more arguments.
    pub(crate) fn start(more: &[&str]) -> Result<Self, String> {
        if !is_root() {
            return Err("starting an engine needs root".to_owned());
        }
        let dockerd = find("dockerd").ok_or("dockerd is not installed (Debian: docker.io)")?;
        let directory = tempfile::Builder::new().prefix("cofferdam-engine-").tempdir();
        let directory = directory.map_err(|error| error.to_string())?.keep();
        let socket = directory.join("socket");
        make_root(&directory.join("root")).map_err(|error| error.to_string())?;
        let inside = |name: &str| directory.join(name).display().to_string();
        let mut arguments: Vec<String> =
            ["--bridge=none", "--iptables=false", "--ip-masq=false"].map(str::to_owned).into();
        let own_cgroups = directory.file_name().unwrap_or_default().display();
        arguments.extend([
            "--exec-opt=native.cgroupdriver=cgroupfs".to_owned(),
            format!("--cgroup-parent=/{own_cgroups}"),
            format!("--host=unix://{}", socket.display()),
            format!("--data-root={}", inside("data")),
            format!("--exec-root={}", inside("exec")),
            format!("--pidfile={}", inside("pid")),
        ]);
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let engine = Self { directory, socket, program: dockerd, arguments };
        engine.listen()?;
        Ok(engine)
    }

    /// Runs it, and waits until it listens.
    fn listen(&self) -> Result<(), String> {
        keep(&self.directory, &self.program, &self.arguments);
        self.wait_for(|| UnixStream::connect(&self.socket).is_ok())
    }

    /// Waits until something of it is ready.
    pub(crate) fn wait_for(&self, ready: impl Fn() -> bool) -> Result<(), String> {
        wait_for(&self.directory, ready)
    }

    /// Sends it a signal: `TERM` ends it as its operator would, `KILL` takes it away in the middle of everything.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.process().map(|pid| pid.to_string()).unwrap_or_default();
        let sent = host_command("kill").args(["-s", signal, &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "no process {pid:?}");
    }

    /// Its process, which may have ended.
    pub(crate) fn process(&self) -> Option<u32> {
        process_in(&self.directory.join("pid"))
    }

    /// Runs it again after it was killed, with all that it has on its disk.
    pub(crate) fn restart(&self) -> Result<(), String> {
        // Its runtime dies with it. What is only waited for is dead, but an engine takes it for one that runs.
        for file in ["pid", "exec/containerd/containerd.pid"] {
            let file = self.directory.join(file);
            self.wait_for(|| !process_in(&file).is_some_and(runs))?;
            fs::remove_file(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        self.listen()
    }

    /// Where it listens.
    pub(crate) fn endpoint(&self) -> DockerEndpoint {
        DockerEndpoint::Unix(self.socket.clone())
    }

    /// The default specification with the root that tests use: busybox, and bash with its libraries.
    pub(crate) fn spec(&self) -> SandboxSpec {
        let root = RootFilesystem::Directory(self.directory.join("root"));
        SandboxSpec { root, ..SandboxSpec::default() }
    }

    /// Begins a backend on it, with patience for a machine that does much else.
    pub(crate) fn builder(&self) -> DockerBackendBuilder {
        DockerBackend::builder().endpoint(self.endpoint()).request_timeout(PATIENCE)
    }

    /// A backend on it.
    pub(crate) fn backend(&self) -> DockerBackend {
        self.builder().build()
    }

    /// A client of it, to do what others do.
    pub(crate) fn client(&self) -> Result<bollard::Docker, bollard::errors::Error> {
        let path = self.socket.display().to_string();
        let version = bollard::API_DEFAULT_VERSION;
        bollard::Docker::connect_with_unix(&path, 30, version)
    }
}

/// Reads the id of a process that a service has written down.
fn process_in(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Whether a process runs, and is not only waited for.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Starts a program that ends with this process, with a directory that is removed then. The signal comes when the thread
/// that started it ends, so that thread stays for as long as this process.
pub(crate) fn keep(directory: &Path, program: &Path, arguments: &[String]) {
    let mut command = host_command("setpriv");
    command.args(["--pdeathsig", "TERM", "sh", "-c", KEEPER, "keeper"]);
    command.arg(directory).arg(program).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    thread::spawn(move || command.spawn().and_then(|mut child| child.wait()));
}

/// Waits until a kept program is ready, or says what it wrote last.
pub(crate) fn wait_for(directory: &Path, ready: impl Fn() -> bool) -> Result<(), String> {
    let deadline = Instant::now() + START_TIMEOUT;
    while !ready() {
        if Instant::now() > deadline {
            let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
            let end: Vec<_> = log.lines().rev().take(3).collect();
            return Err(format!("it does not listen: {}", end.join(" | ")));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Returns a command of the host.
#[expect(clippy::disallowed_methods, reason = "tests start the engine that they talk to")]
pub(crate) fn host_command(program: &str) -> Command {
    Command::new(program)
}

/// Finds a program of the host.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .map(|directory| Path::new(directory).join(program))
        .find(|path| path.is_file())
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Makes a small root file system of programs of this host: busybox, bash and perl, with their libraries.
fn make_root(top: &Path) -> io::Result<()> {
    let missing = |name| io::Error::other(format!("{name} is not installed"));
    for directory in ["bin", "etc", "tmp"] {
        fs::create_dir_all(top.join(directory))?;
    }
    let busybox = find("busybox").ok_or_else(|| missing("busybox (Debian: busybox-static)"))?;
    fs::copy(&busybox, top.join("bin/busybox"))?;
    let listed = host_command("busybox").arg("--list").output()?;
    for name in String::from_utf8_lossy(&listed.stdout).lines().filter(|n| *n != "busybox") {
        symlink("busybox", top.join("bin").join(name))?;
    }
    // The shell of busybox takes its own programs before those of others, so it is not the one that is used.
    let shell = find("dash").or_else(|| find("bash")).ok_or_else(|| missing("dash or bash"))?;
    fs::remove_file(top.join("bin/sh"))?;
    fs::copy(&shell, top.join("bin/sh"))?;
    // What busybox lacks or does otherwise, and perl where it is there: attempts to get out are written in it.
    let mut needed = vec![find("bash").ok_or_else(|| missing("bash"))?, shell];
    needed.extend(["cksum", "date", "stty"].into_iter().filter_map(find));
    if let Some(perl) = find("perl") {
        needed.push(perl);
        needed.extend(perl_modules()?);
    }
    for program in needed.clone() {
        needed.extend(libraries(&program)?);
    }
    for library in needed {
        let copy = match library.strip_prefix("/usr/bin") {
            Ok(name) => top.join("bin").join(name),
            Err(_) => top.join(library.strip_prefix("/").map_err(io::Error::other)?),
        };
        // Not through a link to busybox.
        let _ = fs::remove_file(&copy);
        fs::create_dir_all(copy.parent().unwrap_or(top))?;
        fs::copy(&library, copy)?;
    }
    Ok(())
}

/// The libraries of a program, as its loader tells.
fn libraries(program: &Path) -> io::Result<Vec<PathBuf>> {
    let listed = host_command("ldd").arg(program).output()?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let words = text.split_ascii_whitespace().filter(|word| word.starts_with('/'));
    Ok(words.map(PathBuf::from).collect())
}

/// The modules of a small Perl, as it finds them.
fn perl_modules() -> io::Result<Vec<PathBuf>> {
    let script = "require Socket; require POSIX; print join qq(\n), values %INC; print qq(\n$_) for @DynaLoader::dl_shared_objects";
    let listed = host_command("perl").args(["-e", script]).output()?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    Ok(text.lines().map(PathBuf::from).filter(|path| path.is_file()).collect())
}
