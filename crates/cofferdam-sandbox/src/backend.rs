//! [`SandboxBackend`]: who makes sandboxes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use cofferdam_core::{NetworkAccess, SandboxId, SandboxLimits, Timestamp, WorkspacePath};
use serde::{Deserialize, Serialize};

use crate::{Capabilities, Guarantees, Sandbox, SandboxError, SandboxState, Wall};

/// What a backend must do: report its walls, make a box, find a box again, tell which there are.
#[async_trait]
pub trait SandboxBackend: Debug + Send + Sync + 'static {
    /// Returns the backend's name as written in states and reports, such as `linux`.
    fn name(&self) -> &str;

    /// Probes what this host enforces for sandboxes of this backend; nothing is assumed.
    ///
    /// # Errors
    ///
    /// Fails only if probing itself is impossible; a wall that is missing is reported, not an error.
    async fn guarantees(&self) -> Result<Guarantees, SandboxError>;

    /// Looks what sandboxes of this backend can do on this host beyond what every sandbox does; nothing is assumed. Default:
    /// nothing.
    ///
    /// # Errors
    ///
    /// Fails only if looking itself is impossible; what cannot be done is reported, not an error.
    async fn capabilities(&self) -> Result<Capabilities, SandboxError> {
        Ok(Capabilities::default())
    }

    /// Makes a sandbox, with an empty workspace unless the specification has a [`SandboxSpec::base`].
    ///
    /// # Errors
    ///
    /// [`SandboxError::Unenforceable`] names what was asked and cannot be enforced here, [`SandboxError::Base`] why a
    /// workspace cannot begin with a directory.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the half-made sandbox is torn down.
    async fn create(&self, spec: &SandboxSpec) -> Result<Arc<dyn Sandbox>, SandboxError>;

    /// Connects again to a live sandbox that this backend made.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Lost`] if it is gone, [`SandboxError::Unsupported`] if this backend's sandboxes end with the
    /// process that made them.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the sandbox goes on as if nobody had attached. An earlier connection may be closed.
    async fn attach(&self, state: &SandboxState) -> Result<Arc<dyn Sandbox>, SandboxError>;

    /// Lists the sandboxes of this backend that are on this host or engine, also those of processes that have died.
    ///
    /// All that linger are there. One that ends with the process that made it may be left out, if only that process knows
    /// it. What ends meanwhile may still be listed; the order is not defined.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Unavailable`] if what the backend stands on does not answer. A single sandbox that cannot be read is
    /// left out, not an error.
    async fn list(&self) -> Result<Vec<ListedSandbox>, SandboxError>;

    /// Ends a sandbox that [`list`](Self::list) names, whoever is connected to it, and removes everything of it from the
    /// host or engine. Idempotent: a name that nobody has, or has any more, is `Ok`.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Cleanup`] names what is left; calling again retries.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the sandbox ends all the same, or goes on as before; calling again removes it.
    async fn remove(&self, id: &SandboxId) -> Result<(), SandboxError>;
}

/// A sandbox as [`SandboxBackend::list`] finds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListedSandbox {
    /// Its name.
    pub id: SandboxId,
    /// [`SandboxBackend::name`] of the backend that made it.
    pub backend: String,
    /// [`SandboxSpec::labels`] that it was made with.
    pub labels: BTreeMap<String, String>,
    /// When it was made, by the clock of the host or engine.
    pub created: Timestamp,
    /// When it ends at the latest if nobody does anything: at the end of its wall time, or of its linger time where the backend
    /// knows since when nobody is connected. `None` if neither is known.
    pub expires: Option<Timestamp>,
    /// Whether a process is connected to it. A backend that cannot know it for certain says that one may be.
    pub connected: bool,
    /// What [`SandboxBackend::attach`] finds it with. It holds no secret.
    pub state: SandboxState,
}

