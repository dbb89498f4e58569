//! Hunks on one file's bytes.
//!
//! [`apply_hunks`] finds the place of every hunk first and writes the result afterwards, so a hunk that fails leaves
//! nothing half done. The search is in `index.rs`, line endings are in `lines.rs`, and help for a failed hunk is in
//! `candidates.rs`.

use crate::candidates::{Candidate, nearest};
use crate::index::{Found, Index};
use crate::lines::{MAX_TEXT_BYTES, Text};
use crate::options::{Anchors, FinalNewline, Options};
use crate::patch::Hunk;
use crate::report::{AnchorReport, HunkReport, Placement};

mod compile;
mod error;

use compile::{Compiled, Piece, compile};
pub use error::HunkError;

/// The result of applying hunks to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The file's new bytes.
    pub content: Vec<u8>,
    /// Where each hunk went, in order.
    pub hunks: Vec<HunkReport>,
}

/// Applies hunks to a file's bytes.
///
/// Hunks are in file order; each is looked for after the one before, at the closest [`crate::Fuzz`] level that
/// matches anywhere, and the first place is taken. Lines that stay keep their bytes, inserted lines take the first line
/// ending of the file, and a byte order mark and a missing final newline are kept.
///
/// The work grows linearly with the file and the hunks together: at most four passes over the file to match, and one more
/// to look for candidates when a hunk fails. Only a file made for the purpose, in which every line of every hunk is
/// common, costs a pass for each hunk.
///
/// # Errors
/// [`HunkError`], which names the hunk and the nearest places in the file.
///
/// # Examples
/// ```
/// use cofferdam_apply_patch::{Operation, Options, PathRules, apply_hunks};
///
/// let diff = "@@ fn main() {\n-    todo!()\n+    run()\n";
/// let Operation::Update { hunks, .. } = Operation::update("main.rs", diff, None, &PathRules::default())? else {
///     unreachable!("update gives an update");
/// };
/// let applied = apply_hunks(b"fn main() {\r\n    todo!()\r\n}", &hunks, &Options::default())?;
/// assert_eq!(applied.content, b"fn main() {\r\n    run()\r\n}");
/// assert_eq!(applied.hunks[0].line, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn apply_hunks(
    original: &[u8],
    hunks: &[Hunk],
    options: &Options,
) -> Result<Applied, HunkError> {
    let text = Text::new(decode(original, options)?);
    let (compiled, wanted) = compile(hunks);
    let mut placer = Placer {
        text: &text,
        wanted: &wanted,
        index: Index::new(&text, &wanted),
        cursor: 0,
        options,
    };
    let mut edits = Vec::with_capacity(hunks.len());
    let mut reports = Vec::with_capacity(hunks.len());
    for (number, hunk) in (1..).zip(compiled) {
        let (edit, report) = placer.place(number, hunk)?;
        edits.push(edit);
        reports.push(report);
    }
    // Additions to the end of the file may come before other hunks in the patch, never in the file.
    edits.sort_by_key(|edit| (edit.line, edit.is_at_end));
    let content = write(&text, &edits, options.final_newline);
    Ok(Applied { content, hunks: reports })
}

fn decode<'a>(original: &'a [u8], options: &Options) -> Result<&'a str, HunkError> {
    let limit = options.max_file_bytes.min(MAX_TEXT_BYTES);
    if original.len() > limit {
        return Err(HunkError::TooLarge { bytes: original.len(), limit });
    }
    let text = std::str::from_utf8(original).map_err(|source| HunkError::NotUtf8 { source })?;
    match original.contains(&0).then(|| original.iter().position(|byte| *byte == 0)).flatten() {
        Some(offset) => Err(HunkError::Binary { offset }),
        None => Ok(text),
    }
}

/// A hunk with its place.
struct Edit<'p> {
    /// The first line that the hunk covers, counted from 0.
    line: usize,
    pieces: Vec<Piece<'p>>,
    is_at_end: bool,
}

/// Finds places from the top of the file to its end.
struct Placer<'t, 'a> {
    text: &'t Text<'a>,
    wanted: &'t [&'t str],
    index: Index<'t, 'a>,
    /// The line after the last match.
    cursor: usize,
    options: &'t Options,
}

/// A place of a hunk before it becomes an edit.
struct Place {
    line: usize,
    placement: Placement,
    found: Option<Found>,
}

