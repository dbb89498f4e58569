//! Why hunks do not apply to a file, with what a model needs to correct itself.

use std::fmt::Write as _;
use std::str::Utf8Error;

use crate::candidates::Candidate;

/// The most expected lines that an explanation quotes.
const MAX_QUOTED_LINES: usize = 40;

/// A file that hunks cannot be applied to. The file is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HunkError {
    /// The file has a NUL byte.
    #[error(
        "the file is binary (NUL byte at offset {offset}); a patch changes text only, so write the file whole"
    )]
    Binary {
        /// The place of the first NUL.
        offset: usize,
    },
    /// The file is not UTF-8.
    #[error("the file is not UTF-8 text; a patch changes UTF-8 text only, so write the file whole")]
    NotUtf8 {
        /// Where it stops being UTF-8.
        #[source]
        source: Utf8Error,
    },
    /// The file is larger than the options allow.
    #[error("the file has {bytes} bytes and may have {limit}")]
    TooLarge {
        /// The size of the file.
        bytes: usize,
        /// The largest size.
        limit: usize,
    },
    /// An `@@` line is not in the file after the hunk before.
    #[error("hunk {hunk}: the anchor {anchor:?} is not in the file after line {after}")]
    AnchorNotFound {
        /// Which hunk, counted from 1.
        hunk: usize,
        /// The text of the anchor.
        anchor: String,
        /// The line after which it was looked for; 0 for the whole file.
        after: usize,
        /// The nearest lines.
        candidates: Vec<Candidate>,
    },
    /// The context and removed lines of a hunk are not in the file after the hunk before.
    #[error(
        "hunk {hunk}: its {} context and removed lines are not in the file after line {after}{}",
        .expected.len(),
        if *.at_end_of_file { ", neither at its end nor in just one other place" } else { "" }
    )]
    LinesNotFound {
        /// Which hunk, counted from 1.
        hunk: usize,
        /// The lines that must be there, in order.
        expected: Vec<String>,
        /// The line after which they were looked for; 0 for the whole file.
        after: usize,
        /// Whether the hunk says that they are at the end of the file.
        at_end_of_file: bool,
        /// The nearest places.
        candidates: Vec<Candidate>,
    },
}

impl HunkError {
    /// Returns the places in the file that come nearest, best first.
    pub fn candidates(&self) -> &[Candidate] {
        match self {
            Self::AnchorNotFound { candidates, .. } | Self::LinesNotFound { candidates, .. } => {
                candidates
            }
            Self::Binary { .. } | Self::NotUtf8 { .. } | Self::TooLarge { .. } => &[],
        }
    }

    /// Returns the message with the nearest candidates, for a model that is to try again. Several lines, bounded.
    pub fn explain(&self) -> String {
        let mut text = self.to_string();
        if let Self::LinesNotFound { expected, .. } = self {
            text.push_str("\nexpected:");
            for line in expected.iter().take(MAX_QUOTED_LINES) {
                let cut: String = line.chars().take(200).collect();
                let _ = write!(text, "\n    {cut}");
            }
            if expected.len() > MAX_QUOTED_LINES {
                let _ =
                    write!(text, "\n    ... and {} more lines", expected.len() - MAX_QUOTED_LINES);
            }
        }
        text + &self.nearest()
    }

    /// The nearest candidates as text that follows a message.
    pub(crate) fn nearest(&self) -> String {
        let mut text = String::new();
        match self.candidates() {
            [] if matches!(self, Self::AnchorNotFound { .. } | Self::LinesNotFound { .. }) => {
                text.push_str("\nno similar lines in the file; read it again");
            }
            [] => {}
            candidates => {
                text.push_str("\nnearest places:");
                for candidate in candidates {
                    let _ = write!(text, "\n{candidate}");
                }
            }
        }
        text
    }
}
