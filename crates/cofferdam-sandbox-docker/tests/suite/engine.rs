//! A container engine of the tests' own, and images for it, made of what is on this host.
//!
//! The engine has its own directories, socket and images, no bridge and no firewall rules. It is started once for each test
//! program, and ends with it, however that ends: a shell waits for the death of the test and removes what is left.

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
    trap 'kill "$engine"; wait "$engine"; umount "$directory"/exec/netns/* 2>/dev/null; rm -rf "$directory"; exit' TERM
    "$@" </dev/null >"$directory/log" 2>&1 &
    engine=$!
    wait "$engine"
"#;

/// An engine that listens.
#[derive(Debug)]
pub(crate) struct TestEngine {
    directory: PathBuf,
    socket: PathBuf,
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
        arguments.extend([
            format!("--host=unix://{}", socket.display()),
            format!("--data-root={}", inside("data")),
            format!("--exec-root={}", inside("exec")),
            format!("--pidfile={}", inside("pid")),
        ]);
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        keep(&directory, &dockerd, &arguments);
        wait_for(&directory, || UnixStream::connect(&socket).is_ok())?;
        Ok(Self { directory, socket })
    }

    /// Waits until something of it is ready.
    pub(crate) fn wait_for(&self, ready: impl Fn() -> bool) -> Result<(), String> {
        wait_for(&self.directory, ready)
    }

    /// Ends it, as its operator would.
    pub(crate) fn stop(&self) {
        let pid = fs::read_to_string(self.directory.join("pid")).unwrap_or_default();
        let killed = host_command("kill").arg(pid.trim()).status();
        assert!(killed.is_ok_and(|status| status.success()), "no process {pid:?}");
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
