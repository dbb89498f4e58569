//! What differs between two snapshots: a walk of both trees that goes only where their ids differ.

use std::collections::{HashSet, VecDeque};

use futures::{StreamExt as _, stream, stream::BoxStream};
use serde::{Deserialize, Serialize};

use crate::{
    error::SnapshotError,
    id::{SnapshotId, TreeId},
    node::{Entry, EntryKind, Extent, FileContent, Node, Page, Stored},
    path::TreePath,
    reader::{MAX_DEPTH, Reader},
    store::SnapshotStore,
};

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The path.
    pub path: TreePath,
    /// How it differs.
    pub kind: ChangeKind,
}

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChangeKind {
    /// It is in the second alone.
    Added,
    /// It is in the first alone.
    Removed,
    /// It is another kind of thing: what was a file is a directory, and the like.
    Replaced,
    /// It is the same kind of thing, and not the same.
    Changed {
        /// A file's bytes, or where a link leads. Of a directory this says nothing: what is in it is listed by itself.
        content: bool,
        /// Its permission bits.
        mode: bool,
        /// Its time, attributes, or other names.
        other: bool,
    },
}

impl SnapshotStore {
    /// Returns what differs from one snapshot to another, parents before what is in them.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NotFound`] if one is not there. The stream ends with its first error.
    pub async fn diff(
        &self,
        from: &SnapshotId,
        to: &SnapshotId,
    ) -> Result<BoxStream<'static, Result<Change, SnapshotError>>, SnapshotError> {
        let (from, to) = (self.head(from).await?.head, self.head(to).await?.head);
        let (from, to) = (self.reader(from), self.reader(to));
        let open = vec![Pair {
            path: TreePath::root(),
            from: Some(from.head.tree),
            to: Some(to.head.tree),
            depth: 0,
        }];
        let walk = Walk { from, to, open, ready: VecDeque::new() };
        Ok(stream::try_unfold(walk, |mut walk| async {
            Ok(walk.next().await?.map(|change| (change, walk)))
        })
        .boxed())
    }
}

/// A directory that differs, or is in one tree alone.
struct Pair {
    path: TreePath,
    from: Option<Stored<TreeId>>,
    to: Option<Stored<TreeId>>,
    depth: usize,
}

struct Walk {
    from: Reader,
    to: Reader,
    open: Vec<Pair>,
    ready: VecDeque<Change>,
}

impl Walk {
    async fn next(&mut self) -> Result<Option<Change>, SnapshotError> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Ok(Some(change));
            }
            let Some(pair) = self.open.pop() else { return Ok(None) };
            if pair.depth > MAX_DEPTH {
                return Err(SnapshotError::TooLarge {
                    what: "the depth of a tree",
                    limit: MAX_DEPTH as u64,
                });
            }
            self.compare(pair).await?;
        }
    }

    async fn compare(&mut self, pair: Pair) -> Result<(), SnapshotError> {
        let Pair { path, from, to, depth } = pair;
        if from.map(|node| node.id) == to.map(|node| node.id) {
            return Ok(());
        }
        let (from, to) = self.entries(from, to, &path).await?;
        let mut below = Vec::new();
        let (mut from, mut to) = (from.into_iter().peekable(), to.into_iter().peekable());
        loop {
            let (before, after) = match (from.peek(), to.peek()) {
                (None, None) => break,
                (Some(a), Some(b)) if a.name == b.name => (from.next(), to.next()),
                (Some(a), Some(b)) if a.name < b.name => (from.next(), None),
                (Some(_), None) => (from.next(), None),
                (_, Some(_)) => (None, to.next()),
            };
            let Some(name) = before.as_ref().or(after.as_ref()).map(|entry| &entry.name) else {
                continue;
            };
            let path = path.join(name);
            if let Some(kind) = change(before.as_ref(), after.as_ref()) {
                self.ready.push_back(Change { path: path.clone(), kind });
            }
            let node = |entry: Option<Entry>| match entry?.kind {
                EntryKind::Directory { node, .. } => Some(node),
                _ => None,
            };
            let pair = Pair { path, from: node(before), to: node(after), depth: depth + 1 };
            if pair.from.map(|node| node.id) != pair.to.map(|node| node.id) {
                below.push(pair);
            }
        }
        self.open.extend(below.into_iter().rev());
        Ok(())
    }

    /// Returns the entries of two directories, without the pages that they have in common.
    async fn entries(
        &self,
        from: Option<Stored<TreeId>>,
        to: Option<Stored<TreeId>>,
        path: &TreePath,
    ) -> Result<(Vec<Entry>, Vec<Entry>), SnapshotError> {
        if let (Some(from), Some(to)) = (from, to)
            && let (Node::Branch(a), Node::Branch(b)) =
                (self.from.node(from, path).await?, self.to.node(to, path).await?)
        {
            let ids = |pages: &[Page]| pages.iter().map(|page| page.node.id).collect();
            let (in_a, in_b): (HashSet<TreeId>, HashSet<TreeId>) = (ids(&a), ids(&b));
            return Ok((
                some_pages(&self.from, a, &in_b, path).await?,
                some_pages(&self.to, b, &in_a, path).await?,
            ));
        }
        let all = |reader: Reader, node: Option<Stored<TreeId>>| async move {
            match node {
                Some(node) => Ok::<_, SnapshotError>(reader.directory(node, path).await?.entries),
                None => Ok(Vec::new()),
            }
        };
        Ok((all(self.from.clone(), from).await?, all(self.to.clone(), to).await?))
    }
}

