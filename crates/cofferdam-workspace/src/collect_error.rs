//! [`CollectError`]: why outputs could not be collected.

use std::path::PathBuf;

use cofferdam_core::{Retry, WorkspacePath};
use cofferdam_sandbox::SandboxError;

use crate::HostFileError;

/// A failure to collect outputs, sorted by what the caller can do next. Files that were whole stay.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// The directory for outputs cannot be used: name another.
    #[error("cannot collect outputs into {path}: {reason}; name a new or empty directory")]
    Destination {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The outputs are larger than allowed: raise the bound, or declare less. What was whole stays.
    #[error(
        "output {output}: the outputs hold more than {cap} {unit}; raise the bound or declare less as outputs"
    )]
    OverCap {
        /// The output that passed the bound.
        output: WorkspacePath,
        /// The bound.
        cap: u64,
        /// What is counted: `files` or `bytes`.
        unit: &'static str,
    },
    /// The sandbox sent a tree that no honest guest sends: treat it as hostile and close it.
    #[error("output {output}: the sandbox sent a tree that is not sound: {detail}")]
    Hostile {
        /// The output.
        output: WorkspacePath,
        /// What is wrong with it.
        detail: String,
    },
    /// A file of the host could not be read or written: look at the cause.
    #[error(transparent)]
    HostFile(#[from] HostFileError),
    /// The sandbox failed: look at the cause.
    #[error("the sandbox failed at the download of output {output}")]
    Sandbox {
        /// The output.
        output: WorkspacePath,
        /// Why.
        #[source]
        source: SandboxError,
    },
}

impl CollectError {
    /// Returns whether the same call, with a new directory, may succeed later.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Sandbox { source, .. } => source.retry(),
            _ => Retry::Never,
        }
    }
}
