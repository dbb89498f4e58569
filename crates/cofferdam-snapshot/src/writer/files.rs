//! What files hold: from a source's entries to slots that are filled, with one content for all names of a file.

use std::collections::HashMap;

use futures::StreamExt as _;

use super::{
    Writer,
    directories::{DirectoryKey, Slot},
    listing,
};
use crate::{
    content::{FileKey, Written, lists},
    error::SnapshotError,
    frame::FrameKind,
    index::Index,
    node::{Draft, Entry, EntryKind, Extent, FileContent, MAX_TARGET_BYTES, Metadata},
    path::TreePath,
    source::{Content, FileEnd, SkipReason, SourceEntry, SourceKind, Wanted},
};

/// A file whose content was asked for.
#[derive(Debug)]
pub(super) struct Asked {
    wanted: Wanted,
    slot: (DirectoryKey, usize),
    group: Option<u64>,
    before: Option<FileContent>,
}

/// A file with several names.
#[derive(Debug)]
pub(super) struct Group {
    number: u64,
    state: GroupState,
}

#[derive(Debug)]
pub(super) enum GroupState {
    Waiting(Vec<(DirectoryKey, usize)>),
    Known { metadata: Metadata, size: u64, content: FileContent },
    Gone(SkipReason),
}

impl Writer<'_> {
    /// Makes what can be made of an entry, and asks for what cannot.
    pub(super) fn entry(
        &mut self,
        key: DirectoryKey,
        slot: usize,
        directory: &TreePath,
        entry: &SourceEntry,
        before: Option<&Entry>,
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
        let old = match before.map(|entry| &entry.kind) {
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
    pub(super) async fn read(&mut self) -> Result<(), SnapshotError> {
        let asked = std::mem::take(&mut self.asked);
        self.asked_bytes = 0;
        if asked.is_empty() {
            return Ok(());
        }
        if let Some((refs, condemned)) = self.index_refs.take() {
            self.index = Index::load(&self.env, &refs, condemned).await?;
            self.content.expect_indexed(self.index.known());
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
                            stored.push((self.store(Draft::of(&node), &[]).await?, length));
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
}
