//! Receipts: what was put into a workspace, and what came out.

use std::path::PathBuf;

use cofferdam_core::WorkspacePath;
use serde::Serialize;

/// What was put into a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Materialized {
    /// One receipt an entry, sorted by path.
    pub entries: Vec<MaterializedEntry>,
    /// Files, directories and links that the sandbox counted, those above entries included. A directory whose owner may
    /// not write to it counts twice, since it gets its mode after its content.
    pub uploaded: u64,
}

/// What one entry put into a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MaterializedEntry {
    /// Where in the workspace.
    pub path: WorkspacePath,
    /// The kind of entry, such as `local_dir`.
    pub kind: &'static str,
    /// Where it came from: a host path or an address; `None` for what the manifest itself holds.
    pub source: Option<String>,
    /// The commit that was checked out; only for `git`.
    pub revision: Option<String>,
    /// Regular files.
    pub files: u64,
    /// Directories, the entry's own included.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Files, directories and links that were ignored, not counting what ignored directories hold.
    pub ignored: u64,
    /// BLAKE3 in hexadecimal of all that was sent, in order: for each item the kind (`d`, `f` or `l`), mode, length of
    /// the path, path, length of the content or link target, and that content or target; numbers as 8 bytes, little
    /// end first; paths relative to the entry.
    pub digest: String,
}

/// What came out of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Collected {
    /// The directory of the host that holds the outputs, each at its path in the workspace.
    pub directory: PathBuf,
    /// Regular files written.
    pub files: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Declared outputs that were there.
    pub found: Vec<WorkspacePath>,
    /// Declared outputs that are not optional and were not there.
    pub missing: Vec<WorkspacePath>,
    /// What was left out, at most 1000 items.
    pub skipped: Vec<SkippedOutput>,
    /// Further items that were left out.
    pub skipped_further: u64,
}

/// Something that was not copied out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SkippedOutput {
    /// The path in the workspace, with what is not printable written out.
    pub path: String,
    /// Why, such as `socket`.
    pub reason: String,
}
