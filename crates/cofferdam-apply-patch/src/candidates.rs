//! The places in a file that come nearest to lines that are not in it.
//!
//! One pass over the file compares each line with the wanted ones by the words they share, and each likeness is a vote for
//! the place where the run would start. The pass, the number of candidates and the text they quote are bounded.

use std::collections::HashMap;
use std::fmt;

use crate::filter::Filter;
use crate::fuzz::Fuzz;
use crate::lines::Text;

/// How many candidates are given.
pub const MAX_CANDIDATES: usize = 3;
/// How many differing lines a candidate quotes.
pub const MAX_DIFFERENCES: usize = 6;
const MAX_QUOTED_CHARS: usize = 200;
/// How much of a file is looked at.
const MAX_FILE_LINES: usize = 200_000;
/// How many of the wanted lines are looked for, and how many are compared at a candidate.
const MAX_VOTING_LINES: usize = 32;
const MAX_COMPARED_LINES: usize = 400;
const MAX_WORDS_PER_LINE: usize = 64;
/// Likenesses and votes are in thousandths.
const LIKE: usize = 500;
const ENOUGH: usize = 250;

/// A place that is like the wanted lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its first line, counted from 1.
    pub line: usize,
    /// How many lines were wanted.
    pub wanted: usize,
    /// How many of them differ here by more than fuzz allows.
    pub differing: usize,
    /// The first [`MAX_DIFFERENCES`] of those.
    pub differences: Vec<Difference>,
    /// Whether the place comes before the end of the hunk above, where it was not looked for.
    pub is_before_cursor: bool,
}

/// A line of a candidate that is not as wanted. Texts are cut to 200 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The line of the file, counted from 1.
    pub line: usize,
    /// What the patch has.
    pub expected: String,
    /// What the file has; nothing after its end.
    pub found: Option<String>,
}

impl fmt::Display for Candidate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "  line {}: ", self.line)?;
        match self.differing {
            0 => write!(formatter, "all lines match")?,
            differing => write!(formatter, "{differing} of {} lines differ", self.wanted)?,
        }
        if self.is_before_cursor {
            write!(formatter, "; this is above the hunk before, and hunks must be in file order")?;
        } else if self.differing == 0 {
            write!(formatter, "; this is not the end of the file")?;
        }
        for difference in &self.differences {
            write!(formatter, "\n    {}: expected {:?}, ", difference.line, difference.expected)?;
            match &difference.found {
                Some(found) => write!(formatter, "found {found:?}")?,
                None => write!(formatter, "but the file ends before")?,
            }
        }
        if self.differing > self.differences.len() {
            write!(formatter, "\n    ... and {} more", self.differing - self.differences.len())?;
        }
        Ok(())
    }
}

/// Finds up to [`MAX_CANDIDATES`] places that do not overlap, best first. `cursor` is where the search began.
pub(crate) fn nearest(text: &Text<'_>, wanted: &[&str], cursor: usize) -> Vec<Candidate> {
    let votes = Ballot::new(wanted).count(text);
    let mut starts: Vec<(usize, usize)> =
        votes.into_iter().enumerate().filter(|&(_, votes)| votes >= ENOUGH).collect();
    starts
        .sort_unstable_by_key(|&(start, votes)| (std::cmp::Reverse(votes), start < cursor, start));
    let mut chosen: Vec<usize> = Vec::with_capacity(MAX_CANDIDATES);
    for (start, _) in starts {
        if chosen.iter().all(|other| other.abs_diff(start) >= wanted.len()) {
            chosen.push(start);
        }
        if chosen.len() == MAX_CANDIDATES {
            break;
        }
    }
    chosen.into_iter().map(|start| compare(text, wanted, start, cursor)).collect()
}

fn compare(text: &Text<'_>, wanted: &[&str], start: usize, cursor: usize) -> Candidate {
    let mut differences = Vec::new();
    let mut differing = 0;
    for (index, expected) in wanted.iter().enumerate().take(MAX_COMPARED_LINES) {
        let found = (start + index < text.len()).then(|| text.line(start + index));
        if found.is_some_and(|found| Fuzz::Unicode.fold(found) == Fuzz::Unicode.fold(expected)) {
            continue;
        }
        differing += 1;
        if differences.len() < MAX_DIFFERENCES {
            differences.push(Difference {
                line: start + index + 1,
                expected: cut(expected),
                found: found.map(cut),
            });
        }
    }
    Candidate {
        line: start + 1,
        wanted: wanted.len(),
        differing,
        differences,
        is_before_cursor: start < cursor,
    }
}

