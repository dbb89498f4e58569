//! What can be wrong with the text of a patch.

use crate::path::PathError;

/// A patch text that cannot be read, with the line at fault.
///
/// In an envelope `*** Begin Patch` is line 1; in a headerless diff its first line is line 1. Line 0 means a path that
/// came apart from its diff. Quoted lines are cut to 200 characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The text does not start with the begin marker.
    #[error(
        "the first line of the patch must be '*** Begin Patch', got {found:?}{}",
        if *.is_json { "; this looks like JSON: pass the text of the patch itself" } else { "" }
    )]
    MissingBegin {
        /// The first line.
        found: String,
        /// Whether the text looks like JSON around a patch.
        is_json: bool,
    },
    /// The text does not finish with the end marker.
    #[error("the last line of the patch must be '*** End Patch', got {found:?}")]
    MissingEnd {
        /// The last line.
        found: String,
    },
    /// The end marker is followed by more text.
    #[error("line {line}: text after '*** End Patch'; put all operations before it")]
    TextAfterEnd {
        /// The first line after the end marker.
        line: usize,
    },
    /// A line stands where an operation must start.
    #[error(
        "line {line}: {text:?} is not a header; valid headers are '*** Add File: path', '*** Delete File: path' and \
         '*** Update File: path', and each line of an added file starts with '+'"
    )]
    NotAHeader {
        /// The line number.
        line: usize,
        /// The line.
        text: String,
    },
    /// An update has neither hunks nor a destination.
    #[error(
        "line {line}: the update of {path:?} has no changes; give at least one hunk or a '*** Move to:' line"
    )]
    EmptyUpdate {
        /// The line of the header.
        line: usize,
        /// The path as given.
        path: String,
    },
    /// A hunk has anchors or an end marker but no lines.
    #[error("line {line}: the hunk has no lines; give lines that start with ' ', '-' or '+'")]
    EmptyHunk {
        /// The line at which the hunk ended.
        line: usize,
    },
    /// A line of a hunk has no valid prefix.
    #[error(
        "line {line}: {text:?} in a hunk must start with ' ' (context), '-' (removed) or '+' (added)"
    )]
    UnexpectedLine {
        /// The line number.
        line: usize,
        /// The line.
        text: String,
    },
    /// A hunk after `*** End of File` does not start with `@@`.
    #[error("line {line}: a hunk must start with '@@', got {text:?}")]
    MissingAnchor {
        /// The line number.
        line: usize,
        /// The line.
        text: String,
    },
    /// The environment line is empty or there are two.
    #[error(
        "line {line}: the environment id {}",
        if *.repeated { "cannot be given more than once" } else { "cannot be empty" }
    )]
    EnvironmentId {
        /// The line number.
        line: usize,
        /// Whether it is the second one.
        repeated: bool,
    },
    /// A line of a headerless create diff does not start with `+`.
    #[error("line {line}: {text:?} in the content of a new file must start with '+'")]
    InvalidCreateLine {
        /// The line number.
        line: usize,
        /// The line.
        text: String,
    },
    /// A path is refused.
    #[error("{}{fault}", if *.line == 0 { String::new() } else { format!("line {line}: ") })]
    Path {
        /// The line number, or 0 for a path that came apart from its diff.
        line: usize,
        /// Which path, and why.
        fault: PathError,
    },
    /// The patch names no file.
    #[error("the patch has no operations; nothing to do")]
    NoOperations,
    /// The text is too large.
    #[error("the patch has {bytes} bytes and may have {limit}; split it")]
    TooLarge {
        /// The size of the text.
        bytes: usize,
        /// The largest size.
        limit: usize,
    },
}

/// Cuts a quoted line, because errors go back into a model's context.
pub(super) fn excerpt(line: &str) -> String {
    line.chars().take(200).collect()
}
