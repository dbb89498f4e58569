//! Directories that wait until all that is in them is known, and are then encoded, children before parents.

use std::{iter::Peekable, sync::Arc, vec::IntoIter};

use super::{Root, Writer, listing};
use crate::{
    error::SnapshotError,
    frame::{FrameKey, FrameKind},
    id::TreeId,
    leaf::{self, Part, Run},
    node::{Draft, Entry, EntryKind, Metadata, Page, Place, Stored, Totals},
    pages::{Amount, Cutter, begins_a_page, pages},
    path::{Name, TreePath},
    reader::{DirectoryPage, UnreadPage},
};

pub(super) type DirectoryKey = u64;

#[derive(Debug)]
pub(super) enum Slot {
    Ready(Entry),
    Waiting {
        name: Name,
        metadata: Metadata,
    },
    Gone,
    /// Neighbours that stay as they were.
    Run(Run),
    /// A page of the base that nothing was listed of.
    Unread(UnreadPage),
}

/// A directory that waits for what is in it.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: TreePath,
    pub(super) parent: Option<(DirectoryKey, usize)>,
    pub(super) slots: Vec<Slot>,
    pub(super) missing: usize,
    /// Nodes that it was before: if it is one of them again, that is used.
    pub(super) before: Vec<Stored<TreeId>>,
    /// How much is in what stays as it was.
    pub(super) kept: Totals,
}

impl Slot {
    /// Returns the name with which it begins, once that is sure.
    fn name(&self) -> Option<&Name> {
        match self {
            Self::Ready(entry) => Some(&entry.name),
            Self::Run(run) => run.entries().first().map(|entry| &entry.name),
            Self::Unread(page) => Some(&page.page.first),
            Self::Waiting { .. } | Self::Gone => None,
        }
    }

    fn part(self) -> Option<Part> {
        match self {
            Self::Ready(entry) => Some(Part::Entry(entry)),
            Self::Run(run) => Some(Part::Run(run)),
            Self::Waiting { .. } | Self::Gone | Self::Unread(_) => None,
        }
    }
}

impl Directory {
    /// Counts what is in the neighbours that stay.
    pub(super) fn totals_of_runs(&self) -> Totals {
        let mut totals = Totals::default();
        for slot in &self.slots {
            if let Slot::Run(run) = slot {
                run.entries().iter().for_each(|entry| totals.add(&entry.kind));
            }
        }
        totals
    }
}

/// What was in a directory, given out from name to name.
#[derive(Debug)]
pub(super) struct Kept {
    pages: Peekable<IntoIter<DirectoryPage>>,
    run: Option<Run>,
}

impl Kept {
    pub(super) fn new(pages: Vec<DirectoryPage>) -> Self {
        Self { pages: pages.into_iter().peekable(), run: None }
    }

    /// Gives out what comes before a name, and passes over what has that name.
    pub(super) fn up_to(&mut self, name: &Name, slots: &mut Vec<Slot>) {
        loop {
            if let Some(run) = &mut self.run {
                let before = run.entries().partition_point(|entry| entry.name < *name);
                if before > 0 {
                    let range = run.range.start..run.range.start + before;
                    run.range.start = range.end;
                    slots.push(Slot::Run(Run { leaf: Arc::clone(&run.leaf), range }));
                }
                if let Some(next) = run.entries().first() {
                    run.range.start += usize::from(next.name == *name);
                    return;
                }
            }
            let page = self.pages.next_if(|page| page.first().is_none_or(|first| first <= name));
            match page {
                None => return,
                Some(page) => self.turn(page, slots),
            }
        }
    }

    /// Gives out all that is left.
    pub(super) fn rest(mut self, slots: &mut Vec<Slot>) {
        loop {
            slots.extend(self.run.take().filter(|run| !run.range.is_empty()).map(Slot::Run));
            match self.pages.next() {
                None => return,
                Some(page) => self.turn(page, slots),
            }
        }
    }

    fn turn(&mut self, page: DirectoryPage, slots: &mut Vec<Slot>) {
        match page {
            DirectoryPage::Read(leaf) => self.run = Some(Run::of(leaf)),
            DirectoryPage::Unread(page) => slots.push(Slot::Unread(page)),
        }
    }
}

