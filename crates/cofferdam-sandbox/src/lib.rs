//! The compute plane's seams: [`SandboxBackend`] makes boxes, [`Sandbox`] is one of them.
//!
//! A backend does two things: it builds a box whose walls it can name ([`Guarantees`]), and hands back the duplex byte
//! stream of the guest that runs inside. Everything else (exec, files, trees) is the guest's, so it is the same on
//! every backend.
//!
//! - [`backend`]: [`SandboxBackend`], [`SandboxSpec`], [`ListedSandbox`].
//! - [`sandbox`]: [`Sandbox`] and [`SandboxExt`].
//! - [`replaceable`]: [`ReplaceableSandbox`], in whose place another can come.
//! - [`exec`]: [`ExecRequest`], [`ExecEvent`], [`Process`].
//! - [`files`]: [`Files`] and its options.
//! - [`tree`]: [`Tree`]: many files in one stream.
//! - [`sessions`]: [`Sessions`]: commands that outlive a connection.
//! - [`ports`]: [`Ports`]: connections in and out.
//! - [`watch`]: [`Watcher`]: changes of files.
//! - [`capabilities`]: [`Capabilities`]: what sandboxes can do here beyond what every one does.
//! - [`host_workspace`]: [`HostWorkspace`]: the workspace as files of the host.
//! - [`freezer`]: [`Freezer`]: a sandbox that stands still for a moment.
//! - [`guest_client`]: [`GuestClient`], the host's side of the guest protocol.
//! - [`guarantees`]: what a host truly enforces.
//! - [`error`]: the one error, [`SandboxError`].
//! - `conformance` (a feature): the cases that every backend must pass.
//!
//! # Why not one call per file operation on the host?
//!
//! A host that walks a workspace which untrusted code writes to is raced through symbolic links. So the guest, which
//! holds nothing worth stealing, does all of it inside the box, and the host reads bytes off a stream that it does not
//! trust.
#![forbid(unsafe_code)]

pub mod backend;
pub mod capabilities;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod error;
pub mod exec;
pub mod files;
pub mod freezer;
pub mod guarantees;
pub mod guest_client;
pub mod host_workspace;
pub mod ports;
pub mod replaceable;
pub mod sandbox;
pub mod sessions;
mod spec_check;
pub mod tree;
pub mod watch;

pub use backend::{
    BaseLock, ImageSource, ListedSandbox, RootFilesystem, SandboxBackend, SandboxSpec,
    SystemCallProfile, WorkspaceBase,
};
pub use capabilities::Capabilities;
pub use error::{LossReason, SandboxError};
pub use exec::{
    ExecEvent, ExecOutput, ExecRequest, ExitStatus, Process, ProcessControl, Signal, TerminalSize,
};
pub use files::{FileKind, FileMetadata, Files, ListOptions, Listing, ListingEntry, WriteOptions};
pub use freezer::{DEFAULT_FREEZE, Freezer, Frozen};
pub use guarantees::{Enforcement, Guarantee, Guarantees, Wall};
pub use guest_client::{GuestClient, GuestOptions, SessionOptions, SessionToken};
pub use host_workspace::{HostLayer, HostLayerKind, HostWorkspace};
pub use ports::{PortAddress, PortListener, PortStream, Ports};
pub use replaceable::ReplaceableSandbox;
pub use sandbox::{Sandbox, SandboxExt, SandboxState};
pub use sessions::{CommandInfo, CommandState, OutputPosition, Sessions};
pub use tree::{
    DownloadOptions, ScanEntry, ScanEvent, ScanKind, ScanOptions, SkippedEntry, Tree, TreeEntry,
    TreeEntryKind, TreeEvent,
};
pub use watch::{WatchEvent, WatchOptions, Watcher};
