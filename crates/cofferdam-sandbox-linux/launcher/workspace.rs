//! The workspace: a directory of the bounded file system, or an overlay file system whose upper directory that is, over a
//! base that many sandboxes share; and the descriptor by which the host sees it.
//!
//! The launcher opens the base while it still sees the host's files, as a mount that is attached nowhere, read-only, and, where
//! the sandbox is another user than the base's owner, with the owners mapped. The child attaches it, stacks, and takes it off
//! again: the stack keeps it, and no path leads to it.

use std::{
    ffi::{CStr, CString},
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    },
};

use crate::{
    plan::{Base, Plan},
    report::{self, Step},
    root::path,
    step::{Failure, Steps},
    sys::{self, Side, message, mount},
};

/// What the root of a workspace may have of its base's mode: no set-id bits.
const ROOT_MODE: u32 = 0o1777;

/// Opens the base as the child will attach it; the caller sees the host's files.
pub(crate) fn open_base(plan: &Plan, steps: &Steps) -> Result<Option<OwnedFd>, Failure> {
    let Some(Base { directory, owner }) = &plan.base else { return Ok(None) };
    let object = directory.to_bytes();
    let base = steps.run(Step::OpenBase, object, || {
        // What is mounted below it is not part of it.
        let base = mount::open_mount(directory)?;
        let attributes =
            mount::MOUNT_ATTR_RDONLY | mount::MOUNT_ATTR_NOSUID | mount::MOUNT_ATTR_NODEV;
        mount::restrict_tree(base.as_fd(), attributes)?;
        Ok(base)
    })?;
    if let &Some((user, group)) = owner {
        let identity = &plan.identity;
        steps.run(Step::MapBase, object, || {
            let users = user_namespace(
                &format!("{user} {} 1", identity.outer_user),
                &format!("{group} {} 1", identity.outer_group),
            )?;
            mount::map_owners(base.as_fd(), users.as_fd())
        })?;
    }
    Ok(Some(base))
}

/// Returns a user namespace with these maps, in which no process is.
fn user_namespace(users: &str, groups: &str) -> io::Result<OwnedFd> {
    let (own, other) = sys::socket_pair()?;
    // As for the first process of a sandbox: else its entries in `/proc` are not ours to open.
    sys::set_dumpable(true)?;
    let cloned = sys::clone_process(sys::CLONE_NEWUSER, None);
    if let Ok(Side::Child) = cloned {
        drop(own);
        // It lasts until the launcher has what it wants, or dies.
        let _ = File::from(other).read(&mut [0]);
        sys::exit_now(0);
    }
    sys::set_dumpable(false)?;
    let Side::Parent(pid, _) = cloned? else { return Err(io::ErrorKind::Other.into()) };
    drop(other);
    let write = |name: &str, map: &str| fs::write(format!("/proc/{pid}/{name}"), map);
    let namespace = write("uid_map", users)
        .and_then(|()| write("gid_map", groups))
        .and_then(|()| File::open(format!("/proc/{pid}/ns/user")));
    drop(own);
    sys::wait_for(pid)?;
    namespace.map(OwnedFd::from)
}

/// Makes the workspace at `place` of what lies in `own`, a directory of the bounded file system that is empty and belongs to
/// `owner`, if that is not this process's user. Returns what the host may see of it.
pub(crate) fn mount(
    place: &CStr,
    own: &CStr,
    base: Option<&OwnedFd>,
    owner: Option<(u32, u32)>,
    steps: &Steps,
) -> Result<OwnedFd, Failure> {
    let Some(base) = base else {
        return steps.run(Step::MountScratch, place.to_bytes(), || {
            mount::mount_at(own, place, None, mount::MS_BIND, None)?;
            open_directory(own)
        });
    };
    let part = |name: &str| CString::new(format!("{}/{name}", own.to_string_lossy()));
    steps.run(Step::MountWorkspace, place.to_bytes(), || {
        let (lower, upper, work) = (part("lower")?, part("upper")?, part("work")?);
        for directory in [&lower, &upper, &work] {
            fs::create_dir(path(directory))?;
        }
        if let Some((user, group)) = owner {
            chown(path(&upper), Some(user), Some(group))?;
        }
        // The root of a stack is what its upper directory is, not what the base's root is.
        let mode = File::from(base.try_clone()?).metadata()?.mode() & ROOT_MODE;
        fs::set_permissions(path(&upper), fs::Permissions::from_mode(mode))?;
        // Without attributes the kernel stacks as well, and then fails when a directory is replaced.
        mount::try_attribute(&work)?;
        mount::attach_tree(base.as_fd(), &lower)?;
        let shown = |text: &CStr| text.to_string_lossy().into_owned();
        // What a hostile base could say with attributes is not followed: neither redirects nor files without data. One device
        // number for all files, so that programs that stay on one file system see all of it.
        let options = CString::new(format!(
            "lowerdir={},upperdir={},workdir={},userxattr,redirect_dir=nofollow,metacopy=off,index=off,xino=on",
            shown(&lower),
            shown(&upper),
            shown(&work),
        ))?;
        let flags = mount::MS_NOSUID | mount::MS_NODEV;
        mount::mount_at(c"overlay", place, Some(c"overlay"), flags, Some(&options))?;
        mount::detach(&lower)?;
        fs::remove_dir(path(&lower))?;
        open_directory(&upper)
    })
}

/// Opens a directory as a place to start from, which lets nobody read or write it that may not.
fn open_directory(directory: &CStr) -> io::Result<OwnedFd> {
    const O_PATH_DIRECTORY: i32 = 0o10_000_000 | 0o200_000;
    let opened = File::options().read(true).custom_flags(O_PATH_DIRECTORY).open(path(directory))?;
    Ok(opened.into())
}

/// Hands the host what it may see of the workspace.
pub(crate) fn tell(
    report: &File,
    plan: &Plan,
    workspace: &OwnedFd,
    steps: &Steps,
) -> Result<(), Failure> {
    let kind = if plan.base.is_some() { report::UPPER } else { report::WHOLE };
    let mut message = [0; report::HEADER_LENGTH];
    message[..2].copy_from_slice(&[report::WORKSPACE, kind]);
    steps.run(Step::Descriptors, b"of the workspace", || {
        message::send_descriptor(report.as_fd(), &message, workspace.as_fd())
    })
}
