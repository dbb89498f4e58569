//! What a sandbox's container is made of: the request to the engine, as a pure function of the specification.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig,
    ResourcesUlimits,
};
use cofferdam_core::{NetworkAccess, SandboxLimits};
use cofferdam_sandbox::SandboxSpec;

use crate::prepare::GUEST_PATH;

/// The home directory of commands.
pub(crate) const HOME: &str = "/home/sandbox";
/// The working directory of commands, and the root of all file operations.
pub(crate) const WORKSPACE: &str = "/workspace";

/// The writable places, each an in-memory file system: its path, its mode, and its share of the disk limit in sixteenths.
///
/// An engine cannot put one file system at four places, so each has a part of the bound, and all have no more than it.
const WRITABLE: [(&str, &str, u64); 4] =
    [(WORKSPACE, "0755", 12), ("/tmp", "1777", 2), (HOME, "0700", 1), ("/dev/shm", "1777", 1)];

/// Parts of the system that tell of the host, or change it. The engine passes over what a kernel does not have.
const MASKED: [&str; 26] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/bus",
    "/proc/cmdline",
    "/proc/config.gz",
    "/proc/diskstats",
    "/proc/driver",
    "/proc/fs",
    "/proc/interrupts",
    "/proc/iomem",
    "/proc/ioports",
    "/proc/irq",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/modules",
    "/proc/partitions",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
    // Devices, firmware, power, and the control groups themselves.
    "/sys",
];

const READ_ONLY: [&str; 1] = ["/proc/sys"];

/// What is asked of the engine, beside the specification.
#[derive(Debug, Clone)]
pub(crate) struct Plan<'a> {
    pub(crate) spec: &'a SandboxSpec,
    /// The image with the guest in it.
    pub(crate) image: &'a str,
    /// Places where the image wants storage of its own.
    pub(crate) image_volumes: &'a [String],
    /// Whether the engine is Podman, which knows other options of in-memory file systems.
    pub(crate) podman: bool,
    /// User and group of everything inside.
    pub(crate) user: u32,
    /// The security option that names the seccomp profile.
    pub(crate) seccomp: Option<&'a str>,
    pub(crate) labels: HashMap<String, String>,
}

