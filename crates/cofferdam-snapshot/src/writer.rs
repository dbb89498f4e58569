//! [`Writer`]: from a source's listings to the root of a tree.
//!
//! Directories wait until all that is in them is known, and are then encoded, children before parents. What waits is the
//! way from the root to the present listing, and the files of one batch; a directory that is the same as before, or that was
//! not listed because nothing in it changed, costs nothing but its name.

use std::collections::{HashMap, HashSet, VecDeque};

use futures::StreamExt as _;

use crate::{
    content::{ContentWriter, FileKey, Written, lists},
    error::SnapshotError,
    frame::{FrameKey, FrameKind},
    head::IndexRefs,
    id::TreeId,
    index::Index,
    node::{
        Entry, EntryKind, Extent, FileContent, MAX_TARGET_BYTES, Metadata, Node, Page, Place,
        Stored, Totals, pages,
    },
    packer::Packer,
    path::{Name, TreePath},
    reader::{MAX_DEPTH, MAX_DIRECTORY_ENTRIES, ReadDirectory, Reader},
    receipt::Skipped,
    source::{
        Content, Coverage, FileEnd, Listing, SkipReason, Source, SourceEntry, SourceKind, Wanted,
    },
    store::Env,
};

/// Files that are read in one batch.
const BATCH_FILES: usize = 256;
/// About the bytes that are read in one batch.
const BATCH_BYTES: u64 = 16 << 20;

/// The root of a tree that was written.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) metadata: Metadata,
    pub(crate) node: Stored<TreeId>,
    pub(crate) totals: Totals,
}

type DirectoryKey = u64;

#[derive(Debug)]
enum Slot {
    Ready(Entry),
    Waiting { name: Name, metadata: Metadata },
    Gone,
}

/// A directory that waits for what is in it.
#[derive(Debug)]
struct Directory {
    path: TreePath,
    parent: Option<(DirectoryKey, usize)>,
    slots: Vec<Slot>,
    missing: usize,
    /// Nodes that it was before: if it is one of them again, that is used.
    before: Vec<Stored<TreeId>>,
}

/// A directory whose listing is to come.
#[derive(Debug)]
struct Expected {
    slot: usize,
    path: TreePath,
    base: Option<(Stored<TreeId>, Totals)>,
    previous: Option<Stored<TreeId>>,
}

#[derive(Debug)]
struct Level {
    key: DirectoryKey,
    expected: VecDeque<Expected>,
}

/// A file whose content was asked for.
#[derive(Debug)]
struct Asked {
    wanted: Wanted,
    slot: (DirectoryKey, usize),
    group: Option<u64>,
    before: Option<FileContent>,
}

/// A file with several names.
#[derive(Debug)]
struct Group {
    number: u64,
    state: GroupState,
}

#[derive(Debug)]
enum GroupState {
    Waiting(Vec<(DirectoryKey, usize)>),
    Known { metadata: Metadata, size: u64, content: FileContent },
    Gone(SkipReason),
}

