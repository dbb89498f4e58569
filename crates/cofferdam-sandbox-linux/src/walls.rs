//! What each wall is made of on this host, in words.

use cofferdam_sandbox::{Enforcement, Guarantee, Guarantees, SandboxError, Wall};

use crate::{
    cgroups::{Cgroups, Controller},
    confined,
    mode::Mode,
    setup::BACKEND,
};

/// What was found by really building a sandbox.
#[derive(Debug)]
pub(crate) struct Probe<'a> {
    /// The Landlock version in force, 0 for none; or why no sandbox can be built.
    pub(crate) built: Result<i32, SandboxError>,
    /// How it was built.
    pub(crate) mode: Mode,
    pub(crate) cgroups: &'a Cgroups,
    /// Whether sandboxes are a user of the host of their own, rather than the user of this process.
    pub(crate) own_user: bool,
}

/// The walls that stand together or not at all, and what they are made of.
const BUILT: [(Wall, &str); 11] = [
    (
        Wall::Filesystem,
        "mount namespace with a root of its own (pivot_root), read-only but for bounded writable places",
    ),
    (Wall::Network, "network namespace with nothing but loopback"),
    (Wall::Processes, "pid and ipc namespaces, masked and read-only /proc"),
    (
        Wall::Privileges,
        "user namespace without a user 0, mapped to one unprivileged user of the host; no capabilities, no_new_privs",
    ),
    (Wall::SystemCalls, "seccomp allow-list"),
    (
        Wall::DiskLimit,
        "one in-memory file system of bounded bytes and inodes for all writable places",
    ),
    (Wall::OpenFileLimit, "RLIMIT_NOFILE of each process"),
    (Wall::OutputLimit, "counted by the host, which kills the command's tree"),
    (Wall::WallTimeLimit, "clock of the launcher, outside of the sandbox"),
    (Wall::IdleTimeLimit, "clock of the host, which has the launcher end the sandbox"),
    (
        Wall::Teardown,
        "the end of the first process ends its pid namespace; the launcher ends it when the host closes or dies, and the \
         kernel when the launcher dies",
    ),
];

/// Returns the report on all walls.
pub(crate) fn guarantees(probe: &Probe<'_>) -> Guarantees {
    let mut walls: Vec<Guarantee> = match &probe.built {
        Ok(landlock_abi) => BUILT
            .into_iter()
            .map(|(wall, mechanism)| (wall, full(mechanism)))
            .chain([
                (Wall::FilesystemSecondWall, landlock(*landlock_abi)),
                (Wall::MemoryLimit, memory(probe.cgroups)),
                (Wall::ProcessLimit, processes(probe.cgroups)),
                (Wall::CpuLimit, cpu(probe.cgroups)),
            ])
            .map(|(wall, enforcement)| Guarantee { wall, enforcement })
            .collect(),
        Err(error) => {
            let (reason, remedy) = missing(error);
            let rest =
                [Wall::FilesystemSecondWall, Wall::MemoryLimit, Wall::ProcessLimit, Wall::CpuLimit];
            BUILT
                .into_iter()
                .map(|(wall, _)| wall)
                .chain(rest)
                .map(|wall| Guarantee {
                    wall,
                    enforcement: Enforcement::Missing {
                        reason: reason.clone(),
                        remedy: remedy.clone(),
                    },
                })
                .collect()
        }
    };
    if probe.own_user {
        for guarantee in &mut walls {
            if let (Wall::Privileges, Enforcement::Full { mechanism }) =
                (guarantee.wall, &mut guarantee.enforcement)
            {
                mechanism.push_str(", another one for each sandbox");
            }
        }
    }
    if let (Ok(landlock_abi), Some(cause)) = (&probe.built, probe.mode.confined) {
        let confined = Confined {
            landlock_abi: *landlock_abi,
            own_user: probe.own_user,
            remedy: confined::remedy_of(cause),
        };
        walls.iter_mut().for_each(|guarantee| confined.replace(guarantee, probe.cgroups));
    } else if probe.built.is_ok() {
        walls.iter_mut().for_each(|guarantee| weaken(guarantee, probe.mode));
    }
    walls.sort_by_key(|guarantee| guarantee.wall);
    Guarantees { backend: BACKEND.to_owned(), walls }
}

