//! What each wall is made of on an engine, in words.

use bollard::models::SystemInfo;
use cofferdam_sandbox::{Enforcement, Guarantee, Guarantees, SandboxError, Wall};

use crate::engine::BACKEND;

/// What is known of an engine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// What it said of itself.
    pub(crate) info: &'a SystemInfo,
    pub(crate) is_podman: bool,
    /// Whether it is of this host.
    pub(crate) is_local: bool,
}

const ALL: [Wall; 15] = [
    Wall::Filesystem,
    Wall::Network,
    Wall::Processes,
    Wall::Privileges,
    Wall::SystemCalls,
    Wall::FilesystemSecondWall,
    Wall::MemoryLimit,
    Wall::ProcessLimit,
    Wall::CpuLimit,
    Wall::DiskLimit,
    Wall::OpenFileLimit,
    Wall::OutputLimit,
    Wall::WallTimeLimit,
    Wall::IdleTimeLimit,
    Wall::Teardown,
];

/// Returns the report on all walls, given why no sandbox could be built.
pub(crate) fn guarantees(facts: &Facts<'_>, failure: Option<&SandboxError>) -> Guarantees {
    let walls = ALL
        .into_iter()
        .map(|wall| {
            let enforcement = match failure {
                None => enforcement(wall, facts),
                Some(error) => missing(format!("no sandbox can be built: {error}"), None),
            };
            Guarantee { wall, enforcement }
        })
        .collect();
    Guarantees { backend: BACKEND.to_owned(), walls }
}

/// Returns what stands for a wall, from what the engine says of itself.
pub(crate) fn enforcement(wall: Wall, facts: &Facts<'_>) -> Enforcement {
    let info = facts.info;
    match wall {
        Wall::Filesystem => {
            full("mount namespace of the container: its image read-only, no directory of the host")
        }
        Wall::Network => full("network namespace with nothing but loopback"),
        Wall::Processes => full("pid and ipc namespaces, masked /proc, no /sys"),
        Wall::Privileges => privileges(info),
        Wall::SystemCalls => system_calls(facts),
        Wall::FilesystemSecondWall => second_wall(info),
        Wall::MemoryLimit => memory(info),
        Wall::ProcessLimit => limit(info, info.pids_limit, "pids"),
        Wall::CpuLimit => limit(info, info.cpu_cfs_quota, "cpu"),
        Wall::DiskLimit => disk(facts),
        Wall::OpenFileLimit => full("RLIMIT_NOFILE of each process"),
        Wall::OutputLimit => full("counted by the host, which kills the command's tree"),
        Wall::WallTimeLimit => {
            full("clock of the host process; if that dies before, the sandbox ends with it")
        }
        Wall::IdleTimeLimit => full("clock of the host process, which ends the guest's stream"),
        Wall::Teardown => teardown(facts),
        _ => missing("not built by this backend", None),
    }
}

fn has(info: &SystemInfo, option: &str) -> bool {
    let options = info.security_options.as_deref().unwrap_or_default();
    options.iter().any(|text| text.split(',').next() == Some(&format!("name={option}")))
}

fn full(mechanism: impl Into<String>) -> Enforcement {
    Enforcement::Full { mechanism: mechanism.into() }
}

fn missing(reason: impl Into<String>, remedy: Option<&str>) -> Enforcement {
    Enforcement::Missing { reason: reason.into(), remedy: remedy.map(str::to_owned) }
}

fn weak(mechanism: impl Into<String>, gap: &str, remedy: &str) -> Enforcement {
    Enforcement::Weak {
        mechanism: mechanism.into(),
        gap: gap.to_owned(),
        remedy: Some(remedy.to_owned()),
    }
}

fn privileges(info: &SystemInfo) -> Enforcement {
    let mechanism = "a user for each sandbox, no capabilities, no_new_privs";
    if has(info, "userns") {
        return full(format!("{mechanism}; user namespace of the engine"));
    }
    if has(info, "rootless") {
        return full(format!("{mechanism}; the engine itself is not root"));
    }
    weak(
        mechanism,
        "without a user namespace: its user is one of the host, if an unused one",
        "start the engine with `userns-remap`, or rootless",
    )
}

