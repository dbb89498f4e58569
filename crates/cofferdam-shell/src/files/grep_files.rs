//! [`GrepFilesTool`]: the files whose content matches a pattern.
//!
//! The search reads through [`cofferdam_sandbox::Files`] rather than running `grep` in the sandbox: an image need not
//! have one, and the pattern means the same everywhere (that of ripgrep, which models are trained on, and which takes
//! time linear in the text whatever the pattern). Bounds on entries and bytes take the place of a timeout.

use async_trait::async_trait;
use cofferdam_core::{Effects, ToolOutput, ToolSpec, WorkspacePath};
use cofferdam_sandbox::{FileKind, ListOptions, SandboxError};
use cofferdam_tool::{Tool, ToolContext, ToolError, ToolInput};
use futures::{StreamExt, TryStreamExt, stream};
use globset::{GlobBuilder, GlobMatcher};
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::json;

use super::{WorkspaceView, invalid, is_binary, one_line};
use crate::call::{json_spec, tool_error};

const NAME: &str = "grep_files";
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 2_000;
const MAX_ENTRIES: usize = 50_000;
const MAX_FILE_BYTES: u64 = 4 << 20;
const MAX_TOTAL_BYTES: u64 = 256 << 20;
const MAX_PATTERN_BYTES: usize = 4_096;
/// Files read at a time, which with [`MAX_FILE_BYTES`] bounds the memory.
const CONCURRENT_READS: usize = 8;
/// Directories that no search is for.
const SKIPPED_DIRECTORIES: [&str; 2] = [".git", ".cofferdam"];

/// The tool `grep_files`: paths of the files whose content matches a regular expression, the one changed last first.
///
/// Binary files, files beyond 4 MiB, `.git` and the output files of this crate are left out; links are not followed.
#[derive(Debug)]
pub struct GrepFilesTool {
    spec: ToolSpec,
    workspace: WorkspaceView,
}

#[derive(Debug, Deserialize)]
struct Arguments {
    pattern: String,
    include: Option<String>,
    path: Option<String>,
    #[serde(default = "default_limit")]
    limit: usize,
}

fn default_limit() -> usize {
    DEFAULT_LIMIT
}

/// A file to look into.
#[derive(Debug)]
struct Candidate {
    path: WorkspacePath,
    modified_ns: i64,
    bytes: u64,
}

/// What a search found, and where it stopped short.
#[derive(Debug, Default)]
struct Found {
    candidates: Vec<Candidate>,
    notes: Vec<String>,
}

impl GrepFilesTool {
    /// Makes the tool.
    pub fn new(workspace: impl Into<WorkspaceView>) -> Self {
        let spec = json_spec(
            NAME,
            "Finds files whose contents match the pattern and lists them by modification time.",
            &["pattern"],
            json!({
                "pattern": {"type": "string", "description": "Regular expression pattern to search for."},
                "include": {
                    "type": "string",
                    "description": "Optional glob that limits which files are searched (e.g. \"*.rs\" or \
                                    \"*.{ts,tsx}\").",
                },
                "path": {
                    "type": "string",
                    "description": "Directory or file path to search. Defaults to the workspace.",
                },
                "limit": {
                    "type": "integer",
                    "description": format!("Maximum number of file paths to return (defaults to {DEFAULT_LIMIT})."),
                },
            }),
        );
        Self { spec, workspace: workspace.into() }
    }

    /// Walks the directories, by breadth.
    async fn candidates(
        &self,
        start: &WorkspacePath,
        include: Option<&GlobMatcher>,
    ) -> Result<Found, SandboxError> {
        let files = self.workspace.files();
        let mut found = Found::default();
        let metadata = files.stat(start).await?;
        if metadata.kind != FileKind::Directory {
            let (modified_ns, bytes) = (metadata.modified_ns, metadata.size);
            found.candidates.push(Candidate { path: start.clone(), modified_ns, bytes });
            return Ok(found);
        }
        let mut directories = std::collections::VecDeque::from([start.clone()]);
        let mut entries = 0;
        while let Some(directory) = directories.pop_front() {
            let listing = files.list(&directory, &ListOptions::default()).await?;
            entries += listing.entries.len();
            for entry in listing.entries {
                // A name that is not UTF-8 cannot be passed back by a model.
                let Ok(name) = std::str::from_utf8(&entry.path) else { continue };
                let Ok(path) = directory.join(name) else { continue };
                match entry.metadata.kind {
                    FileKind::Directory if !SKIPPED_DIRECTORIES.contains(&name) => {
                        directories.push_back(path);
                    }
                    FileKind::File if include.is_none_or(|glob| matches(glob, &path)) => {
                        let (modified_ns, bytes) =
                            (entry.metadata.modified_ns, entry.metadata.size);
                        found.candidates.push(Candidate { path, modified_ns, bytes });
                    }
                    _ => {}
                }
            }
            if listing.truncated || entries > MAX_ENTRIES {
                found.notes.push(format!("Not all of {directory} was searched: too many entries"));
                break;
            }
        }
        Ok(found)
    }