/// A page of a directory that is being made.
#[derive(Debug)]
enum Cut {
    Made(Vec<Part>),
    /// One of the base, as it was.
    Kept(UnreadPage),
}

impl Writer<'_> {
    /// Fills a place in a directory, and closes the directory if it was the last.
    pub(super) async fn fill(
        &mut self,
        (key, at): (DirectoryKey, usize),
        made: Option<(Metadata, EntryKind)>,
    ) -> Result<(), SnapshotError> {
        if self.place(key, at, made) { self.close(key).await } else { Ok(()) }
    }

    /// Fills a place in a directory; true if it was the last.
    fn place(&mut self, key: DirectoryKey, at: usize, made: Option<(Metadata, EntryKind)>) -> bool {
        let Some(directory) = self.directories.get_mut(&key) else { return false };
        let Some(slot) = directory.slots.get_mut(at) else { return false };
        if let Slot::Waiting { name, .. } = slot {
            let name = name.clone();
            *slot = match made {
                Some((metadata, kind)) => Slot::Ready(Entry { name, metadata, kind }),
                None => Slot::Gone,
            };
            directory.missing -= 1;
        }
        directory.missing == 0
    }

    /// Encodes a directory, and each above it that waited for it alone.
    pub(super) async fn close(&mut self, key: DirectoryKey) -> Result<(), SnapshotError> {
        let mut ready = Some(key);
        while let Some(Directory { path, slots, parent, before, kept, .. }) =
            ready.and_then(|key| self.directories.remove(&key))
        {
            let mut totals = kept;
            for slot in &slots {
                if let Slot::Ready(entry) = slot {
                    totals.add(&entry.kind);
                }
            }
            let node = if slots.iter().any(|slot| matches!(slot, Slot::Unread(_))) {
                self.directory_of_pages(slots, &before, &path).await?
            } else {
                self.directory(slots.into_iter().filter_map(Slot::part).collect(), &before).await?
            };
            ready = self.hand_up(parent, node, totals);
        }
        Ok(())
    }

    /// Takes a directory that is as it was.
    pub(super) async fn closed(
        &mut self,
        parent: Option<(DirectoryKey, usize)>,
        node: Stored<TreeId>,
        totals: Totals,
    ) -> Result<(), SnapshotError> {
        match self.hand_up(parent, node, totals) {
            Some(ready) => self.close(ready).await,
            None => Ok(()),
        }
    }

    /// Gives a directory to its parent, which is returned if that was the last it waited for.
    fn hand_up(
        &mut self,
        parent: Option<(DirectoryKey, usize)>,
        node: Stored<TreeId>,
        totals: Totals,
    ) -> Option<DirectoryKey> {
        let Some((parent, slot)) = parent else {
            self.root = Some(Root { metadata: Metadata::default(), node, totals });
            return None;
        };
        let metadata = match self.directories.get(&parent)?.slots.get(slot)? {
            Slot::Waiting { metadata, .. } => metadata.clone(),
            _ => return None,
        };
        let made = Some((metadata, EntryKind::Directory { node, totals }));
        self.place(parent, slot, made).then_some(parent)
    }

    /// Stores a directory that is known whole.
    async fn directory(
        &mut self,
        parts: Vec<Part>,
        before: &[Stored<TreeId>],
    ) -> Result<Stored<TreeId>, SnapshotError> {
        let cuts = pages(parts).into_iter().map(Cut::Made).collect();
        self.branch(cuts, before).await
    }

    async fn branch(
        &mut self,
        cuts: Vec<Cut>,
        before: &[Stored<TreeId>],
    ) -> Result<Stored<TreeId>, SnapshotError> {
        let mut branch: Vec<(Option<Name>, Stored<TreeId>)> = Vec::with_capacity(cuts.len());
        for cut in cuts {
            branch.push(match cut {
                Cut::Kept(kept) => (Some(kept.page.first), kept.page.node),
                Cut::Made(parts) => {
                    let first = parts.iter().flat_map(Part::entries).next();
                    let first = first.map(|entry| entry.name.clone());
                    (first, self.store(leaf::draft(&parts), before).await?)
                }
            });
        }
        if let [(_, only)] = &branch[..] {
            // The directory is its only page.
            return Ok(*only);
        }
        let pages =
            branch.into_iter().filter_map(|(first, node)| Some(Page { first: first?, node }));
        self.store(Draft::branch(&pages.collect::<Vec<_>>()), before).await
    }

    /// Stores a directory some of whose pages were not read. It is the same as if all had been.
    async fn directory_of_pages(
        &mut self,
        slots: Vec<Slot>,
        before: &[Stored<TreeId>],
        path: &TreePath,
    ) -> Result<Stored<TreeId>, SnapshotError> {
        let cuts = self.cut(slots, path).await?;
        let mut amount = Amount::default();
        for cut in &cuts {
            if let Cut::Made(parts) = cut {
                amount = parts.iter().fold(amount, |sum, part| sum.plus(&part.amount()));
            }
        }
        // Few pages are enough to say that it is large.
        for cut in &cuts {
            if let Cut::Kept(page) = cut
                && !amount.is_cut()
            {
                amount = amount.plus(&self.page(page, path).await?.amount());
            }
        }
        if amount.is_cut() {
            return self.branch(cuts, before).await;
        }
        let mut all = Vec::new();
        for cut in cuts {
            match cut {
                Cut::Made(parts) => all.extend(parts),
                Cut::Kept(page) => all.push(Part::Run(self.page(&page, path).await?)),
            }
        }
        self.directory(all, before).await
    }

    /// Cuts a directory into pages, and reads those that were not only where what is before them has changed so that they
    /// may begin elsewhere.
    async fn cut(&self, slots: Vec<Slot>, path: &TreePath) -> Result<Vec<Cut>, SnapshotError> {
        let (mut cuts, mut cutter) = (Vec::new(), Cutter::default());
        let mut ended = Vec::new();
        for slot in slots {
            let Some(name) = slot.name() else { continue };
            if let Some(Cut::Kept(last)) = cuts.last()
                && cutter.is_empty()
                && last.next.as_ref() != Some(name)
                && !begins_a_page(name)
            {
                // It ended before a name that is gone, and goes on unless it is full.
                cutter.push(Part::Run(self.page(last, path).await?), &mut ended);
                cuts.pop();
            }
            match slot {
                Slot::Unread(page) if cutter.is_empty() => cuts.push(Cut::Kept(page)),
                Slot::Unread(page) if cutter.is_cut_before(&page.page.first) => {
                    cuts.push(Cut::Made(cutter.end()));
                    cuts.push(Cut::Kept(page));
                }
                Slot::Unread(page) => {
                    cutter.push(Part::Run(self.page(&page, path).await?), &mut ended);
                }
                slot => slot.part().into_iter().for_each(|part| cutter.push(part, &mut ended)),
            }
            cuts.extend(ended.drain(..).map(Cut::Made));
        }
        if !cutter.is_empty() {
            cuts.push(Cut::Made(cutter.end()));
        }
        Ok(cuts)
    }

    /// Reads a page of the base.
    async fn page(&self, page: &UnreadPage, path: &TreePath) -> Result<Run, SnapshotError> {
        match &self.base {
            Some(base) => Ok(Run::of(base.page(page, path).await?)),
            None => Err(listing(path, "a page of no base is to be kept")),
        }
    }

    /// Stores a node, unless it is there: as one of `before`, in this snapshot, or anywhere.
    pub(super) async fn store(
        &mut self,
        mut node: Draft,
        before: &[Stored<TreeId>],
    ) -> Result<Stored<TreeId>, SnapshotError> {
        let id = self.env.codec.node_id(node.canonical());
        if let Some(same) = before.iter().find(|stored| stored.id == id) {
            return Ok(*same);
        }
        let key: FrameKey = (FrameKind::Node, *id.as_bytes());
        let there = match self.content.known(&key).or_else(|| self.packer.find(&key)) {
            Some(place) => Some(place),
            None => self.index.find(&self.env, &key).await?,
        };
        let place: Place = match there {
            Some(place) => place,
            None => {
                self.packer.settle(&mut node)?;
                let frame = self.packer.node_frame(&id, &node)?;
                self.packer.stored.new_nodes += 1;
                let place = self.packer.append_node(key, frame, &node);
                self.packer.put_full(&mut self.index).await?;
                place
            }
        };
        self.content.know(key, place);
        Ok(Stored { id, place })
    }
}
