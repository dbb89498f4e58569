//! The read-only part of a root: an in-memory file system with read-only trees of the host, made at a staging directory
//! in a mount namespace that nobody else sees, and made the root of it by `pivot_root`.

use std::{
    ffi::CStr,
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::symlink},
    },
    path::Path,
};

use crate::{
    home,
    plan::{Entry, HostTree, Root},
    report::Step,
    stack,
    step::{Failure, Steps},
    sys::{self, Side, mount},
};

/// Builds the root and moves into it.
pub(crate) fn build(root: &Root, steps: &Steps) -> Result<(), Failure> {
    steps.run(Step::PrivateMounts, b"", || {
        mount::mount_at(c"none", c"/", None, mount::MS_REC | mount::MS_PRIVATE, None)
    })?;
    let mut trees = open_trees(root, steps)?;
    trees.extend(stack::open_trees(root, steps)?);
    mount_root(root, steps)?;
    make_entries(root, steps)?;
    attach_trees(trees, steps)?;
    if root.own_proc {
        mount_empty_proc(steps)?;
    }
    steps.run(Step::SealRoot, b"", || {
        let attributes =
            mount::MOUNT_ATTR_RDONLY | mount::MOUNT_ATTR_NOSUID | mount::MOUNT_ATTR_NODEV;
        mount::restrict_mount(c".", attributes)
    })?;
    steps.run(Step::PivotRoot, b"", || {
        mount::pivot_root_here()?;
        // The old root now lies over the new one: take it off, with all that is mounted in it.
        mount::detach(c".")?;
        std::env::set_current_dir("/")
    })
}

/// Clones all trees of the host.
fn open_trees<'a>(root: &'a Root, steps: &Steps) -> Result<Vec<(&'a HostTree, OwnedFd)>, Failure> {
    let opened = root.trees.iter().filter(|tree| !stack::has(tree)).map(|tree| {
        let opened =
            steps.run(Step::OpenTree, tree.source.to_bytes(), || mount::open_tree(&tree.source))?;
        Ok((tree, opened))
    });
    opened.collect()
}

/// Mounts the file system of the entries and goes there.
fn mount_root(root: &Root, steps: &Steps) -> Result<(), Failure> {
    steps.run(Step::MountRoot, root.staging.to_bytes(), || {
        // Nobody writes to it but the launcher, whose plans are bounded.
        let (kind, flags) = (Some(c"tmpfs"), mount::MS_NOSUID | mount::MS_NODEV);
        mount::mount_at(c"tmpfs", &root.staging, kind, flags, Some(c"mode=0755"))?;
        std::env::set_current_dir(path(&root.staging))
    })
}

fn make_entries(root: &Root, steps: &Steps) -> Result<(), Failure> {
    for entry in &root.entries {
        let object = match entry {
            Entry::Directory(path) | Entry::Link(path, _) | Entry::File(path, _) => path.to_bytes(),
        };
        steps.run(Step::MakeEntry, object, || match entry {
            Entry::Directory(at) => fs::create_dir(path(at)),
            Entry::Link(at, target) => symlink(path(target), path(at)),
            Entry::File(at, content) => fs::write(path(at), content),
        })?;
    }
    Ok(())
}

fn attach_trees(trees: Vec<(&HostTree, OwnedFd)>, steps: &Steps) -> Result<(), Failure> {
    for (tree, opened) in trees {
        steps.run(Step::AttachTree, tree.source.to_bytes(), || {
            let devices =
                if tree.devices { mount::MOUNT_ATTR_NOEXEC } else { mount::MOUNT_ATTR_NODEV };
            let attributes = mount::MOUNT_ATTR_RDONLY | mount::MOUNT_ATTR_NOSUID | devices;
            mount::restrict_tree(opened.as_fd(), attributes)?;
            mount::attach_tree(opened.as_fd(), &tree.target)
        })?;
    }
    Ok(())
}

/// Mounts a `/proc` in which no process is, and never will be.
///
/// A sandbox may mount its own only where one is seen already, and cannot take off what its template has. So what lies
/// below its own is not the host's, but that of a pid namespace that has ended.
fn mount_empty_proc(steps: &Steps) -> Result<(), Failure> {
    steps.run(Step::MountProc, b"", || match sys::clone_process(sys::CLONE_NEWPID, None)? {
        Side::Child => {
            let flags = mount::MS_NOSUID | mount::MS_NODEV | mount::MS_NOEXEC | mount::MS_RDONLY;
            let mounted = mount::mount_at(c"proc", c"proc", Some(c"proc"), flags, None);
            sys::exit_now(mounted.err().and_then(|error| error.raw_os_error()).unwrap_or(0))
        }
        Side::Parent(pid, _) => home::exit_error(sys::wait_for(pid)?),
    })
}

pub(crate) fn path(text: &CStr) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(text.to_bytes()))
}
