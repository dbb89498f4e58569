//! [`FileTree`]: files, directories and links in memory, with the rules and error numbers of Linux.
//!
//! Pure: no lock, no clock, no I/O. Paths are resolved as the guest does it: links that stay inside are followed, links
//! that lead out are refused. [`crate::MemoryFiles`] and [`crate::MemoryBackend`] are built on it.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
};

use bytes::Bytes;
use cofferdam_sandbox::{FileKind, FileMetadata, ListOptions, Listing, ListingEntry, WriteOptions};

/// Error numbers of Linux.
pub(crate) mod errno {
    pub(crate) const ENOENT: i32 = 2;
    pub(crate) const E2BIG: i32 = 7;
    pub(crate) const ENOEXEC: i32 = 8;
    pub(crate) const EAGAIN: i32 = 11;
    pub(crate) const EACCES: i32 = 13;
    pub(crate) const EEXIST: i32 = 17;
    pub(crate) const EXDEV: i32 = 18;
    pub(crate) const ENOTDIR: i32 = 20;
    pub(crate) const EISDIR: i32 = 21;
    pub(crate) const EINVAL: i32 = 22;
    pub(crate) const EFBIG: i32 = 27;
    pub(crate) const ENOSPC: i32 = 28;
    pub(crate) const ENOTEMPTY: i32 = 39;
    pub(crate) const ELOOP: i32 = 40;
}
use errno::{EEXIST, EINVAL, EISDIR, ELOOP, ENOENT, ENOSPC, ENOTDIR, ENOTEMPTY, EXDEV};

/// Links followed on the way to one file, as in Linux.
const MAX_LINKS: u32 = 40;

/// Bits that a node may be given: set-id bits are dropped.
pub(crate) const MODE_BITS: u32 = 0o1777;

/// What a file occupies is counted in pages.
const PAGE: u64 = 4096;

/// A tree of files in memory.
#[derive(Debug)]
pub(crate) struct FileTree {
    /// Every node by its place. A directory is there before what is in it.
    nodes: BTreeMap<Place, Node>,
    root: Node,
    /// Counts changes; the time of what was changed last.
    clock: i64,
    last_number: u64,
    used: Use,
    bounds: Use,
}

/// How much there is, or may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) bytes: u64,
    pub(crate) nodes: u64,
}

/// One file, directory or link.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) content: Content,
    pub(crate) mode: u32,
    pub(crate) modified_ns: i64,
    /// When anything of it changed, which nobody can set.
    pub(crate) changed_ns: i64,
    /// The same for all names of one file.
    pub(crate) number: u64,
}

/// What a node is and holds.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    File(Bytes),
    Directory,
    Link(Vec<u8>),
    /// A socket.
    Special,
}

/// The names from the root to a node, none of them a link, with NUL between them: in the order of these bytes, a directory
/// is followed by what is in it, sorted. Empty for the root.
type Place = Vec<u8>;

const SEPARATOR: u8 = 0;

impl Default for FileTree {
    fn default() -> Self {
        Self::new(Use { bytes: u64::MAX, nodes: u64::MAX }, 0)
    }
}

impl FileTree {
    /// Makes an empty tree with bounds, whose first change is told as made just after `clock`.
    pub(crate) fn new(bounds: Use, clock: i64) -> Self {
        let content = Content::Directory;
        let root = Node { content, mode: 0o755, modified_ns: clock, changed_ns: clock, number: 1 };
        let nodes = BTreeMap::new();
        Self { nodes, root, clock, last_number: 1, used: Use::default(), bounds }
    }

    /// Moves the time of the next change forward; never back.
    pub(crate) fn advance(&mut self, now: i64) {
        self.clock = self.clock.max(now);
    }

    fn at(&self, place: &[u8]) -> Option<&Node> {
        if place.is_empty() { Some(&self.root) } else { self.nodes.get(place) }
    }

    fn at_mut(&mut self, place: &[u8]) -> Option<&mut Node> {
        if place.is_empty() { Some(&mut self.root) } else { self.nodes.get_mut(place) }
    }

    /// Returns what is in a directory, each directory before what is in it.
    fn below(&self, place: &[u8]) -> impl Iterator<Item = (&Place, &Node)> {
        let (from, to) = if place.is_empty() {
            (Bound::Unbounded, Bound::Unbounded)
        } else {
            let [from, to] = [SEPARATOR, SEPARATOR + 1].map(|end| [place, &[end]].concat());
            (Bound::Included(from), Bound::Excluded(to))
        };
        self.nodes.range((from, to))
    }