/// Replaces what does not stand in a weaker mode.
fn weaken(guarantee: &mut Guarantee, mode: Mode) {
    let (mechanism, gap, remedy) = match guarantee.wall {
        Wall::Privileges if !mode.own_users => (
            "one unprivileged user of the host, another one for each sandbox; no capabilities, no_new_privs",
            "there is no user namespace, so capabilities that a hole in the kernel gave would be those of the host; \
             commands run as a user without a name",
            "allow user namespaces (user.max_user_namespaces, kernel.unprivileged_userns_clone)",
        ),
        Wall::Processes if !mode.own_proc => (
            "pid and ipc namespaces, no /proc",
            "programs that read /proc do not work, and what a command leaves in the background is not found when the \
             command is killed, only when the sandbox ends",
            "start the container with its /proc unmasked (docker: --security-opt systempaths=unconfined)",
        ),
        _ => return,
    };
    guarantee.enforcement = Enforcement::Weak {
        mechanism: mechanism.to_owned(),
        gap: gap.to_owned(),
        remedy: Some(remedy.to_owned()),
    };
}

/// What stands without namespaces.
struct Confined {
    landlock_abi: i32,
    own_user: bool,
    /// What to change for namespaces.
    remedy: String,
}

impl Confined {
    /// Replaces what is not the same with namespaces.
    fn replace(&self, guarantee: &mut Guarantee, cgroups: &Cgroups) {
        let Self { landlock_abi, own_user, remedy } = self;
        let remedy = Some(remedy.clone());
        let weak = |mechanism: String, gap: &str| Enforcement::Weak {
            mechanism,
            gap: gap.to_owned(),
            remedy: remedy.clone(),
        };
        guarantee.enforcement = match guarantee.wall {
            Wall::Filesystem => weak(
                format!(
                    "Landlock version {landlock_abi}: system directories can be read, directories of the sandbox's own written"
                ),
                if *own_user {
                    "commands are among the host's files: whether a path is there, its size, owner and times can be found out"
                } else {
                    "commands are among the host's files: whether a path is there, its size, owner and times can be found out; \
                     of system files that belong to this user, mode and times can be changed"
                },
            ),
            Wall::FilesystemSecondWall => Enforcement::Missing {
                reason: "Landlock is the first wall here, for want of a mount namespace".to_owned(),
                remedy: remedy.clone(),
            },
            Wall::Network => full("seccomp: no socket but connected pairs; Landlock: no TCP, no abstract socket"),
            Wall::Processes => weak(
                "Landlock: no signal to and no look into processes outside; no /proc of processes; seccomp: no System V or \
                 POSIX communication"
                    .to_owned(),
                "the numbers of the host's processes can be found out; programs that read /proc do not work, and what a \
                 command leaves in another session is not found when the command is killed, only when the sandbox ends",
            ),
            Wall::Privileges if *own_user => weak(
                "one unprivileged user of the host, another one for each sandbox; no capabilities, no_new_privs".to_owned(),
                "there is no user namespace, so capabilities that a hole in the kernel gave would be those of the host",
            ),
            Wall::Privileges => weak(
                "the user of this process, without capabilities, no_new_privs; seccomp: no change of files by path".to_owned(),
                "commands are the user of this process: what neither Landlock nor seccomp refuses, they may do as that user",
            ),
            Wall::ProcessLimit => match (cgroups.version(Controller::Processes), own_user) {
                (Ok(version), _) => full(format!("{version} pids")),
                (Err(_), true) => full("RLIMIT_NPROC, counted for the sandbox's own user"),
                (Err(reason), false) => Enforcement::Weak {
                    mechanism: "RLIMIT_NPROC".to_owned(),
                    gap: format!(
                        "bounds the processes of the user together, at some hundreds more than there are when the sandbox starts ({reason})"
                    ),
                    remedy: Some(DELEGATE.to_owned()),
                },
            },
            Wall::DiskLimit => Enforcement::Missing {
                reason: "a directory of the host has no bound of its own: RLIMIT_FSIZE bounds each file, and nothing their sum \
                         and their number"
                    .to_owned(),
                remedy: remedy.clone(),
            },
            Wall::Teardown => weak(
                "a keeper outside of the sandbox's Landlock domain kills all of the domain in one act when the guest ends, the \
                 host closes or dies, or the launcher dies"
                    .to_owned(),
                "if keeper and launcher are killed at one time, what has left its session lives on; if the host process is \
                 killed, the sandbox's files stay until the next start",
            ),
            _ => return,
        };
    }
}

