//! [`Mode`]: what a host does not let a sandbox have, and how it is built without.
//!
//! A backend begins with everything. When a step fails in a way that going without its object would cure, the next
//! sandboxes are built without it, and [`crate::LinuxBackend`] reports the wall that it belongs to as weaker. Whoever
//! demanded that wall is refused.

use crate::{report::Step, setup::HostSettings};

/// How sandboxes are built here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mode {
    /// In a user namespace of their own.
    pub(crate) own_users: bool,
    /// With a `/proc` of their own.
    pub(crate) own_proc: bool,
    /// Why they have no namespaces at all, if they have none: behind Landlock and a stricter filter only.
    pub(crate) confined: Option<Cause>,
}

/// Why sandboxes have no namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The caller wants none.
    Asked,
    /// This host lets nobody make them, or use them: the step that failed, and its error number.
    Refused(Step, i32),
}

impl Mode {
    /// With everything.
    pub(crate) const FULL: Self = Self { own_users: true, own_proc: true, confined: None };

    /// Without namespaces.
    pub(crate) const fn confined(cause: Cause) -> Self {
        Self { own_users: false, own_proc: false, confined: Some(cause) }
    }

    /// Returns the mode that does without what has failed, if there is one.
    ///
    /// `other_user` says whether this process may become a user of the host that nothing else uses, without which a
    /// sandbox outside of a user namespace would be the user of this process.
    pub(crate) fn without(
        self,
        (step, errno): (Step, i32),
        other_user: bool,
        host: HostSettings,
    ) -> Option<Self> {
        let denied = matches!(errno, libc::EPERM | libc::EACCES);
        let unknown = matches!(errno, libc::ENOSYS | libc::EINVAL);
        // Else it is a limit that was reached, which passes.
        let none_allowed = errno == libc::ENOSPC && host.max_user_namespaces == Some(0);
        if self.confined.is_some() {
            return None;
        }
        match step {
            Step::CreateNamespaces | Step::MapUser
                if self.own_users && other_user && (denied || unknown || none_allowed) =>
            {
                Some(Self { own_users: false, ..self })
            }
            // A container's profile and AppArmor let a namespace be made and then deny the first mount in it.
            Step::CreateNamespaces | Step::MapUser if denied || unknown || none_allowed => {
                Some(Self::confined(Cause::Refused(step, errno)))
            }
            Step::PrivateMounts if denied => Some(Self::confined(Cause::Refused(step, errno))),
            Step::MountProc if self.own_proc && denied => Some(Self { own_proc: false, ..self }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_gone_without_only_where_that_cures_it() {
        let plain = HostSettings::default();
        let none = HostSettings { max_user_namespaces: Some(0), ..plain };
        let no_users = Mode { own_users: false, ..Mode::FULL };
        let no_proc = Mode { own_proc: false, ..Mode::FULL };
        let confined = |step, errno| Some(Mode::confined(Cause::Refused(step, errno)));
        let asked = Mode::confined(Cause::Asked);
        for (mode, step, errno, root, host, expect) in [
            (Mode::FULL, Step::MountProc, libc::EPERM, false, plain, Some(no_proc)),
            (Mode::FULL, Step::MountProc, libc::ENOSYS, false, plain, None),
            (no_proc, Step::MountProc, libc::EPERM, false, plain, None),
            (Mode::FULL, Step::MapUser, libc::EACCES, true, plain, Some(no_users)),
            (
                Mode::FULL,
                Step::MapUser,
                libc::EACCES,
                false,
                plain,
                confined(Step::MapUser, libc::EACCES),
            ),
            (
                Mode::FULL,
                Step::PrivateMounts,
                libc::EACCES,
                false,
                plain,
                confined(Step::PrivateMounts, libc::EACCES),
            ),
            (Mode::FULL, Step::PrivateMounts, libc::EINVAL, false, plain, None),
            (Mode::FULL, Step::CreateNamespaces, libc::ENOSPC, false, plain, None),
            (
                Mode::FULL,
                Step::CreateNamespaces,
                libc::ENOSPC,
                false,
                none,
                confined(Step::CreateNamespaces, libc::ENOSPC),
            ),
            (asked, Step::CreateNamespaces, libc::EPERM, false, plain, None),
            (Mode::FULL, Step::CreateNamespaces, libc::EINVAL, true, plain, Some(no_users)),
            (Mode::FULL, Step::CreateNamespaces, libc::ENOSPC, true, plain, None),
            (Mode::FULL, Step::CreateNamespaces, libc::ENOSPC, true, none, Some(no_users)),
            (Mode::FULL, Step::CreateNamespaces, libc::EAGAIN, true, none, None),
            (
                no_users,
                Step::CreateNamespaces,
                libc::EPERM,
                true,
                plain,
                confined(Step::CreateNamespaces, libc::EPERM),
            ),
            (Mode::FULL, Step::PivotRoot, libc::EPERM, true, plain, None),
            (Mode::FULL, Step::Seccomp, libc::ENOSYS, true, plain, None),
        ] {
            assert_eq!(
                mode.without((step, errno), root, host),
                expect,
                "{mode:?} {step:?} {errno} {root}"
            );
        }
    }
}