fn system_calls(facts: &Facts<'_>) -> Enforcement {
    if !has(facts.info, "seccomp") {
        missing(
            "the engine does not filter system calls",
            Some("use a kernel with CONFIG_SECCOMP_FILTER and an engine built with seccomp"),
        )
    } else if facts.is_podman && !facts.is_local {
        weak(
            "seccomp profile of the engine",
            "Podman takes no profile over a network, and its own allows tracing and more kinds of sockets",
            "use Podman's socket on the same host, or Docker",
        )
    } else {
        full("seccomp allow-list of this backend, installed by the engine")
    }
}

fn disk(facts: &Facts<'_>) -> Enforcement {
    let mechanism = "four in-memory file systems, which share out the limit";
    if facts.is_podman {
        weak(
            format!("{mechanism} of bytes"),
            "Podman does not bound the number of files",
            "use Docker; the memory limit bounds them all the same",
        )
    } else {
        full(format!("{mechanism} of bytes and files"))
    }
}

fn second_wall(info: &SystemInfo) -> Enforcement {
    if has(info, "apparmor") {
        full("AppArmor profile of the engine")
    } else if has(info, "selinux") {
        full("SELinux label of the engine")
    } else {
        missing(
            "the engine uses neither AppArmor nor SELinux",
            Some("use a host with one of them, or the linux backend, which has Landlock"),
        )
    }
}

fn memory(info: &SystemInfo) -> Enforcement {
    match limit(info, info.memory_limit, "memory") {
        Enforcement::Full { mechanism } if info.swap_limit == Some(false) => weak(
            mechanism,
            "swap is not counted: where the host swaps, a sandbox may use that as well",
            "start the kernel with `swapaccount=1`, or without swap",
        ),
        Enforcement::Full { mechanism } => full(format!("{mechanism}, in-memory files included")),
        other => other,
    }
}

fn limit(info: &SystemInfo, there: Option<bool>, controller: &str) -> Enforcement {
    if there == Some(false) {
        return missing(
            format!("the engine has no {controller} control group"),
            Some("start the engine as root, or delegate the control group to its user"),
        );
    }
    let version = match &info.cgroup_version {
        Some(version) if version.to_string() == "2" => "v2",
        _ => "v1",
    };
    full(format!("cgroup {version} {controller}"))
}

fn teardown(facts: &Facts<'_>) -> Enforcement {
    let mechanism = "the engine ends the guest when its stream is cut, and removes what it ended";
    if facts.is_local {
        full(mechanism)
    } else {
        weak(
            mechanism,
            "over a network, a host that vanishes without a word is noticed only when the connection times out",
            "use the engine's socket on the same host; another process removes what is left at its first use",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(facts: &Facts<'_>) -> String {
        let lines = guarantees(facts, None).walls.into_iter().map(|guarantee| {
            let text = match guarantee.enforcement {
                Enforcement::Full { mechanism } => format!("full: {mechanism}"),
                Enforcement::Weak { mechanism, gap, .. } => format!("weak: {mechanism}: {gap}"),
                Enforcement::Missing { reason, .. } => format!("missing: {reason}"),
                other => format!("{other:?}"),
            };
            format!("{}: {text}", guarantee.wall)
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn with_options(options: &[&str]) -> SystemInfo {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        SystemInfo { security_options: Some(options), ..SystemInfo::default() }
    }

    #[test]
    fn an_engine_with_everything_has_no_weakness() {
        let info = with_options(&["name=seccomp,profile=default", "name=apparmor", "name=userns"]);
        let facts = Facts { info: &info, is_podman: false, is_local: true };
        assert_eq!(guarantees(&facts, None).weaknesses().count(), 0);
    }

    #[test]
    fn engines_with_little() {
        let info = SystemInfo {
            memory_limit: Some(false),
            pids_limit: Some(false),
            cpu_cfs_quota: Some(true),
            ..SystemInfo::default()
        };
        let facts = Facts { info: &info, is_podman: false, is_local: false };
        insta::assert_snapshot!("remote_without_control_groups", render(&facts));

        let info = with_options(&["name=seccomp", "name=rootless"]);
        let facts = Facts { info: &info, is_podman: true, is_local: false };
        insta::assert_snapshot!("remote_podman", render(&facts));
    }

    #[test]
    fn an_engine_that_builds_none_has_no_wall() {
        let info = with_options(&["name=seccomp"]);
        let facts = Facts { info: &info, is_podman: false, is_local: true };
        let failure = crate::engine::invalid("an example");
        assert_eq!(guarantees(&facts, Some(&failure)).weaknesses().count(), ALL.len());
    }
}
