//! [`Disk`]: a directory with what was flushed of it and what was not.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::events::Event;
use crate::random::Random;

/// The unit that a disk writes whole or not at all.
const SECTOR: usize = 512;

/// What a disk has when the power comes back, beside what was flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// Nothing.
    Flushed,
    /// All.
    Everything,
    /// The entries of directories, and nothing of what was written to files.
    Names,
    /// A random part.
    Part,
}

/// Files by number, and directories by path; the root has the empty path.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    files: Vec<File>,
    directories: BTreeMap<PathBuf, Directory>,
    /// Which file an inode is now; numbers are used again after a file is gone.
    inodes: HashMap<u64, usize>,
}

#[derive(Debug, Clone, Default)]
struct File {
    flushed: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: u64, data: Vec<u8> },
    Truncate { length: u64 },
}

#[derive(Debug, Clone, Default)]
struct Directory {
    flushed: Entries,
    pending: Vec<EntryChange>,
}

type Entries = BTreeMap<PathBuf, Entry>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    File(usize),
    Directory,
}

/// A change of the entries of one directory.
#[derive(Debug, Clone)]
enum EntryChange {
    Put(PathBuf, Entry),
    Take(PathBuf),
    /// Within a directory, a rename is one change.
    Move(PathBuf, PathBuf, Entry),
    /// The half of a rename that leaves; whoever flushes it has the other half flushed as well.
    Leave(PathBuf, PathBuf),
}

impl Disk {
    /// Takes a directory as it is, all of it flushed.
    pub(super) fn read(root: &Path) -> io::Result<Self> {
        let mut disk =
            Self { files: Vec::new(), directories: BTreeMap::new(), inodes: HashMap::new() };
        let mut left = vec![PathBuf::new()];
        while let Some(path) = left.pop() {
            let mut entries = Entries::new();
            for entry in fs::read_dir(root.join(&path))? {
                let entry = entry?;
                let (name, metadata) = (path.join(entry.file_name()), entry.metadata()?);
                let kind = if metadata.is_dir() {
                    left.push(name.clone());
                    Entry::Directory
                } else {
                    let number = match disk.inodes.get(&metadata.ino()) {
                        Some(number) => *number,
                        None => disk.new_file(metadata.ino(), fs::read(entry.path())?),
                    };
                    Entry::File(number)
                };
                entries.insert(name, kind);
            }
            disk.directories.insert(path, Directory { flushed: entries, pending: Vec::new() });
        }
        Ok(disk)
    }

    fn new_file(&mut self, inode: u64, flushed: Vec<u8>) -> usize {
        self.files.push(File { flushed, pending: Vec::new() });
        self.inodes.insert(inode, self.files.len() - 1);
        self.files.len() - 1
    }

    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::Create { path, inode } => {
                let number = self.new_file(*inode, Vec::new());
                if let Some(path) = path {
                    self.change(path, EntryChange::Put(path.clone(), Entry::File(number)));
                }
            }
            Event::Write { inode, offset, data } => {
                self.file(*inode, Change::Write { offset: *offset, data: data.clone() });
            }
            Event::Truncate { inode, length } => {
                self.file(*inode, Change::Truncate { length: *length });
            }
            Event::Flush { inode } => {
                if let Some(number) = self.inodes.get(inode) {
                    self.files[*number].flush();
                }
            }
            Event::Rename { from, to } => {
                let Some(entry) = self.entry(from) else { return };
                if from.parent() == to.parent() {
                    self.change(to, EntryChange::Move(from.clone(), to.clone(), entry));
                } else {
                    self.change(to, EntryChange::Put(to.clone(), entry));
                    self.change(from, EntryChange::Leave(from.clone(), to.clone()));
                }
            }
            Event::Unlink { path } | Event::RemoveDirectory { path } => {
                self.change(path, EntryChange::Take(path.clone()));
            }
            Event::MakeDirectory { path } => {
                self.directories.insert(path.clone(), Directory::default());
                self.change(path, EntryChange::Put(path.clone(), Entry::Directory));
            }
            Event::Link { path, inode } => {
                if let Some(number) = self.inodes.get(inode).copied() {
                    self.change(path, EntryChange::Put(path.clone(), Entry::File(number)));
                }
            }
            Event::FlushDirectory { path } => self.flush_directory(path),
            Event::Mark { .. } => {}
        }
    }

    fn file(&mut self, inode: u64, change: Change) {
        // A file that was there before under another root would not be known; the comparison at the end finds it.
        if let Some(number) = self.inodes.get(&inode) {
            self.files[*number].pending.push(change);
        }
    }

    fn change(&mut self, path: &Path, change: EntryChange) {
        let parent = path.parent().unwrap_or(Path::new(""));
        self.directories.entry(parent.to_path_buf()).or_default().pending.push(change);
    }

    /// Returns what a path is now.
    fn entry(&self, path: &Path) -> Option<Entry> {
        let directory = self.directories.get(path.parent()?)?;
        directory.entries(directory.pending.len()).get(path).copied()
    }

    fn flush_directory(&mut self, path: &Path) {
        let Some(directory) = self.directories.get_mut(path) else { return };
        directory.flushed = directory.entries(directory.pending.len());
        let others: Vec<PathBuf> = std::mem::take(&mut directory.pending)
            .into_iter()
            .filter_map(|change| match change {
                EntryChange::Leave(_, to) => to.parent().map(Path::to_path_buf),
                _ => None,
            })
            .collect();
        others.iter().for_each(|other| self.flush_directory(other));
    }

    /// Returns the files and directories (`None`) that a disk has, with their content.
    pub(super) fn files(
        &self,
        kept: Kept,
        random: &mut Random,
    ) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let mut found = BTreeMap::new();
        let mut contents: HashMap<usize, Vec<u8>> = HashMap::new();
        let mut left = vec![PathBuf::new()];
        while let Some(path) = left.pop() {
            let Some(directory) = self.directories.get(&path) else { continue };
            let pending = directory.pending.len();
            let changes = match kept {
                Kept::Flushed => 0,
                Kept::Everything | Kept::Names => pending,
                Kept::Part => index(random, pending + 1),
            };
            for (name, entry) in directory.entries(changes) {
                let content = match entry {
                    Entry::Directory => {
                        left.push(name.clone());
                        None
                    }
                    // All names of a file show the same content.
                    Entry::File(number) => Some(
                        contents
                            .entry(number)
                            .or_insert_with(|| self.files[number].content(kept, random))
                            .clone(),
                    ),
                };
                found.insert(name, content);
            }
        }
        found
    }

    /// Makes what a disk has in an empty directory.
    pub(super) fn write(&self, to: &Path, kept: Kept, random: &mut Random) -> io::Result<()> {
        // Parents sort before what is in them.
        for (path, content) in self.files(kept, random) {
            match content {
                None => fs::create_dir(to.join(path))?,
                Some(content) => fs::write(to.join(path), content)?,
            }
        }
        Ok(())
    }
}

