//! Control groups: limits for a sandbox as a whole, on hosts with version 2, version 1, or both.
//!
//! Found once from `/proc/self/mountinfo` and `/proc/self/cgroup`; a controller is looked for on version 2 first, then
//! on version 1, so that a hybrid host works, where the one has the controllers and the other is empty. A controller
//! for which no writable place is found is a named absence, not an error: the caller falls back or refuses.
//!
//! A sandbox's directory is named `cofferdam-<pid>.<start time>-<id>` after the process that made it, so that a later
//! process can tell the leftovers of a dead one and [`Cgroups::sweep`] them. Killing is not done with cgroups: the
//! end of the pid namespace's first process ends all others, on every host.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use cofferdam_core::SandboxLimits;

/// Prefix of the directories of all sandboxes.
const PREFIX: &str = "cofferdam-";

/// A controller that bounds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Controller {
    Memory,
    Processes,
    Cpu,
}

impl Controller {
    const ALL: [Self; 3] = [Self::Memory, Self::Processes, Self::Cpu];

    /// The kernel's name.
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Processes => "pids",
            Self::Cpu => "cpu",
        }
    }
}

/// Which interface a controller is driven by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "cgroup v1",
            Self::V2 => "cgroup v2",
        })
    }
}

/// Where directories of a controller are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) version: Version,
    pub(crate) directory: PathBuf,
}

/// The controllers that can be used here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cgroups {
    places: BTreeMap<Controller, Place>,
    absences: BTreeMap<Controller, String>,
}

/// The cgroups of one sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) directories: Vec<PathBuf>,
    joins: Vec<PathBuf>,
    pub(crate) oom_counter: Option<PathBuf>,
}

impl Cgroups {
    /// Looks at this host.
    pub(crate) fn detect(parent: Option<&Path>) -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        // Missing where the kernel has no cgroups at all.
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Ok(Self::find(&mounts, &own, parent))
    }

    fn find(mounts: &str, own: &str, parent: Option<&Path>) -> Self {
        let mut found = Self::default();
        for controller in Controller::ALL {
            match find_place(controller, mounts, own, parent) {
                Ok(place) => drop(found.places.insert(controller, place)),
                Err(reason) => drop(found.absences.insert(controller, reason)),
            }
        }
        found
    }

    /// Returns the interface that drives a controller, or why there is none.
    pub(crate) fn version(&self, controller: Controller) -> Result<Version, &str> {
        match self.places.get(&controller) {
            Some(place) => Ok(place.version),
            None => Err(self.absences.get(&controller).map_or("not looked for", String::as_str)),
        }
    }

    /// Makes the cgroups of a sandbox with its limits; on failure nothing is left.
    pub(crate) fn create(&self, name: &str, limits: &SandboxLimits) -> io::Result<Group> {
        let mut group = Group::default();
        match self.fill(name, limits, &mut group) {
            Ok(()) => Ok(group),
            Err(error) => {
                group.remove()?;
                Err(error)
            }
        }
    }

    fn fill(&self, name: &str, limits: &SandboxLimits, group: &mut Group) -> io::Result<()> {
        for (&controller, place) in &self.places {
            // The cpu controller costs a move between groups, so it is used only when it has something to do.
            if controller == Controller::Cpu && limits.cpu_millis.is_none() {
                continue;
            }
            let directory = place.directory.join(name);
            // With version 2, and where version 1 mounts controllers together, they share a directory.
            if !group.directories.contains(&directory) {
                fs::create_dir(&directory)?;
                group.directories.push(directory.clone());
                // `tasks` takes a single thread, which is much cheaper than a process; version 2 has no such file.
                group.joins.push(directory.join(match place.version {
                    Version::V1 => "tasks",
                    Version::V2 => "cgroup.procs",
                }));
            }
            for (file, value) in settings(controller, place.version, limits) {
                write_setting(&directory, file, &value)?;
            }
            if controller == Controller::Memory {
                let file = match place.version {
                    Version::V1 => "memory.oom_control",
                    Version::V2 => "memory.events",
                };
                group.oom_counter = Some(directory.join(file));
            }
        }
        Ok(())
    }

    /// Removes the directories of processes that are dead, and returns how many there were.
    ///
    /// A directory in which something lives cannot be removed, so a mistake (such as a process id of another pid
    /// namespace that shares this cgroup) harms nobody.
    pub(crate) fn sweep(&self) -> usize {
        let mut directories: Vec<_> = self.places.values().map(|place| &place.directory).collect();
        directories.sort();
        directories.dedup();
        let mut removed = 0;
        for directory in directories {
            let Ok(entries) = fs::read_dir(directory) else { continue };
            for entry in entries.filter_map(Result::ok) {
                let name = entry.file_name();
                let dead =
                    name.to_str().is_some_and(|name| owner_of(name).is_some_and(|o| !o.lives()));
                if dead && fs::remove_dir(entry.path()).is_ok() {
                    removed += 1;
                }
            }
        }
        removed
    }
}

