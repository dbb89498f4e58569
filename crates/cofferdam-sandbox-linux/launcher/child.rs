//! The first process of the sandbox, from `clone` to the start of the guest.
//!
//! It starts in a copy of a template, so the host's files are already out of reach. The order is the point. What needs
//! capabilities in the new user namespace (mounts, loopback, host name) comes before they are dropped; Landlock comes
//! after the last path is opened, seccomp after the last call it refuses.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use crate::{
    landlock,
    plan::{Identity, Plan},
    report::{self, Step},
    scratch,
    step::{self, Failure, Steps},
    sys, workspace,
};

/// Where a guest that lingers finds the socket at which its host comes back. A launcher that makes such a guest keeps the
/// number free.
pub(crate) const DOOR: RawFd = 3;

/// What the child takes from the launcher; all else is closed.
pub(crate) struct Descriptors<'a> {
    /// The stream that becomes the guest's descriptor 0.
    pub(crate) stream: BorrowedFd<'a>,
    /// The guest program.
    pub(crate) guest: BorrowedFd<'a>,
    /// Where the guest's diagnostics go: its descriptor 2. One byte arrives here when the user is mapped.
    pub(crate) said: BorrowedFd<'a>,
    /// The report socket.
    pub(crate) report: &'a File,
    /// The listening socket that becomes the guest's descriptor [`DOOR`], if it lingers.
    pub(crate) door: Option<BorrowedFd<'a>>,
    /// Where the supervisor is handed what the host sees of the workspace, if it lingers.
    pub(crate) keep: Option<&'a File>,
    /// Where a keeper hears that it is to end its sandbox, if the sandbox has one.
    pub(crate) stop: Option<BorrowedFd<'a>>,
    /// What the workspace begins with.
    pub(crate) base: Option<&'a OwnedFd>,
    /// Files of cgroups to write itself to.
    pub(crate) joins: &'a [File],
    /// Whether its network namespace was made ahead.
    pub(crate) has_network: bool,
}