fn cut(line: &str) -> String {
    line.chars().take(MAX_QUOTED_CHARS).collect()
}

/// The words of the wanted lines, and which line has which.
struct Ballot<'w> {
    lines_with: HashMap<&'w str, Vec<usize>>,
    filter: Filter,
    /// The number of distinct words of each wanted line. A line with more words has a heavier vote.
    sizes: Vec<usize>,
}

impl<'w> Ballot<'w> {
    fn new(wanted: &[&'w str]) -> Self {
        let mut lines_with: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut sizes = vec![0; wanted.len().min(MAX_VOTING_LINES)];
        for (line, size) in sizes.iter_mut().enumerate() {
            for word in words(wanted[line]) {
                let lines = lines_with.entry(word).or_default();
                if lines.last() != Some(&line) {
                    lines.push(line);
                    *size += 1;
                }
            }
        }
        let all: Vec<&str> = lines_with.keys().copied().collect();
        Self { filter: Filter::new(&all), lines_with, sizes }
    }

    /// For each line of the file, how much speaks for it as the start of the run, in thousandths.
    fn count(&self, text: &Text<'_>) -> Vec<usize> {
        let total: usize = self.sizes.iter().sum();
        let mut votes = vec![0; text.len().min(MAX_FILE_LINES)];
        let mut shared = vec![0; self.sizes.len()];
        let mut seen: Vec<&[usize]> = Vec::new();
        for index in 0..votes.len() {
            let mut size = 0;
            for word in words(text.line(index)) {
                size += 1;
                if self.filter.may_have(word)
                    && let Some(lines) = self.lines_with.get(word)
                    && !seen.iter().any(|other| std::ptr::eq(*other, lines.as_slice()))
                {
                    seen.push(lines);
                    lines.iter().for_each(|&line| shared[line] += 1);
                }
            }
            if seen.is_empty() {
                continue;
            }
            seen.clear();
            for (line, shared) in shared.iter_mut().enumerate() {
                let likeness = 2000 * std::mem::take(shared) / (size + self.sizes[line]).max(1);
                if likeness >= LIKE
                    && let Some(start) = index.checked_sub(line)
                {
                    votes[start] += likeness.min(1000) * self.sizes[line] / total.max(1);
                }
            }
        }
        votes
    }
}

/// The words of a line. Beyond ASCII everything counts as part of one, which is close enough and keeps the pass to bytes.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|character: char| {
        character.is_ascii() && !character.is_ascii_alphanumeric() && character != '_'
    })
    .filter(|word| !word.is_empty())
    .take(MAX_WORDS_PER_LINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str, wanted: &[&str], cursor: usize, lines: &[usize]) -> Vec<Candidate> {
        let candidates = nearest(&Text::new(file), wanted, cursor);
        assert_eq!(candidates.iter().map(|candidate| candidate.line).collect::<Vec<_>>(), lines);
        candidates
    }

    #[test]
    fn finds_the_line_with_a_slip_in_it() {
        let found =
            check("use a;\nfn main(argument: u32) {\n}\n", &["fn main(argument: u64) {"], 0, &[2]);
        insta::assert_snapshot!(found[0], @r#"
          line 2: 1 of 1 lines differ
            2: expected "fn main(argument: u64) {", found "fn main(argument: u32) {"
        "#);
    }

    #[test]
    fn prefers_the_run_that_agrees_in_more_lines() {
        let file = "def f():\n    return 1\n\ndef g():\n    x = 2\n    return x\n";
        let found = check(file, &["def g():", "    x = 3", "    return x"], 0, &[4]);
        assert_eq!(found[0].differing, 1);
    }

    #[test]
    fn says_when_the_place_is_above_the_cursor() {
        let found = check("alpha beta\ngamma\n", &["alpha beta"], 1, &[1]);
        assert!(found[0].is_before_cursor);
        assert_eq!(found[0].differing, 0);
    }

    #[test]
    fn gives_nothing_for_nothing_alike_and_three_at_most() {
        check("alpha\nbeta\n", &["zzz nope"], 0, &[]);
        check("", &["zzz"], 0, &[]);
        check(&"let value = 1;\n".repeat(50), &["let value = 2;"], 10, &[11, 12, 13]);
    }
}
