//! [`HostWorkspace`]: the workspace as the host sees it, without asking anybody inside.

use std::{fmt::Debug, os::fd::OwnedFd};

use crate::SandboxError;

/// The files of a workspace from outside, for whoever wants to know what changed without a walk through all of it.
///
/// What it shows was made by untrusted code and may change at any moment, unless the sandbox is frozen. A reader opens names
/// below the directory with `openat2` and `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS`,
/// with `O_NOFOLLOW | O_NONBLOCK`, and opens nothing but regular files and directories. It only reads: what is written here
/// behind the back of an overlay file system is undefined inside.
///
/// Owners are users of the host that mean nothing; modes are those inside. Started by an ordinary user, a file that its owner
/// may not read (mode 000) cannot be read here either, and is told as such by the reader.
pub trait HostWorkspace: Debug + Send + Sync + 'static {
    /// Returns the directory of the host that holds the files, as a descriptor of its own.
    ///
    /// It stays readable after the processes of the sandbox have ended and after its stream was lost, until the sandbox is
    /// closed or dropped and every descriptor is closed. As long as one is open, the files take what they take of the memory or
    /// disk of the host, at most [`cofferdam_core::SandboxLimits::disk_bytes`].
    ///
    /// # Errors
    ///
    /// [`SandboxError::Lost`] after the sandbox was closed; [`SandboxError::Host`] if no descriptor is left.
    fn layer(&self) -> Result<HostLayer, SandboxError>;
}

/// A directory of the host with the files of a workspace, or with those that changed.
#[derive(Debug)]
pub struct HostLayer {
    /// The directory. It may have been opened with `O_PATH`.
    pub directory: OwnedFd,
    /// What is in it.
    pub kind: HostLayerKind,
}

/// What a [`HostLayer`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HostLayerKind {
    /// The whole workspace.
    Whole,
    /// What differs from [`crate::SandboxSpec::base`]: the upper directory of an overlay file system.
    ///
    /// A name that is removed is a character device with the number 0:0. A directory that replaces the one of the base, instead
    /// of adding to it, has the attribute `user.overlay.opaque` or `trusted.overlay.opaque` with the value `y`; so may one that is
    /// new. A file whose
    /// content, mode or time changed is here as a whole. There are no redirects and no files without their data.
    Upper,
}
