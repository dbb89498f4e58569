//! A large tree that is on no disk: what an overlay lies over, as a store holds it.

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_snapshot::{
    Content, Coverage, FileEnd, Listing, Metadata, Name, Previous, Source, SourceEntry,
    SourceError, SourceFacts, SourceKind, TreePath, Walk, Wanted,
};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};

/// Files of each directory.
pub(crate) const IN_DIRECTORY: usize = 100;

/// So many small files, a hundred to a directory.
#[derive(Debug)]
pub(crate) struct Synthetic {
    pub(crate) files: usize,
}

pub(crate) fn directory(number: usize) -> String {
    format!("d{number:05}")
}

pub(crate) fn file(number: usize) -> String {
    format!("f{number:02}.txt")
}

fn metadata(mode: u16) -> Metadata {
    Metadata { mode, modified_ns: 1_600_000_000_000_000_000, xattrs: Vec::new() }
}

fn entries(names: impl Iterator<Item = String>, kind: &SourceKind, mode: u16) -> Vec<SourceEntry> {
    names
        .filter_map(|name| Name::new(name.into_bytes()).ok())
        .map(|name| SourceEntry { name, metadata: metadata(mode), kind: kind.clone() })
        .collect()
}

fn listing(path: TreePath, entries: Vec<SourceEntry>) -> Listing {
    Listing { path, entries, removed: Vec::new(), complete: true, skipped: Vec::new() }
}

fn content(path: &TreePath) -> Bytes {
    Bytes::from(path.to_string().repeat(12))
}

#[async_trait]
impl Source for Synthetic {
    async fn begin<'a>(&'a self, _previous: Option<&Previous>) -> Result<Walk<'a>, SourceError> {
        let directories = self.files / IN_DIRECTORY;
        let root = listing(
            TreePath::root(),
            entries((0..directories).map(directory), &SourceKind::Directory, 0o755),
        );
        let size =
            content(&TreePath::new(format!("{}/{}", directory(0), file(0))).unwrap_or_default())
                .len();
        let kind = SourceKind::File { size: size as u64, unchanged: false, link_group: None };
        let below = (0..directories).map(move |number| {
            let path = TreePath::new(directory(number)).unwrap_or_default();
            listing(path, entries((0..IN_DIRECTORY).map(file), &kind, 0o644))
        });
        let listings = stream::iter(std::iter::once(root).chain(below)).map(Ok).boxed();
        Ok(Walk { coverage: Coverage::Whole, root: metadata(0o755), listings })
    }

    fn read<'a>(&'a self, files: Vec<Wanted>) -> BoxStream<'a, Result<Content, SourceError>> {
        let pieces = files.into_iter().flat_map(|wanted| {
            [Content::Data(content(&wanted.path)), Content::End(FileEnd::Whole(metadata(0o644)))]
        });
        stream::iter(pieces).map(Ok).boxed()
    }

    fn facts(&self) -> SourceFacts {
        SourceFacts::default()
    }
}
