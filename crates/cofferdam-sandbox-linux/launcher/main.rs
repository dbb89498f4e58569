//! The launcher: builds the walls of sandboxes, starts the guest inside each, and ends it when the host wants it or dies.
//!
//! One launcher serves one host process. The host starts it with three descriptors and nothing else: 0 is the control
//! socket, 1 the sealed memory file of the guest program, 2 the null device. For each sandbox the host sends three
//! descriptors over the control socket: the stream of the sandbox, which the guest takes over; a socket for [`report`]s,
//! whose closing asks for the sandbox's end; and a memory file with the [`plan::Plan`].
//!
//! ```text
//! launcher ── once: own mount namespace; for each root: a namespace with that root, sealed (a template)
//!    │ enters the template
//!    ├─ clone(user, mount, pid, net, ipc, uts) ──► child: joins the cgroups, waits for its user map
//!    │ maps the user, says go ─────────────────►   │ mounts what is its own, drops everything, becomes the guest
//!    │ waits for: child ended │ host closed │ wall time ▼
//!    └ kills the child (and with pid 1 its whole pid namespace), removes the cgroups, reports
//! ```
//!
//! While nobody waits for it, it makes the network namespace of the next sandbox ([`network`]); then that is not cloned.
//!
//! Where there are no namespaces, a sandbox has a *keeper* in the place of its pid namespace ([`confined`]).
//!
//! A sandbox that lingers has a launcher to itself, its *supervisor* ([`linger`]), which outlives the host. It is started with
//! `--linger`, watches no host, takes one request, with two descriptors more, and ends with its sandbox.
//!
//! It is a program of its own, compiled with the standard library alone, because what happens between `clone` and
//! `exec` must not run in a copy of a process that has threads. It has one thread, so it may allocate at any time. If it
//! dies, all its sandboxes die with it.
#![allow(unsafe_code, reason = "a launcher is system calls; all of them are in `sys`")]

mod child;
mod confined;
mod decode;
mod home;
mod landlock;
mod linger;
mod live;
mod maker;
mod network;
mod numbers;
mod plan;
mod report;
mod root;
mod scratch;
mod server;
mod stack;
mod step;
mod sys;
mod template;
mod workspace;

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
};

use crate::server::Server;

fn main() {
    // The second argument is for people who look at the list of processes.
    let lingers = std::env::args_os().nth(1).is_some_and(|argument| argument == "--linger");
    let served = if lingers { linger::serve() } else { serve() };
    // Whoever asked sees that the sockets are closed.
    sys::exit_now(i32::from(served.is_err()));
}

fn serve() -> io::Result<()> {
    sys::close_between(3, u32::MAX)?;
    let host = sys::open_parent()?;
    // Not needed, and each sandbox that lives takes three.
    let _ = sys::raise_open_files();
    let (control, guest) = prepare()?;
    Server::new(control, host, guest)?.serve();
    Ok(())
}

/// Makes this process a safe place: nothing to be looked into, no terminal, no signal meant for others. Returns the control
/// socket and the guest program.
fn prepare() -> io::Result<(OwnedFd, OwnedFd)> {
    sys::set_name(c"cofferdam-launc")?;
    sys::new_session()?;
    sys::reset_signals();
    sys::set_umask(0o022);
    // Others of the same user may not look into this process or steal its descriptors.
    sys::set_dumpable(false)?;
    let control = sys::duplicate_standard(0)?;
    let guest = sys::duplicate_standard(1)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    (0..3).try_for_each(|standard| sys::set_standard(null.as_fd(), standard))?;
    Ok((control, guest))
}
