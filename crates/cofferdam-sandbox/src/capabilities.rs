//! [`Capabilities`]: what sandboxes of a backend can do on this host beyond what every sandbox does.

use serde::{Deserialize, Serialize};

/// What a backend can do here, found by trying; all of it is false where nobody looked.
///
/// Nothing in it is a wall: what is false, a caller does in another way (fills an empty workspace, walks the files inside,
/// makes a new sandbox), and what is asked for in spite of it is refused by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Capabilities {
    /// A workspace can begin with a directory of the host: [`crate::SandboxSpec::base`].
    pub workspace_base: bool,
    /// The host sees the workspace as files of its own: [`crate::Sandbox::host_workspace`].
    pub host_workspace: bool,
    /// A sandbox can be stopped for a moment as a whole: [`crate::Sandbox::freezer`].
    pub freeze: bool,
    /// A sandbox can outlive the process that made it: [`crate::SandboxSpec::linger`].
    pub linger: bool,
    /// Why what is false is false, in words for people, each with what to change.
    pub notes: Vec<String>,
}
