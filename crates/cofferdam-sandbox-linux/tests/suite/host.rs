//! What the tests aim at on the host, and small helpers.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixListener},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use cofferdam_core::SandboxLimits;
use cofferdam_sandbox::{
    ExecOutput, ExecRequest, Sandbox, SandboxBackend, SandboxExt, SandboxSpec,
};
use cofferdam_sandbox_linux::LinuxBackend;

/// Returns a number that no other test of this machine uses.
pub(crate) fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    u64::from(std::process::id()) * 1000 + NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Lets every user read and enter a directory, or run a program.
pub(crate) fn open_to_all(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("open to all");
}

/// Small enough that a bomb is over quickly, large enough for programs.
pub(crate) fn small() -> SandboxSpec {
    SandboxSpec {
        limits: SandboxLimits {
            memory_bytes: 256 << 20,
            processes: 64,
            disk_bytes: 32 << 20,
            disk_inodes: 2000,
            open_files: 128,
            ..SandboxLimits::default()
        },
        ..SandboxSpec::default()
    }
}

pub(crate) async fn sandbox(spec: &SandboxSpec) -> Arc<dyn Sandbox> {
    LinuxBackend::new().create(spec).await.expect("a sandbox")
}

/// Runs a script and collects at most 1 MiB of its output.
pub(crate) async fn run(sandbox: &dyn Sandbox, script: &str) -> ExecOutput {
    sandbox.run(ExecRequest::shell(script), 1 << 20).await.expect("the script ran")
}

/// Waits until a condition holds; real processes do not follow a paused clock.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 20 seconds: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Returns how many processes of the host have exactly these arguments.
pub(crate) fn processes_with(arguments: &[&str]) -> usize {
    directories_with(arguments).len()
}

/// Returns the first process of the sandbox in which a process with exactly these arguments runs.
pub(crate) fn guest_above(arguments: &[&str]) -> Option<rustix::process::Pid> {
    let mut directory = directories_with(arguments).pop()?;
    loop {
        let status = fs::read_to_string(directory.join("status")).ok()?;
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
        let mut ids = field("NSpid:")?.split_ascii_whitespace();
        let (outer, inner) = (ids.next()?, ids.next_back()?);
        if inner == "1" {
            return rustix::process::Pid::from_raw(outer.parse().ok()?);
        }
        directory = Path::new("/proc").join(field("PPid:")?.trim());
    }
}

/// Returns the directories below `/proc` of the processes whose arguments are exactly these.
fn directories_with(arguments: &[&str]) -> Vec<PathBuf> {
    let wanted: Vec<u8> = arguments.iter().flat_map(|a| [a.as_bytes(), b"\0"].concat()).collect();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| fs::read(path.join("cmdline")).is_ok_and(|found| found == wanted))
        .collect()
}

/// Returns the cgroup directories of sandboxes that a process made.
pub(crate) fn cgroups_of(pid: u32) -> Vec<String> {
    cgroups_where(|name| name.starts_with(&format!("cofferdam-{pid}.")))
}

/// Returns the cgroup directories whose names are such.
pub(crate) fn cgroups_where(wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = vec![Path::new("/sys/fs/cgroup").to_owned()];
    while let Some(directory) = look.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let name = entry.file_name().to_string_lossy().into_owned();
                if wanted(&name) {
                    found.push(entry.path().display().to_string());
                }
                look.push(entry.path());
            }
        }
    }
    found
}

/// Things of the host that a sandbox must not reach, made for one test and gone after it.
pub(crate) struct Targets {
    /// Text that nobody else has.
    pub(crate) token: String,
    directory: tempfile::TempDir,
    victim: Child,
    tcp_port: u16,
    udp_port: u16,
    leaked: File,
    key: u64,
}

impl Targets {
    pub(crate) fn new() -> Self {
        let token = format!("canary{}", unique());
        let directory = tempfile::Builder::new()
            .prefix("cofferdam-outside-")
            .tempdir_in("/var/tmp")
            .expect("a directory");
        let path = directory.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("open to all");
        fs::write(path.join("file"), &token).expect("a file");
        let victim = Command::new("sh")
            .args(["-c", "sleep 600; :", &format!("victim-{token}")])
            .env("CANARY", &token)
            .process_group(0)
            .stdin(Stdio::null())
            .spawn()
            .expect("a process");

        let tcp = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let (tcp_port, udp_port) =
            (tcp.local_addr().expect("bound").port(), udp.local_addr().expect("bound").port());
        let name = SocketAddr::from_abstract_name(&token).expect("a name");
        let local = UnixListener::bind_addr(&name).expect("a listener");
        let path_socket = UnixListener::bind(path.join("socket")).expect("a listener");
        fs::set_permissions(path.join("socket"), fs::Permissions::from_mode(0o777)).expect("open");
        let answer = token.clone();
        thread::spawn(move || {
            tcp.incoming().flatten().for_each(|mut s| drop(s.write_all(answer.as_bytes())))
        });
        for listener in [local, path_socket] {
            let answer = token.clone();
            thread::spawn(move || {
                listener
                    .incoming()
                    .flatten()
                    .for_each(|mut s| drop(s.write_all(answer.as_bytes())));
            });
        }
        thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, peer)) = udp.recv_from(&mut query) {
                let _ = udp.send_to(&query[..length], peer);
            }
        });

        // A descriptor that the host forgot to close on exec.
        let leaked = File::open(path.join("file")).expect("opens");
        rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).expect("leaks");
        let key = unique() & 0x7fff_ffff;
        let targets = Self { key, token, directory, victim, tcp_port, udp_port, leaked };
        fs::write(targets.shared_memory(), "x").expect("shared memory");
        targets.run_outside(&format!("perl -e 'shmget({key}, 4096, 01666)'"));
        targets
    }

    fn shared_memory(&self) -> String {
        format!("/dev/shm/cofferdam-{}", self.token)
    }

    /// Replaces the names of targets in a script.
    pub(crate) fn fill(&self, script: &str) -> String {
        use std::os::fd::AsRawFd;
        script
            .replace("@TOKEN", &self.token)
            .replace("@OUTSIDE", &self.directory.path().display().to_string())
            .replace("@VICTIM", &self.victim.id().to_string())
            .replace("@TCP", &self.tcp_port.to_string())
            .replace("@KEY", &self.key.to_string())
            .replace("@UDP", &self.udp_port.to_string())
            .replace("@LEAKED", &self.leaked.as_raw_fd().to_string())
    }

    /// Returns whether a file was made outside, and removes it.
    pub(crate) fn was_made(&self, name: &str) -> bool {
        fs::remove_file(self.directory.path().join(name)).is_ok()
    }

    /// Runs a script on the host, without any wall, and returns what it printed.
    pub(crate) fn run_outside(&self, script: &str) -> String {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .env("CANARY", &self.token)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("sh");
        let mut text = String::new();
        child.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
        child.wait().expect("ended");
        text
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        // The group is the victim's own.
        let group = rustix::process::Pid::from_child(&self.victim);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.victim.wait();
        let _ = fs::remove_file(self.shared_memory());
        self.run_outside(&format!("ipcrm -M {}", self.key));
    }
}
