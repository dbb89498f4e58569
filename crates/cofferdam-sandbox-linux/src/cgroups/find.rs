//! Finds where cgroups can be made.
//!
//! A process is in exactly one group of version 2, so one directory is chosen there for all its controllers: that with
//! the most of them. A controller that it lacks is looked for on version 1, which makes hybrid hosts work. Where no
//! directory of version 2 has a controller, one is still taken for killing and freezing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Cgroups, Controller, Place, Version, settings::write_file};

/// The kernel's name of what stops processes on version 1.
const FREEZER: &str = "freezer";

/// Finds what can be used, from the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`.
pub(super) fn find(mounts: &str, own: &str, parent: Option<&Path>) -> Cgroups {
    let mounts: Vec<Mount> = mounts.lines().filter_map(Mount::parse).collect();
    let unified = Unified::choose(&mounts, own, parent);
    let mut found = Cgroups { tree: unified.directory.clone(), ..Cgroups::default() };
    if found.tree.is_none() {
        let places = mounts.iter().filter(|mount| mount.is_v1_with(FREEZER));
        found.freezer = places
            .filter_map(|mount| v1_place(mount, FREEZER, own, parent, &mut Vec::new()))
            .map(|place| place.directory)
            .next();
    }
    for controller in Controller::ALL {
        let mut reasons = Vec::new();
        let place = unified.place(controller, &mut reasons).or_else(|| {
            mounts
                .iter()
                .filter(|mount| mount.is_v1_with(controller.name()))
                .find_map(|mount| v1_place(mount, controller.name(), own, parent, &mut reasons))
        });
        match place {
            Some(place) => drop(found.places.insert(controller, place)),
            None if reasons.is_empty() => {
                let reason =
                    format!("no cgroup with the {} controller is shown here", controller.name());
                found.absences.insert(controller, reason);
            }
            None => drop(found.absences.insert(controller, reasons.join("; "))),
        }
    }
    found
}

/// The directory of version 2 that was chosen, and what was found on the way.
#[derive(Default)]
struct Unified {
    directory: Option<PathBuf>,
    controllers: Vec<Controller>,
    /// Why a controller is not to be had.
    reasons: Vec<(Controller, String)>,
}

impl Unified {
    fn choose(mounts: &[Mount], own: &str, parent: Option<&Path>) -> Self {
        let mut best = Self::default();
        let mut reasons = Vec::new();
        for directory in mounts
            .iter()
            .filter(|mount| mount.kind == "cgroup2")
            .flat_map(|mount| v2_candidates(mount, own, parent))
        {
            let mut tell = |controller, reason: &str| {
                let reason = format!("{} at {}: {reason}", Version::V2, directory.display());
                reasons.push((controller, reason));
            };
            if let Err(reason) = writable(&directory) {
                Controller::ALL.into_iter().for_each(|controller| tell(controller, &reason));
                continue;
            }
            let controllers: Vec<_> = Controller::ALL
                .into_iter()
                .filter(|&controller| match hand_down(controller, &directory) {
                    Ok(()) => true,
                    Err(reason) => {
                        tell(controller, &reason);
                        false
                    }
                })
                .collect();
            if best.directory.is_none() || controllers.len() > best.controllers.len() {
                best.directory = Some(directory);
                best.controllers = controllers;
            }
        }
        best.reasons = reasons;
        best
    }

    fn place(&self, controller: Controller, reasons: &mut Vec<String>) -> Option<Place> {
        if self.controllers.contains(&controller) {
            let directory = self.directory.clone()?;
            return Some(Place { version: Version::V2, directory });
        }
        let of_this = self.reasons.iter().filter(|(about, _)| *about == controller);
        reasons.extend(of_this.map(|(_, reason)| reason.clone()));
        None
    }
}

