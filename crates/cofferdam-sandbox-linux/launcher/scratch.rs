//! What each sandbox mounts for itself, inside its copy of the template: the writable places, `/proc`, terminals, masks.

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::{fd::OwnedFd, unix::fs::chown},
};

use crate::{
    plan::{Plan, Scratch},
    report::Step,
    root::path,
    step::{Failure, Steps},
    sys::{self, mount},
    workspace,
};

/// An empty directory that hides others; an entry of every plan.
const EMPTY: &CStr = c"var/empty";

const SAFE: std::ffi::c_ulong = mount::MS_NOSUID | mount::MS_NODEV;

/// Mounts everything; the working directory is the root. Returns what the host may see of the workspace.
pub(crate) fn mount(
    plan: &Plan,
    base: Option<&OwnedFd>,
    steps: &Steps,
) -> Result<OwnedFd, Failure> {
    let workspace = mount_places(plan, base, steps)?;
    if plan.root.own_proc {
        steps.run(Step::MountProc, b"", || {
            let flags = SAFE | mount::MS_NOEXEC | mount::MS_RDONLY;
            mount::mount_at(c"proc", c"proc", Some(c"proc"), flags, None)
        })?;
    }
    steps.run(Step::MountTerminals, b"", || {
        let data = c"newinstance,ptmxmode=0666,mode=0600";
        let flags = mount::MS_NOSUID | mount::MS_NOEXEC;
        mount::mount_at(c"devpts", c"dev/pts", Some(c"devpts"), flags, Some(data))
    })?;
    mask(plan, steps)?;
    Ok(workspace)
}

/// Mounts one bounded file system and shows a directory of it at each writable place.
///
/// It is mounted over the last place, and there its own directory is mounted over it, so that its root is nowhere to be
/// seen, and no mount has to be taken off again: that would wait for all processors.
fn mount_places(plan: &Plan, base: Option<&OwnedFd>, steps: &Steps) -> Result<OwnedFd, Failure> {
    let Scratch { bytes, inodes, directories } = &plan.scratch;
    // In a user namespace this process is its user already. Without one it is still root, and stays it for a while.
    let owner = (!plan.own_users).then_some((plan.identity.outer_user, plan.identity.outer_group));
    let none = || Err(io::Error::from_raw_os_error(sys::EINVAL));
    let (Some(last), Some(workspace)) = (directories.last(), directories.first()) else {
        return steps.run(Step::MountScratch, b"", none);
    };
    steps.run(Step::MountScratch, last.to_bytes(), || {
        let data = CString::new(format!("size={bytes},nr_inodes={inodes},mode=0755"))?;
        mount::mount_at(c"tmpfs", last, Some(c"tmpfs"), SAFE, Some(&data))
    })?;
    let own = |number: usize, place: &CStr| {
        steps.run(Step::MountScratch, place.to_bytes(), || {
            let directory = CString::new(format!("{}/{number}", last.to_string_lossy()))?;
            fs::create_dir(path(&directory))?;
            if let Some((user, group)) = owner {
                chown(path(&directory), Some(user), Some(group))?;
            }
            Ok(directory)
        })
    };
    let seen = workspace::mount(workspace, &own(0, workspace)?, base, owner, steps)?;
    for (number, place) in directories.iter().enumerate().skip(1) {
        let directory = own(number, place)?;
        steps.run(Step::MountScratch, place.to_bytes(), || {
            mount::mount_at(&directory, place, None, mount::MS_BIND, None)
        })?;
    }
    Ok(seen)
}

fn mask(plan: &Plan, steps: &Steps) -> Result<(), Failure> {
    for masked in &plan.masks {
        steps.run(Step::MaskPath, masked.to_bytes(), || {
            let source = if masked.to_bytes().ends_with(b"/") { EMPTY } else { c"dev/null" };
            match mount::mount_at(source, masked, None, mount::MS_BIND, None) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => is_missing(masked, error),
                hidden => hidden,
            }
        })?;
    }
    Ok(())
}

/// Succeeds if it is the path that is not there, and not what would hide it.
fn is_missing(masked: &CStr, error: io::Error) -> io::Result<()> {
    match fs::symlink_metadata(path(masked)) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}