impl Directory {
    /// Returns the entries after the first so many of the changes that were not flushed.
    fn entries(&self, changes: usize) -> Entries {
        let mut entries = self.flushed.clone();
        for change in &self.pending[..changes] {
            match change {
                EntryChange::Put(path, entry) => {
                    entries.insert(path.clone(), *entry);
                }
                EntryChange::Take(path) | EntryChange::Leave(path, _) => {
                    entries.remove(path);
                }
                EntryChange::Move(from, to, entry) => {
                    entries.remove(from);
                    entries.insert(to.clone(), *entry);
                }
            }
        }
        entries
    }
}

impl File {
    fn flush(&mut self) {
        let mut content = std::mem::take(&mut self.flushed);
        self.pending.drain(..).for_each(|change| change.apply(&mut content));
        self.flushed = content;
    }

    fn content(&self, kept: Kept, random: &mut Random) -> Vec<u8> {
        let mut content = self.flushed.clone();
        match kept {
            Kept::Flushed | Kept::Names => {}
            Kept::Everything => self.pending.iter().for_each(|change| change.apply(&mut content)),
            Kept::Part => {
                self.pending.iter().for_each(|change| change.apply_part(&mut content, random));
            }
        }
        content
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => put(content, *offset, data),
            Self::Truncate { length } => content.resize(size(*length), 0),
        }
    }

    /// Applies it, or not, or some sectors of it, or only the length that it gives the file.
    fn apply_part(&self, content: &mut Vec<u8>, random: &mut Random) {
        match (index(random, 4), self) {
            (0, _) => {}
            (1, _) => self.apply(content),
            (2, Self::Write { offset, data }) => {
                let end = size(*offset) + data.len();
                content.resize(content.len().max(end), 0);
            }
            (_, Self::Write { offset, data }) => {
                let mut at = size(*offset);
                let mut rest = &data[..];
                while !rest.is_empty() {
                    let (sector, later) = rest.split_at((SECTOR - at % SECTOR).min(rest.len()));
                    if index(random, 2) == 0 {
                        put(content, at as u64, sector);
                    }
                    at += sector.len();
                    rest = later;
                }
            }
            (_, Self::Truncate { .. }) => self.apply(content),
        }
    }
}

fn put(content: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let begin = size(offset);
    let end = begin + data.len();
    content.resize(content.len().max(end), 0);
    content[begin..end].copy_from_slice(data);
}

#[expect(clippy::expect_used, reason = "the content of a recorded file is in memory")]
fn size(length: u64) -> usize {
    usize::try_from(length).expect("a length that fits in memory")
}

fn index(random: &mut Random, bound: usize) -> usize {
    usize::try_from(random.below(bound as u64)).unwrap_or(0)
}
