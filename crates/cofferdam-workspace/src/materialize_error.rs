//! [`MaterializeError`]: why a workspace could not be filled.

use std::{path::PathBuf, time::Duration};

use cofferdam_core::{BoxError, Retry, SecretRef, WorkspacePath};
use cofferdam_sandbox::SandboxError;

use crate::HostFileError;

/// A failure to fill a workspace, sorted by what the caller can do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MaterializeError {
    /// A source is not there: create it or correct the manifest.
    #[error("entry {entry}: {source_path} does not exist in {base}; create it or correct `source`")]
    SourceMissing {
        /// The entry.
        entry: WorkspacePath,
        /// The source as the manifest has it.
        source_path: String,
        /// The directory that it is relative to.
        base: PathBuf,
    },
    /// A source is outside of what may be read: move it or grant it.
    #[error(
        "{what}: {source_path} is outside of {base}, and no grant covers it; move it there, or have the caller allow \
         the source"
    )]
    NotGranted {
        /// Who asks for it, such as `entry notes`.
        what: String,
        /// The source as the manifest has it.
        source_path: String,
        /// The directory that needs no grant.
        base: PathBuf,
    },
    /// A source is reached through a link that leads out: name the true place, and grant it if needed.
    #[error(
        "entry {entry}: {source_path} leads out of {base} through a symbolic link; name the place that the link leads \
         to, and have the caller allow it"
    )]
    SourceEscapes {
        /// The entry.
        entry: WorkspacePath,
        /// The source as the manifest has it.
        source_path: String,
        /// The directory that it leads out of.
        base: PathBuf,
    },
    /// A source is of another kind than the entry: change `type` or `source`.
    #[error(
        "entry {entry}: {source_path} is a {found}, expected a {expected}; correct `type` or `source`"
    )]
    WrongKind {
        /// The entry.
        entry: WorkspacePath,
        /// The source as the manifest has it.
        source_path: String,
        /// What is there.
        found: &'static str,
        /// What the entry needs.
        expected: &'static str,
    },
    /// A link in a source leads out of it: remove the link or ignore it.
    #[error(
        "entry {entry}: the symbolic link {link} leads out of the source, to {target}; remove it or add it to `ignore`"
    )]
    LinkEscapes {
        /// The entry.
        entry: WorkspacePath,
        /// The link, relative to the source.
        link: String,
        /// Where it points to.
        target: String,
    },
    /// A source holds something that is no file, directory or link: remove or ignore it.
    #[error(
        "entry {entry}: {path} is a {kind}, which cannot be copied; remove it or add it to `ignore`"
    )]
    Special {
        /// The entry.
        entry: WorkspacePath,
        /// The place, relative to the source.
        path: String,
        /// What it is, such as `socket`.
        kind: &'static str,
    },
    /// A source is larger than its cap: raise the cap or ignore more.
    #[error(
        "entry {entry}: {source_path} holds more than {cap} {unit} ({found} up to {path}); raise `{field}` or take less"
    )]
    OverCap {
        /// The entry.
        entry: WorkspacePath,
        /// The source as the manifest has it.
        source_path: String,
        /// The cap.
        cap: u64,
        /// What is counted: `files` or `bytes`.
        unit: &'static str,
        /// What was counted when the cap was passed.
        found: u64,
        /// The field of the manifest that sets the cap.
        field: &'static str,
        /// Where the cap was passed, relative to the source.
        path: String,
    },
    /// A source nests too deep: make it flatter or ignore more.
    #[error(
        "entry {entry}: {path} nests more than {cap} directories; ignore it or make it flatter"
    )]
    TooDeep {
        /// The entry.
        entry: WorkspacePath,
        /// The place, relative to the source.
        path: String,
        /// The bound.
        cap: usize,
    },
    /// An ignore pattern has no meaning: correct it.
    #[error("entry {entry}: the ignore pattern {pattern:?} cannot be read: {reason}")]
    Pattern {
        /// The entry.
        entry: WorkspacePath,
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Two entries do not fit together: move one of them.
    #[error(
        "entry {entry}: {path} is a {found} of entry {other}, so it cannot be a {wanted}; move one of the entries"
    )]
    Conflict {
        /// The entry that came later.
        entry: WorkspacePath,
        /// The entry that was there.
        other: WorkspacePath,
        /// The path in the workspace.
        path: String,
        /// What is there.
        found: &'static str,
        /// What the later entry needs there.
        wanted: &'static str,
    },
    /// A source changed while it was read: try again when it is still.
    #[error("entry {entry}: {path} changed while it was read; try again when nothing writes to it")]
    Changed {
        /// The entry.
        entry: WorkspacePath,
        /// The place, relative to the source.
        path: String,
    },
    /// A file of the host could not be read or written: look at the cause.
    #[error(transparent)]
    HostFile(#[from] HostFileError),
    /// A repository could not be cloned: look at what git said.
    #[error("entry {entry}: git could not {step} {url}: {detail}")]
    Git {
        /// The entry.
        entry: WorkspacePath,
        /// The repository.
        url: String,
        /// What was tried, such as `fetch`.
        step: &'static str,
        /// What git said.
        detail: String,
    },
    /// Cloning took too long: raise the time or look at the server.
    #[error("entry {entry}: git was still at work on {url} after {} s; raise the git timeout or look at the server", .after.as_secs())]
    GitTimeout {
        /// The entry.
        entry: WorkspacePath,
        /// The repository.
        url: String,
        /// The time that it had.
        after: Duration,
    },
    /// A secret of the control plane could not be had: supply it.
    #[error("entry {entry}: the secret {reference} is not available in the control plane")]
    Secret {
        /// The entry.
        entry: WorkspacePath,
        /// The secret's name.
        reference: SecretRef,
        /// Why not.
        #[source]
        source: BoxError,
    },
    /// The sandbox failed: look at the cause.
    #[error("the sandbox failed at the upload of the workspace")]
    Sandbox(#[source] SandboxError),
}

impl MaterializeError {
    /// Returns whether the same call may succeed later.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Changed { .. } | Self::GitTimeout { .. } => Retry::Backoff,
            Self::Sandbox(error) => error.retry(),
            _ => Retry::Never,
        }
    }
}