    async fn search(
        &self,
        start: &WorkspacePath,
        include: Option<&GlobMatcher>,
        pattern: &Regex,
    ) -> Result<Found, SandboxError> {
        let Found { candidates, mut notes } = self.candidates(start, include).await?;
        let all = candidates.len();
        let mut total = 0;
        let readable: Vec<Candidate> = candidates
            .into_iter()
            .filter(|candidate| candidate.bytes <= MAX_FILE_BYTES)
            .take_while(|candidate| {
                total += candidate.bytes;
                total <= MAX_TOTAL_BYTES
            })
            .collect();
        if readable.len() < all {
            notes.push(format!("{} large files were not searched", all - readable.len()));
        }
        let mut candidates: Vec<Candidate> = stream::iter(readable)
            .map(|candidate| async move {
                let content =
                    match self.workspace.files().read(&candidate.path, 0, MAX_FILE_BYTES).await {
                        Ok(content) => content,
                        Err(error) if error.is_loss() => return Err(error),
                        // It may be gone meanwhile, or not be readable.
                        Err(_) => return Ok(None),
                    };
                let is_match = !is_binary(&content) && pattern.is_match(&content);
                Ok(is_match.then_some(candidate))
            })
            .buffer_unordered(CONCURRENT_READS)
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect()
            .await?;
        candidates
            .sort_by(|a, b| b.modified_ns.cmp(&a.modified_ns).then_with(|| a.path.cmp(&b.path)));
        Ok(Found { candidates, notes })
    }
}

/// Matches as ripgrep does: a glob without `/` is for the name, at any depth.
fn matches(glob: &GlobMatcher, path: &WorkspacePath) -> bool {
    if glob.glob().glob().contains('/') {
        glob.is_match(path.as_str())
    } else {
        path.file_name().is_some_and(|name| glob.is_match(name))
    }
}

#[async_trait]
impl Tool for GrepFilesTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effects(&self, _: &ToolInput) -> Effects {
        Effects::PURE
    }

    async fn call(&self, context: &ToolContext, input: ToolInput) -> Result<ToolOutput, ToolError> {
        let Arguments { pattern, include, path, limit } = input.decode()?;
        if pattern.trim().is_empty() {
            return Err(invalid("pattern must not be empty"));
        }
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(invalid(format!("pattern is longer than {MAX_PATTERN_BYTES} bytes")));
        }
        if limit == 0 {
            return Err(invalid("limit must be greater than zero"));
        }
        let limit = limit.min(MAX_LIMIT);
        let pattern = RegexBuilder::new(&pattern)
            .multi_line(true)
            .crlf(true)
            .build()
            .map_err(|error| invalid(format!("pattern: {error}")))?;
        let include = include
            .filter(|glob| !glob.is_empty())
            .map(|glob| GlobBuilder::new(&glob).literal_separator(true).build())
            .transpose()
            .map_err(|error| invalid(format!("include: {error}")))?
            .map(|glob| glob.compile_matcher());
        let start =
            self.workspace.path(path.as_deref().filter(|path| !path.is_empty()).unwrap_or("."))?;
        let found = context
            .cancel
            .run_until_cancelled(self.search(&start, include.as_ref(), &pattern))
            .await
            .ok_or(ToolError::Cancelled)?
            .map_err(|error| tool_error(NAME, error))?;
        let mut lines: Vec<String> = found
            .candidates
            .iter()
            .take(limit)
            .map(|candidate| one_line(candidate.path.as_str()))
            .collect();
        if lines.is_empty() {
            lines.push("No matches found.".into());
        }
        if found.candidates.len() > limit {
            lines.push(format!("{} more files match", found.candidates.len() - limit));
        }
        lines.extend(found.notes);
        Ok(ToolOutput::text(lines.join("\n")))
    }
}
