//! The body of an update: hunks up to the next operation's header.

use super::error::{ParseError, excerpt};
use super::{END, Header};
use crate::patch::{Hunk, HunkLine, NO_FINAL_NEWLINE};

const END_OF_FILE: &str = "*** End of File";

/// Reads hunks from the start of `lines` and returns them with the number of lines used.
///
/// Stops before a header or the end marker. `first_line` is the number of `lines[0]`, for errors.
pub(super) fn hunks(lines: &[&str], first_line: usize) -> Result<(Vec<Hunk>, usize), ParseError> {
    let mut body = Body::default();
    let mut used = 0;
    for line in lines {
        let marker = line.trim_end();
        if marker == END || Header::read(marker).is_some() {
            break;
        }
        body.line(line, marker, first_line + used)?;
        used += 1;
    }
    body.finish_hunk(first_line + used.saturating_sub(1))?;
    Ok((body.hunks, used))
}

#[derive(Default)]
struct Body {
    hunks: Vec<Hunk>,
    current: Option<Hunk>,
    /// How many wholly empty lines end the current hunk: they may be its last context or only separate it from what
    /// follows.
    empty_tail: usize,
}

impl Body {
    fn line(&mut self, line: &str, marker: &str, number: usize) -> Result<(), ParseError> {
        if marker == END_OF_FILE {
            let hunk = self.current.get_or_insert_default();
            hunk.at_end_of_file = true;
            return self.finish_hunk(number);
        }
        if let Some(anchor) = line.strip_prefix("@@") {
            return self.anchor(anchor, number);
        }
        if self.current.is_none() && !self.hunks.is_empty() {
            // Only the end-of-file marker closes a hunk without opening another.
            return if marker.is_empty() {
                Ok(())
            } else {
                Err(ParseError::MissingAnchor { line: number, text: excerpt(line) })
            };
        }
        let parsed = match line.split_at_checked(1) {
            None => HunkLine::Context(String::new()),
            Some((" ", text)) => HunkLine::Context(text.to_owned()),
            Some(("-", text)) => HunkLine::Remove(text.to_owned()),
            Some(("+", text)) => HunkLine::Insert(text.to_owned()),
            // The state of the final newline is kept, so git's marker has nothing to add.
            _ if marker == NO_FINAL_NEWLINE => return Ok(()),
            _ => return Err(ParseError::UnexpectedLine { line: number, text: excerpt(line) }),
        };
        self.empty_tail = if line.is_empty() { self.empty_tail + 1 } else { 0 };
        self.current.get_or_insert_default().lines.push(parsed);
        Ok(())
    }

    fn anchor(&mut self, anchor: &str, number: usize) -> Result<(), ParseError> {
        if self.current.as_ref().is_some_and(|hunk| !hunk.lines.is_empty()) {
            self.finish_hunk(number)?;
        }
        let hunk = self.current.get_or_insert_default();
        let text = anchor.strip_prefix(' ').unwrap_or(anchor);
        if !text.trim().is_empty() && !is_git_range(text) {
            hunk.anchors.push(text.to_owned());
        }
        Ok(())
    }

    fn finish_hunk(&mut self, number: usize) -> Result<(), ParseError> {
        let empty_tail = std::mem::take(&mut self.empty_tail);
        let Some(mut hunk) = self.current.take() else { return Ok(()) };
        if hunk.old_lines().count() == empty_tail {
            // Without other lines to hold on to, empty ones are separators: as context they would match anywhere.
            hunk.lines.truncate(hunk.lines.len() - empty_tail);
            if hunk.lines.is_empty()
                && hunk.anchors.is_empty()
                && empty_tail > 0
                && !hunk.at_end_of_file
            {
                return Ok(());
            }
        }
        if hunk.lines.is_empty() {
            return Err(ParseError::EmptyHunk { line: number });
        }
        self.hunks.push(hunk);
        Ok(())
    }
}

/// Whether the text after `@@ ` is git's `-1,2 +1,2 @@`, with or without a heading after it.
fn is_git_range(text: &str) -> bool {
    let Some((ranges, _heading)) = text.split_once(" @@") else { return false };
    let mut parts = ranges.trim().split(' ');
    let is_range = |part: Option<&str>, sign: char| {
        part.and_then(|part| part.strip_prefix(sign)).is_some_and(|numbers| {
            numbers.split(',').count() <= 2
                && numbers
                    .split(',')
                    .all(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
        })
    };
    is_range(parts.next(), '-') && is_range(parts.next(), '+') && parts.next().is_none()
}
