//! Where a large directory is cut into pages, so that a change rewrites one of them.
//!
//! A directory of more than 512 entries or about 256 KiB is cut. Where a page begins depends on the names alone, but for pages that
//! would become too large; so a change leaves most pages as they were, and equal directories have equal pages, whatever
//! they were before.

use crate::{
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
    fn add(&mut self, entry: &Entry) {
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(estimate(entry));
    }

    pub(crate) fn add_all(&mut self, entries: &[Entry]) {
        entries.iter().for_each(|entry| self.add(entry));
    }

    fn of(entries: &[Entry]) -> Self {
        let mut amount = Self::default();
        amount.add_all(entries);
        amount
    }

    /// Returns whether a directory of so much is cut into pages.
    pub(crate) fn is_cut(&self) -> bool {
        self.entries > MAX_LEAF_ENTRIES || self.bytes > MAX_LEAF_BYTES
    }
}

/// Cuts entries that come in order.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    page: Vec<Entry>,
    bytes: usize,
}

impl Cutter {
    /// Begins with a page whose beginning stands.
    pub(crate) fn resume(page: Vec<Entry>) -> Self {
        let bytes = Amount::of(&page).bytes;
        Self { page, bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.page.is_empty()
    }

    /// Returns whether a page begins with this name, after what was taken.
    pub(crate) fn is_cut_before(&self, name: &Name) -> bool {
        let full = self.page.len() >= MAX_PAGE_ENTRIES || self.bytes >= MAX_LEAF_BYTES;
        !self.page.is_empty() && (full || begins_a_page(name))
    }

    /// Takes the next entry, and returns the page that ends before it, if one does.
    pub(crate) fn push(&mut self, entry: Entry) -> Option<Vec<Entry>> {
        let ended = self.is_cut_before(&entry.name).then(|| self.end());
        self.bytes = self.bytes.saturating_add(estimate(&entry));
        self.page.push(entry);
        ended
    }

    /// Ends the page.
    pub(crate) fn end(&mut self) -> Vec<Entry> {
        self.bytes = 0;
        std::mem::take(&mut self.page)
    }
}

/// Returns whether a page begins with a name wherever it stands.
pub(crate) fn begins_a_page(name: &Name) -> bool {
    blake3::hash(name.as_bytes()).as_bytes()[0] == 0
}

/// Cuts the entries of a directory into pages; one page if it is not large.
pub(crate) fn pages(entries: Vec<Entry>) -> Vec<Vec<Entry>> {
    if !Amount::of(&entries).is_cut() {
        return vec![entries];
    }
    let mut cutter = Cutter::default();
    let mut pages: Vec<_> = entries.into_iter().filter_map(|entry| cutter.push(entry)).collect();
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
    use super::*;
    use crate::node::Metadata;

    fn named(name: &str) -> Entry {
        let target = b"x".to_vec();
        Entry {
            name: Name::new(name.as_bytes()).unwrap(),
            metadata: Metadata::default(),
            kind: EntryKind::SymbolicLink { target },
        }
    }

    #[test]
    fn large_directories_are_cut_where_their_names_say() {
        let names: Vec<String> = (0..5000).map(|at| format!("file-{at:05}")).collect();
        let all: Vec<Entry> = names.iter().map(|name| named(name)).collect();
        let before = pages(all.clone());
        assert!((5..60).contains(&before.len()), "{}", before.len());
        assert_eq!(before.concat(), all);
        let mut more = all;
        more.insert(2500, named("file-02499-and-a-half"));
        let after = pages(more);
        let same = after.iter().filter(|page| before.contains(page)).count();
        assert!(same + 2 >= after.len(), "{same} of {} pages are as they were", after.len());
    }
}
