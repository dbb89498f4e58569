//! Search for runs of lines in linear time.
//!
//! All lines that a patch looks for are known before the search. Each distinct one gets a number, and one pass over the
//! file turns it into numbers too, with "none of them" for most lines. A search then compares numbers. The fuzzy
//! levels repeat that pass on folded lines, only when a hunk needs them: at most four passes over the file, however many
//! hunks there are. A run is looked up by its rarest line; where even that is common, Knuth-Morris-Pratt keeps the
//! search linear.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use crate::filter::Filter;
use crate::fuzz::{Fuzz, unicode_trim};
use crate::lines::Text;

/// The most other places that are counted for one run of lines.
pub const MAX_ALTERNATIVES: usize = 100;

/// A line of the file that no hunk looks for.
const ABSENT: u32 = u32::MAX;

/// How much of the start of a line is looked at before it is folded.
const HEAD_BYTES: usize = 8;

/// Up to this many places of the rarest line are tried one by one.
const FEW_PLACES: usize = 64;

/// Where a run of lines was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// The first line, counted from 0.
    pub(crate) line: usize,
    pub(crate) fuzz: Fuzz,
    /// How many later places match at the same level, up to [`MAX_ALTERNATIVES`].
    pub(crate) others: usize,
}

/// A file made searchable for a fixed list of wanted lines.
///
/// A run of wanted lines is named by its range in that list.
pub(crate) struct Index<'t, 'a> {
    text: &'t Text<'a>,
    wanted: &'t [&'t str],
    /// The levels that can differ on these texts.
    useful: &'static [Fuzz],
    levels: [Option<Level>; Fuzz::LEVELS.len()],
}

impl<'t, 'a> Index<'t, 'a> {
    pub(crate) fn new(text: &'t Text<'a>, wanted: &'t [&'t str]) -> Self {
        let is_ascii = text.is_ascii() && wanted.iter().all(|line| line.is_ascii());
        let useful = if is_ascii { &Fuzz::LEVELS[..3] } else { &Fuzz::LEVELS };
        Self { text, wanted, useful, levels: Default::default() }
    }

    /// Finds the first place at or after line `from`, at the closest level that has one.
    pub(crate) fn find(&mut self, run: Range<usize>, from: usize) -> Option<Found> {
        self.useful.iter().find_map(|&fuzz| {
            let places = self.level(fuzz).places(run.clone(), from, MAX_ALTERNATIVES + 1);
            places.first().map(|&line| Found { line, fuzz, others: places.len() - 1 })
        })
    }

    /// Tells at which level the run stands at line `at`, if at any.
    pub(crate) fn find_at(&mut self, run: Range<usize>, at: usize) -> Option<Found> {
        self.useful
            .iter()
            .find(|&&fuzz| self.level(fuzz).stands_at(run.clone(), at))
            .map(|&fuzz| Found { line: at, fuzz, others: 0 })
    }

    fn level(&mut self, fuzz: Fuzz) -> &Level {
        self.levels[fuzz as usize].get_or_insert_with(|| Level::new(self.text, self.wanted, fuzz))
    }
}

/// File and wanted lines as numbers, at one level.
struct Level {
    file: Vec<u32>,
    wanted: Vec<u32>,
    /// The places of each number in the file, ascending.
    places: Vec<Vec<usize>>,
}

impl Level {
    fn new(text: &Text<'_>, wanted: &[&str], fuzz: Fuzz) -> Self {
        let mut numbers: HashMap<Cow<'_, str>, u32> = HashMap::with_capacity(wanted.len());
        let wanted: Vec<u32> = wanted
            .iter()
            .map(|line| {
                let next = u32::try_from(numbers.len()).unwrap_or(ABSENT);
                *numbers.entry(fuzz.fold(line)).or_insert(next)
            })
            .collect();
        let forms: Vec<&str> = numbers.keys().map(Cow::as_ref).collect();
        let filter = Filter::new(&forms);
        let heads: Vec<&str> = forms.iter().filter_map(|form| form.get(..HEAD_BYTES)).collect();
        let heads = Filter::new(&heads);
        let mut buffer = String::new();
        let mut number_of = |line| {
            if fuzz == Fuzz::Unicode && !may_begin(line, &heads) {
                return None;
            }
            let form = fuzz.fold_in(line, &mut buffer).unwrap_or(&buffer);
            if filter.may_have(form) { numbers.get(form).copied() } else { None }
        };
        let mut places = vec![Vec::new(); numbers.len()];
        let mut file = Vec::with_capacity(text.len());
        for index in 0..text.len() {
            let number = number_of(text.line(index)).unwrap_or(ABSENT);
            if let Some(places) = places.get_mut(number as usize) {
                places.push(index);
            }
            file.push(number);
        }
        Self { file, wanted, places }
    }

