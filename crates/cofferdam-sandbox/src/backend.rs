//! [`SandboxBackend`]: who makes sandboxes.

use std::{collections::BTreeMap, fmt::Debug, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use cofferdam_core::{NetworkAccess, SandboxLimits, WorkspacePath};
use serde::{Deserialize, Serialize};

use crate::{Guarantees, Sandbox, SandboxError, SandboxState};

/// What a backend must do: report its walls, make a box, find a box again.
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

    /// Makes a sandbox with an empty workspace.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Unenforceable`] names what was asked and cannot be enforced here.
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
    async fn attach(&self, state: &SandboxState) -> Result<Arc<dyn Sandbox>, SandboxError>;
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
    /// Workspace paths that commands can read and not write.
    pub read_only: Vec<WorkspacePath>,
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
}
