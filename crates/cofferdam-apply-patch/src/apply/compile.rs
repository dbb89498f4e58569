//! Hunks in the form in which they are looked for.

use std::ops::Range;

use crate::patch::{Hunk, HunkLine};

/// A hunk whose anchors and old lines are ranges of the list of wanted lines.
#[derive(Debug, Clone)]
pub(super) struct Compiled<'p> {
    pub(super) anchors: Range<usize>,
    pub(super) old: Range<usize>,
    pub(super) pieces: Vec<Piece<'p>>,
    pub(super) at_end_of_file: bool,
}

/// What happens at one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'p> {
    /// The file's next line stays.
    Keep,
    /// The file's next line goes.
    Remove,
    /// A line comes in.
    Insert(&'p str),
}

/// Gathers all wanted lines of all hunks, so that one pass over the file numbers them.
pub(super) fn compile(hunks: &[Hunk]) -> (Vec<Compiled<'_>>, Vec<&str>) {
    let mut wanted = Vec::new();
    let compiled = hunks
        .iter()
        .map(|hunk| {
            let anchors = wanted.len()..wanted.len() + hunk.anchors.len();
            wanted.extend(hunk.anchors.iter().map(String::as_str));
            let mut pieces = Vec::with_capacity(hunk.lines.len());
            for line in &hunk.lines {
                match line {
                    HunkLine::Insert(text) => pieces.push(Piece::Insert(text)),
                    HunkLine::Context(text) => {
                        old_lines(text, Piece::Keep, &mut wanted, &mut pieces)
                    }
                    HunkLine::Remove(text) => {
                        old_lines(text, Piece::Remove, &mut wanted, &mut pieces)
                    }
                }
            }
            Compiled {
                old: anchors.end..wanted.len(),
                anchors,
                pieces,
                at_end_of_file: hunk.at_end_of_file,
            }
        })
        .collect();
    (compiled, wanted)
}

/// A lone CR ends a line of the file but not one of the patch, so one line of the patch may stand for several.
fn old_lines<'p>(
    text: &'p str,
    piece: Piece<'p>,
    wanted: &mut Vec<&'p str>,
    pieces: &mut Vec<Piece<'p>>,
) {
    for line in text.split('\r') {
        wanted.push(line);
        pieces.push(piece);
    }
}

impl Compiled<'_> {
    /// The same hunk without its last old line, when that is empty.
    pub(super) fn without_final_empty_line(&self, wanted: &[&str]) -> Option<Self> {
        if self.old.is_empty() || !wanted[self.old.end - 1].is_empty() {
            return None;
        }
        let mut shorter = self.clone();
        shorter.old.end -= 1;
        let last = shorter.pieces.iter().rposition(|piece| !matches!(piece, Piece::Insert(_)))?;
        match shorter.pieces[last] {
            // Lines follow the empty one, so the result has it although the file does not.
            Piece::Keep if last + 1 < shorter.pieces.len() => {
                shorter.pieces[last] = Piece::Insert("")
            }
            _ => {
                shorter.pieces.remove(last);
                // The same line that is no line, on the side of the result.
                if shorter.pieces.last() == Some(&Piece::Insert("")) {
                    shorter.pieces.pop();
                }
            }
        }
        Some(shorter)
    }
}
