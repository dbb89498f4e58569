//! Network namespaces made ahead. One takes longer than any other part of a sandbox, so the next sandbox's is made while nobody
//! waits for this process.
//!
//! Nobody was ever in it, and it is given to one sandbox: nothing of another is found there. It belongs to the user namespace
//! of this process, so no capability that the sandbox's processes have, not even while they build it, is one over it.
//!
//! Only a process that may come back can go and make one. An ordinary user's cannot, and makes all namespaces of a sandbox with
//! its first process, as is done when a sandbox comes before there is one.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
};

use crate::sys;

/// The one that is made ahead.
#[derive(Debug, Default)]
pub(crate) enum Spare {
    /// No sandbox has wanted one yet.
    #[default]
    Unwanted,
    /// One is to be made when there is time.
    Wanted,
    Made(Networks),
    /// This process cannot make one.
    Impossible,
}

/// A network namespace in which nobody is, and that of this process.
#[derive(Debug)]
pub(crate) struct Networks {
    spare: OwnedFd,
    home: OwnedFd,
}

/// Takes this process back when dropped.
#[derive(Debug)]
pub(crate) struct Inside {
    home: OwnedFd,
}

impl Spare {
    pub(crate) fn is_wanted(&self) -> bool {
        matches!(self, Self::Wanted)
    }

    /// Makes it.
    pub(crate) fn make(&mut self) {
        // What fails here fails again when a sandbox is made, and is told then.
        *self = Networks::make().map_or(Self::Impossible, Self::Made);
    }

    /// Moves this process into it, if there is one, until the result is dropped. Another one is wanted then.
    pub(crate) fn enter(&mut self) -> Option<Inside> {
        let after = match self {
            Self::Impossible => Self::Impossible,
            _ => Self::Wanted,
        };
        let Self::Made(Networks { spare, home }) = std::mem::replace(self, after) else {
            return None;
        };
        // It goes without, as it would have done before there was one.
        sys::enter_namespace(spare.as_fd(), sys::CLONE_NEWNET).ok()?;
        Some(Inside { home })
    }
}

impl Networks {
    fn make() -> io::Result<Self> {
        let home = current()?;
        // Fails before anything is done where this process could not come back.
        sys::enter_namespace(home.as_fd(), sys::CLONE_NEWNET)?;
        sys::unshare_namespaces(sys::CLONE_NEWNET)?;
        let inside = Inside { home };
        let made = current().and_then(|spare| {
            sys::loopback_up()?;
            Ok(Self { spare, home: inside.home.try_clone()? })
        });
        drop(inside);
        made
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if sys::enter_namespace(self.home.as_fd(), sys::CLONE_NEWNET).is_err() {
            // Lost in another's network: nothing that follows would be right. All sandboxes end with this process.
            sys::exit_now(1);
        }
    }
}

/// Returns the network namespace in which this process is.
fn current() -> io::Result<OwnedFd> {
    File::open("/proc/self/ns/net").map(OwnedFd::from)
}
