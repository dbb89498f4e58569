//! [`ListDirTool`]: what a directory holds, as an indented tree.

use async_trait::async_trait;
use cofferdam_core::{Effects, ToolOutput, ToolSpec};
use cofferdam_sandbox::{FileKind, ListOptions, ListingEntry};
use cofferdam_tool::{Tool, ToolContext, ToolError, ToolInput};
use serde::Deserialize;
use serde_json::json;

use super::{WorkspaceView, invalid, one_line};
use crate::call::{json_spec, tool_error};

const NAME: &str = "list_dir";
const DEFAULT_ENTRIES: usize = 200;
const MAX_ENTRIES: usize = 1_000;
const DEFAULT_DEPTH: u32 = 2;
const MAX_DEPTH: u32 = 16;

/// The tool `list_dir`: the entries of a directory and of those below it, two spaces a level; `/` marks directories, `@`
/// links and `?` what is neither file nor directory.
#[derive(Debug)]
pub struct ListDirTool {
    spec: ToolSpec,
    workspace: WorkspaceView,
}

#[derive(Debug, Deserialize)]
struct Arguments {
    #[serde(alias = "path", default = "workspace_itself")]
    dir_path: String,
    #[serde(default = "first")]
    offset: usize,
    #[serde(default = "default_entries")]
    limit: usize,
    #[serde(default = "default_depth")]
    depth: u32,
}

fn workspace_itself() -> String {
    ".".into()
}

fn first() -> usize {
    1
}

fn default_entries() -> usize {
    DEFAULT_ENTRIES
}

fn default_depth() -> u32 {
    DEFAULT_DEPTH
}

impl ListDirTool {
    /// Makes the tool.
    pub fn new(workspace: impl Into<WorkspaceView>) -> Self {
        let spec = json_spec(
            NAME,
            "Lists entries of a directory of the workspace with type marks: `/` directory, `@` link.",
            &[],
            json!({
                "dir_path": {"type": "string", "description": "Path of the directory. Defaults to the workspace."},
                "offset": {
                    "type": "integer",
                    "description": "The entry number to start listing from. Must be 1 or greater.",
                },
                "limit": {
                    "type": "integer",
                    "description": format!("The maximum number of entries to return. Defaults to {DEFAULT_ENTRIES}, \
                                            at most {MAX_ENTRIES}."),
                },
                "depth": {
                    "type": "integer",
                    "description": format!("The maximum depth to go down. Must be 1 or greater. Defaults to \
                                            {DEFAULT_DEPTH}."),
                },
            }),
        );
        Self { spec, workspace: workspace.into() }
    }
}

fn line(entry: &ListingEntry) -> String {
    let path = String::from_utf8_lossy(&entry.path);
    let name = path.rsplit('/').next().unwrap_or_default();
    let level = path.matches('/').count();
    let mark = match entry.metadata.kind {
        FileKind::File => "",
        FileKind::Directory => "/",
        FileKind::Link => "@",
        _ => "?",
    };
    format!("{}{}{mark}", "  ".repeat(level), one_line(name))
}

#[async_trait]
impl Tool for ListDirTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effects(&self, _: &ToolInput) -> Effects {
        Effects::PURE
    }

    async fn call(&self, context: &ToolContext, input: ToolInput) -> Result<ToolOutput, ToolError> {
        let Arguments { dir_path, offset, limit, depth } = input.decode()?;
        if offset == 0 {
            return Err(invalid("offset must be a 1-indexed entry number"));
        }
        if limit == 0 {
            return Err(invalid("limit must be greater than zero"));
        }
        if depth == 0 {
            return Err(invalid("depth must be greater than zero"));
        }
        let limit = limit.min(MAX_ENTRIES);
        let path = self.workspace.path(&dir_path)?;
        let options = ListOptions { depth: depth.min(MAX_DEPTH), ..ListOptions::default() };
        let mut listing = context
            .cancel
            .run_until_cancelled(self.workspace.files().list(&path, &options))
            .await
            .ok_or(ToolError::Cancelled)?
            .map_err(|error| tool_error(NAME, error))?;
        // By components, so that what is in a directory comes right after it.
        listing.entries.sort_by(|a, b| {
            a.path.split(|byte| *byte == b'/').cmp(b.path.split(|byte| *byte == b'/'))
        });
        let total = listing.entries.len();
        if offset > total && total > 0 {
            return Err(invalid(format!("offset exceeds directory entry count, which is {total}")));
        }
        let mut lines = vec![format!("Absolute path: {}", self.workspace.absolute(&path))];
        lines.extend(listing.entries.iter().skip(offset - 1).take(limit).map(line));
        let shown_to = (offset - 1).saturating_add(limit);
        if shown_to < total {
            lines.push(format!(
                "More than {limit} entries found; list from offset {}",
                shown_to + 1
            ));
        } else if listing.truncated {
            lines.push(format!("More than {total} entries found; list a directory below"));
        }
        Ok(ToolOutput::text(lines.join("\n")))
    }
}
