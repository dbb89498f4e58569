//! [`ReadFileTool`]: lines of a text file, with their numbers.

use std::fmt::Write as _;

use async_trait::async_trait;
use cofferdam_core::{Effects, ToolOutput, ToolSpec, WorkspacePath};
use cofferdam_tool::{Tool, ToolContext, ToolError, ToolInput};
use serde::Deserialize;
use serde_json::json;

use super::{WorkspaceView, invalid, is_binary};
use crate::{
    call::{json_spec, tool_error},
    truncate::head,
};

const NAME: &str = "read_file";
const DEFAULT_LINES: usize = 2_000;
/// What is longer is cut, as the peers do.
const MAX_LINE_BYTES: usize = 500;
/// Bytes that one call returns; about 10 000 tokens.
const MAX_OUTPUT_BYTES: usize = 40_000;
const PIECE_BYTES: u64 = 1 << 20;
/// How far into a file a call looks for its first line.
const MAX_SCAN_BYTES: u64 = 256 << 20;

/// The tool `read_file`: lines of a text file as `L1: text`, bounded in number, length and bytes.
#[derive(Debug)]
pub struct ReadFileTool {
    spec: ToolSpec,
    workspace: WorkspaceView,
}

#[derive(Debug, Deserialize)]
struct Arguments {
    #[serde(alias = "path")]
    file_path: String,
    #[serde(default = "first")]
    offset: usize,
    #[serde(default = "default_lines")]
    limit: usize,
}

fn first() -> usize {
    1
}

fn default_lines() -> usize {
    DEFAULT_LINES
}

impl ReadFileTool {
    /// Makes the tool.
    pub fn new(workspace: impl Into<WorkspaceView>) -> Self {
        let spec = json_spec(
            NAME,
            "Reads a text file of the workspace with 1-indexed line numbers.",
            &["file_path"],
            json!({
                "file_path": {"type": "string", "description": "Path of the file."},
                "offset": {
                    "type": "integer",
                    "description": "The line number to start reading from. Must be 1 or greater.",
                },
                "limit": {
                    "type": "integer",
                    "description": format!("The maximum number of lines to return. Defaults to {DEFAULT_LINES}."),
                },
            }),
        );
        Self { spec, workspace: workspace.into() }
    }

    async fn read(&self, path: &WorkspacePath, page: &mut Page) -> Result<(), ToolError> {
        let mut position = 0;
        while position < MAX_SCAN_BYTES {
            let piece = self
                .workspace
                .files()
                .read(path, position, PIECE_BYTES)
                .await
                .map_err(|error| tool_error(NAME, error))?;
            if position == 0 && is_binary(&piece) {
                let message = format!(
                    "{NAME} failed: {path} is a binary file; use view_image or exec_command"
                );
                return Err(ToolError::Failed { message });
            }
            position += piece.len() as u64;
            page.push(&piece);
            if (piece.len() as u64) < PIECE_BYTES {
                page.end();
                return Ok(());
            }
            if page.is_full() {
                return Ok(());
            }
        }
        let message = format!(
            "{NAME} failed: the lines are beyond the first {MAX_SCAN_BYTES} bytes of {path}; use exec_command"
        );
        Err(ToolError::Failed { message })
    }
}

/// The lines that a call returns, put together from pieces of the file.
#[derive(Debug)]
struct Page {
    first: usize,
    /// The line behind the last that is wanted.
    behind: usize,
    /// The number of the line that comes.
    number: usize,
    /// The beginning of that line; what is beyond the bound is not kept.
    line: Vec<u8>,
    text: String,
    /// The line at which the bytes were used up.
    stopped_at: Option<usize>,
    has_more: bool,
}

impl Page {
    fn new(first: usize, limit: usize) -> Self {
        Self {
            first,
            behind: first.saturating_add(limit),
            number: 1,
            line: Vec::new(),
            text: String::new(),
            stopped_at: None,
            has_more: false,
        }
    }

    fn is_full(&self) -> bool {
        self.has_more || self.stopped_at.is_some()
    }

    fn push(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            if self.number >= self.behind {
                self.has_more = true;
            }
            if self.is_full() {
                return;
            }
            if self.number >= self.first {
                // One byte more than is shown, so that a cut line is known as one.
                let room = (MAX_LINE_BYTES + 4).saturating_sub(self.line.len());
                self.line.extend_from_slice(&part[..room.min(part.len())]);
            }
            if part.ends_with(b"\n") {
                self.finish_line();
            } else if self.line.is_empty() {
                // A line before the page, of which nothing is kept: it still counts at the end of the file.
                self.line.extend_from_slice(&part[..1]);
            }
        }
    }

    /// Takes a last line that has no line end.
    fn end(&mut self) {
        if !self.line.is_empty() && !self.is_full() {
            self.finish_line();
        }
    }

    fn finish_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if self.number >= self.first {
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = String::from_utf8_lossy(line);
            let shown = head(&line, MAX_LINE_BYTES);
            if self.text.len() + shown.len() > MAX_OUTPUT_BYTES {
                self.stopped_at = Some(self.number);
                return;
            }
            // Writing to a string does not fail.
            let _ = writeln!(self.text, "L{}: {shown}", self.number);
        }
        self.number += 1;
    }

    fn into_output(mut self) -> Result<ToolOutput, ToolError> {
        if self.text.is_empty() && self.stopped_at.is_none() {
            if self.number == 1 {
                return Ok(ToolOutput::text("The file is empty."));
            }
            return Err(invalid(format!(
                "offset exceeds file length; the file has {} lines",
                self.number - 1
            )));
        }
        if self.is_full() {
            let next = self.number;
            let _ = write!(self.text, "The file goes on; read it from offset {next}.");
        } else {
            self.text.pop();
        }
        Ok(ToolOutput::text(self.text))
    }
}

#[async_trait]
impl Tool for ReadFileTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effects(&self, _: &ToolInput) -> Effects {
        Effects::PURE
    }

    async fn call(&self, context: &ToolContext, input: ToolInput) -> Result<ToolOutput, ToolError> {
        let Arguments { file_path, offset, limit } = input.decode()?;
        if offset == 0 {
            return Err(invalid("offset must be a 1-indexed line number"));
        }
        if limit == 0 {
            return Err(invalid("limit must be greater than zero"));
        }
        let path = self.workspace.path(&file_path)?;
        let mut page = Page::new(offset, limit);
        context
            .cancel
            .run_until_cancelled(self.read(&path, &mut page))
            .await
            .ok_or(ToolError::Cancelled)??;
        page.into_output()
    }
}
