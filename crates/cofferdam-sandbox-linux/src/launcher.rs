//! [`Launcher`]: the one process that makes the sandboxes of a backend, started when it is first needed; and [`Supervisor`],
//! the same program for one sandbox that outlives this process.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
        SocketType,
    },
};

use crate::programs::Programs;

/// The launcher of a backend: none yet, one that lives, or one that has died and is replaced at the next request.
#[derive(Debug, Default)]
pub(crate) struct Launchers(Mutex<Option<Arc<Launcher>>>);

impl Launchers {
    /// Sends the descriptors of a new sandbox (its stream, the reports, the plan) to the launcher, and returns the one that
    /// took them.
    pub(crate) fn request(&self, descriptors: [BorrowedFd<'_>; 3]) -> io::Result<Arc<Launcher>> {
        // What a panic left is a launcher or none, both of which are right.
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(launcher) = &*current {
            match launcher.send(descriptors) {
                // It was killed, and its sandboxes with it.
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => {}
                sent => return sent.map(|()| Arc::clone(launcher)).map_err(io::Error::from),
            }
        }
        let launcher = Arc::new(Launcher::start()?);
        launcher.send(descriptors)?;
        Ok(Arc::clone(current.insert(launcher)))
    }
}

/// A started launcher. Dropping it ends it, and all its sandboxes.
#[derive(Debug)]
pub(crate) struct Launcher {
    control: OwnedFd,
}

impl Launcher {
    fn start() -> io::Result<Self> {
        // The argument is for people who look at the list of processes.
        let (control, _) = start(&[&std::process::id().to_string()])?;
        Ok(Self { control })
    }

    fn send(&self, descriptors: [BorrowedFd<'_>; 3]) -> rustix::io::Result<()> {
        send(self.control.as_fd(), &descriptors)
    }
}

/// A supervisor that waits for its sandbox. Dropping it before a request ends it; afterwards it goes on without this process.
#[derive(Debug)]
pub(crate) struct Supervisor {
    control: OwnedFd,
    pub(crate) pid: u32,
}

impl Supervisor {
    /// Starts the supervisor of a sandbox.
    pub(crate) fn start(sandbox: &str) -> io::Result<Self> {
        let (control, pid) = start(&["--linger", sandbox])?;
        Ok(Self { control, pid })
    }

    /// Sends the descriptors of the sandbox (its stream, the reports, the plan, the guest's socket, its own socket) and those
    /// that it keeps open as long as the sandbox lives.
    pub(crate) fn request(
        self,
        descriptors: [BorrowedFd<'_>; 5],
        kept: &[OwnedFd],
    ) -> io::Result<()> {
        let all: Vec<_> = descriptors.into_iter().chain(kept.iter().map(AsFd::as_fd)).collect();
        Ok(send(self.control.as_fd(), &all)?)
    }
}

/// Starts the program and returns its control socket and its process id.
fn start(arguments: &[&str]) -> io::Result<(OwnedFd, u32)> {
    let programs = Programs::get()?;
    let (control, launcher_control) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    #[expect(clippy::disallowed_methods, reason = "this is the backend that starts processes")]
    let mut child = Command::new(programs.launcher_path())
        .arg0("cofferdam-launcher")
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(launcher_control))
        .stdout(Stdio::from(programs.guest().try_clone_to_owned()?))
        .stderr(Stdio::null())
        .spawn()?;
    let pid = child.id();
    // So that it never stays as a zombie, whether the host has a runtime then or not.
    let waiting = thread::Builder::new()
        .name("cofferdam-launcher".to_owned())
        .stack_size(64 << 10)
        .spawn(move || child.wait());
    if let Err(error) = waiting {
        tracing::warn!(%error, "cannot wait for the launcher: it will stay as a zombie at its end");
    }
    Ok((control, pid))
}

fn send(control: BorrowedFd<'_>, descriptors: &[BorrowedFd<'_>]) -> rustix::io::Result<()> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(descriptors.len()))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    rights.push(SendAncillaryMessage::ScmRights(descriptors));
    let message = [IoSlice::new(b"s")];
    rustix::net::sendmsg(control, &message, &mut rights, SendFlags::NOSIGNAL).map(drop)
}
