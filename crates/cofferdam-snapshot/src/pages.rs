//! Where a large directory is cut into pages, so that a change rewrites one of them.
//!
//! A directory of more than 512 entries or about 256 KiB is cut. Where a page begins depends on the names alone, but for pages that
//! would become too large; so a change leaves most pages as they were, and equal directories have equal pages, whatever
//! they were before.

use crate::{
    leaf::Part,
    node::{Entry, EntryKind, FileContent},
    path::Name,
};

/// A directory with more entries is cut into pages.
const MAX_LEAF_ENTRIES: usize = 512;
/// A directory that takes more bytes is cut into pages.
const MAX_LEAF_BYTES: usize = 256 << 10;
/// The most entries of a page.
pub(crate) const MAX_PAGE_ENTRIES: usize = 1024;

/// How much is in a directory or a part of it, as far as it tells whether it is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Amount {
    entries: usize,
    bytes: usize,
}

impl Amount {
    pub(crate) fn add(&mut self, entry: &Entry) {
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(estimate(entry));
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self {
            entries: self.entries + other.entries,
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    pub(crate) fn without(&self, part: &Self) -> Self {
        Self {
            entries: self.entries.saturating_sub(part.entries),
            bytes: self.bytes.saturating_sub(part.bytes),
        }
    }

    /// Returns whether a directory of this amount is cut into pages.
    pub(crate) fn is_cut(&self) -> bool {
        self.entries > MAX_LEAF_ENTRIES || self.bytes > MAX_LEAF_BYTES
    }

    /// Returns whether a page of this amount ends.
    pub(crate) fn is_full(&self) -> bool {
        self.entries >= MAX_PAGE_ENTRIES || self.bytes >= MAX_LEAF_BYTES
    }
}

/// Cuts what comes in order.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    page: Vec<Part>,
    amount: Amount,
}

impl Cutter {
    pub(crate) fn is_empty(&self) -> bool {
        self.page.is_empty()
    }

    /// Returns whether a page begins with this name, after what was taken.
    pub(crate) fn is_cut_before(&self, name: &Name) -> bool {
        !self.is_empty() && (self.amount.is_full() || begins_a_page(name))
    }

    /// Takes the next part, and adds the pages that end before it or in it.
    pub(crate) fn push(&mut self, part: Part, pages: &mut Vec<Vec<Part>>) {
        if !self.is_empty() && (self.amount.is_full() || part.begins_a_page()) {
            pages.push(self.end());
        }
        match part {
            Part::Entry(_) => self.take(part),
            Part::Run(mut run) => {
                while !run.range.is_empty() {
                    if self.amount.is_full() || (!self.is_empty() && run.begins_a_page()) {
                        pages.push(self.end());
                    }
                    let first = run.split_page(&self.amount);
                    self.take(Part::Run(first));
                }
            }
        }
    }

    fn take(&mut self, part: Part) {
        self.amount = self.amount.plus(&part.amount());
        self.page.push(part);
    }

    /// Ends the page.
    pub(crate) fn end(&mut self) -> Vec<Part> {
        self.amount = Amount::default();
        std::mem::take(&mut self.page)
    }
}

/// Returns whether a page begins with a name wherever it stands.
pub(crate) fn begins_a_page(name: &Name) -> bool {
    blake3::hash(name.as_bytes()).as_bytes()[0] == 0
}

/// Cuts what is in a directory into pages; one page if it is not large.
pub(crate) fn pages(parts: Vec<Part>) -> Vec<Vec<Part>> {
    let amount = parts.iter().fold(Amount::default(), |sum, part| sum.plus(&part.amount()));
    if !amount.is_cut() {
        return vec![parts];
    }
    let (mut cutter, mut pages) = (Cutter::default(), Vec::new());
    parts.into_iter().for_each(|part| cutter.push(part, &mut pages));
    pages.push(cutter.end());
    pages
}

/// About how many bytes an entry takes, by what is canonical of it.
fn estimate(entry: &Entry) -> usize {
    let xattrs: usize =
        entry.metadata.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum();
    let kind = match &entry.kind {
        EntryKind::File { content: FileContent::Inline(bytes), .. } => bytes.len(),
        EntryKind::File { content: FileContent::Extents(extents), .. } => extents.len() * 36,
        EntryKind::File { content: FileContent::Lists(lists), .. } => lists.len() * 38,
        EntryKind::Directory { .. } => 48,
        EntryKind::SymbolicLink { target } => target.len(),
    };
    24 + entry.name.as_bytes().len() + xattrs + kind
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        leaf::{ReadLeaf, Run},
        node::Metadata,
    };

    fn named(name: &str) -> Entry {
        let target = b"x".to_vec();
        Entry {
            name: Name::new(name.as_bytes()).unwrap(),
            metadata: Metadata::default(),
            kind: EntryKind::SymbolicLink { target },
        }
    }

    fn cut(parts: Vec<Part>) -> Vec<Vec<Entry>> {
        let entries = |page: Vec<Part>| page.iter().flat_map(Part::entries).cloned().collect();
        pages(parts).into_iter().map(entries).collect()
    }

    fn single(entries: &[Entry]) -> Vec<Part> {
        entries.iter().cloned().map(Part::Entry).collect()
    }

    #[test]
    fn large_directories_are_cut_where_their_names_say() {
        let names: Vec<String> = (0..5000).map(|at| format!("file-{at:05}")).collect();
        let all: Vec<Entry> = names.iter().map(|name| named(name)).collect();
        let before = cut(single(&all));
        assert!((5..60).contains(&before.len()), "{}", before.len());
        assert_eq!(before.concat(), all);
        assert_eq!(cut(vec![Part::Run(Run::of(Arc::new(ReadLeaf::new(all.clone()))))]), before);
        let mut more = all;
        more.insert(2500, named("file-02499-and-a-half"));
        let after = cut(single(&more));
        let same = after.iter().filter(|page| before.contains(page)).count();
        assert!(same + 2 >= after.len(), "{same} of {} pages are as they were", after.len());
    }
}
