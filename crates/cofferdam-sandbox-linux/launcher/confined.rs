//! Sandboxes without namespaces: among the host's own files and processes, behind Landlock and a stricter filter.
//!
//! ```text
//! launcher ──► keeper: no privileges; a Landlock domain from which no signal leads out; adopts orphans
//!                └─► guest ──► commands: a domain in that domain, which has the rules on files; the filter
//! ```
//!
//! The keeper stands for what the end of a pid namespace does elsewhere. When the guest ends, or the launcher says so or dies, it
//! kills whatever it can signal, which is all of its domain and nothing else, in one act that no fork escapes; since it adopts
//! orphans, it waits for every one of them. Nothing inside can signal or trace the keeper: its domain is above theirs. If
//! somebody outside kills it, the guest dies with it, and what is left comes to the launcher ([`end_orphans`]). If both are
//! killed at one time, what has left its session lives on.

use std::{
    convert::Infallible,
    ffi::CString,
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt, OpenOptionsExt, chown},
    },
    time::{Duration, Instant},
};

use crate::{
    child::{self, Descriptors},
    landlock::{self, OutOfReach},
    plan::{Confined, Plan},
    report::Step,
    root::path,
    step::{Failure, Steps},
    sys::{self, Side},
    workspace,
};

/// Makes the process that becomes the keeper of a sandbox.
pub(crate) fn clone_keeper(cgroup: Option<BorrowedFd<'_>>, steps: &Steps) -> Result<Side, Failure> {
    steps.run(Step::StartKeeper, b"", || {
        // What a keeper keeps comes here if somebody kills it.
        sys::adopt_orphans()?;
        // The child keeps it for a while: only so can an ordinary user set how it dies when memory runs out.
        sys::set_dumpable(true)?;
        sys::clone_process(0, cgroup)
    })
}