#[cfg(test)]
impl Cgroups {
    /// Returns the directories of a process's sandboxes.
    pub(crate) fn owned_by(&self, owner: Owner) -> Vec<PathBuf> {
        let prefix = owner.directory_name("");
        self.places
            .values()
            .flat_map(|place| fs::read_dir(&place.directory).into_iter().flatten())
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix))
            })
            .collect()
    }
}

impl Group {
    /// Returns the files to which the sandbox's first process writes itself.
    pub(crate) fn joins(&self) -> Vec<Vec<u8>> {
        self.joins.iter().map(|join| path_bytes(join)).collect()
    }

    /// Returns how often the kernel has killed something in the sandbox for memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let Some(file) = &self.oom_counter else { return 0 };
        fs::read_to_string(file)
            .ok()
            .and_then(|text| {
                text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
            })
            .unwrap_or(0)
    }

    /// Removes what is still there.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for directory in &self.directories {
            match fs::remove_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.directories.iter().map(|d| d.display().to_string()).collect();
        write!(f, "cgroups {}", names.join(", "))
    }
}

/// Who made a directory: process id and start time, which together are never used twice until the next boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pid: u32,
    start_time: u64,
}

impl Owner {
    /// Returns this process.
    pub(crate) fn current() -> Self {
        let pid = std::process::id();
        Self { pid, start_time: start_time(pid).unwrap_or(0) }
    }

    /// Returns the name for the directories of a sandbox.
    pub(crate) fn directory_name(self, sandbox: &str) -> String {
        format!("{PREFIX}{}.{}-{sandbox}", self.pid, self.start_time)
    }

    fn lives(self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }
}