fn full(mechanism: impl Into<String>) -> Enforcement {
    Enforcement::Full { mechanism: mechanism.into() }
}

fn missing(error: &SandboxError) -> (String, Option<String>) {
    match error {
        SandboxError::HostUnable { step, reason, remedy, .. } => {
            (format!("no sandbox can be built: {step}: {reason}"), Some(remedy.clone()))
        }
        error => (format!("no sandbox can be built: {error}"), None),
    }
}

fn landlock(abi: i32) -> Enforcement {
    let weak = |gap: &str| Enforcement::Weak {
        mechanism: format!("Landlock version {abi}"),
        gap: gap.to_owned(),
        remedy: Some("use Linux 6.12 or later".to_owned()),
    };
    match abi {
        0 => Enforcement::Missing {
            reason: "this kernel does not have Landlock, or does not start it".to_owned(),
            remedy: Some(
                "use a kernel with CONFIG_SECURITY_LANDLOCK and `landlock` in its `lsm=` list"
                    .to_owned(),
            ),
        },
        1 | 2 => weak("truncation, device control, abstract sockets and signals are not covered"),
        3 | 4 => weak("device control, abstract sockets and signals are not covered"),
        5 => weak("abstract sockets and signals are not covered"),
        _ => full(format!("Landlock version {abi}")),
    }
}

fn memory(cgroups: &Cgroups) -> Enforcement {
    match cgroups.version(Controller::Memory) {
        Ok(version) => full(format!("{version} memory, in-memory files included")),
        Err(reason) => Enforcement::Weak {
            mechanism: "RLIMIT_AS".to_owned(),
            gap: format!(
                "bounds the address space of each process, not their sum, and no files in memory ({reason})"
            ),
            remedy: Some(DELEGATE.to_owned()),
        },
    }
}

fn processes(cgroups: &Cgroups) -> Enforcement {
    full(match cgroups.version(Controller::Processes) {
        Ok(version) => format!("{version} pids"),
        // From Linux 5.14 on it is counted for each user namespace, and the sandbox has one of its own with one user.
        Err(_) => "RLIMIT_NPROC, counted in the sandbox's user namespace".to_owned(),
    })
}

fn cpu(cgroups: &Cgroups) -> Enforcement {
    match cgroups.version(Controller::Cpu) {
        Ok(version) => full(format!("{version} cpu: quota and weight")),
        Err(reason) => {
            Enforcement::Missing { reason: reason.to_owned(), remedy: Some(DELEGATE.to_owned()) }
        }
    }
}

