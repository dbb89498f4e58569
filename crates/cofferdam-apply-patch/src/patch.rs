//! A patch as data, and its canonical text.
//!
//! [`Patch`] is what the parser makes and what the planner takes. Its `Display` is the envelope text; parsing that text
//! gives the same patch again.

use std::fmt;

use crate::path::PatchPath;

/// The git marker that the parser and `Display` use for an added file without a final newline.
pub(crate) const NO_FINAL_NEWLINE: &str = "\\ No newline at end of file";

/// A whole patch: operations in the order in which they were written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Patch {
    /// The operations, first to last.
    pub operations: Vec<Operation>,
}

impl Patch {
    /// Returns every path that the patch reads or writes, in order, with repetitions.
    ///
    /// A caller with asynchronous files reads these first and then plans from memory.
    pub fn paths(&self) -> impl Iterator<Item = &PatchPath> {
        self.operations.iter().flat_map(|operation| {
            let destination = match operation {
                Operation::Update { move_to, .. } => move_to.as_ref(),
                Operation::Create { .. } | Operation::Delete { .. } => None,
            };
            std::iter::once(operation.path()).chain(destination)
        })
    }
}

impl FromIterator<Operation> for Patch {
    fn from_iter<I: IntoIterator<Item = Operation>>(operations: I) -> Self {
        Self { operations: operations.into_iter().collect() }
    }
}

/// What a patch does to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Makes a new file.
    Create {
        /// The file to make.
        path: PatchPath,
        /// Its whole content, with its final newline if it has one.
        content: String,
    },
    /// Changes a file, moves it, or both.
    Update {
        /// The file to change.
        path: PatchPath,
        /// Where the result goes, when that is another place.
        move_to: Option<PatchPath>,
        /// The changes in file order. Empty only for a pure rename.
        hunks: Vec<Hunk>,
    },
    /// Removes a file.
    Delete {
        /// The file to remove.
        path: PatchPath,
    },
}

impl Operation {
    /// Returns the file that the operation names first.
    pub fn path(&self) -> &PatchPath {
        match self {
            Self::Create { path, .. } | Self::Update { path, .. } | Self::Delete { path } => path,
        }
    }
}

/// One change inside a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hunk {
    /// Lines that precede the change, outermost first: the texts of stacked `@@` lines.
    pub anchors: Vec<String>,
    /// Context, removed and inserted lines, in order.
    pub lines: Vec<HunkLine>,
    /// Whether the patch says that the change is at the end of the file.
    pub at_end_of_file: bool,
}

impl Hunk {
    /// Returns the lines that must be in the file: context and removed ones.
    pub fn old_lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| match line {
            HunkLine::Context(text) | HunkLine::Remove(text) => Some(text.as_str()),
            HunkLine::Insert(_) => None,
        })
    }
}

/// One line of a hunk, without its ending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HunkLine {
    /// Is in the file and stays.
    Context(String),
    /// Is in the file and goes.
    Remove(String),
    /// Is put into the file.
    Insert(String),
}

impl fmt::Display for Patch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "*** Begin Patch")?;
        for operation in &self.operations {
            operation.fmt(formatter)?;
        }
        writeln!(formatter, "*** End Patch")
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { path, content } => {
                writeln!(formatter, "*** Add File: {path}")?;
                for line in content.split_terminator('\n') {
                    writeln!(formatter, "+{line}")?;
                }
                if !content.is_empty() && !content.ends_with('\n') {
                    writeln!(formatter, "{NO_FINAL_NEWLINE}")?;
                }
                Ok(())
            }
            Self::Update { path, move_to, hunks } => {
                writeln!(formatter, "*** Update File: {path}")?;
                if let Some(destination) = move_to {
                    writeln!(formatter, "*** Move to: {destination}")?;
                }
                hunks.iter().try_for_each(|hunk| hunk.fmt(formatter))
            }
            Self::Delete { path } => writeln!(formatter, "*** Delete File: {path}"),
        }
    }
}

impl fmt::Display for Hunk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.anchors.is_empty() {
            writeln!(formatter, "@@")?;
        }
        for anchor in &self.anchors {
            writeln!(formatter, "@@ {anchor}")?;
        }
        for line in &self.lines {
            match line {
                HunkLine::Context(text) => writeln!(formatter, " {text}")?,
                HunkLine::Remove(text) => writeln!(formatter, "-{text}")?,
                HunkLine::Insert(text) => writeln!(formatter, "+{text}")?,
            }
        }
        if self.at_end_of_file {
            writeln!(formatter, "*** End of File")?;
        }
        Ok(())
    }
}