fn owner_of(name: &str) -> Option<Owner> {
    let (owner, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let (pid, start_time) = owner.split_once('.')?;
    Some(Owner { pid: pid.parse().ok()?, start_time: start_time.parse().ok()? })
}

/// Returns field 22 of `/proc/<pid>/stat`. The second field is a name that may hold spaces and parentheses.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The files that make the limit, and whether they may be missing.
fn settings(
    controller: Controller,
    version: Version,
    limits: &SandboxLimits,
) -> Vec<(Setting, String)> {
    use Setting::{IfThere, Must};
    const PERIOD_US: u64 = 100_000;
    let quota = u64::from(limits.cpu_millis.unwrap_or(1000)) * (PERIOD_US / 1000);
    match (controller, version) {
        (Controller::Memory, Version::V1) => vec![
            (Must("memory.limit_in_bytes"), limits.memory_bytes.to_string()),
            // Without swap accounting the file is missing, and swap is not counted.
            (IfThere("memory.memsw.limit_in_bytes"), limits.memory_bytes.to_string()),
        ],
        (Controller::Memory, Version::V2) => vec![
            (Must("memory.max"), limits.memory_bytes.to_string()),
            (IfThere("memory.swap.max"), "0".to_owned()),
        ],
        (Controller::Processes, _) => {
            vec![(Must("pids.max"), process_slots(limits).to_string())]
        }
        (Controller::Cpu, Version::V1) => vec![
            (Must("cpu.cfs_period_us"), PERIOD_US.to_string()),
            (Must("cpu.cfs_quota_us"), quota.to_string()),
        ],
        (Controller::Cpu, Version::V2) => {
            vec![(Must("cpu.max"), format!("{quota} {PERIOD_US}"))]
        }
    }
}

/// Returns the limit of processes with the one that the guest itself is.
pub(crate) fn process_slots(limits: &SandboxLimits) -> u64 {
    u64::from(limits.processes) + 1
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setting {
    Must(&'static str),
    IfThere(&'static str),
}

impl AsRef<Path> for Setting {
    fn as_ref(&self) -> &Path {
        match self {
            Self::Must(name) | Self::IfThere(name) => Path::new(name),
        }
    }
}

fn write_setting(directory: &Path, file: Setting, value: &str) -> io::Result<()> {
    let path = directory.join(file);
    // `create` would make a file where there is no controller; a cgroup file is there already.
    let written = fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut opened| io::Write::write_all(&mut opened, value.as_bytes()));
    match (file, written) {
        (Setting::IfThere(_), Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        (_, written) => written,
    }
}

/// Finds the place of a controller, or says why there is none.
fn find_place(
    controller: Controller,
    mounts: &str,
    own: &str,
    parent: Option<&Path>,
) -> Result<Place, String> {
    let mut reasons = Vec::new();
    for mount in mounts.lines().filter_map(Mount::parse) {
        let (version, own_path) = if mount.kind == "cgroup2" {
            (Version::V2, own_cgroup(own, None))
        } else if mount.kind == "cgroup" && mount.options.split(',').any(|o| o == controller.name())
        {
            (Version::V1, own_cgroup(own, Some(controller.name())))
        } else {
            continue;
        };
        let Some(own_path) = own_path else { continue };
        let top = Path::new(mount.point);
        // A mount may show only a part of the tree, as in a container.
        let own_path = own_path.strip_prefix(mount.root.trim_end_matches('/')).unwrap_or(own_path);
        let own_directory = top.join(own_path.trim_start_matches('/'));
        let candidates = match (parent, version) {
            (Some(parent), _) => vec![top.join(parent.strip_prefix("/").unwrap_or(parent))],
            (None, Version::V1) => vec![own_directory],
            // A group with processes cannot hand controllers to children, unless it is the root: so beside our own.
            (None, Version::V2) => {
                let beside = own_directory.parent().filter(|beside| beside.starts_with(top));
                std::iter::once(own_directory.clone()).chain(beside.map(Path::to_owned)).collect()
            }
        };
        for directory in candidates {
            match usable(controller, version, &directory) {
                Ok(()) => return Ok(Place { version, directory }),
                Err(reason) => {
                    reasons.push(format!("{version} at {}: {reason}", directory.display()))
                }
            }
        }
    }
    Err(if reasons.is_empty() {
        format!("no cgroup with the {} controller is mounted", controller.name())
    } else {
        reasons.join("; ")
    })
}

/// Checks that directories with this controller can be made in `directory`.
fn usable(controller: Controller, version: Version, directory: &Path) -> Result<(), String> {
    if version == Version::V2 {
        let has = |file: &str| {
            fs::read_to_string(directory.join(file)).is_ok_and(|list| {
                list.split_ascii_whitespace().any(|name| name == controller.name())
            })
        };
        if !has("cgroup.controllers") {
            return Err(format!("the {} controller is not available", controller.name()));
        }
        if !has("cgroup.subtree_control") {
            // Fails where the group has processes of its own, or is not ours.
            fs::OpenOptions::new()
                .write(true)
                .open(directory.join("cgroup.subtree_control"))
                .and_then(|mut file| {
                    io::Write::write_all(&mut file, format!("+{}", controller.name()).as_bytes())
                })
                .map_err(|error| {
                    format!("the {} controller cannot be handed down: {error}", controller.name())
                })?;
        }
    }
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    for path in [directory.to_owned(), directory.join("cgroup.procs")] {
        let access = if path == directory { access } else { rustix::fs::Access::WRITE_OK };
        rustix::fs::accessat(rustix::fs::CWD, &path, access, rustix::fs::AtFlags::EACCESS)
            .map_err(|error| format!("{} is not writable: {error}", path.display()))?;
    }
    Ok(())
}

/// Returns this process's path in a hierarchy: of version 2, or of the one with a controller.
fn own_cgroup<'a>(own: &'a str, controller: Option<&str>) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let matches = match controller {
            None => controllers.is_empty(),
            Some(controller) => controllers.split(',').any(|name| name == controller),
        };
        matches.then_some(path)
    })
}