/// The directories of version 2 in which groups may be made, the best first.
fn v2_candidates(mount: &Mount, own: &str, parent: Option<&Path>) -> Vec<PathBuf> {
    if let Some(parent) = parent {
        return vec![mount.below(parent)];
    }
    let Some(own_directory) = own_cgroup(own, None).and_then(|path| mount.show(path)) else {
        return Vec::new();
    };
    // A group with processes cannot hand controllers to children, unless it is the root: so beside our own.
    let beside = own_directory.parent().filter(|beside| beside.starts_with(&mount.point));
    std::iter::once(own_directory.clone()).chain(beside.map(Path::to_owned)).collect()
}

fn v1_place(
    mount: &Mount,
    controller: &str,
    own: &str,
    parent: Option<&Path>,
    reasons: &mut Vec<String>,
) -> Option<Place> {
    let directory = match parent {
        Some(parent) => mount.below(parent),
        None => mount.show(own_cgroup(own, Some(controller))?)?,
    };
    match writable(&directory) {
        Ok(()) => Some(Place { version: Version::V1, directory }),
        Err(reason) => {
            reasons.push(format!("{} at {}: {reason}", Version::V1, directory.display()));
            None
        }
    }
}

/// Sees to it that a directory of version 2 gives a controller to those that are made in it.
fn hand_down(controller: Controller, directory: &Path) -> Result<(), String> {
    let name = controller.name();
    let lists = |file: &str| {
        fs::read_to_string(directory.join(file))
            .is_ok_and(|list| list.split_ascii_whitespace().any(|listed| listed == name))
    };
    if !lists("cgroup.controllers") {
        return Err(format!("the {name} controller is not available"));
    }
    if lists("cgroup.subtree_control") {
        return Ok(());
    }
    // Fails where the group has processes of its own, or is not ours.
    write_file(&directory.join("cgroup.subtree_control"), &format!("+{name}"))
        .map_err(|error| format!("the {name} controller cannot be handed down: {error}"))
}

/// Checks that directories can be made in a directory, and processes moved below it.
fn writable(directory: &Path) -> Result<(), String> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    let procs = directory.join("cgroup.procs");
    for (path, access) in
        [(directory, Access::WRITE_OK | Access::EXEC_OK), (&procs, Access::WRITE_OK)]
    {
        accessat(CWD, path, access, AtFlags::EACCESS)
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
struct Mount {
    root: String,
    point: PathBuf,
    kind: String,
    options: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let mut after = after.split(' ');
        Some(Self {
            root: unescape(before.next()?),
            point: unescape(before.next()?).into(),
            kind: after.next()?.to_owned(),
            options: after.nth(1)?.to_owned(),
        })
    }

    fn is_v1_with(&self, controller: &str) -> bool {
        self.kind == "cgroup" && self.options.split(',').any(|option| option == controller)
    }

    /// Returns where a path from the top of the hierarchy is, if the mount shows the top.
    fn below(&self, path: &Path) -> PathBuf {
        // Joining an empty path would add a slash.
        self.point.components().chain(path.strip_prefix("/").unwrap_or(path).components()).collect()
    }

    /// Returns where the mount shows a path of `/proc/self/cgroup`. A mount may show only a part of the tree, as in a
    /// container; a path that leads above the part, as after a move between namespaces, is not shown at all.
    fn show(&self, path: &str) -> Option<PathBuf> {
        let shown = Path::new(path);
        let shown = shown.strip_prefix(&self.root).unwrap_or(shown);
        let leads_up = shown.components().any(|part| part == std::path::Component::ParentDir);
        (!leads_up).then(|| self.below(shown))
    }
}

/// Undoes the escapes of `mountinfo`: a backslash and three octal digits for blanks and backslashes.
fn unescape(field: &str) -> String {
    let mut pieces = field.split('\\');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        match piece.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                text.push(char::from(byte));
                text.push_str(&piece[3..]);
            }
            None => {
                text.push('\\');
                text.push_str(piece);
            }
        }
    }
    text
}
