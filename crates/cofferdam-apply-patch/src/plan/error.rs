//! Why a patch cannot be planned.

use std::error::Error;
use std::sync::Arc;

use super::{Action, FileState};
use crate::apply::HunkError;
use crate::path::PatchPath;

/// Whatever a caller's files answer when they cannot be read.
pub type ReadError = Box<dyn Error + Send + Sync>;

/// An operation that cannot be done.
#[derive(Debug, Clone, thiserror::Error)]
#[error("operation {operation} of the patch cannot be done on {path}")]
pub struct PlanError {
    /// Which operation of the patch, counted from 1.
    pub operation: usize,
    /// What it was to do.
    pub action: Action,
    /// The path at fault.
    pub path: PatchPath,
    /// What is wrong with it.
    #[source]
    pub fault: PlanFault,
}

/// What is wrong with a path of a patch.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PlanFault {
    /// The file to change or remove is not there.
    #[error("there is no such file; add it, or correct the path")]
    Missing,
    /// A directory is there.
    #[error("it is a directory; a patch changes files only")]
    IsDirectory,
    /// A symbolic link is there.
    #[error("it is a symbolic link, and links are not followed; name the file itself")]
    IsSymlink,
    /// A socket, pipe or device is there.
    #[error("it is not a regular file")]
    NotAFile,
    /// A file is where one is to be made.
    #[error("a file is already there; update it, or delete it first")]
    AlreadyExists,
    /// The file could not be read.
    #[error("it cannot be read")]
    Read {
        /// Why.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// A hunk does not apply, or the file is not text.
    #[error(transparent)]
    Hunk(Box<HunkError>),
}

/// A plan that cannot be reversed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the plan removes the symbolic link {path}, whose target is not known; make it again by hand"
)]
pub struct Irreversible {
    /// The link.
    pub path: PatchPath,
}

impl PlanFault {
    /// The fault of a path at which there is no regular file.
    pub(super) fn of_missing_file(state: Option<&FileState>) -> Self {
        match state {
            None => Self::Missing,
            Some(FileState::Directory) => Self::IsDirectory,
            Some(FileState::Symlink) => Self::IsSymlink,
            Some(FileState::Other | FileState::File(_)) => Self::NotAFile,
        }
    }
}

impl PlanError {
    /// Returns the message for a model that is to try again: what failed, why, and the nearest lines. Several lines,
    /// bounded.
    pub fn explain(&self) -> String {
        match &self.fault {
            PlanFault::Hunk(error) => format!("{}: {}", self.path, error.explain()),
            PlanFault::Read { source } => format!("{}: {}: {source}", self.path, self.fault),
            fault => format!("{}: {fault}", self.path),
        }
    }
}