/// The fields of a line of `mountinfo` that matter here.
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let mut after = after.split(' ');
        Some(Self {
            root: before.next()?,
            point: before.next()?,
            kind: after.next()?,
            options: after.nth(1)?,
        })
    }
}

/// Returns a path as bytes.
pub(crate) fn path_bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that stands for cgroup mounts.
    struct Host(tempfile::TempDir);

    impl Host {
        fn new(files: &[(&str, &str)]) -> Self {
            let host = Self(tempfile::tempdir().expect("a directory"));
            for (path, content) in files {
                let path = host.0.path().join(path);
                fs::create_dir_all(path.parent().expect("a parent")).expect("make");
                fs::write(path, content).expect("write");
            }
            host
        }

        fn find(&self, mounts: &str, own: &str, parent: Option<&str>) -> String {
            let mounts = mounts.replace("$", &self.0.path().display().to_string());
            let found = Cgroups::find(&mounts, own, parent.map(Path::new));
            let lines = Controller::ALL.map(|controller| {
                let place = found.places.get(&controller);
                let text = place.map_or_else(
                    || found.absences[&controller].clone(),
                    |place| format!("{} at {}", place.version, place.directory.display()),
                );
                format!("{}: {text}", controller.name())
            });
            lines.join("\n").replace(&self.0.path().display().to_string(), "$")
        }
    }

    const V1: &str = "33 31 0:1 / $/memory rw - cgroup cgroup rw,memory\n\
                      34 31 0:2 / $/pids rw - cgroup cgroup rw,pids\n\
                      35 31 0:3 / $/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";
    const V2: &str = "41 31 0:4 / $ rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn version_1_is_used_below_the_own_group() {
        let host = Host::new(&[
            ("memory/jobs/a/cgroup.procs", ""),
            ("pids/cgroup.procs", ""),
            ("cpu/cgroup.procs", ""),
        ]);
        insta::assert_snapshot!(
            host.find(V1, "4:memory:/jobs/a\n8:pids:/\n1:cpu,cpuacct:/\n", None),
            @r"
        memory: cgroup v1 at $/memory/jobs/a
        pids: cgroup v1 at $/pids/
        cpu: cgroup v1 at $/cpu/
        "
        );
    }

    #[test]
    fn a_hybrid_host_has_its_limits_on_version_1() {
        let host = Host::new(&[
            ("memory/cgroup.procs", ""),
            ("pids/cgroup.procs", ""),
            ("cpu/cgroup.procs", ""),
            ("unified/cgroup.controllers", "hugetlb\n"),
            ("unified/cgroup.procs", ""),
        ]);
        let mounts = format!("41 31 0:4 / $/unified rw - cgroup2 cgroup2 rw\n{V1}");
        insta::assert_snapshot!(
            host.find(&mounts, "4:memory:/\n8:pids:/\n1:cpu:/\n0::/\n", None),
            @r"
        memory: cgroup v1 at $/memory/
        pids: cgroup v1 at $/pids/
        cpu: cgroup v1 at $/cpu/
        "
        );
    }

    #[test]
    fn version_2_is_used_beside_the_own_group() {
        let host = Host::new(&[
            ("user/app/cgroup.controllers", "cpu memory pids\n"),
            ("user/app/cgroup.subtree_control", "memory pids cpu\n"),
            ("user/app/cgroup.procs", ""),
            ("user/app/shell/cgroup.controllers", "memory pids\n"),
        ]);
        insta::assert_snapshot!(
            host.find(V2, "0::/user/app/shell\n", None),
            @r"
        memory: cgroup v2 at $/user/app
        pids: cgroup v2 at $/user/app
        cpu: cgroup v2 at $/user/app
        "
        );
    }

    #[test]
    fn absences_are_named() {
        insta::assert_snapshot!(Host::new(&[]).find("", "", None), @r"
        memory: no cgroup with the memory controller is mounted
        pids: no cgroup with the pids controller is mounted
        cpu: no cgroup with the cpu controller is mounted
        ");
        let host = Host::new(&[("memory/cgroup.procs", ""), ("cpu/cgroup.procs", "")]);
        insta::assert_snapshot!(
            host.find(V1, "4:memory:/gone\n8:pids:/\n1:cpu:/\n", Some("/given")),
            @r"
        memory: cgroup v1 at $/memory/given: $/memory/given is not writable: No such file or directory (os error 2)
        pids: cgroup v1 at $/pids/given: $/pids/given is not writable: No such file or directory (os error 2)
        cpu: cgroup v1 at $/cpu/given: $/cpu/given is not writable: No such file or directory (os error 2)
        "
        );
    }

    #[test]
    fn the_settings_of_each_version_are_exact() {
        let limits = SandboxLimits {
            memory_bytes: 1 << 20,
            processes: 7,
            cpu_millis: Some(1500),
            ..SandboxLimits::default()
        };
        let lines: Vec<String> = [Version::V1, Version::V2]
            .into_iter()
            .flat_map(|version| Controller::ALL.map(|controller| (controller, version)))
            .flat_map(|(controller, version)| settings(controller, version, &limits))
            .map(|(file, value)| format!("{file:?} = {value}"))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        Must("memory.limit_in_bytes") = 1048576
        IfThere("memory.memsw.limit_in_bytes") = 1048576
        Must("pids.max") = 8
        Must("cpu.cfs_period_us") = 100000
        Must("cpu.cfs_quota_us") = 150000
        Must("memory.max") = 1048576
        IfThere("memory.swap.max") = 0
        Must("pids.max") = 8
        Must("cpu.max") = 150000 100000
        "#);
    }

    #[test]
    fn a_group_that_cannot_be_made_leaves_nothing() {
        let host = Host::new(&[("memory/cgroup.procs", "")]);
        let place = Place { version: Version::V1, directory: host.0.path().join("memory") };
        let cgroups =
            Cgroups { places: [(Controller::Memory, place)].into(), absences: BTreeMap::new() };
        // A plain directory has no limit files.
        let error = cgroups.create("cofferdam-1.1-x", &SandboxLimits::default());
        assert_eq!(error.expect_err("no files").kind(), io::ErrorKind::NotFound);
        assert!(!host.0.path().join("memory/cofferdam-1.1-x").exists());
    }

    #[test]
    fn sweeping_removes_the_directories_of_the_dead_only() {
        let host = Host::new(&[("memory/cgroup.procs", "")]);
        let own = Owner::current();
        let dead = Owner { start_time: own.start_time + 1, ..own };
        let names = [own.directory_name("a"), dead.directory_name("b"), "other".to_owned()];
        for name in &names {
            fs::create_dir(host.0.path().join("memory").join(name)).expect("make");
        }
        let place = Place { version: Version::V1, directory: host.0.path().join("memory") };
        let cgroups =
            Cgroups { places: [(Controller::Memory, place)].into(), absences: BTreeMap::new() };
        assert_eq!(cgroups.sweep(), 1);
        let left = names.map(|name| host.0.path().join("memory").join(name).exists());
        assert_eq!(left, [true, false, true]);
    }
}
