//! Small helpers, and looks at what is on the host.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
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
