//! [`SandboxError`]: what can go wrong with a sandbox, sorted by what the caller can do next.

use cofferdam_core::{BoxError, Retry};

use crate::Wall;

/// A failure of a sandbox or of its backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// This host cannot build a sandbox of this backend: change the host or choose another backend.
    #[error(
        "the {backend} backend cannot make a sandbox on this host: {step} failed: {reason}; {remedy}"
    )]
    HostUnable {
        /// The backend.
        backend: &'static str,
        /// The set-up step that failed, such as `create a user namespace`.
        step: String,
        /// What the host answered.
        reason: String,
        /// What to change on the host, or which backend to use instead.
        remedy: String,
    },
    /// Something that was asked for cannot be enforced here: ask for less or change the host.
    #[error("the {backend} backend cannot enforce the {wall} on this host: {reason}")]
    Unenforceable {
        /// The backend.
        backend: &'static str,
        /// The wall or limit.
        wall: Wall,
        /// What is missing, and what would supply it.
        reason: String,
    },
    /// What the backend stands on does not answer (a daemon that does not run, a socket that may not be opened): start it, or
    /// choose another backend.
    #[error("the {backend} backend is not available: {reason}; {remedy}")]
    Unavailable {
        /// The backend.
        backend: &'static str,
        /// What was tried and how it failed.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
    /// The image cannot be used: fetch it, name another one, or correct the name.
    #[error("the image {image} cannot be used: {reason}; {remedy}")]
    Image {
        /// The image, as it was asked for.
        image: String,
        /// What is wrong with it, such as that it is not there or for another architecture.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
    /// A workspace cannot begin with this directory here: begin with an empty one and fill it.
    #[error("a workspace cannot begin with {directory}: {reason}; {remedy}")]
    Base {
        /// The directory, as it was asked for.
        directory: String,
        /// What stands in the way, such as a file system that does not show files as another user's.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
    /// The sandbox did not stand still in time, and goes on: read it as it is, or try again.
    #[error("the sandbox did not stand still within {} ms", .max.as_millis())]
    FreezeTimeout {
        /// The bound.
        max: std::time::Duration,
    },
    /// The request makes no sense: correct it.
    #[error("invalid sandbox request: {reason}")]
    InvalidRequest {
        /// What is wrong with it.
        reason: String,
    },
    /// The command was not started: correct it.
    #[error("cannot start {program:?} in the sandbox: {reason}")]
    NotStarted {
        /// The program that was asked for.
        program: String,
        /// Why not, such as `no such file or directory`.
        reason: String,
        /// The error number, as on Linux.
        errno: i32,
    },
    /// No command of this name is known: it was never started, or it was forgotten; start it if that is safe.
    #[error("the sandbox knows no command named {id:?}")]
    UnknownCommand {
        /// The name.
        id: String,
    },
    /// A port inside cannot be used: look at what listens there.
    #[error("cannot {operation} {address} in the sandbox: {reason}")]
    Port {
        /// The operation, such as `connect to`.
        operation: &'static str,
        /// The address inside.
        address: String,
        /// Why, in words.
        reason: String,
        /// The error number, as on Linux.
        errno: i32,
    },
    /// Standard input is not open: start the command with an open standard input or a terminal.
    #[error(
        "standard input of the command is closed; start it with standard input open or on a terminal"
    )]
    StdinClosed,
    /// A file operation failed: look at the path.
    #[error("cannot {operation} {path:?} in the workspace: {reason}")]
    File {
        /// The operation, such as `read`.
        operation: &'static str,
        /// The path in the workspace.
        path: String,
        /// Why, in words.
        reason: String,
        /// The error number, as on Linux.
        errno: i32,
    },
    /// The sandbox is gone: make a new one and restore the workspace.
    #[error("the sandbox is lost: {reason}")]
    Lost {
        /// What ended it.
        reason: LossReason,
    },
    /// The guest broke the protocol: treat the sandbox as hostile and close it.
    #[error("the guest broke the protocol: {detail}")]
    Protocol {
        /// What it did.
        detail: String,
    },
    /// The guest speaks no common version of the protocol: use a guest and a host of the same release.
    #[error(
        "the guest speaks protocol versions {guest_min} to {guest_max}, this host {host_min} to {host_max}"
    )]
    VersionMismatch {
        /// The oldest version that the guest speaks.
        guest_min: u32,
        /// The newest version that the guest speaks.
        guest_max: u32,
        /// The oldest version that this host speaks.
        host_min: u32,
        /// The newest version that this host speaks.
        host_max: u32,
    },
    /// This backend does not do this: use another way.
    #[error("the {backend} backend does not support {operation}")]
    Unsupported {
        /// The backend.
        backend: &'static str,
        /// What was asked.
        operation: &'static str,
    },
    /// Something of the sandbox is left on the host: close again.
    #[error("could not remove {what} of the sandbox")]
    Cleanup {
        /// What is left.
        what: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The host's own resources failed (descriptors, memory, processes): try again later.
    #[error("the host could not {operation}")]
    Host {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: BoxError,
    },
}

/// What ended a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LossReason {
    /// It was closed on purpose.
    #[error("it was closed")]
    Closed,
    /// Its first process was killed or crashed.
    #[error("its first process ended ({detail})")]
    GuestEnded {
        /// The exit code or signal.
        detail: String,
    },
    /// It used more memory than its limit.
    #[error("it exceeded its memory limit")]
    OutOfMemory,
    /// It lived longer than its limit.
    #[error("it exceeded its wall time")]
    WallTime,
    /// Nothing was done with it for longer than its limit.
    #[error("it was idle for longer than its limit")]
    IdleTime,
    /// Somebody else removed it, or the engine that kept it has stopped.
    #[error("it was removed ({detail})")]
    Removed {
        /// By whom, as far as is known.
        detail: String,
    },
    /// The stream to the guest broke.
    #[error("the stream to the guest broke ({detail})")]
    StreamBroken {
        /// How.
        detail: String,
    },
}

impl SandboxError {
    /// Returns whether the same call may succeed later on the same sandbox or backend.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Host { .. }
            | Self::Cleanup { .. }
            | Self::Unavailable { .. }
            | Self::FreezeTimeout { .. } => Retry::Backoff,
            _ => Retry::Never,
        }
    }

    /// Returns true if the sandbox no longer exists or must not be used again.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Protocol { .. })
    }
}
