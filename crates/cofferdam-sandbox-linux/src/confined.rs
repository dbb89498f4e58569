//! Sandboxes without namespaces, as the host plans them: which of its files they see, what they cannot have, what bounds them.
//!
//! Paths inside are those of the host. Commands read the host's system directories, as far as the root of the host's system
//! shows them elsewhere, and write to three directories made for them. All else is refused by Landlock, which sees paths when
//! something is opened; what it does not see, a stricter filter refuses ([`crate::filter::Confinement`]).

use std::{
    ffi::{CStr, CString},
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use cofferdam_core::NetworkAccess;
use cofferdam_sandbox::{RootFilesystem, SandboxError, SandboxSpec, Wall};

use crate::{
    layout::{DEVICES, ETC, Places, SYSTEM, matching},
    mode::Cause,
    plan::{LandlockAccess, LandlockRule},
    setup::{BACKEND, HostSettings, remedy, unenforceable},
};

/// The places in the sandbox's directory; the first one is the workspace.
pub(crate) const PLACES: [&CStr; 3] = [c"workspace", c"home", c"tmp"];

/// What programs read of `/proc` to learn how large the machine is. The directories of processes are not among it: rules are
/// made before there is any, and those of others tell of the host.
const PROC: [&str; 8] = [
    "cpuinfo",
    "filesystems",
    "loadavg",
    "meminfo",
    "stat",
    "sys/vm/overcommit_memory",
    "uptime",
    "version",
];

/// What names are resolved with.
const RESOLVER: [&str; 4] = ["gai.conf", "hosts", "nsswitch.conf", "resolv.conf"];

/// Returns what to change on this host so that sandboxes have namespaces.
pub(crate) fn remedy_of(cause: Cause) -> String {
    match cause {
        Cause::Asked => "make the backend without `LinuxBackend::without_namespaces`".to_owned(),
        Cause::Refused(step, errno) => remedy(step, errno, HostSettings::read()),
    }
}

/// Refuses what takes a namespace.
pub(crate) fn check(spec: &SandboxSpec, cause: Cause) -> Result<(), SandboxError> {
    if spec.root != RootFilesystem::HostSystem {
        let reason = format!(
            "a root that is not the host's own takes a mount namespace, and there is none; {}",
            remedy_of(cause)
        );
        return Err(unenforceable(Wall::Filesystem, reason));
    }
    if let Some(base) = &spec.base {
        return Err(SandboxError::Base {
            directory: base.directory.display().to_string(),
            reason: "a workspace is laid over its base in a mount namespace, and there is none"
                .to_owned(),
            remedy: remedy_of(cause),
        });
    }
    if !spec.linger.is_zero() {
        return Err(SandboxError::Unsupported {
            backend: BACKEND,
            operation: "lingering of a sandbox without namespaces",
        });
    }
    Ok(())
}

/// Adds what was wrong before to the error of a host on which not even such a sandbox can be made.
pub(crate) fn explain(error: SandboxError, cause: Cause) -> SandboxError {
    match (error, cause) {
        (SandboxError::HostUnable { backend, step, reason, remedy }, Cause::Refused(..)) => {
            let remedy = format!("{remedy}; or, for namespaces: {}", remedy_of(cause));
            SandboxError::HostUnable { backend, step, reason, remedy }
        }
        (error, _) => error,
    }
}

/// Returns the places of a sandbox in its directory, if the path is text.
pub(crate) fn places(directory: &Path) -> Option<Places> {
    let [workspace, home, temporary] = PLACES.map(|place| {
        place.to_str().ok().and_then(|name| Some(format!("{}/{name}", directory.to_str()?)))
    });
    Some(Places { workspace: workspace?, home: home?, temporary: Some(temporary?) })
}

/// Returns what Landlock allows.
pub(crate) fn landlock_rules(
    directory: &Path,
    network: NetworkAccess,
    own_user: bool,
) -> Vec<LandlockRule> {
    let below = |parent: &'static str| move |name: &str| Path::new(parent).join(name);
    let mut paths: Vec<PathBuf> = SYSTEM.into_iter().map(below("/")).collect();
    for name in ETC {
        paths.extend(matching(Path::new("/etc"), name).iter().map(|name| below("/etc")(name)));
    }
    paths.extend(PROC.into_iter().map(below("/proc")));
    if network == NetworkAccess::Host {
        paths.extend(RESOLVER.into_iter().map(below("/etc")));
    }
    let mut rules: Vec<LandlockRule> = paths.iter().filter_map(|path| readable(path)).collect();
    let mut grant = |path: &Path, access| {
        rules.extend(text(path).map(|path| LandlockRule { path, access }));
    };
    for place in PLACES {
        grant(
            &directory.join(std::ffi::OsStr::from_bytes(place.to_bytes())),
            LandlockAccess::Write,
        );
    }
    // The terminals are those of the host; a user of its own can open none but its own.
    let terminals = own_user.then_some(["ptmx", "pts"]);
    for device in DEVICES.into_iter().chain(terminals.into_iter().flatten()) {
        let device = Path::new("/dev").join(device);
        if device.exists() {
            grant(&device, LandlockAccess::Device);
        }
    }
    rules
}

/// Returns the rule to read a file or directory, if it is there.
fn readable(path: &Path) -> Option<LandlockRule> {
    let found = fs::metadata(path).ok()?;
    let access = if found.is_dir() { LandlockAccess::Read } else { LandlockAccess::ReadFile };
    Some(LandlockRule { path: text(path)?, access })
}

fn text(path: &Path) -> Option<CString> {
    CString::new(path.as_os_str().as_bytes()).ok()
}

/// How many more processes of the user there may be than when a sandbox was started: other sandboxes, and all else that the user
/// starts, are counted with it and must not keep it from its own.
const OTHERS: u64 = 256;

/// Returns what is added to the limit of processes of a sandbox that shares its user.
pub(crate) fn allowance(user: u32) -> u64 {
    processes_of(user).saturating_add(OTHERS)
}

/// Returns how many processes and threads of a user there are, which is what the kernel counts against its limit.
fn processes_of(user: u32) -> u64 {
    let statuses = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        fs::read_to_string(entry.path().join("status")).ok()
    });
    statuses.map(|status| threads_of(&status, user)).sum()
}

