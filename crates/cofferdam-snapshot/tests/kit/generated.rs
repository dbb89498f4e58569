//! Trees that are nowhere: large ones, whose files follow from their names.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_snapshot::{
    Content, Coverage, FileEnd, Listing, Metadata, Name, Previous, SnapshotId, Source, SourceEntry,
    SourceError, SourceFacts, SourceKind, TreePath, Walk, Wanted,
};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};

use super::{noise, path};

const IN_ONE: u64 = 100;

/// A tree of many directories with a hundred files each, and perhaps a sparse file.
#[derive(Debug)]
pub(crate) struct Generated {
    pub(crate) files: u64,
    pub(crate) file_bytes: u64,
    /// The size of a file of which nearly all is a hole.
    pub(crate) sparse: Option<u64>,
}

fn metadata() -> Metadata {
    Metadata { mode: 0o755, modified_ns: 1, xattrs: Vec::new() }
}

fn entry(name: &str, kind: SourceKind) -> SourceEntry {
    SourceEntry { name: Name::new(name.as_bytes()).unwrap(), metadata: metadata(), kind }
}

fn file(size: u64) -> SourceKind {
    SourceKind::File { size, unchanged: false, link_group: None }
}

fn listing(path: TreePath, entries: Vec<SourceEntry>) -> Listing {
    Listing { path, entries, removed: Vec::new(), complete: true, skipped: Vec::new() }
}

#[async_trait]
impl Source for Generated {
    async fn begin<'a>(&'a self, _previous: Option<&Previous>) -> Result<Walk<'a>, SourceError> {
        let directories = self.files / IN_ONE;
        let mut root: Vec<SourceEntry> =
            (0..directories).map(|at| entry(&format!("d{at:05}"), SourceKind::Directory)).collect();
        root.extend(self.sparse.map(|size| entry("sparse", file(size))));
        let below = (0..directories).map(move |at| {
            let files = (0..IN_ONE).map(|one| entry(&format!("f{one:03}"), file(self.file_bytes)));
            listing(path(&format!("d{at:05}")), files.collect())
        });
        let listings = stream::iter([listing(TreePath::root(), root)]).chain(stream::iter(below));
        let listings = listings.map(Ok).boxed();
        Ok(Walk { coverage: Coverage::Whole, root: metadata(), listings })
    }

    fn read<'a>(&'a self, files: Vec<Wanted>) -> BoxStream<'a, Result<Content, SourceError>> {
        let contents = files.into_iter().flat_map(|wanted| {
            let seed = blake3::hash(wanted.path.as_bytes()).as_bytes()[..8].try_into().unwrap();
            let length = usize::try_from(wanted.size.min(self.file_bytes)).unwrap();
            let bytes = Bytes::from(noise(u64::from_le_bytes(seed), length));
            let hole = wanted.size - length as u64;
            [Some(Content::Data(bytes)), (hole > 0).then_some(Content::Hole(hole))]
                .into_iter()
                .flatten()
                .chain([Content::End(FileEnd::Whole(metadata()))])
        });
        stream::iter(contents).map(Ok).boxed()
    }

    fn facts(&self) -> SourceFacts {
        SourceFacts::default()
    }
}

/// What differs from a snapshot of a [`Generated`] tree: some files of it have other content.
#[derive(Debug)]
pub(crate) struct Edited {
    pub(crate) base: SnapshotId,
    /// Directories, by number; the first file of each is changed.
    pub(crate) directories: Vec<u64>,
}

#[async_trait]
impl Source for Edited {
    async fn begin<'a>(&'a self, _previous: Option<&Previous>) -> Result<Walk<'a>, SourceError> {
        let mut directories: BTreeMap<String, Listing> = BTreeMap::new();
        for at in &self.directories {
            let name = format!("d{at:05}");
            let changed = listing(path(&name), vec![entry("f000", file(1000))]);
            directories.insert(name, Listing { complete: false, ..changed });
        }
        let names = directories.keys().map(|name| entry(name, SourceKind::Directory)).collect();
        let root = Listing { complete: false, ..listing(TreePath::root(), names) };
        let listings = stream::iter([root]).chain(stream::iter(directories.into_values()));
        let coverage = Coverage::ChangesTo(self.base.clone());
        Ok(Walk { coverage, root: metadata(), listings: listings.map(Ok).boxed() })
    }

    fn read<'a>(&'a self, files: Vec<Wanted>) -> BoxStream<'a, Result<Content, SourceError>> {
        let contents = files.into_iter().flat_map(|wanted| {
            let bytes = Bytes::from(noise(wanted.path.as_bytes().len() as u64, 1000));
            [Content::Data(bytes), Content::End(FileEnd::Whole(metadata()))]
        });
        stream::iter(contents).map(Ok).boxed()
    }

    fn facts(&self) -> SourceFacts {
        SourceFacts::default()
    }
}