/// Writes one tree.
pub(crate) struct Writer<'a> {
    env: Env,
    source: &'a dyn Source,
    previous: Option<Reader>,
    base: Option<Reader>,
    whole: bool,
    directories: HashMap<DirectoryKey, Directory>,
    next_directory: DirectoryKey,
    levels: Vec<Level>,
    asked: Vec<Asked>,
    asked_bytes: u64,
    groups: HashMap<u64, Group>,
    content: ContentWriter,
    pub(crate) packer: Packer,
    pub(crate) index: Index,
    /// What the index is loaded from, when it is first needed.
    index_refs: Option<(IndexRefs, HashSet<crate::id::PackName>)>,
    pub(crate) skipped: Skipped,
    root: Option<Root>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(
        env: Env,
        source: &'a dyn Source,
        previous: Option<Reader>,
        base: Option<Reader>,
        hints: (IndexRefs, HashSet<crate::id::PackName>),
    ) -> Self {
        let mut frames = HashMap::new();
        for reader in [&previous, &base].into_iter().flatten() {
            frames.extend(reader.head.frames.iter().map(|(key, frame)| (*key, frame.clone())));
        }
        Self {
            packer: Packer::new(env.clone(), frames),
            content: ContentWriter::new(env.clone()),
            env,
            source,
            previous,
            base,
            whole: true,
            directories: HashMap::new(),
            next_directory: 0,
            levels: Vec::new(),
            asked: Vec::new(),
            asked_bytes: 0,
            groups: HashMap::new(),
            index: Index::default(),
            index_refs: Some(hints),
            skipped: Skipped::default(),
            root: None,
        }
    }

    /// Takes all listings and contents.
    pub(crate) async fn write(
        &mut self,
        walk: crate::source::Walk<'_>,
    ) -> Result<Root, SnapshotError> {
        self.whole = walk.coverage == Coverage::Whole;
        if let Some(problem) = walk.root.problem() {
            return Err(listing(&TreePath::root(), problem));
        }
        let mut listings = walk.listings;
        while let Some(next) = listings.next().await {
            self.listing(next?).await?;
            if self.asked.len() >= BATCH_FILES || self.asked_bytes >= BATCH_BYTES {
                self.read().await?;
            }
        }
        drop(listings);
        self.read().await?;
        let mut root = self
            .root
            .take()
            .ok_or_else(|| listing(&TreePath::root(), "listings are missing at the end"))?;
        root.metadata = walk.root;
        Ok(root)
    }

    /// Returns the directory that the next listing has to be of.
    fn expected(&mut self, path: &TreePath) -> Result<Expected, SnapshotError> {
        if self.next_directory == 0 {
            if !path.is_root() {
                return Err(listing(path, "the first listing is not that of the root"));
            }
            return Ok(Expected {
                slot: 0,
                path: TreePath::root(),
                base: self.base.as_ref().map(|reader| (reader.head.tree, reader.head.totals)),
                previous: self.previous.as_ref().map(|reader| reader.head.tree),
            });
        }
        while let Some(level) = self.levels.last_mut() {
            match level.expected.pop_front() {
                None => drop(self.levels.pop()),
                Some(expected) if expected.path == *path => return Ok(expected),
                Some(_) => break,
            }
        }
        Err(listing(path, "it is not the next directory, depth first and in the order of names"))
    }

    async fn listing(&mut self, listed: Listing) -> Result<(), SnapshotError> {
        let Listing { path, entries, removed, complete, skipped } = listed;
        let expected = self.expected(&path)?;
        let parent = self.levels.last().map(|level| (level.key, expected.slot));
        if self.levels.len() > MAX_DEPTH {
            return Err(SnapshotError::TooLarge {
                what: "the depth of the tree",
                limit: MAX_DEPTH as u64,
            });
        }
        if self.whole && !complete {
            return Err(listing(
                &path,
                "a walk of the whole tree has a listing that is not complete",
            ));
        }
        if !entries.windows(2).all(|pair| pair[0].name < pair[1].name) {
            return Err(listing(&path, "names are not in ascending order"));
        }
        for (name, reason) in skipped {
            self.skipped.add(&path.join(&name), reason);
        }
        if let Some((node, totals)) = expected.base
            && !complete
            && entries.is_empty()
            && removed.is_empty()
        {
            self.next_directory += 1;
            return self.closed(parent, node, totals).await;
        }
        let base_node = expected.base.map(|(node, _)| node);
        let base = match base_node {
            Some(node) if !complete || entries.iter().any(is_directory) => {
                read(&self.base, node, &path).await?
            }
            _ => ReadDirectory::default(),
        };
        let previous = match expected.previous {
            Some(node)
                if (base_node != Some(node) || base.nodes.is_empty()) && !entries.is_empty() =>
            {
                read(&self.previous, node, &path).await?
            }
            _ => ReadDirectory::default(),
        };
        let same = base_node == expected.previous && !base.nodes.is_empty();
        let before = if same { &base.entries } else { &previous.entries };
        let mut nodes = previous.nodes.clone();
        nodes.extend(base.nodes.iter().chain(&expected.previous).chain(&base_node));

        let key = self.next_directory;
        self.next_directory += 1;
        let mut directory =
            Directory { path, parent, slots: Vec::new(), missing: 0, before: nodes };
        let mut children = VecDeque::new();
        let listed: HashSet<&Name> = entries.iter().map(|entry| &entry.name).collect();
        let removed: HashSet<&Name> = removed.iter().collect();
        let kept: Vec<Entry> = if complete {
            Vec::new()
        } else {
            let stays =
                |entry: &&Entry| !listed.contains(&entry.name) && !removed.contains(&entry.name);
            base.entries.iter().filter(stays).cloned().collect()
        };
        if kept.len() + entries.len() > MAX_DIRECTORY_ENTRIES {
            return Err(SnapshotError::TooLarge {
                what: "the number of entries of a directory",
                limit: MAX_DIRECTORY_ENTRIES as u64,
            });
        }
        let mut kept = kept.into_iter().peekable();
        for entry in &entries {
            while let Some(kept) = kept.next_if(|kept| kept.name < entry.name) {
                directory.slots.push(Slot::Ready(kept));
            }
            let slot = directory.slots.len();
            if is_directory(entry) {
                children.push_back(Expected {
                    slot,
                    path: directory.path.join(&entry.name),
                    base: directory_node(&base.entries, &entry.name),
                    previous: directory_node(before, &entry.name).map(|(node, _)| node),
                });
            }
            let made = self.entry(key, slot, &directory.path, entry, before)?;
            directory.missing += usize::from(matches!(made, Slot::Waiting { .. }));
            directory.slots.push(made);
        }
        directory.slots.extend(kept.map(Slot::Ready));
        let complete = directory.missing == 0;
        self.directories.insert(key, directory);
        self.levels.push(Level { key, expected: children });
        if complete { self.close(key).await } else { Ok(()) }
    }

    /// Makes what can be made of an entry, and asks for what cannot.
    fn entry(
        &mut self,
        key: DirectoryKey,
        slot: usize,
        directory: &TreePath,
        entry: &SourceEntry,
        before: &[Entry],
    ) -> Result<Slot, SnapshotError> {
        let path = || directory.join(&entry.name);
        if let Some(problem) = entry.metadata.problem() {
            return Err(listing(&path(), problem));
        }
        let waiting =
            || Slot::Waiting { name: entry.name.clone(), metadata: entry.metadata.clone() };
        let ready = |metadata: &Metadata, kind| {
            Slot::Ready(Entry { name: entry.name.clone(), metadata: metadata.clone(), kind })
        };
        let (size, unchanged, link_group) = match &entry.kind {
            SourceKind::Directory => return Ok(waiting()),
            SourceKind::SymbolicLink { target } => {
                if target.is_empty() || target.len() > MAX_TARGET_BYTES || target.contains(&0) {
                    return Err(listing(&path(), "a symbolic link has no target that can be kept"));
                }
                let kind = EntryKind::SymbolicLink { target: target.clone() };
                return Ok(ready(&entry.metadata, kind));
            }
            SourceKind::File { size, unchanged, link_group } => (*size, *unchanged, *link_group),
        };
        if let Some(group) = link_group.and_then(|group| self.groups.get_mut(&group)) {
            return Ok(match &mut group.state {
                GroupState::Waiting(slots) => {
                    slots.push((key, slot));
                    waiting()
                }
                GroupState::Known { metadata, size, content } => {
                    let link_group = Some(group.number);
                    let kind =
                        EntryKind::File { size: *size, link_group, content: content.clone() };
                    ready(metadata, kind)
                }
                GroupState::Gone(reason) => {
                    let reason = reason.clone();
                    self.skipped.add(&path(), reason);
                    Slot::Gone
                }
            });
        }
        let number = link_group.map(|group| self.group_number(group, &path()));
        let old = match find(before, &entry.name).map(|entry| &entry.kind) {
            Some(EntryKind::File { size, content, .. }) => Some((*size, content)),
            _ => None,
        };
        if let Some((old_size, content)) = old.filter(|(old, _)| unchanged && *old == size) {
            let kind =
                EntryKind::File { size: old_size, link_group: number, content: content.clone() };
            if let Some((group, number)) = link_group.zip(number) {
                let state = GroupState::Known {
                    metadata: entry.metadata.clone(),
                    size,
                    content: content.clone(),
                };
                self.groups.insert(group, Group { number, state });
            }
            return Ok(ready(&entry.metadata, kind));
        }
        if let Some((group, number)) = link_group.zip(number) {
            self.groups.insert(group, Group { number, state: GroupState::Waiting(Vec::new()) });
        }
        self.asked_bytes = self.asked_bytes.saturating_add(size);
        self.asked.push(Asked {
            wanted: Wanted { path: path(), size },
            slot: (key, slot),
            group: link_group,
            before: old.map(|(_, content)| content.clone()),
        });
        Ok(waiting())
    }

    /// The number that is stored for a group. A walk of a whole tree meets every name, so that the first of them can stand
    /// for the group, and equal trees have equal numbers; otherwise the source's number, which no other source has.
    fn group_number(&self, group: u64, first: &TreePath) -> u64 {
        if !self.whole {
            return group;
        }
        let mut number = [0; 8];
        number.copy_from_slice(&blake3::hash(first.as_bytes()).as_bytes()[..8]);
        u64::from_le_bytes(number)
    }

    /// Reads all that was asked for.
    async fn read(&mut self) -> Result<(), SnapshotError> {
        let asked = std::mem::take(&mut self.asked);
        self.asked_bytes = 0;
        if asked.is_empty() {
            return Ok(());
        }
        if let Some((refs, condemned)) = self.index_refs.take() {
            self.index = Index::load(&self.env, &refs, &condemned).await?;
            self.content.expect(self.index.prefixes());
            self.content
                .expect(self.packer.head_frames.keys().map(|(_, id)| crate::index::prefix(id)));
        }
        for asked in &asked {
            if let Some(before) = &asked.before {
                self.know_before(before, &asked.wanted.path).await?;
            }
        }
        let wanted = asked.iter().map(|asked| asked.wanted.clone()).collect();
        let source = self.source;
        let mut contents = source.read(wanted);
        let mut files: HashMap<FileKey, (usize, Metadata)> = HashMap::new();
        for (at, one) in asked.iter().enumerate() {
            let mut file = self.content.begin(one.wanted.size);
            loop {
                let next = contents.next().await.unwrap_or_else(|| {
                    Err(crate::source::SourceError::Read {
                        path: one.wanted.path.clone(),
                        source: "its content ended early".into(),
                    })
                });
                match next? {
                    Content::Data(bytes) => {
                        self.packer.stored.bytes_read += bytes.len() as u64;
                        // Pieces of any size may come; what waits is bounded all the same.
                        for part in bytes.chunks(1 << 20) {
                            self.content.data(part);
                            self.content.make_room(&mut self.packer, &mut self.index).await?;
                        }
                    }
                    Content::Hole(length) => self.content.hole(length),
                    Content::Again => {
                        self.content.abandon();
                        file = self.content.begin(one.wanted.size);
                    }
                    Content::End(FileEnd::Whole(metadata)) => {
                        if let Some(problem) = metadata.problem() {
                            return Err(listing(&one.wanted.path, problem));
                        }
                        self.content.end();
                        self.packer.stored.files_read += 1;
                        files.insert(file, (at, metadata));
                        break;
                    }
                    Content::End(FileEnd::Skipped(reason)) => {
                        self.content.abandon();
                        self.gone(one, reason).await?;
                        break;
                    }
                }
            }
            self.finished(&asked, &mut files).await?;
        }
        drop(contents);
        self.content.flush(&mut self.packer, &mut self.index).await?;
        self.finished(&asked, &mut files).await
    }

    /// Makes the pieces of a file that has changed known, so that those that stayed are found without an index.
    async fn know_before(
        &mut self,
        before: &FileContent,
        path: &TreePath,
    ) -> Result<(), SnapshotError> {
        match before {
            FileContent::Inline(_) => {}
            FileContent::Extents(extents) => self.know_extents(extents),
            FileContent::Lists(lists) => {
                for (list, length) in lists {
                    if let Some(reader) = &self.previous {
                        let extents = reader.extents(*list, *length, path).await?;
                        self.know_extents(&extents);
                    }
                    self.content.know((FrameKind::Node, *list.id.as_bytes()), list.place);
                }
            }
        }
        Ok(())
    }

    fn know_extents(&mut self, extents: &[Extent]) {
        for extent in extents {
            if let Extent::Data { chunk, .. } = extent {
                self.content.know((FrameKind::Chunk, *chunk.id.as_bytes()), chunk.place);
            }
        }
    }

    /// Takes the files that are complete.
    async fn finished(
        &mut self,
        asked: &[Asked],
        files: &mut HashMap<FileKey, (usize, Metadata)>,
    ) -> Result<(), SnapshotError> {
        for Written { file, size, content } in self.content.finished() {
            let Some((at, metadata)) = files.remove(&file) else { continue };
            let Some(one) = asked.get(at) else { continue };
            let content = match content {
                FileContent::Extents(extents) => match lists(extents) {
                    Ok(extents) => FileContent::Extents(extents),
                    Err(nodes) => {
                        let mut stored = Vec::with_capacity(nodes.len());
                        for (node, length) in nodes {
                            stored.push((self.store(node, &[]).await?, length));
                        }
                        FileContent::Lists(stored)
                    }
                },
                other => other,
            };
            let group = one.group.and_then(|group| self.groups.get_mut(&group));
            let number = group.as_ref().map(|group| group.number);
            let mut slots = vec![one.slot];
            if let Some(group) = group {
                let known = GroupState::Known {
                    metadata: metadata.clone(),
                    size,
                    content: content.clone(),
                };
                if let GroupState::Waiting(others) = std::mem::replace(&mut group.state, known) {
                    slots.extend(others);
                }
            }
            for slot in slots {
                let kind = EntryKind::File { size, link_group: number, content: content.clone() };
                self.fill(slot, Some((metadata.clone(), kind))).await?;
            }
        }
        Ok(())
    }

    /// Leaves out a file that could not be read, under all its names.
    async fn gone(&mut self, asked: &Asked, reason: SkipReason) -> Result<(), SnapshotError> {
        let mut slots = vec![asked.slot];
        if let Some(group) = asked.group.and_then(|group| self.groups.get_mut(&group)) {
            let gone = GroupState::Gone(reason.clone());
            if let GroupState::Waiting(others) = std::mem::replace(&mut group.state, gone) {
                slots.extend(others);
            }
        }
        for (directory, slot) in slots {
            if let Some(waiting) = self.directories.get(&directory)
                && let Some(Slot::Waiting { name, .. }) = waiting.slots.get(slot)
            {
                self.skipped.add(&waiting.path.join(name), reason.clone());
            }
            self.fill((directory, slot), None).await?;
        }
        Ok(())
    }

    /// Fills a place in a directory, and closes the directory if it was the last.
    async fn fill(
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
    async fn close(&mut self, key: DirectoryKey) -> Result<(), SnapshotError> {
        let mut ready = Some(key);
        while let Some(Directory { slots, parent, before, .. }) =
            ready.and_then(|key| self.directories.remove(&key))
        {
            let entries: Vec<Entry> = slots
                .into_iter()
                .filter_map(|slot| match slot {
                    Slot::Ready(entry) => Some(entry),
                    Slot::Waiting { .. } | Slot::Gone => None,
                })
                .collect();
            let mut totals = Totals::default();
            entries.iter().for_each(|entry| totals.add(&entry.kind));
            let node = self.directory(entries, &before).await?;
            ready = self.hand_up(parent, node, totals);
        }
        Ok(())
    }

    /// Takes a directory that is as it was.
    async fn closed(
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
            Slot::Ready(_) | Slot::Gone => return None,
        };
        let made = Some((metadata, EntryKind::Directory { node, totals }));
        self.place(parent, slot, made).then_some(parent)
    }

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
        let mut branch = Vec::with_capacity(parts.len());
        for entries in parts {
            let Some(first) = entries.first().map(|entry| entry.name.clone()) else { continue };
            let node = self.store(Node::Leaf(entries), before).await?;
            branch.push(Page { first, node });
        }
        self.store(Node::Branch(branch), before).await
    }

    /// Stores a node, unless it is there: as one of `before`, in this snapshot, or anywhere.
    async fn store(
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
                let place = self.packer.append(key, frame);
                self.packer.put_full(&mut self.index).await?;
                place
            }
        };
        self.content.know(key, place);
        Ok(Stored { id, place })
    }
}

fn is_directory(entry: &SourceEntry) -> bool {
    entry.kind == SourceKind::Directory
}

fn find<'a>(entries: &'a [Entry], name: &Name) -> Option<&'a Entry> {
    entries.binary_search_by(|entry| entry.name.cmp(name)).ok().and_then(|at| entries.get(at))
}

fn directory_node(entries: &[Entry], name: &Name) -> Option<(Stored<TreeId>, Totals)> {
    match find(entries, name)?.kind {
        EntryKind::Directory { node, totals } => Some((node, totals)),
        _ => None,
    }
}

async fn read(
    reader: &Option<Reader>,
    node: Stored<TreeId>,
    path: &TreePath,
) -> Result<ReadDirectory, SnapshotError> {
    match reader {
        Some(reader) => reader.directory(node, path).await,
        None => Ok(ReadDirectory::default()),
    }
}

fn listing(path: &TreePath, reason: impl Into<String>) -> SnapshotError {
    SnapshotError::Listing { path: path.clone(), reason: reason.into() }
}
