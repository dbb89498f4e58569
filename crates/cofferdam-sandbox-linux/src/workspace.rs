//! The workspace from outside: what it begins with, and the directory by which the host sees it.

use std::{
    ffi::CString,
    fs, io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    sync::{Arc, Mutex, PoisonError},
};

use cofferdam_sandbox::{
    HostLayer, HostLayerKind, HostWorkspace, LossReason, SandboxError, SandboxSpec,
};

use crate::{
    identity::Facts,
    plan::{Base, Identity},
    report::{self, Step},
    setup::{describe, host},
};

/// Inodes that an overlay file system takes for itself: its upper and work directories, and the one that the kernel makes in
/// the latter.
pub(crate) const OVERLAY_INODES: u64 = 3;

/// Returns the base of a sandbox, if it has one.
///
/// # Errors
///
/// [`SandboxError::Base`] if it is no directory that can be looked at.
pub(crate) fn base(
    spec: &SandboxSpec,
    facts: &Facts,
    identity: &Identity,
) -> Result<Option<Base>, SandboxError> {
    let Some(base) = &spec.base else { return Ok(None) };
    let refuse = |reason: String| SandboxError::Base {
        directory: base.directory.display().to_string(),
        reason,
        remedy: "name a directory that this user may read".to_owned(),
    };
    let found = fs::metadata(&base.directory).map_err(|error| refuse(error.to_string()))?;
    if !found.is_dir() {
        return Err(refuse("it is not a directory".to_owned()));
    }
    let directory = CString::new(base.directory.as_os_str().as_bytes())
        .map_err(|_| refuse("no path has a zero byte".to_owned()))?;
    let others = (identity.outer_user, identity.outer_group) != (facts.user, facts.group);
    Ok(Some(Base { directory, owner: others.then_some((facts.user, facts.group)) }))
}

/// Returns the error for a set-up step that failed because of the base; `None` if it did not.
pub(crate) fn refused(spec: &SandboxSpec, failed: Option<(Step, i32)>) -> Option<SandboxError> {
    let (base, (step, errno)) = (spec.base.as_ref()?, failed?);
    if !matches!(step, Step::OpenBase | Step::MapBase | Step::MountWorkspace)
        || matches!(errno, libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE)
    {
        return None;
    }
    Some(SandboxError::Base {
        directory: base.directory.display().to_string(),
        reason: format!("{} failed: {}", describe(step), io::Error::from_raw_os_error(errno)),
        remedy: remedy(step, errno).to_owned(),
    })
}

/// Returns what to do about a step that failed because of the base.
pub(crate) fn remedy(step: Step, errno: i32) -> &'static str {
    let denied = matches!(errno, libc::EPERM | libc::EACCES);
    match step {
        Step::OpenBase if errno == libc::EACCES => "give this user the right to read it",
        Step::OpenBase if errno == libc::EINVAL => {
            "name a directory below which nothing is mounted"
        }
        Step::MapBase if denied => {
            "run as an ordinary user, or with CAP_SYS_ADMIN outside of a container, since root shows a base as another user's"
        }
        Step::MapBase => {
            "keep bases on a file system that shows files as another user's (ext4, xfs, btrfs; tmpfs from Linux 6.3)"
        }
        Step::MountWorkspace if errno == libc::EOPNOTSUPP => {
            "use Linux 6.6 or later, whose in-memory file system has attributes of users"
        }
        Step::MountWorkspace if denied => {
            "allow overlay file systems in user namespaces (a security module or an older kernel forbids them), or use Linux \
             5.11 or later"
        }
        _ => {
            "use a kernel with overlay file systems, 5.19 or later as root; or begin with an empty workspace and fill it"
        }
    }
}

/// The directory of a workspace, which the set-up hands out once.
#[derive(Debug, Clone, Default)]
pub(crate) struct LinuxWorkspace(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
enum Held {
    /// The set-up has not come so far.
    #[default]
    Nothing,
    Layer(OwnedFd, HostLayerKind),
    /// It was let go, so that the memory of its files is free.
    Released,
}

impl LinuxWorkspace {
    /// Takes what came with a report of the kind [`report::WORKSPACE`].
    pub(crate) fn take(&self, code: u8, directory: OwnedFd) {
        let kind = match code {
            report::UPPER => HostLayerKind::Upper,
            report::WHOLE => HostLayerKind::Whole,
            _ => return,
        };
        let mut held = self.held();
        if matches!(*held, Held::Nothing) {
            *held = Held::Layer(directory, kind);
        }
    }

    /// Lets go of it, for ever.
    pub(crate) fn release(&self) {
        *self.held() = Held::Released;
    }

    /// Returns whether the set-up handed something out.
    pub(crate) fn is_there(&self) -> bool {
        !matches!(*self.held(), Held::Nothing)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        // Every state that a panic could leave is one of these.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HostWorkspace for LinuxWorkspace {
    fn layer(&self) -> Result<HostLayer, SandboxError> {
        match &*self.held() {
            Held::Layer(directory, kind) => {
                let directory = directory.try_clone().map_err(host("open the workspace"))?;
                Ok(HostLayer { directory, kind: *kind })
            }
            Held::Nothing | Held::Released => {
                Err(SandboxError::Lost { reason: LossReason::Closed })
            }
        }
    }
}