/// Returns the threads that a `status` file of `/proc` tells of, if they are that user's.
fn threads_of(status: &str, user: u32) -> u64 {
    let field =
        |name| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    let theirs = field("Uid:").and_then(|uid| uid.parse().ok()) == Some(user);
    let threads = field("Threads:").filter(|_| theirs).and_then(|threads| threads.parse().ok());
    threads.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_host_only_programs_and_what_they_need_are_seen() {
        let rules = landlock_rules(Path::new("/d"), NetworkAccess::None, false);
        let access =
            |path: &CStr| rules.iter().find(|rule| *rule.path == *path).map(|rule| rule.access);
        assert_eq!(access(c"/usr"), Some(LandlockAccess::Read));
        assert_eq!(access(c"/proc/meminfo"), Some(LandlockAccess::ReadFile));
        assert_eq!(access(c"/dev/null"), Some(LandlockAccess::Device));
        let written: Vec<_> =
            rules.iter().filter(|rule| rule.access == LandlockAccess::Write).collect();
        assert_eq!(written.len(), PLACES.len());
        assert!(written.iter().all(|rule| rule.path.to_bytes().starts_with(b"/d/")), "{written:?}");
        for closed in [
            c"/",
            c"/etc",
            c"/etc/passwd",
            c"/etc/shadow",
            c"/etc/resolv.conf",
            c"/home",
            c"/root",
            c"/var",
            c"/run",
            c"/tmp",
            c"/dev",
            c"/dev/shm",
            c"/dev/pts",
            c"/proc",
            c"/proc/self",
            c"/sys",
            c"/d",
        ] {
            assert_eq!(access(closed), None, "{closed:?}");
        }
    }

    #[test]
    fn threads_are_counted_for_their_user() {
        let status = "Name:\tsh\nUid:\t1000\t0\t0\t0\nThreads:\t3\n";
        assert_eq!((threads_of(status, 1000), threads_of(status, 0)), (3, 0));
        assert_eq!(threads_of("Uid:\t1000", 1000), 0);
        assert!(processes_of(rustix::process::getuid().as_raw()) >= 1);
    }
}
