//! Where hunks went, and what about that deserves a second look.

use std::fmt::Write as _;

use crate::fuzz::Fuzz;
use crate::index::MAX_ALTERNATIVES;

/// Where one hunk went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HunkReport {
    /// The first line of the original file that the hunk covers, or before which it inserts; counted from 1.
    pub line: usize,
    /// How closely its lines matched.
    pub fuzz: Fuzz,
    /// How many later places match just as closely, counted up to [`MAX_ALTERNATIVES`]. Not 0: the place is ambiguous.
    pub alternatives: usize,
    /// Why the hunk is where it is.
    pub placement: Placement,
    /// How many lines came in.
    pub inserted: usize,
    /// How many lines went.
    pub removed: usize,
    /// The anchors, outermost first.
    pub anchors: Vec<AnchorReport>,
}

/// Why a hunk is where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Placement {
    /// Its context and removed lines were found.
    Matched,
    /// They were found in just one place, but not at the end of the file as the patch says.
    NotAtEndOfFile,
    /// It only inserts, and goes after its anchor.
    AfterAnchor,
    /// It only inserts, and goes to the end of the file.
    EndOfFile,
}

/// Where one anchor was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorReport {
    /// The text of the anchor.
    pub text: String,
    /// Its line, counted from 1; nothing when an advisory anchor was not found.
    pub line: Option<usize>,
    /// How closely it matched.
    pub fuzz: Fuzz,
    /// How many later lines match just as closely, counted up to [`MAX_ALTERNATIVES`].
    pub alternatives: usize,
}

impl HunkReport {
    /// Returns one line that says what is uncertain about the place, or nothing when nothing is.
    ///
    /// An anchor that several lines match is not a warning when the hunk's own lines match in one place only.
    pub fn warning(&self) -> Option<String> {
        let mut text = String::new();
        if self.fuzz != Fuzz::Exact {
            let _ = write!(text, ", {}", self.fuzz);
        }
        if self.alternatives > 0 {
            let _ = write!(text, ", {} as well; the first was taken", places(self.alternatives));
        }
        if self.placement == Placement::NotAtEndOfFile {
            text.push_str(", not at the end of the file as the patch says");
        }
        for anchor in &self.anchors {
            match anchor.line {
                None => {
                    let _ = write!(text, ", anchor {:?} not found and passed over", anchor.text);
                }
                Some(_) if anchor.alternatives > 0 && self.placement == Placement::AfterAnchor => {
                    let _ = write!(
                        text,
                        ", anchor {:?}: {} as well",
                        anchor.text,
                        places(anchor.alternatives)
                    );
                }
                Some(_) if anchor.fuzz != Fuzz::Exact => {
                    let _ = write!(text, ", anchor {:?}: {}", anchor.text, anchor.fuzz);
                }
                Some(_) => {}
            }
        }
        (!text.is_empty()).then(|| format!("line {}{text}", self.line))
    }
}

fn places(count: usize) -> String {
    match count {
        1 => "1 other place matches".to_owned(),
        MAX_ALTERNATIVES => format!("at least {MAX_ALTERNATIVES} other places match"),
        _ => format!("{count} other places match"),
    }
}