/// Becomes the guest. Returns only on failure.
pub(crate) fn run(plan: &Plan, steps: &Steps, descriptors: &Descriptors<'_>) -> Failure {
    match build(plan, steps, descriptors) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn build(
    plan: &Plan,
    steps: &Steps,
    descriptors: &Descriptors<'_>,
) -> Result<std::convert::Infallible, Failure> {
    let &Descriptors { said, report, base, keep, joins, has_network, .. } = descriptors;
    // The streams of other sandboxes are not for this one, not even for a moment.
    steps.run(Step::Descriptors, b"of others", || close_others(descriptors))?;
    // If the launcher dies from here on, this process dies with it, and with this process the whole pid namespace. If
    // it died before, the socket is at its end.
    steps.run(Step::Descriptors, b"parent death signal", die_with_parent)?;
    // It joins by itself, and while the launcher maps its user: only for a thread that moves itself does the kernel
    // not wait until all processors have noticed, which takes milliseconds.
    for (mut file, join) in joins.iter().zip(&plan.cgroup_joins) {
        steps.run(Step::JoinCgroup, join, || file.write_all(b"0"))?;
    }
    steps.run(Step::Descriptors, b"session", sys::new_session)?;
    // After joining, so that the sandbox's own cgroup is the root of what it sees.
    steps.run(Step::CgroupNamespace, b"", || sys::unshare_namespaces(sys::CLONE_NEWCGROUP))?;
    steps.run(Step::SetHostname, b"", || sys::set_hostname(&plan.hostname))?;
    if plan.own_network && !has_network {
        steps.run(Step::Loopback, b"", sys::loopback_up)?;
    }
    steps.run(Step::Descriptors, b"go", || {
        File::from(said.try_clone_to_owned()?).read_exact(&mut [0])
    })?;

    // What is mounted and made from here on belongs to the sandbox's user. Capabilities stay: they go when user 0 of the
    // namespace changes to another, and this namespace has no user 0.
    let inner = plan.identity.inner;
    if plan.own_users {
        steps.run(Step::BecomeUser, b"", || sys::become_user(inner, inner))?;
    }
    let workspace = scratch::mount(plan, base, steps)?;
    for host in keep.into_iter().chain([report]) {
        workspace::tell(host, plan, &workspace, steps)?;
    }
    drop(workspace);
    become_guest(plan, steps, descriptors, |steps| drop_privileges(plan, steps))
}

/// Takes on the limits, gives up what is left with `drop_privileges`, and becomes the guest.
pub(crate) fn become_guest(
    plan: &Plan,
    steps: &Steps,
    descriptors: &Descriptors<'_>,
    drop_privileges: impl FnOnce(&Steps) -> Result<(), Failure>,
) -> Result<std::convert::Infallible, Failure> {
    let &Descriptors { stream, guest, said, report, door, .. } = descriptors;
    let null = steps.run(Step::Descriptors, b"/dev/null", || {
        Ok(OwnedFd::from(File::options().read(true).write(true).open("/dev/null")?))
    })?;

    for &(resource, value) in &plan.resource_limits {
        steps.run(Step::ResourceLimit, resource.to_string().as_bytes(), || {
            sys::lower_limit(resource, value)
        })?;
    }
    drop_privileges(steps)?;
    let landlock_abi = landlock::restrict(plan, steps)?;

    // Becoming another user has cleared it; and the first process of a sandbox without namespaces sets it here.
    steps.run(Step::Descriptors, b"parent death signal", || {
        die_with_parent()?;
        still_there(said)
    })?;
    steps.run(Step::Descriptors, b"standard descriptors", || {
        sys::set_standard(stream, 0)?;
        sys::set_standard(null.as_fd(), 1)?;
        sys::set_standard(said, 2)?;
        match door {
            None => sys::close_on_exec_from(3),
            Some(door) => {
                sys::set_standard(door, DOOR)?;
                sys::close_on_exec_from(4)
            }
        }
    })?;
    for filter in &plan.filters {
        steps.run(Step::Seccomp, b"", || sys::install_filter(filter))?;
    }
    // Said before the last step, because after it there is nobody left to say it. If the step fails, that is said too.
    steps.run(Step::StartGuest, b"", || Ok(()))?;
    step::send(report, report::READY, 0, landlock_abi, b"");
    let error = sys::execute(guest, c"cofferdam-guest");
    Err(Failure::new(Step::StartGuest, &error, b""))
}

/// Closes every descriptor that is not for this child.
pub(crate) fn close_others(descriptors: &Descriptors<'_>) -> io::Result<()> {
    let Descriptors { stream, guest, said, report, base, door, stop, keep, joins, .. } =
        descriptors;
    let ours = [stream.as_raw_fd(), guest.as_raw_fd(), said.as_raw_fd(), report.as_raw_fd()];
    // What holds the place of the door stays, so that nothing else is opened there.
    let door = door.iter().flat_map(|door| [DOOR, door.as_raw_fd()]);
    let mut kept: Vec<u32> = ours
        .into_iter()
        .chain(door)
        .chain(base.map(AsRawFd::as_raw_fd))
        .chain(stop.iter().map(AsRawFd::as_raw_fd))
        .chain(keep.map(AsRawFd::as_raw_fd))
        .chain(joins.iter().map(AsRawFd::as_raw_fd))
        .map(i32::cast_unsigned)
        .collect();
    kept.sort_unstable();
    // Descriptors 0 to 2 are the null device.
    let mut first = 3;
    for fd in kept {
        sys::close_between(first, fd.wrapping_sub(1))?;
        first = fd + 1;
    }
    sys::close_between(first, u32::MAX)
}

pub(crate) fn die_with_parent() -> io::Result<()> {
    sys::process_control(sys::PR_SET_PDEATHSIG, [sys::SIGKILL as u64, 0, 0, 0])
}

/// Fails if the launcher has died, that is, if nobody holds the other end of the socket.
pub(crate) fn still_there(said: BorrowedFd<'_>) -> io::Result<()> {
    const ESRCH: i32 = 3;
    let mut fds = [sys::PollFd { fd: said.as_raw_fd(), events: 0, ready: 0 }];
    sys::poll_all(&mut fds, 0)?;
    if fds[0].ready & sys::POLLHUP != 0 {
        return Err(io::Error::from_raw_os_error(ESRCH));
    }
    Ok(())
}

/// Gives up every capability, and the right to gain any by a program.
fn drop_privileges(plan: &Plan, steps: &Steps) -> Result<(), Failure> {
    drop_capabilities(plan, steps)?;
    no_new_privileges(steps)
}

pub(crate) fn no_new_privileges(steps: &Steps) -> Result<(), Failure> {
    steps.run(Step::NoNewPrivileges, b"", || {
        sys::process_control(sys::PR_SET_NO_NEW_PRIVS, [1, 0, 0, 0])
    })
}

/// Gives up every capability in every set, and every way to get one back.
///
/// Without a user namespace this is where root becomes the sandbox's user: after what needs capabilities, and before the
/// last of them go.
pub(crate) fn drop_capabilities(plan: &Plan, steps: &Steps) -> Result<(), Failure> {
    // KEEP_CAPS_LOCKED, NO_SETUID_FIXUP, NOROOT and NO_CAP_AMBIENT_RAISE, the last three with their locks: user 0 is
    // nobody special, and none of it can be changed.
    const SECURE_BITS: u64 = (1 << 5) | 0b1100 | 0b11 | (0b11 << 6);
    steps.run(Step::DropCapabilities, b"bounding set", || {
        for capability in 0..64 {
            match sys::process_control(sys::PR_CAPBSET_DROP, [capability, 0, 0, 0]) {
                Ok(()) => {}
                // The first number that the kernel does not know.
                Err(error) if error.raw_os_error() == Some(sys::EINVAL) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    })?;
    steps.run(Step::DropCapabilities, b"secure bits", || {
        sys::process_control(sys::PR_SET_SECUREBITS, [SECURE_BITS, 0, 0, 0])
    })?;
    if !plan.own_users {
        let &Identity { outer_user, outer_group, .. } = &plan.identity;
        steps.run(Step::BecomeUser, b"", || sys::become_user(outer_user, outer_group))?;
    }
    clear_capabilities(steps)
}

/// Gives up the capabilities that this process has, which anybody may.
pub(crate) fn clear_capabilities(steps: &Steps) -> Result<(), Failure> {
    const PR_CAP_AMBIENT_CLEAR_ALL: u64 = 4;
    steps.run(Step::DropCapabilities, b"ambient set", || {
        sys::process_control(sys::PR_CAP_AMBIENT, [PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0])
    })?;
    steps.run(Step::DropCapabilities, b"", sys::clear_capabilities)
}
