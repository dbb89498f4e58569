//! [`ReadLeaf`]: entries of a directory that were read, of which most go into the next snapshot as they lie.
//!
//! A directory that changes is taken apart for each snapshot that changes it. Nothing is decoded or encoded anew but the entries that
//! are others now: what lies between them is copied.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use crate::{
    node::{Draft, Entry, Reference},
    pages::{Amount, begins_a_page},
    path::Name,
};

/// A directory, or a page of one, that was read.
#[derive(Debug)]
pub(crate) struct ReadLeaf {
    /// In order.
    pub(crate) entries: Vec<Entry>,
    encoded: OnceLock<Encoded>,
}

/// The entries as they lie.
#[derive(Debug)]
struct Encoded {
    canonical: Vec<u8>,
    references: Vec<Reference>,
    /// For each entry, and behind the last: where it begins, its first reference, and how much is before it.
    bounds: Vec<Bound>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bound {
    canonical: usize,
    reference: usize,
    amount: Amount,
    begins_a_page: bool,
}

impl ReadLeaf {
    pub(crate) fn new(entries: Vec<Entry>) -> Self {
        Self { entries, encoded: OnceLock::new() }
    }

    /// About the bytes that it takes in memory.
    pub(crate) fn memory(&self) -> usize {
        // Once as entries, once as they lie.
        self.entries.iter().map(|entry| entry.memory() * 2 + size_of::<Bound>()).sum()
    }

    pub(crate) fn find(&self, name: &Name) -> Option<&Entry> {
        let found = self.entries.binary_search_by(|entry| entry.name.cmp(name)).ok()?;
        self.entries.get(found)
    }

    fn encoded(&self) -> &Encoded {
        self.encoded.get_or_init(|| {
            let mut draft = Draft::default();
            let mut bounds = Vec::with_capacity(self.entries.len() + 1);
            let mut amount = Amount::default();
            for entry in &self.entries {
                bounds.push(Bound {
                    canonical: draft.canonical().len(),
                    reference: draft.references.len(),
                    amount,
                    begins_a_page: begins_a_page(&entry.name),
                });
                draft.entry(entry);
                amount.add(entry);
            }
            let (canonical, references) = (draft.canonical().to_vec(), draft.references);
            let (end, last) = (canonical.len(), references.len());
            bounds.push(Bound { canonical: end, reference: last, amount, begins_a_page: true });
            Encoded { canonical, references, bounds }
        })
    }

    fn bound(&self, at: usize) -> Bound {
        self.encoded().bounds.get(at).copied().unwrap_or_default()
    }
}

/// Neighbours in a directory that was read, which stay as they are.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) leaf: Arc<ReadLeaf>,
    pub(crate) range: Range<usize>,
}

impl Run {
    /// All of a leaf.
    pub(crate) fn of(leaf: Arc<ReadLeaf>) -> Self {
        let range = 0..leaf.entries.len();
        Self { leaf, range }
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        self.leaf.entries.get(self.range.clone()).unwrap_or_default()
    }

    pub(crate) fn amount(&self) -> Amount {
        self.leaf.bound(self.range.end).amount.without(&self.leaf.bound(self.range.start).amount)
    }

    /// Takes the first off up to where a page begins or one of so much is full; all if none does.
    pub(crate) fn split_page(&mut self, before: &Amount) -> Self {
        let start = self.range.start;
        let first = self.leaf.bound(start).amount;
        let end = (start + 1..self.range.end).find(|at| {
            let bound = self.leaf.bound(*at);
            bound.begins_a_page || before.plus(&bound.amount.without(&first)).is_full()
        });
        let end = end.unwrap_or(self.range.end);
        self.range.start = end;
        Self { leaf: Arc::clone(&self.leaf), range: start..end }
    }

    /// Returns whether a page begins with it.
    pub(crate) fn begins_a_page(&self) -> bool {
        self.leaf.bound(self.range.start).begins_a_page
    }

    fn add_to(&self, draft: &mut Draft) {
        let encoded = self.leaf.encoded();
        let (from, to) = (self.leaf.bound(self.range.start), self.leaf.bound(self.range.end));
        draft.encoded(
            encoded.canonical.get(from.canonical..to.canonical).unwrap_or_default(),
            encoded.references.get(from.reference..to.reference).unwrap_or_default(),
        );
    }
}

/// A part of a directory that is being made.
#[derive(Debug)]
pub(crate) enum Part {
    Entry(Entry),
    Run(Run),
}

impl Part {
    pub(crate) fn entries(&self) -> &[Entry] {
        match self {
            Self::Entry(entry) => std::slice::from_ref(entry),
            Self::Run(run) => run.entries(),
        }
    }

    pub(crate) fn amount(&self) -> Amount {
        match self {
            Self::Entry(entry) => {
                let mut amount = Amount::default();
                amount.add(entry);
                amount
            }
            Self::Run(run) => run.amount(),
        }
    }

    /// Returns whether a page begins with it.
    pub(crate) fn begins_a_page(&self) -> bool {
        match self {
            Self::Entry(entry) => begins_a_page(&entry.name),
            Self::Run(run) => run.begins_a_page(),
        }
    }
}

/// Makes a node of what is in a directory, or in a page of one.
pub(crate) fn draft(parts: &[Part]) -> Draft {
    let mut draft = Draft::leaf(parts.iter().map(|part| part.entries().len()).sum());
    for part in parts {
        match part {
            Part::Entry(entry) => draft.entry(entry),
            Part::Run(run) => run.add_to(&mut draft),
        }
    }
    draft
}