    fn is_full(&self, place: &[u8]) -> bool {
        self.below(place).next().is_some()
    }

    /// Goes from a directory along a path. With `follow`, a final link is followed too; links that lead out are refused.
    fn go(&self, from: Place, path: &[u8], follow: bool) -> Result<Place, i32> {
        let mut left: VecDeque<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
        let mut place = from;
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            if name == b".." {
                place = above(&place).ok_or(EXDEV)?;
                continue;
            }
            require_directory(self.at(&place))?;
            let next = below(&place, &name);
            match &self.at(&next).ok_or(ENOENT)?.content {
                Content::Link(target) if follow || !left.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(ELOOP);
                    }
                    if target.first() == Some(&b'/') {
                        return Err(EXDEV);
                    }
                    for name in components(target).rev() {
                        left.push_front(name.to_vec());
                    }
                }
                _ => place = next,
            }
        }
        Ok(place)
    }

    fn find(&self, path: &[u8], follow: bool) -> Result<Place, i32> {
        self.go(Place::new(), path, follow)
    }

    /// Finds where the last name of a path belongs. With `make`, missing directories above are made.
    fn find_new(&mut self, path: &[u8], make: bool) -> Result<Place, i32> {
        let names: Vec<&[u8]> = components(path).collect();
        let (name, directories) = names.split_last().ok_or(EINVAL)?;
        let directories = directories.join(&b'/');
        let directory = match self.find(&directories, true) {
            Err(ENOENT) if make => self.make_directories(&directories, 0o755)?,
            found => found?,
        };
        require_directory(self.at(&directory))?;
        Ok(below(&directory, name))
    }

    /// Makes a directory and those above it; one that is there is kept as it is.
    pub(crate) fn make_directories(&mut self, path: &[u8], mode: u32) -> Result<Vec<u8>, i32> {
        let names: Vec<&[u8]> = components(path).collect();
        let mut current = Place::new();
        for (number, name) in names.iter().enumerate() {
            let next = below(&current, name);
            current = match self.go(current, name, true) {
                // Not below a link that leads nowhere.
                Err(ENOENT) if self.at(&next).is_none() => {
                    let mode = if number + 1 == names.len() { mode } else { 0o755 };
                    self.put(&next, Content::Directory, mode)?;
                    next
                }
                found => found?,
            };
            require_directory(self.at(&current))?;
        }
        Ok(current)
    }

    /// Puts a new node in place of what is there. Both must fit at the same time.
    fn put(&mut self, place: &[u8], content: Content, mode: u32) -> Result<(), i32> {
        let now = self.touch_above(place)?;
        self.last_number += 1;
        let number = self.last_number;
        self.insert(place, Node { content, mode, modified_ns: now, changed_ns: now, number })
    }

    fn insert(&mut self, place: &[u8], node: Node) -> Result<(), i32> {
        let total = self.used.plus(node.used());
        if total.bytes > self.bounds.bytes || total.nodes > self.bounds.nodes {
            return Err(ENOSPC);
        }
        let old = self.nodes.insert(place.to_vec(), node);
        self.used = total.minus(old.as_ref().map(Node::used).unwrap_or_default());
        Ok(())
    }

    /// Tells the directory of a place that it changes; returns the time of the change.
    fn touch_above(&mut self, place: &[u8]) -> Result<i64, i32> {
        self.clock += 1;
        let now = self.clock;
        let directory = self.at_mut(&above(place).ok_or(EINVAL)?).ok_or(ENOENT)?;
        directory.modified_ns = now;
        directory.changed_ns = now;
        Ok(now)
    }

    /// Reads a part of a file.
    pub(crate) fn read(&self, path: &[u8], offset: u64, max_bytes: u64) -> Result<Bytes, i32> {
        match &self.node(path, true)?.content {
            Content::File(bytes) => {
                let length = bytes.len();
                let at = |at: u64| usize::try_from(at).map_or(length, |at| at.min(length));
                Ok(bytes.slice(at(offset)..at(offset.saturating_add(max_bytes))))
            }
            Content::Directory => Err(EISDIR),
            _ => Err(EINVAL),
        }
    }

    /// Writes a whole file.
    pub(crate) fn write(
        &mut self,
        path: &[u8],
        content: Bytes,
        options: &WriteOptions,
    ) -> Result<(), i32> {
        let place = self.find_new(path, options.make_parents)?;
        let mode = match self.at(&place) {
            Some(_) if options.must_be_new => return Err(EEXIST),
            Some(Node { content: Content::Directory, .. }) => return Err(EISDIR),
            Some(Node { content: Content::File(_), mode, .. }) if options.keep_mode => *mode,
            // As an upload, writing drops set-id bits.
            _ => options.mode & MODE_BITS,
        };
        self.put(&place, Content::File(content), mode)
    }

    /// Returns what is at a path; with `follow`, behind a final link.
    pub(crate) fn node(&self, path: &[u8], follow: bool) -> Result<&Node, i32> {
        self.at(&self.find(path, follow)?).ok_or(ENOENT)
    }

    /// Lists a directory.
    pub(crate) fn list(&self, path: &[u8], options: &ListOptions) -> Result<Listing, i32> {
        let place = self.find(path, true)?;
        require_directory(self.at(&place))?;
        let bound = usize::try_from(options.max_entries).unwrap_or(usize::MAX);
        let levels = usize::try_from(options.depth).unwrap_or(usize::MAX);
        let mut found = self
            .below(&place)
            .map(|(inner, node)| (relative(&place, inner), node))
            .filter(|(path, _)| path.split(|&byte| byte == b'/').count() <= levels);
        let mut entries: Vec<_> = found
            .by_ref()
            .take(bound)
            .map(|(path, node)| ListingEntry { path, metadata: node.metadata() })
            .collect();
        let truncated = found.next().is_some();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Listing { entries, truncated })
    }

    /// Returns a file or a directory under an empty path, and everything in it, each directory before what is in it.
    pub(crate) fn walk(&self, path: &[u8]) -> Result<Vec<(Vec<u8>, &Node)>, i32> {
        let place = self.find(path, true)?;
        let mut found = vec![(Vec::new(), self.at(&place).ok_or(ENOENT)?)];
        found.extend(self.below(&place).map(|(inner, node)| (relative(&place, inner), node)));
        Ok(found)
    }

    /// Moves a node.
    pub(crate) fn rename(&mut self, from: &[u8], to: &[u8], replace: bool) -> Result<(), i32> {
        let (old_place, new_place) = (self.find_new(from, false)?, self.find_new(to, false)?);
        let moves_directory = self.at(&old_place).ok_or(ENOENT)?.is_directory();
        let target = self.at(&new_place).map(Node::is_directory);
        if target.is_some() && !replace {
            return Err(EEXIST);
        }
        if old_place == new_place {
            return Ok(());
        }
        if new_place.starts_with(&below(&old_place, b"")) {
            return Err(EINVAL);
        }
        if old_place.starts_with(&below(&new_place, b"")) {
            return Err(ENOTEMPTY);
        }
        match (moves_directory, target) {
            (true, Some(false)) => return Err(ENOTDIR),
            (false, Some(true)) => return Err(EISDIR),
            (true, Some(true)) if self.is_full(&new_place) => return Err(ENOTEMPTY),
            _ => {}
        }
        if let Some(replaced) = self.nodes.remove(&new_place) {
            self.used = self.used.minus(replaced.used());
        }
        let mut moved = vec![old_place.clone()];
        moved.extend(self.below(&old_place).map(|(place, _)| place.clone()));
        for place in moved {
            if let Some(node) = self.nodes.remove(&place) {
                self.nodes.insert([&new_place, &place[old_place.len()..]].concat(), node);
            }
        }
        self.touch_above(&old_place)?;
        self.touch_above(&new_place)?;
        Ok(())
    }

    /// Removes a node; a directory that is not empty only with `recursive`.
    pub(crate) fn remove(&mut self, path: &[u8], recursive: bool) -> Result<(), i32> {
        let place = self.find_new(path, false)?;
        self.at(&place).ok_or(ENOENT)?;
        let mut removed: Vec<_> = self.below(&place).map(|(place, _)| place.clone()).collect();
        if !recursive && !removed.is_empty() {
            return Err(ENOTEMPTY);
        }
        removed.push(place.clone());
        for place in removed {
            if let Some(node) = self.nodes.remove(&place) {
                self.used = self.used.minus(node.used());
            }
        }
        self.touch_above(&place)?;
        Ok(())
    }

    /// Gives a file below a directory a second name there, through no link. Each name counts as a file of its own.
    pub(crate) fn link(&mut self, target: &[u8], path: &[u8], to: &[u8]) -> Result<(), i32> {
        let root = self.make_directories(target, 0o755)?;
        let mut old = root.clone();
        for name in components(to) {
            if let Some(Content::Link(_)) = self.at(&old).map(|node| &node.content) {
                return Err(ELOOP);
            }
            require_directory(self.at(&old))?;
            old = below(&old, name);
        }
        let node = self.at(&old).ok_or(ENOENT)?.clone();
        let Content::File(content) = &node.content else {
            return Err(EINVAL);
        };
        let new = components(path).fold(root, |place, name| below(&place, name));
        if new == old {
            return Err(EINVAL);
        }
        self.place(target, path, Content::File(content.clone()), node.mode, None)?;
        let now = self.at(&new).ok_or(ENOENT)?.changed_ns;
        for place in [old, new] {
            let node = Node { changed_ns: now, ..node.clone() };
            self.insert(&place, node)?;
        }
        Ok(())
    }

    /// Returns how many names a file has.
    pub(crate) fn names_of(&self, number: u64) -> usize {
        self.nodes.values().filter(|node| node.number == number).count().max(1)
    }

    /// Makes one entry of a tree below a directory, through no link.
    pub(crate) fn place(
        &mut self,
        target: &[u8],
        path: &[u8],
        content: Content,
        mode: u32,
        modified_ns: Option<i64>,
    ) -> Result<(), i32> {
        let mut place = self.make_directories(target, 0o755)?;
        let names: Vec<&[u8]> = components(path).collect();
        for (number, name) in names.iter().enumerate() {
            place = below(&place, name);
            if number + 1 == names.len() {
                break;
            }
            match self.at(&place).map(|node| &node.content) {
                Some(Content::Directory) => {}
                Some(Content::Link(_)) => return Err(ELOOP),
                Some(_) => return Err(ENOTDIR),
                None => self.put(&place, Content::Directory, 0o755)?,
            }
        }
        let is_directory = matches!(content, Content::Directory);
        match self.at(&place).map(Node::is_directory) {
            Some(true) if place.is_empty() && !is_directory => return Err(EINVAL),
            Some(true) if !is_directory => return Err(EISDIR),
            Some(true) => {}
            _ => self.put(&place, content, mode)?,
        }
        self.clock += 1;
        let now = self.clock;
        let node = self.at_mut(&place).ok_or(ENOENT)?;
        node.changed_ns = now;
        node.mode = if let Content::Link(_) = node.content { 0o777 } else { mode };
        node.modified_ns = modified_ns.unwrap_or(node.modified_ns);
        Ok(())
    }
}

