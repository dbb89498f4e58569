//! [`ImageRoot`]: the layers of one image, as long as somebody uses them.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Dir, FileType},
    io::Errno,
};

use serde::{Deserialize, Serialize};

use crate::{
    Digest, ImageCache, ImageError, confine,
    merge::merge,
    store::{Lease, Shelf, cache},
    unpack::{ENTRY_BYTES, LayerFacts},
};

/// An unpacked layer that stays.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) diff_id: Digest,
    pub(crate) lease: Lease,
    pub(crate) facts: LayerFacts,
}

/// The layers of one image, unpacked; they stay in the cache as long as this value does.
#[derive(Debug)]
pub struct ImageRoot {
    cache: ImageCache,
    /// Lowest first.
    layers: Vec<Layer>,
    search_path: Option<String>,
}

/// One tree that is the root of an image; it stays in the cache as long as this value does.
#[derive(Debug)]
pub struct ImageTree {
    lease: Lease,
    search_path: Option<String>,
}

/// What is in a directory of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageEntry {
    /// A directory.
    Directory,
    /// A symbolic link and its target.
    Link(PathBuf),
    /// A file, and where on the host it is.
    File(PathBuf),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootFacts {
    directories: u64,
}

impl ImageRoot {
    pub(crate) fn new(cache: ImageCache, layers: Vec<Layer>, search_path: Option<String>) -> Self {
        Self { cache, layers, search_path }
    }

    /// Returns the digests of the unpacked layers, lowest first.
    #[must_use]
    pub fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(|layer| layer.diff_id).collect()
    }

    /// Returns the `PATH` that the image sets for its programs.
    #[must_use]
    pub fn search_path(&self) -> Option<&str> {
        self.search_path.as_deref()
    }

    /// Returns descriptors that keep the layers in the cache, as this value does, as long as they are open: in this process or
    /// in one that they were handed to.
    ///
    /// # Errors
    ///
    /// Fails if this process has no descriptor left.
    pub fn keepers(&self) -> io::Result<Vec<OwnedFd>> {
        self.layers.iter().map(|layer| layer.lease.keeper()).collect()
    }

    /// Returns the trees that an overlay file system has to stack with `userxattr`, uppermost first, or one tree to be
    /// used as it is; `None` if only [`Self::merged`] will do.
    ///
    /// Empty layers, and those of which nothing is seen, are left out.
    #[must_use]
    pub fn stack(&self) -> Option<Vec<PathBuf>> {
        let seen = self.seen();
        let alone = seen.len() == 1;
        // Seen alone, the marks of a layer would be odd files.
        let usable =
            seen.iter().all(|layer| layer.facts.stackable && !(alone && layer.facts.whiteouts > 0));
        (usable && !seen.is_empty())
            .then(|| seen.iter().rev().map(|layer| layer.lease.tree().to_owned()).collect())
    }

    /// Returns the layers merged into one tree, made once and kept in the cache.
    ///
    /// # Errors
    ///
    /// [`ImageError::Cache`] and [`ImageError::CacheFull`].
    pub fn merged(&self) -> Result<ImageTree, ImageError> {
        let names: Vec<String> = self.diff_ids().iter().map(Digest::to_string).collect();
        let key = Digest::of(names.join(" ").as_bytes());
        let store = self.cache.store();
        let tree = |lease| ImageTree { lease, search_path: self.search_path.clone() };
        if let Some((lease, RootFacts { .. })) = store.find(Shelf::Roots, &key)? {
            return Ok(tree(lease));
        }
        let _making = store.making(&key)?;
        if let Some((lease, RootFacts { .. })) = store.find(Shelf::Roots, &key)? {
            return Ok(tree(lease));
        }
        let draft = store.draft()?;
        let sources: Vec<_> =
            self.seen().iter().map(|layer| (layer.lease.tree(), &layer.facts)).collect();
        let directories = merge(&sources, &draft.tree).map_err(cache("merge layers"))?;
        // Its files are those of the layers; only directories take room of their own.
        store.finish(
            draft,
            Shelf::Roots,
            &key,
            &RootFacts { directories },
            directories * ENTRY_BYTES,
        )?;
        let found = store.find(Shelf::Roots, &key)?;
        found.map(|(lease, RootFacts { .. })| tree(lease)).ok_or_else(|| ImageError::Cache {
            operation: "find a root that was just made",
            source: io::ErrorKind::NotFound.into(),
        })
    }

    /// Lists a directory of the image as all layers together show it. `directory` is relative, without links on the way.
    ///
    /// # Errors
    ///
    /// [`ImageError::Cache`] if a layer cannot be read.
    pub fn list(&self, directory: &Path) -> Result<BTreeMap<OsString, ImageEntry>, ImageError> {
        let mut found = BTreeMap::new();
        for layer in self.seen() {
            let path = layer.lease.tree();
            let failed = cache("list a layer");
            let tree = confine::open_host_directory(path).map_err(&failed)?;
            if hides(&tree, &layer.facts, directory).map_err(&failed)? {
                found.clear();
            }
            list_layer(&tree, path, directory, &mut found).map_err(&failed)?;
        }
        Ok(found)
    }

    /// Returns the layers of which something is seen, lowest first.
    fn seen(&self) -> Vec<&Layer> {
        let first = self.layers.iter().rposition(|layer| layer.facts.hides_all).unwrap_or(0);
        self.layers[first..].iter().filter(|layer| layer.facts.entries > 0).collect()
    }
}

impl ImageTree {
    /// Returns the directory that is the root.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.lease.tree()
    }

    /// Returns a descriptor that keeps the tree in the cache as long as it is open, in whatever process.
    ///
    /// # Errors
    ///
    /// Fails if this process has no descriptor left.
    pub fn keeper(&self) -> io::Result<OwnedFd> {
        self.lease.keeper()
    }

    /// Returns the `PATH` that the image sets for its programs.
    #[must_use]
    pub fn search_path(&self) -> Option<&str> {
        self.search_path.as_deref()
    }
}

/// Returns true if a layer lets nothing of the layers below be seen in a directory: it, or one above it, is opaque, gone,
/// or no directory any more.
fn hides(tree: &OwnedFd, facts: &LayerFacts, directory: &Path) -> io::Result<bool> {
    for above in directory.ancestors().filter(|above| !above.as_os_str().is_empty()) {
        if facts.opaque.contains(above) {
            return Ok(true);
        }
        match confine::open_directory(tree, above) {
            Ok(_) | Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(false)
}

/// Adds what one layer has in a directory, and removes what it hides. No link of the layer is followed.
fn list_layer(
    tree: &OwnedFd,
    path: &Path,
    directory: &Path,
    found: &mut BTreeMap<OsString, ImageEntry>,
) -> io::Result<()> {
    let opened = match confine::open_directory(tree, directory) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        opened => opened?,
    };
    for entry in Dir::read_from(&opened)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let Some(stat) = confine::stat_here(&opened, name)? else { continue };
        let entry = match confine::kind_of(&stat) {
            _ if confine::is_whiteout(&stat) => {
                found.remove(name);
                continue;
            }
            FileType::Directory => ImageEntry::Directory,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&opened, Path::new(name), Vec::new())?;
                ImageEntry::Link(PathBuf::from(OsString::from_vec(target.into_bytes())))
            }
            _ => ImageEntry::File(path.join(directory).join(name)),
        };
        found.insert(name.to_owned(), entry);
    }
    Ok(())
}