/// Becomes the keeper, and makes the guest. Returns only on failure.
pub(crate) fn run(
    plan: &Plan,
    confined: &Confined,
    steps: &Steps,
    descriptors: &Descriptors<'_>,
) -> Failure {
    match build(plan, confined, steps, descriptors) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn build(
    plan: &Plan,
    confined: &Confined,
    steps: &Steps,
    descriptors: &Descriptors<'_>,
) -> Result<Infallible, Failure> {
    let &Descriptors { said, report, keep, stop, joins, .. } = descriptors;
    let launcher = sys::parent();
    let gone = || io::Error::from_raw_os_error(sys::EINVAL);
    let Some(stop) = stop else {
        return steps.run(Step::Descriptors, b"of the keeper", || Err(gone()));
    };
    steps.run(Step::Descriptors, b"of others", || child::close_others(descriptors))?;
    for (mut file, join) in joins.iter().zip(&plan.cgroup_joins) {
        steps.run(Step::JoinCgroup, join, || file.write_all(b"0"))?;
    }
    steps.run(Step::Descriptors, b"session", sys::new_session)?;
    steps.run(Step::Descriptors, b"go", || {
        File::from(said.try_clone_to_owned()?).read_exact(&mut [0])
    })?;

    let workspace = make_places(plan, confined, steps)?;
    for host in keep.into_iter().chain([report]) {
        workspace::tell(host, plan, &workspace, steps)?;
    }
    drop(workspace);
    // A keeper that ends by the guest's signal, to tell of it, leaves no core.
    const RLIMIT_CORE: u32 = 4;
    steps.run(Step::ResourceLimit, b"core", || sys::lower_limit(RLIMIT_CORE, 0))?;
    drop_privileges(plan, confined, steps)?;
    let reach = landlock::keep_signals_in(launcher, steps)?;
    steps.run(Step::StartKeeper, b"parent", || child::still_there(said))?;
    let keeper = steps.run(Step::StartKeeper, b"orphans", || {
        sys::set_dumpable(false)?;
        sys::adopt_orphans()?;
        Ok(std::process::id())
    })?;
    match steps.run(Step::StartKeeper, b"guest", || sys::clone_process(0, None))? {
        Side::Parent(pid, pidfd) => keep_until_the_end(pid, &pidfd, stop, &reach),
        Side::Child => {
            let inherited = |steps: &Steps| {
                steps.run(Step::Descriptors, b"keeper", || {
                    child::die_with_parent()?;
                    // It may have died before.
                    if sys::parent().cast_unsigned() == keeper { Ok(()) } else { Err(gone()) }
                })
            };
            let Err(failure) = child::become_guest(plan, steps, descriptors, inherited);
            failure.send(report);
            sys::exit_now(1)
        }
    }
}

/// Gives up all privileges. An ordinary user has none, and what is left of its bounding set is of no use without a program
/// that brings a capability, of which there is none from here on.
fn drop_privileges(plan: &Plan, confined: &Confined, steps: &Steps) -> Result<(), Failure> {
    if confined.own_user {
        child::drop_capabilities(plan, steps)?;
    } else {
        child::clear_capabilities(steps)?;
    }
    child::no_new_privileges(steps)
}

/// Makes the places in the sandbox's directory, and returns the workspace as the host may see it.
fn make_places(plan: &Plan, confined: &Confined, steps: &Steps) -> Result<OwnedFd, Failure> {
    const O_PATH_DIRECTORY_NOFOLLOW: i32 = 0o10_000_000 | 0o200_000 | 0o400_000;
    let mut workspace = None;
    for place in &plan.scratch.directories {
        let opened = steps.run(Step::MakePlaces, place.to_bytes(), || {
            let at =
                CString::new([confined.directory.to_bytes(), b"/", place.to_bytes()].concat())?;
            DirBuilder::new().mode(0o755).create(path(&at))?;
            if confined.own_user {
                let identity = &plan.identity;
                chown(path(&at), Some(identity.outer_user), Some(identity.outer_group))?;
            }
            File::options().read(true).custom_flags(O_PATH_DIRECTORY_NOFOLLOW).open(path(&at))
        })?;
        workspace.get_or_insert(opened);
    }
    let none = || Err(io::Error::from_raw_os_error(sys::EINVAL));
    steps.run(Step::MakePlaces, b"", || workspace.map_or_else(none, |found| Ok(found.into())))
}

/// Waits until the guest has ended, or the launcher wants the end or is gone; then kills all that is left, and ends as the
/// guest did.
fn keep_until_the_end(guest: i32, pidfd: &OwnedFd, stop: BorrowedFd<'_>, reach: &OutOfReach) -> ! {
    close_all_but([pidfd.as_raw_fd(), stop.as_raw_fd()]);
    let mut fds = [(pidfd.as_fd(), sys::POLLIN), (stop, 0)].map(|(fd, events)| sys::PollFd {
        fd: fd.as_raw_fd(),
        events,
        ready: 0,
    });
    // If nothing can be waited for, it ends what it cannot keep.
    while fds.iter().all(|fd| fd.ready == 0) && sys::poll_all(&mut fds, -1).is_ok() {}
    sys::kill_all(reach);
    let mut status = 0;
    while let Some((pid, ended)) = sys::wait_for_any() {
        if pid == guest {
            status = ended;
        }
        // What was on its way into the domain at that moment: none is known.
        sys::kill_all(reach);
    }
    match status & 0x7f {
        0 => sys::exit_now((status >> 8) & 0xff),
        signal => {
            sys::raise(signal);
            sys::exit_now(1)
        }
    }
}

fn close_all_but(mut kept: [i32; 2]) {
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept.map(i32::cast_unsigned) {
        // Fails only on numbers that are none.
        let _ = sys::close_between(first, fd - 1);
        first = fd + 1;
    }
    let _ = sys::close_between(first, u32::MAX);
}

/// Ends the children of this process that are none of `spared`: what a keeper that was killed has left. Their own come here
/// when they are dead, and are ended too.
pub(crate) fn end_orphans(spared: &[i32]) {
    /// What is stuck in the kernel, or is born faster than it is found, must not keep the launcher from its work.
    const PATIENCE: Duration = Duration::from_secs(2);
    let deadline = Instant::now() + PATIENCE;
    let own = std::process::id();
    loop {
        let orphans: Vec<i32> = children_of(own).filter(|pid| !spared.contains(pid)).collect();
        if orphans.is_empty() || Instant::now() >= deadline {
            return;
        }
        for &pid in &orphans {
            // The number is theirs until this process has waited for them.
            let _ = sys::signal_process(pid, sys::SIGKILL);
        }
        for pid in orphans {
            let _ = sys::wait_for(pid);
        }
    }
}

fn children_of(parent: u32) -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name in brackets may hold anything.
        let (_, after_name) = stat.rsplit_once(')')?;
        let found: u32 = after_name.split_ascii_whitespace().nth(1)?.parse().ok()?;
        (found == parent).then_some(pid)
    })
}