impl Node {
    pub(crate) fn is_directory(&self) -> bool {
        matches!(self.content, Content::Directory)
    }

    fn used(&self) -> Use {
        let bytes = match &self.content {
            Content::File(bytes) => (bytes.len() as u64).div_ceil(PAGE) * PAGE,
            _ => 0,
        };
        Use { bytes, nodes: 1 }
    }

    pub(crate) fn metadata(&self) -> FileMetadata {
        let (kind, size, link_target) = match &self.content {
            Content::File(bytes) => (FileKind::File, bytes.len() as u64, None),
            Content::Directory => (FileKind::Directory, 0, None),
            Content::Link(target) => (FileKind::Link, target.len() as u64, Some(target.clone())),
            Content::Special => (FileKind::Special, 0, None),
        };
        FileMetadata { kind, size, mode: self.mode, modified_ns: self.modified_ns, link_target }
    }
}

impl Use {
    fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            nodes: self.nodes.saturating_add(other.nodes),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            nodes: self.nodes.saturating_sub(other.nodes),
        }
    }
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

fn require_directory(node: Option<&Node>) -> Result<(), i32> {
    if node.ok_or(ENOENT)?.is_directory() { Ok(()) } else { Err(ENOTDIR) }
}

fn above(place: &[u8]) -> Option<Place> {
    let end = place.iter().rposition(|&byte| byte == SEPARATOR).unwrap_or(0);
    (!place.is_empty()).then(|| place[..end].to_vec())
}

fn below(place: &[u8], name: &[u8]) -> Place {
    if place.is_empty() { name.to_vec() } else { [place, &[SEPARATOR], name].concat() }
}

/// Returns a place as a path from a directory above it.
fn relative(from: &[u8], place: &[u8]) -> Vec<u8> {
    let start = if from.is_empty() { 0 } else { from.len() + 1 };
    place[start..].iter().map(|&byte| if byte == SEPARATOR { b'/' } else { byte }).collect()
}
