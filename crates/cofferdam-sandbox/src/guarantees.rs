//! What a host truly enforces: probed, named wall by wall, and said in words when it is weaker than it could be.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{SandboxError, SandboxSpec};

/// The walls of a backend on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guarantees {
    /// The backend.
    pub backend: String,
    /// One entry a wall, in the order of [`Wall`].
    pub walls: Vec<Guarantee>,
}

impl Guarantees {
    /// Returns what stands for a wall; [`Enforcement::Missing`] if the backend does not mention it.
    #[must_use]
    pub fn enforcement(&self, wall: Wall) -> &Enforcement {
        const UNMENTIONED: &Enforcement =
            &Enforcement::Missing { reason: String::new(), remedy: None };
        self.walls.iter().find(|g| g.wall == wall).map_or(UNMENTIONED, |g| &g.enforcement)
    }

    /// Refuses a specification that demands a wall in full which is weaker here.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Unenforceable`] with what stands instead, and what to change.
    pub fn demand(&self, spec: &SandboxSpec, backend: &'static str) -> Result<(), SandboxError> {
        let Some(Guarantee { wall, enforcement }) = self.unmet(spec) else { return Ok(()) };
        let (what, remedy) = match enforcement {
            Enforcement::Full { .. } => return Ok(()),
            Enforcement::Weak { mechanism, gap, remedy } => (format!("{mechanism}: {gap}"), remedy),
            Enforcement::Missing { reason, remedy } => (reason, remedy),
        };
        let asked = if spec.strict { "strict" } else { "require" };
        let remedy = remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default();
        let reason = format!("{what} (asked for with `{asked}`){remedy}");
        Err(SandboxError::Unenforceable { backend, wall, reason })
    }

    /// Returns the first wall that a specification demands in full and that is weaker here: any for
    /// [`SandboxSpec::strict`], else one of [`SandboxSpec::require`].
    #[must_use]
    pub fn unmet(&self, spec: &SandboxSpec) -> Option<Guarantee> {
        if spec.strict
            && let Some(weak) = self.weaknesses().next()
        {
            return Some(weak.clone());
        }
        spec.require.iter().find_map(|&wall| match self.enforcement(wall) {
            Enforcement::Full { .. } => None,
            weaker => Some(Guarantee { wall, enforcement: weaker.clone() }),
        })
    }

    /// Returns the walls that are weaker than full, in order.
    pub fn weaknesses(&self) -> impl Iterator<Item = &Guarantee> {
        self.walls.iter().filter(|g| !matches!(g.enforcement, Enforcement::Full { .. }))
    }
}

/// One wall and what it is made of here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guarantee {
    /// The wall.
    pub wall: Wall,
    /// What stands for it.
    pub enforcement: Enforcement,
}

/// Something that a sandbox keeps apart or bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Wall {
    /// Files of the host outside what was declared.
    Filesystem,
    /// The network.
    Network,
    /// Processes of the host.
    Processes,
    /// Users and capabilities.
    Privileges,
    /// System calls that commands do not need.
    SystemCalls,
    /// A second wall around files (Landlock).
    FilesystemSecondWall,
    /// [`cofferdam_core::SandboxLimits::memory_bytes`].
    MemoryLimit,
    /// [`cofferdam_core::SandboxLimits::processes`].
    ProcessLimit,
    /// [`cofferdam_core::SandboxLimits::cpu_millis`].
    CpuLimit,
    /// [`cofferdam_core::SandboxLimits::disk_bytes`] and `disk_inodes`.
    DiskLimit,
    /// [`cofferdam_core::SandboxLimits::open_files`].
    OpenFileLimit,
    /// [`cofferdam_core::SandboxLimits::output_bytes`].
    OutputLimit,
    /// [`cofferdam_core::SandboxLimits::wall_time`].
    WallTimeLimit,
    /// [`cofferdam_core::SandboxLimits::idle_time`].
    IdleTimeLimit,
    /// Nothing lives on after close, or after the death of the parent.
    Teardown,
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Filesystem => "file system",
            Self::Network => "network",
            Self::Processes => "processes",
            Self::Privileges => "privileges",
            Self::SystemCalls => "system calls",
            Self::FilesystemSecondWall => "file system, second wall",
            Self::MemoryLimit => "memory limit",
            Self::ProcessLimit => "process limit",
            Self::CpuLimit => "cpu limit",
            Self::DiskLimit => "disk limit",
            Self::OpenFileLimit => "open file limit",
            Self::OutputLimit => "output limit",
            Self::WallTimeLimit => "wall time limit",
            Self::IdleTimeLimit => "idle time limit",
            Self::Teardown => "teardown",
        })
    }
}

/// What stands for a wall on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Enforcement {
    /// The mechanism holds for the sandbox as a whole.
    Full {
        /// What enforces it, such as `cgroup v1 memory`.
        mechanism: String,
    },
    /// A mechanism holds, and falls short in a way that matters.
    Weak {
        /// What enforces it, such as `RLIMIT_AS per process`.
        mechanism: String,
        /// What it does not cover.
        gap: String,
        /// What to change on the host to make it full.
        remedy: Option<String>,
    },
    /// Nothing holds.
    Missing {
        /// What was tried and how it failed.
        reason: String,
        /// What to change on the host to have it.
        remedy: Option<String>,
    },
}