pub(crate) const DELEGATE: &str = "give this user a cgroup to make others in (systemd: Delegate=yes), and name it with `cgroup_parent`";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mode::Cause,
        report::Step,
        setup::{HostSettings, explain},
    };

    fn render(probe: &Probe<'_>) -> String {
        let lines = guarantees(probe).walls.into_iter().map(|guarantee| {
            let text = match guarantee.enforcement {
                Enforcement::Full { mechanism } => format!("full: {mechanism}"),
                Enforcement::Weak { mechanism, gap, .. } => format!("weak: {mechanism}: {gap}"),
                Enforcement::Missing { reason, remedy } => {
                    format!("missing: {reason}; {}", remedy.unwrap_or_default())
                }
                other => format!("{other:?}"),
            };
            format!("{}: {text}", guarantee.wall)
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_host_without_cgroups_and_with_an_old_landlock_says_so() {
        let probe =
            Probe { built: Ok(3), mode: Mode::FULL, cgroups: &Cgroups::default(), own_user: false };
        insta::assert_snapshot!(render(&probe), @"
        file system: full: mount namespace with a root of its own (pivot_root), read-only but for bounded writable places
        network: full: network namespace with nothing but loopback
        processes: full: pid and ipc namespaces, masked and read-only /proc
        privileges: full: user namespace without a user 0, mapped to one unprivileged user of the host; no capabilities, no_new_privs
        system calls: full: seccomp allow-list
        file system, second wall: weak: Landlock version 3: device control, abstract sockets and signals are not covered
        memory limit: weak: RLIMIT_AS: bounds the address space of each process, not their sum, and no files in memory (not looked for)
        process limit: full: RLIMIT_NPROC, counted in the sandbox's user namespace
        cpu limit: missing: not looked for; give this user a cgroup to make others in (systemd: Delegate=yes), and name it with `cgroup_parent`
        disk limit: full: one in-memory file system of bounded bytes and inodes for all writable places
        open file limit: full: RLIMIT_NOFILE of each process
        output limit: full: counted by the host, which kills the command's tree
        wall time limit: full: clock of the launcher, outside of the sandbox
        idle time limit: full: clock of the host, which has the launcher end the sandbox
        teardown: full: the end of the first process ends its pid namespace; the launcher ends it when the host closes or dies, and the kernel when the launcher dies
        ");
    }

    #[test]
    fn a_host_without_namespaces_says_what_is_left() {
        let mode = Mode::confined(Cause::Asked);
        let cgroups = Cgroups::default();
        let probe = Probe { built: Ok(7), mode, cgroups: &cgroups, own_user: false };
        insta::assert_snapshot!(render(&probe), @"
        file system: weak: Landlock version 7: system directories can be read, directories of the sandbox's own written: commands are among the host's files: whether a path is there, its size, owner and times can be found out; of system files that belong to this user, mode and times can be changed
        network: full: seccomp: no socket but connected pairs; Landlock: no TCP, no abstract socket
        processes: weak: Landlock: no signal to and no look into processes outside; no /proc of processes; seccomp: no System V or POSIX communication: the numbers of the host's processes can be found out; programs that read /proc do not work, and what a command leaves in another session is not found when the command is killed, only when the sandbox ends
        privileges: weak: the user of this process, without capabilities, no_new_privs; seccomp: no change of files by path: commands are the user of this process: what neither Landlock nor seccomp refuses, they may do as that user
        system calls: full: seccomp allow-list
        file system, second wall: missing: Landlock is the first wall here, for want of a mount namespace; make the backend without `LinuxBackend::without_namespaces`
        memory limit: weak: RLIMIT_AS: bounds the address space of each process, not their sum, and no files in memory (not looked for)
        process limit: weak: RLIMIT_NPROC: bounds the processes of the user together, at some hundreds more than there are when the sandbox starts (not looked for)
        cpu limit: missing: not looked for; give this user a cgroup to make others in (systemd: Delegate=yes), and name it with `cgroup_parent`
        disk limit: missing: a directory of the host has no bound of its own: RLIMIT_FSIZE bounds each file, and nothing their sum and their number; make the backend without `LinuxBackend::without_namespaces`
        open file limit: full: RLIMIT_NOFILE of each process
        output limit: full: counted by the host, which kills the command's tree
        wall time limit: full: clock of the launcher, outside of the sandbox
        idle time limit: full: clock of the host, which has the launcher end the sandbox
        teardown: weak: a keeper outside of the sandbox's Landlock domain kills all of the domain in one act when the guest ends, the host closes or dies, or the launcher dies: if keeper and launcher are killed at one time, what has left its session lives on; if the host process is killed, the sandbox's files stay until the next start
        ");
        let root = render(&Probe { own_user: true, ..probe });
        let differs: Vec<_> = root
            .lines()
            .filter(|line| line.starts_with("pr") && !line.starts_with("processes"))
            .collect();
        insta::assert_snapshot!(differs.join("\n"), @"
        privileges: weak: one unprivileged user of the host, another one for each sandbox; no capabilities, no_new_privs: there is no user namespace, so capabilities that a hole in the kernel gave would be those of the host
        process limit: full: RLIMIT_NPROC, counted for the sandbox's own user
        ");
    }

    #[test]
    fn a_host_that_forbids_user_namespaces_has_no_wall() {
        let host = HostSettings { unprivileged_userns_clone: Some(0), ..HostSettings::default() };
        let built = Err(explain(Step::CreateNamespaces, libc::EPERM, "", host));
        let probe =
            Probe { built, mode: Mode::FULL, cgroups: &Cgroups::default(), own_user: false };
        assert_eq!(guarantees(&probe).weaknesses().count(), 15);
        let first = render(&probe).lines().next().map(str::to_owned);
        insta::assert_snapshot!(first.unwrap_or_default(), @"file system: missing: no sandbox can be built: create namespaces: Operation not permitted (os error 1); set kernel.unprivileged_userns_clone=1, run as root, or use another backend, such as docker");
    }
}