/// Returns the container to ask for.
pub(crate) fn body(plan: &Plan<'_>) -> ContainerCreateBody {
    let closed = plan.spec.network == NetworkAccess::None;
    let name = "sandbox".to_owned();
    ContainerCreateBody {
        image: Some(plan.image.to_owned()),
        entrypoint: Some(vec![GUEST_PATH.to_owned()]),
        user: Some(format!("{0}:{0}", plan.user)),
        working_dir: Some("/".to_owned()),
        // An engine refuses a name for a container that shares the host's network, and so its name.
        hostname: closed.then_some(name),
        labels: Some(plan.labels.clone()),
        // The guest's stream. When it is cut (the host process has died), standard input ends, and the guest with it.
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(true),
        stdin_once: Some(true),
        tty: Some(false),
        // The image's own would start a process of its choice now and then.
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        host_config: Some(host_config(plan)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(plan: &Plan<'_>) -> HostConfig {
    let limits = &plan.spec.limits;
    let closed = plan.spec.network == NetworkAccess::None;
    let strings = |list: &[&str]| Some(list.iter().map(|text| (*text).to_owned()).collect());
    HostConfig {
        network_mode: Some(if closed { "none" } else { "host" }.to_owned()),
        // The engine would write the name servers and search domains of its host into the container.
        dns: closed.then(|| vec!["127.0.0.1".to_owned()]),
        dns_search: closed.then(|| vec![".".to_owned()]),
        // A namespace of its own, without the engine's own `/dev/shm`, whose number of files has no bound.
        ipc_mode: Some("none".to_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        cap_drop: strings(&["ALL"]),
        security_opt: Some(security_options(plan)),
        readonly_rootfs: Some(true),
        tmpfs: Some(writable_places(plan)),
        masked_paths: strings(&MASKED),
        readonly_paths: strings(&READ_ONLY),
        memory: Some(signed(limits.memory_bytes)),
        // Memory and swap together: no swap.
        memory_swap: Some(signed(limits.memory_bytes)),
        // The guest is one more.
        pids_limit: Some(i64::from(limits.processes) + 1),
        nano_cpus: limits.cpu_millis.map(|millis| i64::from(millis) * 1_000_000),
        cpu_shares: limits.cpu_weight.map(cpu_shares),
        ulimits: Some(ulimits(plan)),
        // The guest is the first process, and waits for orphans itself.
        init: Some(false),
        // What the guest writes is for its host alone, and must not fill a disk.
        log_config: Some(HostConfigLogConfig {
            typ: Some("none".to_owned()),
            config: Some(HashMap::new()),
        }),
        // So that nothing is left if the host process dies: the engine removes it when the guest ends.
        auto_remove: Some(true),
        ..HostConfig::default()
    }
}

fn security_options(plan: &Plan<'_>) -> Vec<String> {
    let mut options = vec!["no-new-privileges".to_owned()];
    options.extend(plan.seccomp.map(str::to_owned));
    if plan.podman {
        // It passes over the field of the request.
        options.push(format!("mask={}", MASKED.join(":")));
    }
    options
}

fn ulimits(plan: &Plan<'_>) -> Vec<ResourcesUlimits> {
    let limits = &plan.spec.limits;
    let mut list = vec![
        ulimit("nofile", limits.open_files.into()),
        ulimit("core", 0),
        // No file can claim to be larger than the disk, also not a sparse one that takes no space.
        ulimit("fsize", signed(limits.disk_bytes)),
    ];
    if plan.podman {
        // Unless it is told one, it sets a million, which not every root may. It is counted for the sandbox's own user.
        list.push(ulimit("nproc", i64::from(limits.processes) + 1));
    }
    list
}

fn writable_places(plan: &Plan<'_>) -> HashMap<String, String> {
    let SandboxLimits { disk_bytes, disk_inodes, .. } = plan.spec.limits;
    let user = plan.user;
    let mut places: HashMap<String, String> = WRITABLE
        .into_iter()
        .map(|(path, mode, sixteenths)| {
            // A size of zero would mean none, and the root of each place is a file too.
            let size = (disk_bytes / 16 * sixteenths).max(4096);
            let inodes = (disk_inodes / 16 * sixteenths).max(1) + 1;
            let more = if plan.podman {
                // Owned by the container's user.
                "U".to_owned()
            } else {
                format!("nr_inodes={inodes},uid={user},gid={user}")
            };
            (path.to_owned(), format!("rw,exec,nosuid,nodev,size={size},mode={mode},{more}"))
        })
        .collect();
    // The engine would make a directory of its own disk for each, without a bound; Podman has file systems in memory at two
    // more places of a read-only root.
    let of_podman: &[&str] = if plan.podman { &["/run", "/var/tmp"] } else { &[] };
    for path in plan.image_volumes.iter().map(String::as_str).chain(of_podman.iter().copied()) {
        places
            .entry(path.to_owned())
            .or_insert_with(|| "ro,noexec,nosuid,nodev,size=4096,mode=0555".to_owned());
    }
    places
}

/// The engine counts in shares of which 1024 are usual, the specification in weights of which 100 are.
fn cpu_shares(weight: u32) -> i64 {
    (i64::from(weight) * 1024 / 100).clamp(2, 262_144)
}

fn ulimit(name: &str, value: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(value), hard: Some(value) }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Returns what each command gets: four variables, then those of the image, then those of the specification.
pub(crate) fn environment(image: &[String], spec: &SandboxSpec) -> BTreeMap<String, String> {
    let defaults = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("LANG", "C.UTF-8"),
        ("TERM", "xterm"),
    ];
    let mut environment: BTreeMap<_, _> =
        defaults.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let of_image = image.iter().filter_map(|variable| variable.split_once('='));
    environment.extend(of_image.map(|(name, value)| (name.to_owned(), value.to_owned())));
    // The image's is that of another user.
    environment.insert("HOME".to_owned(), HOME.to_owned());
    environment.extend(spec.environment.clone());
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body_of(spec: &SandboxSpec) -> serde_json::Value {
        let plan = Plan {
            spec,
            image: "sha256:image",
            image_volumes: &["/data".to_owned(), "/tmp".to_owned()],
            podman: false,
            user: 70_000,
            seccomp: Some("seccomp={}"),
            labels: HashMap::from([("label".to_owned(), "value".to_owned())]),
        };
        serde_json::to_value(body(&plan)).expect("JSON")
    }

    #[test]
    fn a_default_container() {
        insta::assert_json_snapshot!(body_of(&SandboxSpec::default()));
    }

    #[test]
    fn what_is_opened_and_asked_for() {
        let mut spec = SandboxSpec { network: NetworkAccess::Host, ..SandboxSpec::default() };
        (spec.limits.cpu_millis, spec.limits.cpu_weight) = (Some(1500), Some(50));
        let host = &body_of(&spec)["HostConfig"];
        assert_eq!(host["NetworkMode"], "host");
        assert_eq!(host["NanoCpus"], 1_500_000_000_i64);
        assert_eq!(host["CpuShares"], 512);
        assert_eq!(body_of(&spec)["Hostname"], serde_json::Value::Null);
    }

    #[test]
    fn the_writable_places_together_have_no_more_than_the_limit() {
        assert_eq!(WRITABLE.iter().map(|(_, _, sixteenths)| sixteenths).sum::<u64>(), 16);
    }

    #[test]
    fn the_specification_wins_over_the_image_and_the_home_over_both_defaults() {
        let image = ["PATH=/opt/bin".to_owned(), "HOME=/root".to_owned(), "LANG=de".to_owned()];
        let mut spec = SandboxSpec::default();
        spec.environment.insert("LANG".to_owned(), "C".to_owned());
        let environment = environment(&image, &spec);
        let pairs: Vec<_> = environment.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(pairs, ["HOME=/home/sandbox", "LANG=C", "PATH=/opt/bin", "TERM=xterm"]);
    }
}
