//! Control groups: limits for a sandbox as a whole, on hosts with version 2, version 1, or both.
//!
//! - `find`: where directories can be made, from `/proc/self/mountinfo` and `/proc/self/cgroup`.
//! - `settings`: which files make which limit, for each version.
//! - `group`: the directories of one sandbox; killing, freezing and removing them.
//! - `owner`: who made a directory, so that a later process can tell the leftovers of a dead one.
//! - `sweep`: ends and removes those leftovers.
//!
//! A host is one of four kinds, and each is a driver that differs only in what was found:
//!
//! | Host | Limits | Killing and freezing as a whole |
//! |---|---|---|
//! | version 2 | one directory with all controllers | the same directory |
//! | version 1 | one directory for each controller | killed one process after another; one directory that freezes |
//! | hybrid | version 1 directories | a version 2 directory, which needs no controller for that |
//! | none | resource limits of each process, set elsewhere | the end of the pid namespace |
//!
//! A controller for which no writable place is found is a named absence, not an error: the caller falls back or refuses.
//!
//! Nothing is killed as a group when memory runs out (`memory.oom.group`): the guest would go with the command, and the
//! workspace with the guest.

mod find;
mod group;
mod owner;
mod settings;
mod sweep;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use cofferdam_core::SandboxLimits;

pub(crate) use self::{group::Group, owner::Owner, settings::process_slots};

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

/// What can be used of this host's cgroups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cgroups {
    places: BTreeMap<Controller, Place>,
    absences: BTreeMap<Controller, String>,
    /// A directory of version 2, with or without controllers.
    tree: Option<PathBuf>,
    /// A directory of version 1 in which groups are made that stop their processes, where there is none of version 2.
    freezer: Option<PathBuf>,
}

impl Cgroups {
    /// Looks at this host.
    pub(crate) fn detect(parent: Option<&Path>) -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        // Missing where the kernel has no cgroups at all.
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Ok(find::find(&mounts, &own, parent))
    }

    /// Returns the interface that drives a controller, or why there is none.
    pub(crate) fn version(&self, controller: Controller) -> Result<Version, &str> {
        match self.places.get(&controller) {
            Some(place) => Ok(place.version),
            None => Err(self.absences.get(&controller).map_or("not looked for", String::as_str)),
        }
    }

    /// Returns whether there is a version 2 directory for the processes of a sandbox, whoever drives its limits.
    #[cfg(test)]
    pub(crate) fn has_tree(&self) -> bool {
        self.tree.is_some()
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
        if let Some(tree) = &self.tree {
            group.make_tree(tree.join(name))?;
        }
        if let Some(freezer) = &self.freezer {
            group.make_freezer(freezer.join(name))?;
        }
        for (&controller, place) in &self.places {
            // The cpu controller costs a move between groups, so it is used only when it has something to do.
            if controller == Controller::Cpu
                && limits.cpu_millis.is_none()
                && limits.cpu_weight.is_none()
            {
                continue;
            }
            let directory = place.directory.join(name);
            match place.version {
                Version::V1 => group.make_v1(&directory)?,
                Version::V2 => group.make_tree(directory.clone())?,
            }
            settings::apply(controller, place.version, limits, &directory)?;
            if controller == Controller::Memory {
                group.count_memory_kills(place.version, &directory);
            }
        }
        Ok(())
    }

    /// The directories in which those of sandboxes are made.
    fn parents(&self) -> Vec<&Path> {
        let places = self.places.values().map(|place| place.directory.as_path());
        let mut parents: Vec<_> =
            places.chain(self.tree.as_deref()).chain(self.freezer.as_deref()).collect();
        parents.sort_unstable();
        parents.dedup();
        parents
    }
}

#[cfg(test)]
impl Cgroups {
    /// Returns the directories of a process's sandboxes.
    pub(crate) fn owned_by(&self, owner: Owner) -> Vec<PathBuf> {
        let prefix = owner.directory_name("");
        self.parents()
            .into_iter()
            .flat_map(|parent| fs::read_dir(parent).into_iter().flatten())
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix))
            })
            .collect()
    }
}

/// Returns a path as bytes.
pub(crate) fn path_bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

#[cfg(test)]
mod tests;
