//! The launcher: builds the walls of one sandbox, starts the guest inside, and ends it when the host goes away.
//!
//! The host starts it with three descriptors and nothing else: 0 is the stream of the sandbox, on which the host has
//! already written the length-prefixed [`plan::Plan`] and which the guest takes over; 1 is the sealed memory file of
//! the guest program; 2 is a socket for [`report`]s, whose closing tells that the host is gone.
//!
//! ```text
//! launcher ── clone(user, mount, pid, net, ipc, uts) ──► child: joins the cgroups, waits for its user map
//!    │ maps the user, says go ──────────────────────────►   │ builds the root, drops everything, becomes the guest
//!    │ waits for: child ended │ host gone │ wall time       ▼
//!    └ kills the child (and with pid 1 its whole pid namespace), reports, removes the cgroups
//! ```
//!
//! It is a program of its own, compiled with the standard library alone, because what happens between `clone` and
//! `exec` must not run in a copy of a process that has threads. It has one thread, so it may allocate at any time.
#![allow(unsafe_code, reason = "a launcher is system calls; all of them are in `sys`")]

mod child;
mod decode;
mod landlock;
mod monitor;
mod numbers;
mod plan;
mod report;
mod root;
mod step;
mod sys;

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
};

use crate::{
    plan::Plan,
    report::Step,
    step::{Failure, Steps},
    sys::Side,
};

/// The largest plan that is read, in bytes.
const MAX_PLAN: usize = 1 << 20;

fn main() {
    // Whatever the host leaked is gone before anything else happens.
    if sys::close_from(3).is_err() {
        sys::exit_now(1);
    }
    let Ok(report) = sys::duplicate_standard(2) else { sys::exit_now(1) };
    let report = File::from(report);
    if let Err(failure) = run(&report) {
        failure.send(&report);
        sys::exit_now(1);
    }
    sys::exit_now(0);
}

fn run(report: &File) -> Result<(), Failure> {
    let plan = read_plan().map_err(|error| Failure::new(Step::ReadPlan, &error, b"plan"))?;
    let steps = Steps::new(plan.fault);
    let (guest, stream) = steps.run(Step::ReadPlan, b"descriptors", || {
        Ok((sys::duplicate_standard(1)?, sys::duplicate_standard(0)?))
    })?;

    if plan.identity.drop_groups {
        steps.run(Step::DropGroups, b"", sys::drop_groups)?;
    }
    let (go_reader, go_writer) = steps.run(Step::CreateNamespaces, b"pipe", sys::pipe)?;
    let (said_reader, said_writer) = steps.run(Step::CreateNamespaces, b"pipe", sys::pipe)?;
    let mut namespaces = sys::CLONE_NEWUSER
        | sys::CLONE_NEWNS
        | sys::CLONE_NEWPID
        | sys::CLONE_NEWIPC
        | sys::CLONE_NEWUTS;
    if plan.own_network {
        namespaces |= sys::CLONE_NEWNET;
    }
    match steps.run(Step::CreateNamespaces, b"", || sys::clone_process(namespaces))? {
        Side::Child => {
            drop((go_writer, said_reader));
            let failure = child::run(
                &plan,
                &steps,
                child::Descriptors {
                    stream,
                    guest,
                    said: said_writer,
                    go: go_reader,
                    report: report.as_fd(),
                },
            );
            failure.send(report);
            sys::exit_now(1);
        }
        Side::Parent(pid, pidfd) => {
            // The guest must be the only holder of its stream, so that the host sees its end.
            drop((guest, stream, said_writer, go_reader));
            monitor::run(
                &plan,
                &steps,
                monitor::Child { pid, pidfd, go: go_writer, said: said_reader },
                report,
            )
        }
    }
}

/// Reads the plan, and not one byte more: what follows on the stream is for the guest.
fn read_plan() -> io::Result<Plan> {
    let mut stream = File::from(sys::duplicate_standard(0)?);
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_PLAN {
        return Err(io::Error::from_raw_os_error(sys::EINVAL));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    decode::decode(&bytes).map_err(|_| io::Error::from_raw_os_error(sys::EINVAL))
}

/// Makes the three standard descriptors the null device, so that none of them keeps the host's ends open.
fn silence_standard(null: &OwnedFd) -> io::Result<()> {
    (0..3).try_for_each(|standard| sys::set_standard(null.as_fd(), standard))
}
