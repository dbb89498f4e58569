//! [`Launcher`]: the one process that makes the sandboxes of a backend, started when it is first needed.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
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
            // For people who look at the list of processes.
            .arg(std::process::id().to_string())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(launcher_control))
            .stdout(Stdio::from(programs.guest().try_clone_to_owned()?))
            .stderr(Stdio::null())
            .spawn()?;
        // So that it never stays as a zombie, whether the host has a runtime then or not.
        let waiting = thread::Builder::new()
            .name("cofferdam-launcher".to_owned())
            .stack_size(64 << 10)
            .spawn(move || child.wait());
        if let Err(error) = waiting {
            tracing::warn!(%error, "cannot wait for the launcher: it will stay as a zombie at its end");
        }
        Ok(Self { control })
    }

    fn send(&self, descriptors: [BorrowedFd<'_>; 3]) -> rustix::io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let message = [IoSlice::new(b"s")];
        rustix::net::sendmsg(&self.control, &message, &mut control, SendFlags::NOSIGNAL).map(drop)
    }
}