impl Placer<'_, '_> {
    fn place<'p>(
        &mut self,
        number: usize,
        mut hunk: Compiled<'p>,
    ) -> Result<(Edit<'p>, HunkReport), HunkError> {
        let anchors = self.anchors(number, &hunk)?;
        let mut found = self.lines(&hunk, !anchors.is_empty());
        if found.is_none()
            && let Some(shorter) = hunk.without_final_empty_line(self.wanted)
            && (!shorter.old.is_empty() || self.text.len() == 0)
        {
            // The empty "line" after the last newline, which some read as a line of the file.
            found = self.lines(&shorter, !anchors.is_empty());
            if found.is_some() {
                hunk = shorter;
            }
        }
        let Some(Place { line, placement, found }) = found else {
            let expected = &self.wanted[hunk.old.clone()];
            return Err(HunkError::LinesNotFound {
                hunk: number,
                expected: expected.iter().map(|&line| line.to_owned()).collect(),
                after: self.cursor,
                at_end_of_file: hunk.at_end_of_file,
                candidates: self.candidates(expected),
            });
        };
        let is_at_end = placement == Placement::EndOfFile;
        if !is_at_end {
            self.cursor = line + hunk.old.len();
        }
        let report = HunkReport {
            line: line + 1,
            fuzz: found.map(|found| found.fuzz).unwrap_or_default(),
            alternatives: found.map_or(0, |found| found.others),
            placement,
            inserted: hunk.pieces.iter().filter(|piece| matches!(piece, Piece::Insert(_))).count(),
            removed: hunk.pieces.iter().filter(|piece| matches!(piece, Piece::Remove)).count(),
            anchors,
        };
        Ok((Edit { line, pieces: hunk.pieces, is_at_end }, report))
    }

    /// Moves the cursor past each anchor in turn.
    fn anchors(
        &mut self,
        number: usize,
        hunk: &Compiled<'_>,
    ) -> Result<Vec<AnchorReport>, HunkError> {
        let may_miss = self.options.anchors == Anchors::Advisory
            && hunk.anchors.len() == 1
            && !hunk.old.is_empty();
        let mut reports = Vec::with_capacity(hunk.anchors.len());
        for anchor in hunk.anchors.clone() {
            let found = self.index.find(anchor..anchor + 1, self.cursor);
            if found.is_none() && !may_miss {
                return Err(HunkError::AnchorNotFound {
                    hunk: number,
                    anchor: self.wanted[anchor].to_owned(),
                    after: self.cursor,
                    candidates: self.candidates(&self.wanted[anchor..=anchor]),
                });
            }
            if let Some(found) = found {
                self.cursor = found.line + 1;
            }
            reports.push(AnchorReport {
                text: self.wanted[anchor].to_owned(),
                line: found.map(|found| found.line + 1),
                fuzz: found.map(|found| found.fuzz).unwrap_or_default(),
                alternatives: found.map_or(0, |found| found.others),
            });
        }
        Ok(reports)
    }

    /// Finds the place of the hunk's own lines, after the cursor.
    fn lines(&mut self, hunk: &Compiled<'_>, has_anchor: bool) -> Option<Place> {
        if hunk.old.is_empty() {
            let (line, placement) = match (hunk.at_end_of_file, has_anchor) {
                (false, true) => (self.cursor, Placement::AfterAnchor),
                _ => (self.text.len(), Placement::EndOfFile),
            };
            return Some(Place { line, placement, found: None });
        }
        if !hunk.at_end_of_file {
            let found = self.index.find(hunk.old.clone(), self.cursor)?;
            return Some(Place {
                line: found.line,
                placement: Placement::Matched,
                found: Some(found),
            });
        }
        let tail =
            self.text.len().checked_sub(hunk.old.len()).filter(|&tail| tail >= self.cursor)?;
        if let Some(found) = self.index.find_at(hunk.old.clone(), tail) {
            return Some(Place { line: tail, placement: Placement::Matched, found: Some(found) });
        }
        // The only place of these lines is surely the one that is meant, although it is not at the end.
        let found =
            self.index.find(hunk.old.clone(), self.cursor).filter(|found| found.others == 0)?;
        Some(Place { line: found.line, placement: Placement::NotAtEndOfFile, found: Some(found) })
    }

    fn candidates(&self, expected: &[&str]) -> Vec<Candidate> {
        nearest(self.text, expected, self.cursor)
    }
}

/// Writes the file with its edits, which are in file order and do not overlap.
fn write(text: &Text<'_>, edits: &[Edit<'_>], final_newline: FinalNewline) -> Vec<u8> {
    let newline = text.newline();
    let inserted: usize = edits
        .iter()
        .flat_map(|edit| &edit.pieces)
        .map(|piece| if let Piece::Insert(line) = piece { line.len() + newline.len() } else { 0 })
        .sum();
    let mut out = String::with_capacity(
        text.mark().len() + text.slice(0, text.len()).len() + inserted + newline.len(),
    );
    out.push_str(text.mark());
    let start = out.len();
    let mut next = 0;
    for edit in edits {
        out.push_str(text.slice(next, edit.line));
        next = edit.line;
        for piece in &edit.pieces {
            match piece {
                Piece::Keep => {
                    out.push_str(text.slice(next, next + 1));
                    next += 1;
                }
                Piece::Remove => next += 1,
                Piece::Insert(line) => {
                    if out.len() > start && !out.ends_with(['\n', '\r']) {
                        out.push_str(newline);
                    }
                    out.push_str(line);
                    out.push_str(newline);
                }
            }
        }
    }
    out.push_str(text.slice(next, text.len()));
    let ended = out.len() == start || out.ends_with(['\n', '\r']);
    match final_newline {
        FinalNewline::Always if !ended => out.push_str(newline),
        FinalNewline::Keep if text.lacks_final_newline() && ended && out.len() > start => {
            let ending = if out.ends_with("\r\n") { 2 } else { 1 };
            out.truncate(out.len() - ending);
        }
        FinalNewline::Keep | FinalNewline::Always => {}
    }
    out.into_bytes()
}