async fn some_pages(
    reader: &Reader,
    pages: Vec<Page>,
    without: &HashSet<TreeId>,
    path: &TreePath,
) -> Result<Vec<Entry>, SnapshotError> {
    let mut entries = Vec::new();
    for page in pages.into_iter().filter(|page| !without.contains(&page.node.id)) {
        entries.extend(reader.directory(page.node, path).await?.entries);
    }
    Ok(entries)
}

fn change(before: Option<&Entry>, after: Option<&Entry>) -> Option<ChangeKind> {
    let (before, after) = match (before, after) {
        (Some(before), Some(after)) => (before, after),
        (None, Some(_)) => return Some(ChangeKind::Added),
        (Some(_), None) => return Some(ChangeKind::Removed),
        (None, None) => return None,
    };
    let (content, links) = match (&before.kind, &after.kind) {
        (EntryKind::Directory { .. }, EntryKind::Directory { .. }) => (false, false),
        (EntryKind::SymbolicLink { target: a }, EntryKind::SymbolicLink { target: b }) => {
            (a != b, false)
        }
        (
            EntryKind::File { content: a, link_group: group_a, .. },
            EntryKind::File { content: b, link_group: group_b, .. },
        ) => (!same_content(a, b), group_a != group_b),
        _ => return Some(ChangeKind::Replaced),
    };
    let mode = before.metadata.mode != after.metadata.mode;
    let other = links
        || before.metadata.modified_ns != after.metadata.modified_ns
        || before.metadata.xattrs != after.metadata.xattrs;
    (content || mode || other).then_some(ChangeKind::Changed { content, mode, other })
}

/// Compares what files hold, wherever it lies.
fn same_content(a: &FileContent, b: &FileContent) -> bool {
    match (a, b) {
        (FileContent::Inline(a), FileContent::Inline(b)) => a == b,
        (FileContent::Extents(a), FileContent::Extents(b)) => {
            let same = |(a, b): (&Extent, &Extent)| match (a, b) {
                (Extent::Hole { length: a }, Extent::Hole { length: b }) => a == b,
                (Extent::Data { chunk: a, .. }, Extent::Data { chunk: b, .. }) => a.id == b.id,
                _ => false,
            };
            a.len() == b.len() && a.iter().zip(b).all(same)
        }
        (FileContent::Lists(a), FileContent::Lists(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((a, _), (b, _))| a.id == b.id)
        }
        _ => false,
    }
}
