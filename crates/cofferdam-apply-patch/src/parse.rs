//! Text to [`Patch`]: the V4A envelope and the headerless diffs of the JSON operations.
//!
//! [`parse`] reads a whole envelope. [`Operation::create`], [`Operation::update`] and [`Operation::delete`] read one
//! operation whose path and diff came apart, as a model's native patch call sends them. Both share the body parser in
//! `parse/body.rs`. Every leniency is listed at [`parse`].

mod body;
mod error;

pub use error::ParseError;

use crate::patch::{NO_FINAL_NEWLINE, Operation, Patch};
use crate::path::{PatchPath, PathRules};
use error::excerpt;

/// Largest patch text that is read, in bytes.
pub const MAX_PATCH_BYTES: usize = 64 * 1024 * 1024;

pub(crate) const BEGIN: &str = "*** Begin Patch";
pub(crate) const END: &str = "*** End Patch";
const ENVIRONMENT: &str = "*** Environment ID:";
const MOVE_TO: &str = "*** Move to:";

/// Parses a patch whose paths are relative.
///
/// Accepted beyond the strict grammar:
/// * blank space around the patch, a byte order mark before it, and CRLF line ends in it;
/// * a heredoc around it (`<<'EOF'`, also after `apply_patch`), or a Markdown code fence;
/// * blank space around `***` markers (inside an update only after them, since a leading space means context);
/// * an `*** Environment ID:` line after the first line, which is ignored;
/// * a first hunk without `@@`, and an empty line as an empty context line;
/// * stacked `@@` lines, and git's `@@ -1,2 +1,2 @@`, whose numbers are ignored;
/// * blank lines between operations, an added file without lines, and a move without hunks.
///
/// # Errors
/// [`ParseError`] with the line, where `*** Begin Patch` is line 1.
pub fn parse(text: &str) -> Result<Patch, ParseError> {
    parse_with(text, &PathRules::default())
}

/// Parses a patch under the given path rules.
///
/// # Errors
/// As [`parse`].
pub fn parse_with(text: &str, rules: &PathRules) -> Result<Patch, ParseError> {
    if text.len() > MAX_PATCH_BYTES {
        return Err(ParseError::TooLarge { bytes: text.len(), limit: MAX_PATCH_BYTES });
    }
    let lines: Vec<&str> =
        text.trim().trim_start_matches('\u{feff}').trim_start().lines().collect();
    let lines = unwrap_heredoc(unwrap_fence(&lines));
    let first = lines.first().copied().unwrap_or_default();
    if first.trim() != BEGIN {
        return Err(ParseError::MissingBegin {
            found: excerpt(first),
            is_json: first.starts_with(['{', '[', '"']),
        });
    }
    match lines {
        [_, inner @ .., last] if last.trim() == END => {
            Parser { lines: inner, next: 0, rules }.operations()
        }
        _ => Err(ParseError::MissingEnd {
            found: excerpt(lines.last().copied().unwrap_or_default()),
        }),
    }
}

impl Operation {
    /// Reads a create operation: every line of `diff` starts with `+`.
    ///
    /// The content has a final newline only if the last line is a bare `+`, as in the native call of the same name.
    /// A diff with CRLF line ends gives a file with CRLF line ends.
    ///
    /// # Errors
    /// [`ParseError`] with the line of `diff`, counted from 1.
    pub fn create(path: &str, diff: &str, rules: &PathRules) -> Result<Self, ParseError> {
        let path = check_path(path, 0, rules)?;
        let newline = if diff.contains("\r\n") { "\r\n" } else { "\n" };
        let mut content = String::with_capacity(diff.len());
        for (index, line) in diff.lines().enumerate() {
            let Some(added) = line.strip_prefix('+') else {
                return Err(ParseError::InvalidCreateLine { line: index + 1, text: excerpt(line) });
            };
            if index > 0 {
                content.push_str(newline);
            }
            content.push_str(added);
        }
        Ok(Self::Create { path, content })
    }

    /// Reads an update operation: `diff` is the body of an update, without envelope and headers.
    ///
    /// # Errors
    /// [`ParseError`] with the line of `diff`, counted from 1.
    pub fn update(
        path: &str,
        diff: &str,
        move_to: Option<&str>,
        rules: &PathRules,
    ) -> Result<Self, ParseError> {
        let path = check_path(path, 0, rules)?;
        let move_to = move_to.map(|destination| check_path(destination, 0, rules)).transpose()?;
        let lines: Vec<&str> = diff.lines().collect();
        let (hunks, used) = body::hunks(&lines, 1)?;
        if let Some(line) = lines.get(used) {
            return Err(ParseError::UnexpectedLine { line: used + 1, text: excerpt(line) });
        }
        if hunks.is_empty() && move_to.is_none() {
            return Err(ParseError::EmptyUpdate { line: 1, path: path.given().to_owned() });
        }
        Ok(Self::Update { path, move_to, hunks })
    }

