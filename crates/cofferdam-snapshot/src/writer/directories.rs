//! Directories that wait until all that is in them is known, and are then encoded, children before parents.

use super::{Root, Writer};
use crate::{
    error::SnapshotError,
    frame::{FrameKey, FrameKind},
    id::TreeId,
    node::{Entry, EntryKind, Metadata, Node, Page, Place, Stored, Totals},
    pages::{Amount, Cutter, begins_a_page, pages},
    path::{Name, TreePath},
    reader::UnreadPage,
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
    /// How much is in the pages that were not read.
    pub(super) unread: Totals,
}

impl Slot {
    /// Returns what was read of a directory, and in their places the pages that were not, in order.
    pub(super) fn all(entries: Vec<Entry>, unread: Vec<UnreadPage>) -> Vec<Self> {
        let mut slots = Vec::with_capacity(entries.len() + unread.len());
        let mut unread = unread.into_iter().peekable();
        for entry in entries {
            while let Some(page) = unread.next_if(|page| page.page.first < entry.name) {
                slots.push(Self::Unread(page));
            }
            slots.push(Self::Ready(entry));
        }
        slots.extend(unread.map(Self::Unread));
        slots
    }

    /// Returns its name, or that with which a page begins.
    pub(super) fn name(&self) -> Option<&Name> {
        match self {
            Self::Ready(Entry { name, .. }) | Self::Waiting { name, .. } => Some(name),
            Self::Unread(page) => Some(&page.page.first),
            Self::Gone => None,
        }
    }

    pub(super) fn ready(self) -> Option<Entry> {
        match self {
            Self::Ready(entry) => Some(entry),
            Self::Waiting { .. } | Self::Gone | Self::Unread(_) => None,
        }
    }
}

/// A page of a directory that is being made.
#[derive(Debug)]
enum Cut {
    Made(Vec<Entry>),
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
        while let Some(Directory { path, slots, parent, before, unread, .. }) =
            ready.and_then(|key| self.directories.remove(&key))
        {
            let mut totals = unread;
            for slot in &slots {
                if let Slot::Ready(entry) = slot {
                    totals.add(&entry.kind);
                }
            }
            let node = if slots.iter().any(|slot| matches!(slot, Slot::Unread(_))) {
                self.directory_of_pages(slots, &before, &path).await?
            } else {
                self.directory(slots.into_iter().filter_map(Slot::ready).collect(), &before).await?
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
            Slot::Ready(_) | Slot::Gone | Slot::Unread(_) => return None,
        };
        let made = Some((metadata, EntryKind::Directory { node, totals }));
        self.place(parent, slot, made).then_some(parent)
    }

    /// Stores a directory that is known whole.
    async fn directory(
        &mut self,
        entries: Vec<Entry>,
        before: &[Stored<TreeId>],
    ) -> Result<Stored<TreeId>, SnapshotError> {
        let mut parts = pages(entries);
        if parts.len() <= 1 {
            let entries = parts.pop().unwrap_or_default();
            return self.store(Node::Leaf(entries), before).await;
        }
        self.branch(parts.into_iter().map(Cut::Made).collect(), before).await
    }

    async fn branch(
        &mut self,
        cuts: Vec<Cut>,
        before: &[Stored<TreeId>],
    ) -> Result<Stored<TreeId>, SnapshotError> {
        let mut branch = Vec::with_capacity(cuts.len());
        for cut in cuts {
            branch.push(match cut {
                Cut::Kept(kept) => kept.page,
                Cut::Made(entries) => {
                    let Some(first) = entries.first().map(|entry| entry.name.clone()) else {
                        continue;
                    };
                    Page { first, node: self.store(Node::Leaf(entries), before).await? }
                }
            });
        }
        match &branch[..] {
            // The directory is its only page.
            [only] => Ok(only.node),
            _ => self.store(Node::Branch(branch), before).await,
        }
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
            if let Cut::Made(entries) = cut {
                amount.add_all(entries);
            }
        }
        // Few pages are enough to say that it is large.
        for cut in &cuts {
            if let Cut::Kept(page) = cut
                && !amount.is_cut()
            {
                amount.add_all(&self.page(page, path).await?);
            }
        }
        if amount.is_cut() {
            return self.branch(cuts, before).await;
        }
        let mut all = Vec::new();
        for cut in cuts {
            match cut {
                Cut::Made(entries) => all.extend(entries),
                Cut::Kept(page) => all.extend(self.page(&page, path).await?),
            }
        }
        self.directory(all, before).await
    }

    /// Cuts a directory into pages, and reads those that were not only where what is before them has changed so that they
    /// may begin elsewhere.
    async fn cut(&self, slots: Vec<Slot>, path: &TreePath) -> Result<Vec<Cut>, SnapshotError> {
        let (mut cuts, mut cutter) = (Vec::new(), Cutter::default());
        for slot in slots {
            let name = match &slot {
                Slot::Ready(entry) => &entry.name,
                Slot::Unread(page) => &page.page.first,
                Slot::Waiting { .. } | Slot::Gone => continue,
            };
            if let Some(Cut::Kept(last)) = cuts.last()
                && cutter.is_empty()
                && last.next.as_ref() != Some(name)
                && !begins_a_page(name)
            {
                // It ended before a name that is gone, and goes on unless it is full.
                cutter = Cutter::resume(self.page(last, path).await?);
                cuts.pop();
            }
            match slot {
                Slot::Ready(entry) => cuts.extend(cutter.push(entry).map(Cut::Made)),
                Slot::Unread(page) if cutter.is_empty() => cuts.push(Cut::Kept(page)),
                Slot::Unread(page) if cutter.is_cut_before(&page.page.first) => {
                    cuts.push(Cut::Made(cutter.end()));
                    cuts.push(Cut::Kept(page));
                }
                Slot::Unread(page) => {
                    for entry in self.page(&page, path).await? {
                        cuts.extend(cutter.push(entry).map(Cut::Made));
                    }
                }
                Slot::Waiting { .. } | Slot::Gone => {}
            }
        }
        if !cutter.is_empty() {
            cuts.push(Cut::Made(cutter.end()));
        }
        Ok(cuts)
    }

    /// Reads a page of the base.
    async fn page(&self, page: &UnreadPage, path: &TreePath) -> Result<Vec<Entry>, SnapshotError> {
        match &self.base {
            Some(base) => base.page(page, path).await,
            None => Ok(Vec::new()),
        }
    }

    /// Stores a node, unless it is there: as one of `before`, in this snapshot, or anywhere.
    pub(super) async fn store(
        &mut self,
        mut node: Node,
        before: &[Stored<TreeId>],
    ) -> Result<Stored<TreeId>, SnapshotError> {
        let mut bytes = node.encode();
        let id = self.env.codec.node_id(&bytes.canonical);
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
                if self.packer.settle(&mut node)? {
                    bytes = node.encode();
                }
                let frame = self.packer.node_frame(&id, &bytes)?;
                self.packer.stored.new_nodes += 1;
                let place = self.packer.append_node(key, frame, &mut node);
                self.packer.put_full(&mut self.index).await?;
                place
            }
        };
        self.content.know(key, place);
        Ok(Stored { id, place })
    }
}