/// What a sandbox is to be.
///
/// The default is sealed: no network, no host files but the system's programs read-only, an environment of four
/// harmless variables, and every limit finite.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxSpec {
    /// Bounds on what it may use.
    pub limits: SandboxLimits,
    /// What it may reach over the network.
    pub network: NetworkAccess,
    /// Variables that each command gets, besides `PATH`, `HOME`, `LANG` and `TERM`. Literal values only: secrets stay
    /// in the control plane.
    pub environment: BTreeMap<String, String>,
    /// Where programs and libraries come from.
    pub root: RootFilesystem,
    /// Text that lists and sweepers show, such as the owner and the run.
    pub labels: BTreeMap<String, String>,
    /// Refuse hosts on which any wall is weaker than on a current Linux with all of them.
    pub strict: bool,
    /// Walls and limits without which the sandbox must not start: creating it fails with
    /// [`SandboxError::Unenforceable`] if one of them is not full. `strict` demands all of them.
    pub require: BTreeSet<Wall>,
    /// Which system calls commands may make.
    pub system_calls: SystemCallProfile,
    /// How long the sandbox outlives its last connection, so that [`SandboxBackend::attach`] finds it, within its wall time.
    /// Default zero: it ends with the connection or the process that made it.
    pub linger: Duration,
    /// Workspace paths that commands can read and not write.
    pub read_only: Vec<WorkspacePath>,
    /// What the workspace begins with. Default: nothing, it is empty. A backend whose [`Capabilities::workspace_base`] is
    /// false refuses one.
    pub base: Option<WorkspaceBase>,
}

/// A directory of the host whose content a workspace begins with, without a copy of it.
///
/// Any number of sandboxes may have the same one at the same time: each sees its own changes alone, and none changes the
/// directory. Its files appear as those of the sandbox's user, if they belong to the user of the process that makes the
/// sandbox, as those of nobody otherwise. Only what is written counts against the limits of a sandbox; a file of the base that
/// is changed counts as a whole.
///
/// What a name of the base is, a command may notice in three ways: to rename a directory of it fails with `EXDEV`, as between
/// file systems, and programs copy instead; the names of a hard link part when one of them is written; and what is mounted
/// below it is not seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceBase {
    /// An absolute path. What is in it must not change while a sandbox uses it. It is not trusted: nothing in it is run or
    /// interpreted outside of a sandbox.
    pub directory: PathBuf,
    /// What keeps others from changing or removing the directory: it is open as long as the sandbox is there, also in a process
    /// that outlives this one. Default: nothing does. It is of this process, and not written down.
    #[serde(skip)]
    pub lock: Option<BaseLock>,
}

impl WorkspaceBase {
    /// Returns a base that nothing keeps.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), lock: None }
    }

    /// Returns this base with what keeps it, such as a descriptor with a shared `flock`.
    #[must_use]
    pub fn with_lock(self, lock: Arc<OwnedFd>) -> Self {
        Self { lock: Some(BaseLock(lock)), ..self }
    }
}

/// A descriptor that keeps a base as long as it, or one made from it, is open.
#[derive(Debug, Clone)]
pub struct BaseLock(pub Arc<OwnedFd>);

impl PartialEq for BaseLock {
    /// Two are equal if they are the same descriptor.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for BaseLock {}

/// A named set of system calls.
///
/// Every profile refuses what leads out of a sandbox; they differ in what commands may do to themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SystemCallProfile {
    /// What compilers, interpreters, package managers and test runners need.
    #[default]
    Default,
    /// The default, and tracing of the sandbox's own processes, for `gdb`, `strace` and sanitizers.
    Debugger,
    /// The default without what most commands can do without, such as System V IPC, memory locking and odd socket types.
    Strict,
}

/// Where the programs and libraries of a sandbox come from; always read-only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RootFilesystem {
    /// The host's system directories (`/usr`, `/bin`, `/lib*`, and the few files of `/etc` that programs need).
    #[default]
    HostSystem,
    /// A directory of the host that holds a root file system.
    Directory(PathBuf),
    /// A tar file of a root file system; may be compressed with gzip or zstd.
    Archive(PathBuf),
    /// A container image.
    Image(ImageSource),
}

/// Where a container image is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ImageSource {
    /// A directory in OCI image layout.
    Layout {
        /// The directory with `oci-layout` and `index.json`.
        directory: PathBuf,
        /// `org.opencontainers.image.ref.name` of the image. Default: the only one.
        name: Option<String>,
    },
    /// A file made by `docker save` or `podman save`, or a tar of an OCI layout.
    Archive {
        /// The file.
        file: PathBuf,
        /// The name of the image in it, such as `debian:bookworm`. Default: the only one.
        name: Option<String>,
    },
    /// A name that a container engine or a registry knows, such as `debian:bookworm` or `registry/name@sha256:…`.
    Reference(String),
}