    /// Reads a delete operation.
    ///
    /// # Errors
    /// [`ParseError::Path`] when the path is refused.
    pub fn delete(path: &str, rules: &PathRules) -> Result<Self, ParseError> {
        Ok(Self::Delete { path: check_path(path, 0, rules)? })
    }
}

fn check_path(path: &str, line: usize, rules: &PathRules) -> Result<PatchPath, ParseError> {
    rules.check(path).map_err(|fault| ParseError::Path { line, fault })
}

fn unwrap_fence<'a, 'b>(lines: &'b [&'a str]) -> &'b [&'a str] {
    match lines {
        [first, inner @ .., last] if first.starts_with("```") && last.trim() == "```" => inner,
        _ => lines,
    }
}

fn unwrap_heredoc<'a, 'b>(lines: &'b [&'a str]) -> &'b [&'a str] {
    let [first, inner @ .., last] = lines else { return lines };
    let redirect =
        ["apply_patch ", "applypatch "].iter().find_map(|command| first.strip_prefix(command));
    let opens = matches!(redirect.unwrap_or(first).trim(), "<<EOF" | "<<'EOF'" | "<<\"EOF\"");
    if opens && last.ends_with("EOF") && inner.len() >= 2 { inner } else { lines }
}

/// The header of one operation, with its path as given.
enum Header<'a> {
    Add(&'a str),
    Delete(&'a str),
    Update(&'a str),
}

impl<'a> Header<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let path = |prefix| line.strip_prefix(prefix).map(str::trim);
        path("*** Add File:")
            .map(Self::Add)
            .or_else(|| path("*** Delete File:").map(Self::Delete))
            .or_else(|| path("*** Update File:").map(Self::Update))
    }
}

/// Reads the lines between the first and the last marker.
struct Parser<'a, 'b> {
    lines: &'b [&'a str],
    next: usize,
    rules: &'b PathRules,
}

impl<'a> Parser<'a, '_> {
    fn operations(mut self) -> Result<Patch, ParseError> {
        self.environment()?;
        let mut operations = Vec::new();
        while let Some(line) = self.peek() {
            if line.trim().is_empty() {
                self.next += 1;
                continue;
            }
            operations.push(self.operation(line)?);
        }
        if operations.is_empty() {
            return Err(ParseError::NoOperations);
        }
        Ok(Patch { operations })
    }

    /// Skips the line that names another environment: which one is meant is the caller's business, not the engine's.
    fn environment(&mut self) -> Result<(), ParseError> {
        let mut seen = false;
        while let Some(id) = self.peek().and_then(|line| line.trim().strip_prefix(ENVIRONMENT)) {
            if seen || id.trim().is_empty() {
                return Err(ParseError::EnvironmentId { line: self.line_number(), repeated: seen });
            }
            seen = true;
            self.next += 1;
        }
        Ok(())
    }

    fn operation(&mut self, line: &'a str) -> Result<Operation, ParseError> {
        let number = self.line_number();
        let marker = line.trim();
        self.next += 1;
        match Header::read(marker) {
            Some(Header::Add(path)) => {
                let path = check_path(path, number, self.rules)?;
                Ok(Operation::Create { path, content: self.added_lines() })
            }
            Some(Header::Delete(path)) => {
                Ok(Operation::Delete { path: check_path(path, number, self.rules)? })
            }
            Some(Header::Update(path)) => {
                self.update(check_path(path, number, self.rules)?, number)
            }
            None if marker == END => Err(ParseError::TextAfterEnd { line: number + 1 }),
            None => Err(ParseError::NotAHeader { line: number, text: excerpt(line) }),
        }
    }

    fn added_lines(&mut self) -> String {
        let mut content = String::new();
        while let Some(added) = self.peek().and_then(|line| line.strip_prefix('+')) {
            content.push_str(added);
            content.push('\n');
            self.next += 1;
        }
        if !content.is_empty() && self.peek() == Some(NO_FINAL_NEWLINE) {
            content.pop();
            self.next += 1;
        }
        content
    }

    fn update(&mut self, path: PatchPath, header_line: usize) -> Result<Operation, ParseError> {
        let mut move_to = None;
        if let Some(destination) = self.peek().and_then(|line| line.trim().strip_prefix(MOVE_TO)) {
            move_to = Some(check_path(destination.trim(), self.line_number(), self.rules)?);
            self.next += 1;
        }
        let (hunks, used) = body::hunks(&self.lines[self.next..], self.line_number())?;
        self.next += used;
        if hunks.is_empty() && move_to.is_none() {
            return Err(ParseError::EmptyUpdate {
                line: header_line,
                path: path.given().to_owned(),
            });
        }
        Ok(Operation::Update { path, move_to, hunks })
    }

    fn peek(&self) -> Option<&'a str> {
        self.lines.get(self.next).copied()
    }

    /// The number of the next line; the first line after `*** Begin Patch` is line 2.
    fn line_number(&self) -> usize {
        self.next + 2
    }
}
