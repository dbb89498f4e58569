//! [`TestEngine`]: a container engine of the tests' own, and a root for its containers, made of what is on this host.
//!
//! The engine has its own directories, socket, control groups and images, no bridge and no firewall rules. It is started once
//! for each test program, and ends with it, however that ends: a shell waits for the death of the test and removes what is
//! left. The program `test-engine` is one for what is no test program.

mod kept;
mod root;

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use cofferdam_sandbox::{RootFilesystem, SandboxSpec};

use kept::last_words;
pub use kept::{Kept, wait_for};

/// How often it is run until it serves.
const STARTS: usize = 3;

/// An engine that listens.
#[derive(Debug)]
pub struct TestEngine {
    directory: PathBuf,
    socket: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
    /// The process at this time; another after a restart.
    kept: Mutex<Option<Kept>>,
}

impl TestEngine {
    /// Returns the engine of this test program; `None`, and a skip that says why, if there can be none.
    pub fn get(test: &str) -> Option<&'static Self> {
        static ENGINE: OnceLock<Result<TestEngine, String>> = OnceLock::new();
        match ENGINE.get_or_init(|| Self::start(&[])) {
            Ok(engine) => Some(engine),
            Err(reason) => {
                crate::skip(test, reason);
                None
            }
        }
    }

    /// Starts an engine with more arguments.
    ///
    /// # Errors
    ///
    /// Why there can be none, for a skip.
    pub fn start(more: &[&str]) -> Result<Self, String> {
        if !is_root() {
            return Err("starting an engine needs root".to_owned());
        }
        let dockerd = find("dockerd").ok_or("dockerd is not installed (Debian: docker.io)")?;
        let directory = tempfile::Builder::new().prefix("cofferdam-engine-").tempdir();
        let directory = directory.map_err(|error| error.to_string())?;
        root::make(&directory.path().join("root")).map_err(|error| error.to_string())?;
        // From here on, the shell that keeps the engine removes it.
        let directory = directory.keep();
        let socket = directory.join("socket");
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
        let kept = Mutex::default();
        let engine = Self { directory, socket, program: dockerd, arguments, kept };
        engine.listen()?;
        Ok(engine)
    }

    /// Runs it, and waits until it serves: it listens before it knows whether it can begin. On a busy machine its runtime may be
    /// too slow for it, and it ends by itself; then it is run again.
    fn listen(&self) -> Result<(), String> {
        let mut ends = Vec::new();
        while ends.len() < STARTS {
            let kept = Kept::start(&self.directory, &self.program, &self.arguments);
            let served = self.wait_for(|| kept.has_ended() || answers(&self.socket));
            let has_ended = kept.has_ended();
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
            if !has_ended {
                return served;
            }
            ends.push(last_words(&self.directory));
        }
        Err(format!("it ended by itself: {}", ends.join("; and again: ")))
    }

    /// Waits until something of it is ready.
    ///
    /// # Errors
    ///
    /// What it wrote last, if that takes longer than a minute.
    pub fn wait_for(&self, ready: impl Fn() -> bool) -> Result<(), String> {
        wait_for(&self.directory, ready)
    }

    /// Sends it a signal: `TERM` ends it as its operator would, `KILL` takes it away in the middle of everything.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn signal(&self, signal: &str) {
        let pid = self.process().map(|pid| pid.to_string()).unwrap_or_default();
        let sent = host_command("kill").args(["-s", signal, &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "no process {pid:?}");
    }

    /// Its process, which may have ended.
    pub fn process(&self) -> Option<u32> {
        process_in(&self.directory.join("pid"))
    }

    /// Runs it again after it was killed, with all that it has on its disk.
    ///
    /// # Errors
    ///
    /// What it wrote last, if it does not listen.
    pub fn restart(&self) -> Result<(), String> {
        // Its runtime dies with it. What is only waited for is dead, but an engine takes it for one that runs.
        for file in ["pid", "exec/containerd/containerd.pid"] {
            let file = self.directory.join(file);
            self.wait_for(|| !process_in(&file).is_some_and(runs))?;
            fs::remove_file(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        self.listen()
    }

    /// Ends it and removes what it has, and waits for that; otherwise both begin when this process has ended.
    pub fn end(self) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.into_iter().for_each(Kept::end);
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its address in the form of `DOCKER_HOST`.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// The root that tests use: busybox, and bash with its libraries.
    pub fn root(&self) -> RootFilesystem {
        RootFilesystem::Directory(self.directory.join("root"))
    }

    /// The default specification with that root.
    pub fn spec(&self) -> SandboxSpec {
        SandboxSpec { root: self.root(), ..SandboxSpec::default() }
    }

    /// Returns the command of its users, which the same Debian package has.
    pub fn docker(&self) -> Command {
        let mut command = host_command("docker");
        command.args(["--host", &self.address()]);
        command
    }
}

/// Whether an engine answers to who asks for a sign of life.
fn answers(socket: &Path) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")?;
        let mut answer = [0; 15];
        stream.read_exact(&mut answer)?;
        Ok(answer.ends_with(b" 200 OK"))
    };
    ask().unwrap_or(false)
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

/// Returns a command of the host.
#[expect(clippy::disallowed_methods, reason = "tests start the engine that they talk to")]
pub fn host_command(program: &str) -> Command {
    Command::new(program)
}

/// Finds a program of the host.
pub fn find(program: &str) -> Option<PathBuf> {
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .map(|directory| Path::new(directory).join(program))
        .find(|path| path.is_file())
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}
