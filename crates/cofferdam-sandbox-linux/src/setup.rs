//! Turns a failed set-up step into an error that says what to change.

use std::{fs, io};

use cofferdam_sandbox::{SandboxError, Wall};

use crate::{report::Step, workspace};

/// The backend's name.
pub(crate) const BACKEND: &str = "linux";

/// The settings of the host that forbid sandboxes most often; `None` if the host does not have the setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct HostSettings {
    /// `kernel.unprivileged_userns_clone` (Debian, Arch): 0 forbids.
    pub(crate) unprivileged_userns_clone: Option<u64>,
    /// `user.max_user_namespaces`: 0 forbids.
    pub(crate) max_user_namespaces: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns` (Ubuntu): 1 forbids what a sandbox does in its namespace.
    pub(crate) apparmor_restrict: Option<u64>,
}

impl HostSettings {
    pub(crate) fn read() -> Self {
        let read =
            |path: &str| fs::read_to_string(format!("/proc/sys/{path}")).ok()?.trim().parse().ok();
        Self {
            unprivileged_userns_clone: read("kernel/unprivileged_userns_clone"),
            max_user_namespaces: read("user/max_user_namespaces"),
            apparmor_restrict: read("kernel/apparmor_restrict_unprivileged_userns"),
        }
    }
}

const OTHER_BACKEND: &str = "or use another backend, such as docker";

/// Returns what a step does, for people.
pub(crate) fn describe(step: Step) -> &'static str {
    match step {
        Step::ReadPlan => "hand the plan to the launcher",
        Step::DropGroups => "give up supplementary groups",
        Step::CreateNamespaces => "create namespaces",
        Step::StartKeeper => "start the keeper",
        Step::MakePlaces => "make the sandbox's directories",
        Step::MapUser => "map the sandbox's user",
        Step::JoinCgroup => "join the cgroup",
        Step::CgroupNamespace => "create a cgroup namespace",
        Step::SetHostname => "set the host name",
        Step::Loopback => "bring loopback up",
        Step::StackLayers => "stack the layers of the image",
        Step::OpenTree => "open a system directory",
        Step::BecomeUser => "become the sandbox's user",
        Step::PrivateMounts => "make mounts private",
        Step::MountRoot => "mount the root",
        Step::MakeEntry => "fill the root",
        Step::AttachTree => "attach a system directory",
        Step::MountScratch => "mount the writable places",
        Step::OpenBase => "open the base of the workspace",
        Step::MapBase => "show the base's files as the sandbox's own",
        Step::MountWorkspace => "stack the workspace on its base",
        Step::MountProc => "mount /proc",
        Step::MountTerminals => "mount the terminals",
        Step::MaskPath => "mask a part of /proc",
        Step::PivotRoot => "change to the new root",
        Step::EnterRoot => "enter the root",
        Step::SealRoot => "make the root read-only",
        Step::ResourceLimit => "set a resource limit",
        Step::DropCapabilities => "drop capabilities",
        Step::NoNewPrivileges => "set no_new_privs",
        Step::Landlock => "set up Landlock",
        Step::Descriptors => "arrange descriptors",
        Step::Seccomp => "install the seccomp filter",
        Step::StartGuest => "start the guest",
    }
}

/// Makes the error for a failed step.
pub(crate) fn explain(step: Step, errno: i32, object: &str, host: HostSettings) -> SandboxError {
    let cause = io::Error::from_raw_os_error(errno);
    if matches!(errno, libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE) {
        return SandboxError::Host { operation: describe(step), source: Box::new(cause) };
    }
    // What a child answers that finds its launcher killed: when it waits to be let go, and when it looks for it.
    if step == Step::Descriptors && matches!(errno, libc::EIO | libc::ESRCH) {
        return SandboxError::Host {
            operation: "keep the sandbox's launcher alive",
            source: Box::new(cause),
        };
    }
    let step_text = match object {
        "" => describe(step).to_owned(),
        object => format!("{} ({object})", describe(step)),
    };
    SandboxError::HostUnable {
        backend: BACKEND,
        step: step_text,
        reason: cause.to_string(),
        remedy: remedy(step, errno, host),
    }
}

/// Returns what to do about a failed step.
pub(crate) fn remedy(step: Step, errno: i32, host: HostSettings) -> String {
    let denied = matches!(errno, libc::EPERM | libc::EACCES);
    let unknown = matches!(errno, libc::ENOSYS | libc::EINVAL);
    // Ubuntu lets the namespace be made and then denies what needs a capability in it, at whichever step comes first.
    let in_namespace =
        !matches!(step, Step::ReadPlan | Step::DropGroups | Step::JoinCgroup | Step::StartGuest);
    if denied && in_namespace && host.apparmor_restrict == Some(1) {
        return format!(
            "AppArmor restricts user namespaces here: set kernel.apparmor_restrict_unprivileged_userns=0, give the \
             program an AppArmor profile that allows `userns`, {OTHER_BACKEND}"
        );
    }
    match step {
        Step::CreateNamespaces if denied && host.unprivileged_userns_clone == Some(0) => {
            format!("set kernel.unprivileged_userns_clone=1, run as root, {OTHER_BACKEND}")
        }
        Step::CreateNamespaces if denied => format!(
            "user namespaces are forbidden here: in a container, allow `clone` with new namespaces in its seccomp \
             profile, {OTHER_BACKEND}"
        ),
        Step::CreateNamespaces if errno == libc::ENOSPC && host.max_user_namespaces == Some(0) => {
            format!("set user.max_user_namespaces above 0, {OTHER_BACKEND}")
        }
        Step::CreateNamespaces if errno == libc::ENOSPC => {
            "a limit on namespaces is reached: raise the limits in /proc/sys/user, or close sandboxes".to_owned()
        }
        Step::CreateNamespaces | Step::CgroupNamespace if unknown => {
            format!("this kernel lacks a kind of namespace: use one with all of them, {OTHER_BACKEND}")
        }
        Step::OpenTree | Step::AttachTree if errno == libc::ENOSYS => {
            format!("Linux 5.14 or later is needed, {OTHER_BACKEND}")
        }
        Step::MountProc if denied => format!(
            "parts of /proc are covered here, as in most containers: start the container with its /proc unmasked \
             (docker: --security-opt systempaths=unconfined), {OTHER_BACKEND}"
        ),
        Step::Seccomp if unknown => {
            format!("a kernel with CONFIG_SECCOMP_FILTER is needed, {OTHER_BACKEND}")
        }
        Step::JoinCgroup => {
            "give this user write access to its cgroup, or name another parent with `cgroup_parent`".to_owned()
        }
        Step::DropGroups if denied => format!(
            "setgroups is denied in this user namespace: map a range of groups into it, run as an ordinary user, {OTHER_BACKEND}"
        ),
        Step::OpenBase | Step::MapBase | Step::MountWorkspace => workspace::remedy(step, errno).to_owned(),
        Step::OpenTree | Step::MakeEntry if errno == libc::EACCES => format!(
            "this user may not read what is to be shown inside: give it access, or use another root, {OTHER_BACKEND}"
        ),
        Step::PrivateMounts
        | Step::StackLayers
        | Step::OpenTree
        | Step::MountRoot
        | Step::AttachTree
        | Step::SealRoot
        | Step::PivotRoot
        | Step::EnterRoot
        | Step::MountScratch
        | Step::MountTerminals
        | Step::MaskPath
            if denied =>
        {
            format!(
                "mounting is forbidden here: in a container, allow it in its seccomp and AppArmor profiles (docker: \
                 --security-opt seccomp=unconfined --security-opt apparmor=unconfined), {OTHER_BACKEND}"
            )
        }
        Step::Landlock if errno == libc::EOPNOTSUPP => format!(
            "without namespaces, Landlock version 6 is needed (Linux 6.12, with `landlock` in its `lsm=` list): older ones keep \
             no signal in; {OTHER_BACKEND}"
        ),
        Step::StartKeeper | Step::MakePlaces if errno == libc::ENOSPC => {
            "the file system of the sandboxes' directories is full: make room, or name another directory".to_owned()
        }
        Step::Landlock if denied => format!(
            "something above this process forbids Landlock: allow the landlock calls in the container's seccomp profile, \
             {OTHER_BACKEND}"
        ),
        Step::StartGuest if denied => format!(
            "programs in memory files may not be run here: set vm.memfd_noexec=0 or 1, {OTHER_BACKEND}"
        ),
        _ if errno == libc::ENOSYS => format!(
            "a system call is missing: use Linux 5.14 or later, or allow it in the container's seccomp profile, {OTHER_BACKEND}"
        ),
        _ if denied => format!("something above this process forbids it, such as a container or a security module: run outside of it, {OTHER_BACKEND}"),
        _ => format!("this host answers as no supported one does: please report it, {OTHER_BACKEND}"),
    }
}

/// Makes the error for a request that makes no sense.
pub(crate) fn invalid(reason: impl Into<String>) -> SandboxError {
    SandboxError::InvalidRequest { reason: reason.into() }
}

/// Makes the error for something that cannot be enforced.
pub(crate) fn unenforceable(wall: Wall, reason: impl Into<String>) -> SandboxError {
    SandboxError::Unenforceable { backend: BACKEND, wall, reason: reason.into() }
}

/// Makes the error for a failure of the host's own resources.
pub(crate) fn host(operation: &'static str) -> impl FnOnce(io::Error) -> SandboxError {
    move |error| SandboxError::Host { operation, source: Box::new(error) }
}

/// Refuses kernels before the oldest one on which all of this was thought through: 5.14 counts processes for each user
/// namespace, 5.12 sets attributes of mounts.
pub(crate) fn oldest_kernel(release: &str) -> Result<(), SandboxError> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < (5, 14) => {
            Err(SandboxError::HostUnable {
                backend: BACKEND,
                step: "find what the kernel can do".to_owned(),
                reason: format!("Linux {release} is older than 5.14"),
                remedy: format!("use a newer kernel, {OTHER_BACKEND}"),
            })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_refusals_say_what_to_change() {
        let plain = HostSettings::default();
        let ubuntu = HostSettings { apparmor_restrict: Some(1), ..plain };
        let debian = HostSettings { unprivileged_userns_clone: Some(0), ..plain };
        let none = HostSettings { max_user_namespaces: Some(0), ..plain };
        let cases = [
            (Step::CreateNamespaces, libc::EPERM, "", plain),
            (Step::CreateNamespaces, libc::EPERM, "", debian),
            (Step::CreateNamespaces, libc::ENOSPC, "", none),
            (Step::CreateNamespaces, libc::ENOSPC, "", plain),
            (Step::CreateNamespaces, libc::EINVAL, "", plain),
            (Step::CreateNamespaces, libc::EAGAIN, "", plain),
            (Step::MapUser, libc::EACCES, "uid_map", ubuntu),
            (Step::Loopback, libc::EPERM, "", ubuntu),
            (Step::PrivateMounts, libc::EPERM, "", plain),
            (Step::MountProc, libc::EPERM, "", plain),
            (Step::OpenTree, libc::ENOSYS, "/usr", plain),
            (Step::AttachTree, libc::EINVAL, "/usr", plain),
            (Step::JoinCgroup, libc::EACCES, "/sys/fs/cgroup/x/cgroup.procs", plain),
            (Step::Seccomp, libc::EINVAL, "", plain),
            (Step::StartGuest, libc::EACCES, "", plain),
        ];
        let text: Vec<String> = cases
            .map(|(step, errno, object, host)| explain(step, errno, object, host).to_string())
            .into();
        insta::assert_snapshot!(text.join("\n"), @"
        the linux backend cannot make a sandbox on this host: create namespaces failed: Operation not permitted (os error 1); user namespaces are forbidden here: in a container, allow `clone` with new namespaces in its seccomp profile, or use another backend, such as docker
        the linux backend cannot make a sandbox on this host: create namespaces failed: Operation not permitted (os error 1); set kernel.unprivileged_userns_clone=1, run as root, or use another backend, such as docker
        the linux backend cannot make a sandbox on this host: create namespaces failed: No space left on device (os error 28); set user.max_user_namespaces above 0, or use another backend, such as docker
        the linux backend cannot make a sandbox on this host: create namespaces failed: No space left on device (os error 28); a limit on namespaces is reached: raise the limits in /proc/sys/user, or close sandboxes
        the linux backend cannot make a sandbox on this host: create namespaces failed: Invalid argument (os error 22); this kernel lacks a kind of namespace: use one with all of them, or use another backend, such as docker
        the host could not create namespaces
        the linux backend cannot make a sandbox on this host: map the sandbox's user (uid_map) failed: Permission denied (os error 13); AppArmor restricts user namespaces here: set kernel.apparmor_restrict_unprivileged_userns=0, give the program an AppArmor profile that allows `userns`, or use another backend, such as docker
        the linux backend cannot make a sandbox on this host: bring loopback up failed: Operation not permitted (os error 1); AppArmor restricts user namespaces here: set kernel.apparmor_restrict_unprivileged_userns=0, give the program an AppArmor profile that allows `userns`, or use another backend, such as docker
        the linux backend cannot make a sandbox on this host: make mounts private failed: Operation not permitted (os error 1); mounting is forbidden here: in a container, allow it in its seccomp and AppArmor profiles (docker: --security-opt seccomp=unconfined --security-opt apparmor=unconfined), or use another backend, such as docker
        the linux backend cannot make a sandbox on this host: mount /proc failed: Operation not permitted (os error 1); parts of /proc are covered here, as in most containers: start the container with its /proc unmasked (docker: --security-opt systempaths=unconfined), or use another backend, such as docker
        the linux backend cannot make a sandbox on this host: open a system directory (/usr) failed: Function not implemented (os error 38); Linux 5.14 or later is needed, or use another backend, such as docker
        the linux backend cannot make a sandbox on this host: attach a system directory (/usr) failed: Invalid argument (os error 22); this host answers as no supported one does: please report it, or use another backend, such as docker
        the linux backend cannot make a sandbox on this host: join the cgroup (/sys/fs/cgroup/x/cgroup.procs) failed: Permission denied (os error 13); give this user write access to its cgroup, or name another parent with `cgroup_parent`
        the linux backend cannot make a sandbox on this host: install the seccomp filter failed: Invalid argument (os error 22); a kernel with CONFIG_SECCOMP_FILTER is needed, or use another backend, such as docker
        the linux backend cannot make a sandbox on this host: start the guest failed: Permission denied (os error 13); programs in memory files may not be run here: set vm.memfd_noexec=0 or 1, or use another backend, such as docker
        ");
    }

    /// Every step with every refusal that hosts give, by what is to be done about it.
    #[test]
    fn a_launcher_that_was_killed_is_told_as_such() {
        for errno in [libc::EIO, libc::ESRCH] {
            let error = explain(Step::Descriptors, errno, "go", HostSettings::default());
            assert_eq!(error.to_string(), "the host could not keep the sandbox's launcher alive");
            assert_eq!(error.retry(), cofferdam_core::Retry::Backoff);
        }
    }

    #[test]
    fn each_refused_step_has_a_remedy() {
        let mut remedies: Vec<(String, Vec<String>)> = Vec::new();
        for &step in Step::ALL {
            for (errno, name) in
                [(libc::EPERM, "EPERM"), (libc::EACCES, "EACCES"), (libc::ENOSYS, "ENOSYS")]
            {
                let error = explain(step, errno, "", HostSettings::default());
                let SandboxError::HostUnable { step, remedy, .. } = error else {
                    panic!("{step:?} {name}: {error}");
                };
                let case = format!("  {step}: {name}");
                match remedies.iter_mut().find(|(known, _)| *known == remedy) {
                    Some((_, cases)) => match cases.last_mut() {
                        Some(last) if last.starts_with(&format!("  {step}:")) => {
                            last.push_str(&format!(", {name}"));
                        }
                        _ => cases.push(case),
                    },
                    None => remedies.push((remedy, vec![case])),
                }
            }
        }
        let text: Vec<String> = remedies
            .into_iter()
            .map(|(remedy, cases)| format!("{remedy}\n{}", cases.join("\n")))
            .collect();
        insta::assert_snapshot!(text.join("\n"), @"
        something above this process forbids it, such as a container or a security module: run outside of it, or use another backend, such as docker
          hand the plan to the launcher: EPERM, EACCES
          fill the root: EPERM
          start the keeper: EPERM, EACCES
          make the sandbox's directories: EPERM, EACCES
          map the sandbox's user: EPERM, EACCES
          create a cgroup namespace: EPERM, EACCES
          set the host name: EPERM, EACCES
          bring loopback up: EPERM, EACCES
          become the sandbox's user: EPERM, EACCES
          set a resource limit: EPERM, EACCES
          drop capabilities: EPERM, EACCES
          set no_new_privs: EPERM, EACCES
          arrange descriptors: EPERM, EACCES
          install the seccomp filter: EPERM, EACCES
        a system call is missing: use Linux 5.14 or later, or allow it in the container's seccomp profile, or use another backend, such as docker
          hand the plan to the launcher: ENOSYS
          give up supplementary groups: ENOSYS
          make mounts private: ENOSYS
          stack the layers of the image: ENOSYS
          mount the root: ENOSYS
          fill the root: ENOSYS
          mount /proc: ENOSYS
          make the root read-only: ENOSYS
          change to the new root: ENOSYS
          enter the root: ENOSYS
          start the keeper: ENOSYS
          make the sandbox's directories: ENOSYS
          map the sandbox's user: ENOSYS
          set the host name: ENOSYS
          bring loopback up: ENOSYS
          become the sandbox's user: ENOSYS
          mount the writable places: ENOSYS
          mount the terminals: ENOSYS
          mask a part of /proc: ENOSYS
          set a resource limit: ENOSYS
          drop capabilities: ENOSYS
          set no_new_privs: ENOSYS
          set up Landlock: ENOSYS
          arrange descriptors: ENOSYS
          start the guest: ENOSYS
        setgroups is denied in this user namespace: map a range of groups into it, run as an ordinary user, or use another backend, such as docker
          give up supplementary groups: EPERM, EACCES
        use a kernel with overlay file systems, 5.19 or later as root; or begin with an empty workspace and fill it
          open the base of the workspace: EPERM, ENOSYS
          stack the workspace on its base: ENOSYS
        give this user the right to read it
          open the base of the workspace: EACCES
        run as an ordinary user, or with CAP_SYS_ADMIN outside of a container, since root shows a base as another user's
          show the base's files as the sandbox's own: EPERM, EACCES
        keep bases on a file system that shows files as another user's (ext4, xfs, btrfs; tmpfs from Linux 6.3)
          show the base's files as the sandbox's own: ENOSYS
        user namespaces are forbidden here: in a container, allow `clone` with new namespaces in its seccomp profile, or use another backend, such as docker
          create namespaces: EPERM, EACCES
        this kernel lacks a kind of namespace: use one with all of them, or use another backend, such as docker
          create namespaces: ENOSYS
          create a cgroup namespace: ENOSYS
        mounting is forbidden here: in a container, allow it in its seccomp and AppArmor profiles (docker: --security-opt seccomp=unconfined --security-opt apparmor=unconfined), or use another backend, such as docker
          make mounts private: EPERM, EACCES
          stack the layers of the image: EPERM, EACCES
          open a system directory: EPERM
          mount the root: EPERM, EACCES
          attach a system directory: EPERM, EACCES
          make the root read-only: EPERM, EACCES
          change to the new root: EPERM, EACCES
          enter the root: EPERM, EACCES
          mount the writable places: EPERM, EACCES
          mount the terminals: EPERM, EACCES
          mask a part of /proc: EPERM, EACCES
        this user may not read what is to be shown inside: give it access, or use another root, or use another backend, such as docker
          open a system directory: EACCES
          fill the root: EACCES
        Linux 5.14 or later is needed, or use another backend, such as docker
          open a system directory: ENOSYS
          attach a system directory: ENOSYS
        parts of /proc are covered here, as in most containers: start the container with its /proc unmasked (docker: --security-opt systempaths=unconfined), or use another backend, such as docker
          mount /proc: EPERM, EACCES
        give this user write access to its cgroup, or name another parent with `cgroup_parent`
          join the cgroup: EPERM, EACCES, ENOSYS
        allow overlay file systems in user namespaces (a security module or an older kernel forbids them), or use Linux 5.11 or later
          stack the workspace on its base: EPERM, EACCES
        something above this process forbids Landlock: allow the landlock calls in the container's seccomp profile, or use another backend, such as docker
          set up Landlock: EPERM, EACCES
        a kernel with CONFIG_SECCOMP_FILTER is needed, or use another backend, such as docker
          install the seccomp filter: ENOSYS
        programs in memory files may not be run here: set vm.memfd_noexec=0 or 1, or use another backend, such as docker
          start the guest: EPERM, EACCES
        ");
    }

    #[test]
    fn old_kernels_are_refused() {
        for (release, expect) in [
            ("6.18.44-fc-v595", true),
            ("5.14.0", true),
            ("5.13.19-generic", false),
            ("4.19.0", false),
            ("10.0-rc1", true),
            ("unreadable", true),
        ] {
            assert_eq!(oldest_kernel(release).is_ok(), expect, "{release}");
        }
    }
}
