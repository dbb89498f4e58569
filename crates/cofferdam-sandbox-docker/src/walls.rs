//! What each wall is made of on an engine, in words.

use bollard::models::SystemInfo;
use cofferdam_sandbox::{Enforcement, Guarantee, Guarantees, SandboxError, Wall};

use crate::{endpoint::DockerEndpoint, engine::BACKEND};

/// What the engine said of itself, and what came of building a sandbox.
#[derive(Debug)]
pub(crate) struct Probe<'a> {
    pub(crate) info: &'a SystemInfo,
    pub(crate) endpoint: &'a DockerEndpoint,
    pub(crate) built: Result<(), SandboxError>,
}

const ALL: [Wall; 14] = [
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
    Wall::Teardown,
];

/// Returns the report on all walls.
pub(crate) fn guarantees(probe: &Probe<'_>) -> Guarantees {
    let walls = ALL
        .into_iter()
        .map(|wall| {
            let enforcement = match &probe.built {
                Ok(()) => enforcement(wall, probe.info, probe.endpoint),
                Err(error) => Enforcement::Missing {
                    reason: format!("no sandbox can be built: {error}"),
                    remedy: None,
                },
            };
            Guarantee { wall, enforcement }
        })
        .collect();
    Guarantees { backend: BACKEND.to_owned(), walls }
}

/// Returns what stands for a wall, from what the engine says of itself.
pub(crate) fn enforcement(wall: Wall, info: &SystemInfo, endpoint: &DockerEndpoint) -> Enforcement {
    match wall {
        Wall::Filesystem => {
            full("mount namespace of the container: its image read-only, no directory of the host")
        }
        Wall::Network => full("network namespace with nothing but loopback"),
        Wall::Processes => full("pid and ipc namespaces, masked /proc, no /sys"),
        Wall::Privileges => privileges(info),
        Wall::SystemCalls => system_calls(info),
        Wall::FilesystemSecondWall => second_wall(info),
        Wall::MemoryLimit => memory(info),
        Wall::ProcessLimit => limit(info, info.pids_limit, "pids"),
        Wall::CpuLimit => limit(info, info.cpu_cfs_quota, "cpu"),
        Wall::DiskLimit => full(
            "four in-memory file systems of bounded bytes and inodes, which share out the limit",
        ),
        Wall::OpenFileLimit => full("RLIMIT_NOFILE of each process"),
        Wall::OutputLimit => full("counted by the host, which kills the command's tree"),
        Wall::WallTimeLimit => {
            full("clock of the host process; if that dies before, the sandbox ends with it")
        }
        Wall::Teardown => teardown(endpoint),
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

fn system_calls(info: &SystemInfo) -> Enforcement {
    if has(info, "seccomp") {
        full("seccomp allow-list of this backend, installed by the engine")
    } else {
        missing(
            "the engine does not filter system calls",
            Some("use a kernel with CONFIG_SECCOMP_FILTER and an engine built with seccomp"),
        )
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

fn teardown(endpoint: &DockerEndpoint) -> Enforcement {
    let mechanism = "the engine ends the guest when its stream is cut, and removes what it ended";
    match endpoint {
        DockerEndpoint::Unix(_) => full(mechanism),
        _ => weak(
            mechanism,
            "over a network, a host that vanishes without a word is noticed only when the connection times out",
            "use the engine's socket on the same host; another process removes what is left at its first use",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(info: &SystemInfo, endpoint: &DockerEndpoint) -> String {
        let guarantees = guarantees(&Probe { info, endpoint, built: Ok(()) });
        let lines = guarantees.walls.into_iter().map(|guarantee| {
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

    #[test]
    fn an_engine_with_everything_and_one_with_little() {
        let options = ["name=seccomp,profile=default", "name=apparmor", "name=userns"];
        let info = SystemInfo {
            security_options: Some(options.map(str::to_owned).into()),
            ..SystemInfo::default()
        };
        let probe = Probe { info: &info, endpoint: &DockerEndpoint::default(), built: Ok(()) };
        assert_eq!(guarantees(&probe).weaknesses().count(), 0);

        let info = SystemInfo {
            memory_limit: Some(false),
            pids_limit: Some(false),
            cpu_cfs_quota: Some(true),
            ..SystemInfo::default()
        };
        let endpoint = DockerEndpoint::Tcp { address: "127.0.0.1:2375".to_owned() };
        insta::assert_snapshot!(render(&info, &endpoint));
    }

    #[test]
    fn an_engine_that_builds_none_has_no_wall() {
        let info = SystemInfo::default();
        let built = Err(crate::engine::invalid("an example"));
        let probe = Probe { info: &info, endpoint: &DockerEndpoint::default(), built };
        assert_eq!(guarantees(&probe).weaknesses().count(), ALL.len());
    }
}
