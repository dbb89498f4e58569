//! [`ImageError`]: why an image does not become a root file system, sorted by what the caller can do next.

use std::{io, path::PathBuf};

use cofferdam_core::BoxError;

use crate::{Digest, Platform};

/// An image cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// It is not there: correct the path or the name, or fetch it first.
    #[error("there is no {what} {name:?}{}", hint(.known))]
    NotFound {
        /// What was looked for, such as `image`.
        what: &'static str,
        /// The name it was looked for under.
        name: String,
        /// Some names that are there.
        known: Vec<String>,
    },
    /// Several images are there and none was named: name one.
    #[error("there are several images{}", hint(.known))]
    Ambiguous {
        /// Some of their names.
        known: Vec<String>,
    },
    /// It is for another kind of machine: choose one for this.
    #[error("it is for {}, and programs for {wanted} run here", found.join(", "))]
    Platform {
        /// What runs here.
        wanted: Platform,
        /// What the image is for.
        found: Vec<String>,
    },
    /// Its bytes are not those that were named: fetch it again, and distrust where it came from.
    #[error("{what} has the digest {found}, and {expected} was named")]
    Digest {
        /// What was read, such as `layer 2`.
        what: String,
        /// The digest by which it was named.
        expected: Digest,
        /// The digest of what was there.
        found: Digest,
    },
    /// It is not what an image has to be: build it again.
    #[error("{what} is malformed: {reason}")]
    Malformed {
        /// The part, such as `index.json`.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An entry of a layer is refused, because it is malformed or wants to reach out of the root: do not use the image.
    #[error("the entry {entry:?} of a layer is refused: {problem}")]
    Entry {
        /// The entry's name, cut to 200 characters.
        entry: String,
        /// What is wrong with it.
        problem: EntryProblem,
    },
    /// It is larger than a limit: raise the limit, or use a smaller image.
    #[error("{what} is above the limit of {limit}")]
    TooLarge {
        /// What is too large, with its unit.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// It uses a form that is not read: convert it.
    #[error("{what} is not supported")]
    Unsupported {
        /// The form.
        what: String,
    },
    /// The cache is full of what is in use: close sandboxes or raise its size.
    #[error(
        "the image cache is full: {needed} bytes are needed, and what is in use leaves no room below {limit}"
    )]
    CacheFull {
        /// Bytes that are needed.
        needed: u64,
        /// The size of the cache, in bytes.
        limit: u64,
    },
    /// It could not be fetched: try again if `passing`, otherwise look at the address.
    #[error("cannot fetch {what}")]
    Fetch {
        /// What was fetched, and from where.
        what: String,
        /// Whether the same may succeed later.
        passing: bool,
        /// Why it failed.
        #[source]
        source: BoxError,
    },
    /// Its keeper gives it only to others: give credentials for it.
    #[error("{keeper} refuses to give {what}: {reason}")]
    Denied {
        /// What was asked for.
        what: String,
        /// Who was asked.
        keeper: String,
        /// What was answered.
        reason: String,
    },
    /// The source cannot be read: look at the path.
    #[error("cannot read {}", path.display())]
    Source {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The cache cannot be used: look at its directory, its space and its file system.
    #[error("cannot {operation} in the image cache")]
    Cache {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// What is wrong with an entry of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum EntryProblem {
    /// A path with a `..`.
    #[error("its path has a `..`")]
    ParentDirectory,
    /// A path that begins with `/`.
    #[error("its path is absolute")]
    Absolute,
    /// A path with a NUL byte, or without any name.
    #[error("its path is empty or has a NUL byte")]
    NoName,
    /// A name above 255 bytes, or a path above 4096 bytes or 128 directories.
    #[error("its path is too long or too deep")]
    TooLong,
    /// A path that leads through a symbolic link or a file of the same layer.
    #[error("its path leads through something that is no directory")]
    ThroughLink,
    /// A second entry for a path that is not a directory both times.
    #[error("another entry has the same path")]
    Duplicate,
    /// A hard link to something that is not in the layer, or is neither file nor symbolic link.
    #[error("it is a hard link to something that is not a file of the same layer")]
    LinkTarget,
    /// A symbolic link without a target, or with one that is too long or has a NUL byte.
    #[error("it is a symbolic link without a usable target")]
    SymbolicLink,
    /// A whiteout (`.wh.name`) that names nothing, a directory above, or something below a whiteout.
    #[error("it is a whiteout of no name in its directory")]
    Whiteout,
    /// A kind of entry that has no place in an image.
    #[error("it is of a kind that no image has")]
    Kind,
    /// A sparse file.
    #[error("it is a sparse file; make the archive without them")]
    Sparse,
    /// Two statements on the entry contradict each other.
    #[error("its headers contradict each other")]
    Contradiction,
    /// The archive ends in the middle of it.
    #[error("the archive ends in the middle of it")]
    Truncated,
}

impl ImageError {
    /// Returns what to do about it, in words.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "correct the path or the name, or save the image there first",
            Self::Ambiguous { .. } => "name one of them",
            Self::Platform { .. } => "choose an image for this kind of machine",
            Self::Digest { .. } => "fetch it again, and distrust where it came from",
            Self::Malformed { .. } => "build or save the image again",
            Self::Entry { .. } => "do not use this image, or build it again",
            Self::TooLarge { .. } => "use a smaller image or raise the limit",
            Self::Unsupported { .. } => "convert the image to gzip or zstd layers of plain files",
            Self::CacheFull { .. } => "close sandboxes or give the image cache more room",
            Self::Fetch { passing: true, .. } => "try again later",
            Self::Fetch { .. } => "look at the name of the registry and the way to it",
            Self::Denied { .. } => "give credentials for the registry, or correct the name",
            Self::Source { .. } => "look at the path and its permissions",
            Self::Cache { .. } => "look at the cache's directory, its space and its file system",
        }
    }
}

/// Lists the first known names.
fn hint(known: &[String]) -> String {
    match known {
        [] => String::new(),
        names => {
            let more = if names.len() > SHOWN { ", …" } else { "" };
            format!("; known: {}{more}", names[..names.len().min(SHOWN)].join(", "))
        }
    }
}

const SHOWN: usize = 8;

/// Returns a name as it may be shown: printable, and no longer than 200 characters.
pub(crate) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(200).collect()
}
