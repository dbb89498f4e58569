//! The root of the sandbox: one bounded in-memory file system, sealed but for the writable places, with read-only trees
//! of the host.
//!
//! All of it is made in the child's own mount namespace, at a staging directory of the host that nobody else sees
//! covered, and becomes the root by `pivot_root`.

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::symlink},
    },
    path::Path,
};

use crate::{
    plan::{Entry, HostTree, Plan, Scratch},
    report::Step,
    step::{Failure, Steps},
    sys,
};

/// An empty directory that hides others; an entry of every plan.
const EMPTY: &CStr = c"var/empty";

/// Clones all trees of the plan, as the user that the launcher was started as.
pub(crate) fn open_trees<'a>(
    plan: &'a Plan,
    steps: &Steps,
) -> Result<Vec<(&'a HostTree, OwnedFd)>, Failure> {
    plan.trees
        .iter()
        .map(|tree| {
            let opened = steps
                .run(Step::OpenTree, tree.source.to_bytes(), || sys::open_tree(&tree.source))?;
            Ok((tree, opened))
        })
        .collect()
}

/// Builds the root and moves into it.
pub(crate) fn build(
    plan: &Plan,
    steps: &Steps,
    trees: Vec<(&HostTree, OwnedFd)>,
) -> Result<(), Failure> {
    const SAFE: u64 = sys::MS_NOSUID | sys::MS_NODEV;
    steps.run(Step::PrivateMounts, b"", || {
        sys::mount_at(c"none", c"/", None, sys::MS_REC | sys::MS_PRIVATE, None)
    })?;
    steps.run(Step::MountRoot, plan.staging.to_bytes(), || {
        let Scratch { bytes, inodes, .. } = plan.scratch;
        let data = CString::new(format!("size={bytes},nr_inodes={inodes},mode=0755"))?;
        sys::mount_at(c"tmpfs", &plan.staging, Some(c"tmpfs"), SAFE, Some(&data))?;
        std::env::set_current_dir(path(&plan.staging))
    })?;
    for entry in &plan.entries {
        let object = match entry {
            Entry::Directory(path) | Entry::Link(path, _) | Entry::File(path, _) => path.to_bytes(),
        };
        steps.run(Step::MakeEntry, object, || make_entry(entry))?;
    }
    for (tree, opened) in trees {
        steps.run(Step::AttachTree, tree.source.to_bytes(), || {
            let devices = if tree.devices { sys::MOUNT_ATTR_NOEXEC } else { sys::MOUNT_ATTR_NODEV };
            let attributes = sys::MOUNT_ATTR_RDONLY | sys::MOUNT_ATTR_NOSUID | devices;
            sys::restrict_tree(opened.as_fd(), attributes)?;
            sys::attach_tree(opened.as_fd(), &tree.target)
        })?;
    }
    // The writable places are mounts of their own, of the same bounded file system, and stay as they are when the root
    // is sealed.
    for place in &plan.scratch.directories {
        steps.run(Step::MountScratch, place.to_bytes(), || {
            sys::mount_at(place, place, None, sys::MS_BIND, None)
        })?;
    }
    // Before the empty directory is bound, since a bound directory takes the attributes of its mount along.
    steps.run(Step::SealRoot, b"", || {
        let attributes = sys::MOUNT_ATTR_RDONLY | sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV;
        sys::restrict_mount(c".", attributes)
    })?;
    steps.run(Step::MountProc, b"", || {
        let flags = SAFE | sys::MS_NOEXEC | sys::MS_RDONLY;
        sys::mount_at(c"proc", c"proc", Some(c"proc"), flags, None)
    })?;
    steps.run(Step::MountTerminals, b"", || {
        let data = c"newinstance,ptmxmode=0666,mode=0600";
        let flags = sys::MS_NOSUID | sys::MS_NOEXEC;
        sys::mount_at(c"devpts", c"dev/pts", Some(c"devpts"), flags, Some(data))
    })?;
    mask(plan, steps)?;
    steps.run(Step::PivotRoot, b"", || {
        sys::pivot_root_here()?;
        // The old root now lies over the new one: take it off, with all that is mounted in it.
        sys::detach(c".")?;
        std::env::set_current_dir("/")
    })
}

fn make_entry(entry: &Entry) -> io::Result<()> {
    match entry {
        Entry::Directory(at) => fs::create_dir(path(at)),
        Entry::Link(at, target) => symlink(path(target), path(at)),
        Entry::File(at, content) => fs::write(path(at), content),
    }
}

fn mask(plan: &Plan, steps: &Steps) -> Result<(), Failure> {
    for masked in &plan.masks {
        steps.run(Step::MaskPath, masked.to_bytes(), || {
            let source = match fs::symlink_metadata(path(masked)) {
                Ok(found) if found.is_dir() => EMPTY,
                Ok(_) => c"dev/null",
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            sys::mount_at(source, masked, None, sys::MS_BIND, None)
        })?;
    }
    Ok(())
}

fn path(text: &CStr) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(text.to_bytes()))
}
