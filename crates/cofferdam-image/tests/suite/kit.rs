//! What the tests of this suite share.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use cofferdam_image::{ImageCache, ImageCacheOptions, ImageError, ImageRoot};
use cofferdam_testkit::{ImageBuilder, LayerBuilder, image::write_layout};

/// A cache in a directory of its own.
pub(crate) struct Place {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) cache: ImageCache,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::with(ImageCacheOptions::default())
    }

    pub(crate) fn with(options: ImageCacheOptions) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = ImageCache::open(directory.path().join("cache"), options).expect("a cache");
        Self { directory, cache }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes an image as a layout and returns its root.
    pub(crate) fn root(&self, image: &ImageBuilder) -> Result<ImageRoot, ImageError> {
        let layout = tempfile::tempdir_in(self.directory.path()).expect("a directory");
        write_layout(layout.path(), &[(None, image)]);
        self.cache.from_layout(layout.path(), None)
    }

    /// Returns the root of an image of one layer.
    pub(crate) fn unpack(&self, layer: LayerBuilder) -> Result<ImageRoot, ImageError> {
        self.root(&ImageBuilder::new().layer(layer))
    }

    /// Returns the names of what the cache is making, and of its finished trees.
    pub(crate) fn shelf(&self, name: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("cache/v1").join(name)).expect("a directory");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }
}

/// Returns every path of a tree and what is there, for comparing.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let metadata = fs::symlink_metadata(&path).expect("something");
            let kind = metadata.file_type();
            let mode = metadata.mode() & 0o7777;
            let what = if kind.is_dir() {
                todo.push(path.clone());
                "directory".to_owned()
            } else if kind.is_symlink() {
                format!("link to {}", fs::read_link(&path).expect("a link").display())
            } else if kind.is_char_device() {
                format!("device {}", metadata.rdev())
            } else {
                let content = fs::read(&path).expect("a file");
                format!("{mode:o} {}", String::from_utf8_lossy(&content))
            };
            let name = path.strip_prefix(root).expect("below");
            found.insert(name.to_string_lossy().into_owned(), what);
        }
    }
    found
}

/// Returns a tree as lines.
pub(crate) fn lines(root: &Path) -> String {
    let lines: Vec<String> =
        tree(root).iter().map(|(path, what)| format!("{path}: {what}")).collect();
    lines.join("\n")
}
