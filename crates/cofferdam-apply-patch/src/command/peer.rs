//! Our errors in the peers' words, which models and scripts know.

use std::path::Path;

use super::{absolute, not_found};
use crate::apply::HunkError;
use crate::parse::ParseError;
use crate::plan::{Action, PlanError, PlanFault};
use crate::transaction::{CommitError, Step};

/// A patch that cannot be read.
pub(super) fn parse_message(error: &ParseError) -> String {
    let in_hunk =
        |line: &usize, message: String| format!("Invalid patch hunk on line {line}: {message}");
    match error {
        ParseError::MissingBegin { .. } => {
            "Invalid patch: The first line of the patch must be '*** Begin Patch'".to_owned()
        }
        ParseError::MissingEnd { .. } | ParseError::TextAfterEnd { .. } => {
            "Invalid patch: The last line of the patch must be '*** End Patch'".to_owned()
        }
        ParseError::NotAHeader { line, text } => in_hunk(
            line,
            format!(
                "'{text}' is not a valid hunk header. Valid hunk headers: '*** Add File: {{path}}', \
                 '*** Delete File: {{path}}', '*** Update File: {{path}}'"
            ),
        ),
        ParseError::EmptyUpdate { line, path } => {
            in_hunk(line, format!("Update file hunk for path '{path}' is empty"))
        }
        ParseError::EmptyHunk { line } => {
            in_hunk(line, "Update hunk does not contain any lines".to_owned())
        }
        ParseError::UnexpectedLine { line, text } => in_hunk(
            line,
            format!(
                "Unexpected line found in update hunk: '{text}'. Every line should start with ' ' (context line), \
                 '+' (added line), or '-' (removed line)"
            ),
        ),
        ParseError::MissingAnchor { line, text } => in_hunk(
            line,
            format!("Expected update hunk to start with a @@ context marker, got: '{text}'"),
        ),
        ParseError::EnvironmentId { repeated, .. } => {
            let fault = if *repeated { "specified more than once" } else { "empty" };
            format!("Invalid patch: apply_patch environment_id cannot be {fault}")
        }
        ParseError::NoOperations => "No files were modified.".to_owned(),
        ParseError::Path { line, fault } => in_hunk(line, fault.to_string()),
        ParseError::InvalidCreateLine { .. } | ParseError::TooLarge { .. } => {
            format!("Invalid patch: {error}")
        }
    }
}

/// A patch that does not fit the files.
pub(super) fn plan_message(error: &PlanError, cwd: &Path) -> String {
    let path = absolute(cwd, &error.path);
    match &error.fault {
        PlanFault::Hunk(fault) => match &**fault {
            HunkError::AnchorNotFound { anchor, .. } => {
                format!("Failed to find context '{anchor}' in {path}")
            }
            HunkError::LinesNotFound { expected, .. } => {
                format!("Failed to find expected lines in {path}:\n{}", expected.join("\n"))
            }
            HunkError::NotUtf8 { source } => {
                format!("Failed to read file to update {path}: {source}")
            }
            other => format!("Failed to read file to update {path}: {other}"),
        },
        PlanFault::Missing if error.action == Action::Deleted => {
            format!("Failed to delete file {path}")
        }
        PlanFault::Missing => format!("Failed to read file to update {path}: {}", not_found()),
        PlanFault::AlreadyExists => format!("Failed to write file {path}"),
        PlanFault::Read { source } => format!("Failed to read file to update {path}: {source}"),
        fault if error.action == Action::Deleted => {
            format!("Failed to delete file {path}: {fault}")
        }
        fault => format!("Failed to read file to update {path}: {fault}"),
    }
}

/// A patch that could not be written.
pub(super) fn commit_message(error: &CommitError, cwd: &Path) -> String {
    let path = absolute(cwd, &error.path);
    match &*error.step {
        Step::Remove { .. } => format!("Failed to delete file {path}"),
        Step::Rename { from, .. } if *from == error.path => format!("Failed to delete file {path}"),
        _ => format!("Failed to write file {path}"),
    }
}
