//! What bounds a sandbox. Every field has a finite default: nothing is unlimited by omission.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bounds on what one sandbox may use.
///
/// A backend enforces each bound or refuses to create the sandbox; which mechanism enforces which bound on a host is in
/// the backend's guarantees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxLimits {
    /// Memory of all processes and of the in-memory workspace together, in bytes. Default 2 GiB.
    pub memory_bytes: u64,
    /// Processes and threads at a time. Default 256.
    pub processes: u32,
    /// Share of processors in thousandths: 1000 is one whole processor. Default `None`: no quota, only fair weight.
    pub cpu_millis: Option<u32>,
    /// Weight when processors are wanted by more than there are, from 1 to 10 000, where other work has 100. Default `None`:
    /// 100.
    pub cpu_weight: Option<u32>,
    /// Bytes that the workspace and the other writable places may hold together. Default 1 GiB.
    pub disk_bytes: u64,
    /// Files and directories that the writable places may hold. Default 200 000.
    pub disk_inodes: u64,
    /// Open files of one process. Default 1024.
    pub open_files: u32,
    /// Bytes of output that one command may produce before it is stopped. Default 1 GiB.
    pub output_bytes: u64,
    /// Time from creation after which the sandbox is closed. Default one day.
    pub wall_time: Duration,
    /// Time without any operation and any running command after which the sandbox is closed. Default `None`: only
    /// [`SandboxLimits::wall_time`] closes it.
    pub idle_time: Option<Duration>,
}

impl Default for SandboxLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 2 << 30,
            processes: 256,
            cpu_millis: None,
            cpu_weight: None,
            disk_bytes: 1 << 30,
            disk_inodes: 200_000,
            open_files: 1024,
            output_bytes: 1 << 30,
            wall_time: Duration::from_secs(24 * 60 * 60),
            idle_time: None,
        }
    }
}

/// What a sandbox may reach over the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NetworkAccess {
    /// Nothing but a loopback interface of its own.
    #[default]
    None,
    /// The host's network, as any process of the user has it. An opening that a reviewer should question.
    Host,
}