    fn stands_at(&self, run: Range<usize>, at: usize) -> bool {
        self.file[at..].starts_with(&self.wanted[run])
    }

    /// The first `limit` places of the run at or after line `from`.
    fn places(&self, run: Range<usize>, from: usize, limit: usize) -> Vec<usize> {
        let pattern = &self.wanted[run];
        let rarest = pattern
            .iter()
            .enumerate()
            .map(|(offset, &number)| {
                let places = &self.places[number as usize];
                (offset, &places[places.partition_point(|&place| place < from + offset)..])
            })
            .min_by_key(|(_, places)| places.len());
        match rarest {
            None | Some((_, [])) => Vec::new(),
            Some((_, places)) if pattern.len() == 1 => places.iter().copied().take(limit).collect(),
            Some((offset, places)) if places.len() <= FEW_PLACES => places
                .iter()
                .map(|place| place - offset)
                .filter(|&start| self.file[start..].starts_with(pattern))
                .take(limit)
                .collect(),
            Some((offset, [first, ..])) => scan(&self.file, pattern, first - offset, limit),
        }
    }
}

/// Whether the start of a line speaks against none of the wanted heads. Folding leaves ASCII as it is, so most lines need
/// not be folded to be told apart.
fn may_begin(line: &str, heads: &Filter) -> bool {
    match unicode_trim(line).get(..HEAD_BYTES) {
        Some(head) if head.is_ascii() => heads.may_have(head),
        _ => true,
    }
}

/// Finds the first `limit` places of `pattern` in `file` at or after `from`, by Knuth-Morris-Pratt.
fn scan(file: &[u32], pattern: &[u32], from: usize, limit: usize) -> Vec<usize> {
    // borders[i]: the longest proper prefix of the pattern that ends at i.
    let mut borders = vec![0; pattern.len()];
    let mut matched = 0;
    for index in 1..pattern.len() {
        while matched > 0 && pattern[index] != pattern[matched] {
            matched = borders[matched - 1];
        }
        if pattern[index] == pattern[matched] {
            matched += 1;
        }
        borders[index] = matched;
    }
    let mut found = Vec::new();
    matched = 0;
    for (index, number) in file.iter().enumerate().skip(from) {
        while matched > 0 && *number != pattern[matched] {
            matched = borders[matched - 1];
        }
        if *number == pattern[matched] {
            matched += 1;
        }
        if matched == pattern.len() {
            found.push(index + 1 - matched);
            if found.len() == limit {
                break;
            }
            matched = borders[matched - 1];
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(file: &[&str], pattern: &[&str], from: usize) -> Vec<usize> {
        (from..file.len()).filter(|&at| file[at..].starts_with(pattern)).collect()
    }

    proptest! {
        /// Few letters make long partial matches, which is what both searches must survive.
        #[test]
        fn finds_what_a_naive_search_finds(
            file in prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 0..300),
            pattern in prop::collection::vec(prop::sample::select(vec!["a", "b", "d"]), 1..5),
            from in 0usize..20,
        ) {
            let joined = file.iter().map(|line| format!("{line}\n")).collect::<String>();
            let text = Text::new(&joined);
            let level = Level::new(&text, &pattern, Fuzz::Exact);
            let expected = naive(&file, &pattern, from);
            prop_assert_eq!(&level.places(0..pattern.len(), from, usize::MAX), &expected);
            prop_assert_eq!(scan(&level.file, &level.wanted, from, usize::MAX), expected);
        }
    }

    #[test]
    fn the_closest_level_wins_over_the_first_place() {
        let text = Text::new("  a\nb\na \na\n");
        let mut index = Index::new(&text, &["a", "b", "x"]);
        assert_eq!(index.find(0..1, 0), Some(Found { line: 3, fuzz: Fuzz::Exact, others: 0 }));
        assert_eq!(index.find(0..2, 0), Some(Found { line: 0, fuzz: Fuzz::Whitespace, others: 0 }));
        assert_eq!(index.find(0..1, 4), None);
        assert_eq!(index.find(2..3, 0), None);
        assert_eq!(
            index.find_at(0..1, 2),
            Some(Found { line: 2, fuzz: Fuzz::TrailingSpace, others: 0 })
        );
    }

    #[test]
    fn counts_other_places_up_to_the_bound() {
        let joined = "same\n".repeat(500);
        let text = Text::new(&joined);
        let mut index = Index::new(&text, &["same"]);
        assert_eq!(index.find(0..1, 498).map(|found| found.others), Some(1));
        assert_eq!(index.find(0..1, 0).map(|found| found.others), Some(MAX_ALTERNATIVES));
    }
}
