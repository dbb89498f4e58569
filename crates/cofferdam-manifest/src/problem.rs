//! [`AgentFileError`]: everything that is wrong with a file, each with its place and what to do.

use std::fmt;

use crate::FieldPath;

/// The most problems reported for one file.
pub const MAX_PROBLEMS: usize = 20;

/// A file, or a manifest made in code, that cannot be used.
///
/// Displays one line a problem: `agent.yaml:12:5: workspace.entries.records.mode: …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentFileError {
    /// The name that the file was given, such as its path.
    pub file: String,
    /// What is wrong, in the order of the file; at least one and at most [`MAX_PROBLEMS`].
    pub problems: Vec<Problem>,
    /// How many further problems were found and not kept.
    pub further: usize,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where in the structure.
    pub path: FieldPath,
    /// Where in the text; `None` for a manifest made in code.
    pub location: Option<Location>,
    /// What is wrong and what to do; lower case, without a final stop.
    pub message: String,
}

/// A position in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
}

impl std::error::Error for AgentFileError {}

impl fmt::Display for AgentFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.problems.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", self.file)?;
            if let Some(Location { line, column }) = problem.location {
                write!(f, ":{line}:{column}")?;
            }
            if !problem.path.segments().is_empty() {
                write!(f, ": {}", problem.path)?;
            }
            write!(f, ": {}", problem.message)?;
        }
        if self.further > 0 {
            write!(f, "\n{}: and {} more problems", self.file, self.further)?;
        }
        Ok(())
    }
}

/// Which part of a field a problem points at in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// The key.
    Key,
    /// The last of several equal keys.
    LastKey,
    /// The value.
    Value,
}

/// The problems found so far, before they are located.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    pub(crate) found: Vec<(FieldPath, Target, String)>,
    pub(crate) further: usize,
}

impl Problems {
    /// Notes a problem with the value at `path`.
    pub(crate) fn value(&mut self, path: &FieldPath, message: impl Into<String>) {
        self.push(path.clone(), Target::Value, message.into());
    }

    /// Notes a problem with the key at `path`.
    pub(crate) fn key(&mut self, path: &FieldPath, message: impl Into<String>) {
        self.push(path.clone(), Target::Key, message.into());
    }

    /// Notes a key that is there more than once.
    pub(crate) fn duplicate(&mut self, path: &FieldPath, message: impl Into<String>) {
        self.push(path.clone(), Target::LastKey, message.into());
    }

    fn push(&mut self, path: FieldPath, target: Target, message: String) {
        if self.found.len() < MAX_PROBLEMS {
            self.found.push((path, target, message));
        } else {
            self.further += 1;
        }
    }

    /// Makes the error, if there is a problem; `locate` finds places in the text.
    pub(crate) fn into_result(
        self,
        file: &str,
        locate: impl Fn(&FieldPath, Target) -> Option<Location>,
    ) -> Result<(), AgentFileError> {
        if self.found.is_empty() {
            return Ok(());
        }
        let mut problems: Vec<Problem> = self
            .found
            .into_iter()
            .map(|(path, target, message)| {
                let location = locate(&path, target);
                Problem { path, location, message }
            })
            .collect();
        problems.sort_by_key(|problem| problem.location);
        Err(AgentFileError { file: file.to_owned(), problems, further: self.further })
    }
}
