//! [`ImageCache`]: from an image to a root file system, each layer unpacked once.

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    Digest, Fetch, ImageError, ImageLimits, ImageRoot, Platform, Reference,
    bundle::{Bundle, Part, source},
    compression,
    digest::HashReader,
    document::malformed,
    members,
    resolve::{self, LayerPlace, Resolved, verify},
    root::Layer,
    store::{Draft, Shelf, Store},
    unpack::{self, LayerFacts},
};

/// Keeps unpacked layers in a directory, by the digest of their content.
///
/// Several processes may use one directory at the same time; a crash leaves nothing that is taken for a layer. All
/// methods block on the disk: call them where that is allowed. Cloning it gives another handle.
#[derive(Debug, Clone)]
pub struct ImageCache {
    store: Arc<Store>,
    limits: ImageLimits,
    platform: Platform,
}

/// How a cache is opened.
#[derive(Debug, Clone)]
pub struct ImageCacheOptions {
    /// Bytes on the disk, estimated, above which what was not used for longest and is not in use is removed. Default 32
    /// GiB.
    pub max_bytes: u64,
    /// Bounds on each image.
    pub limits: ImageLimits,
    /// Which of the images under one name is taken. Default: that of this machine.
    pub platform: Platform,
}

impl Default for ImageCacheOptions {
    fn default() -> Self {
        Self { max_bytes: 32 << 30, limits: ImageLimits::default(), platform: Platform::host() }
    }
}

/// What an archive was found to be, so that it is not read again.
#[derive(Debug, Serialize, Deserialize)]
struct Known {
    /// Digests of the unpacked layers, lowest first.
    layers: Vec<Digest>,
    search_path: Option<String>,
}

impl ImageCache {
    /// Opens or makes a cache, and removes what a crash has left in it.
    ///
    /// # Errors
    ///
    /// [`ImageError::Cache`] if the directory cannot be made, or others could put something into it.
    pub fn open(
        directory: impl AsRef<Path>,
        options: ImageCacheOptions,
    ) -> Result<Self, ImageError> {
        let ImageCacheOptions { max_bytes, limits, platform } = options;
        let store = Arc::new(Store::open(directory.as_ref(), max_bytes)?);
        Ok(Self { store, limits, platform })
    }

    /// Returns the root of an image in a directory in OCI image layout. `name` may be left out if there is only one.
    ///
    /// # Errors
    ///
    /// See [`ImageError`]; all but [`ImageError::Cache`] and [`ImageError::CacheFull`] are about the image.
    pub fn from_layout(
        &self,
        directory: &Path,
        name: Option<&str>,
    ) -> Result<ImageRoot, ImageError> {
        let bundle = Bundle::directory(directory)?;
        let resolved = resolve::resolve(&bundle, name, &self.platform, &self.limits)?;
        self.root_of(&bundle, resolved)
    }

    /// Returns the root of an image in a file of `docker save` or `podman save`, or in a tar file of an image layout; it
    /// may be compressed. `name` may be left out if there is only one.
    ///
    /// # Errors
    ///
    /// As [`Self::from_layout`].
    pub fn from_archive(&self, file: &Path, name: Option<&str>) -> Result<ImageRoot, ImageError> {
        let opened = File::open(file).map_err(source(file))?;
        let key = self.key_of(&opened, file, "image", name)?;
        if let Some(root) = self.known(&key)? {
            return Ok(root);
        }
        let bundle = Bundle::archive(file, self.plain(opened, file)?, &self.limits)?;
        let resolved = resolve::resolve(&bundle, name, &self.platform, &self.limits)?;
        let root = self.root_of(&bundle, resolved)?;
        self.remember(&key, &root)?;
        Ok(root)
    }

    /// Returns the root in a tar file of a whole root file system, which may be compressed with gzip or zstd.
    ///
    /// # Errors
    ///
    /// As [`Self::from_layout`].
    pub fn from_root_archive(&self, file: &Path) -> Result<ImageRoot, ImageError> {
        let opened = File::open(file).map_err(source(file))?;
        let key = self.key_of(&opened, file, "root", None)?;
        if let Some(root) = self.known(&key)? {
            return Ok(root);
        }
        let what = file.display().to_string();
        let (draft, facts, diff_id, _) =
            self.unpack(Part { reader: Box::new(opened), size: None }, &what)?;
        self.finish(draft, &diff_id, &facts)?;
        let root = ImageRoot::new(self.clone(), vec![self.layer(&diff_id)?], None);
        self.remember(&key, &root)?;
        Ok(root)
    }

    /// Returns the root of an image that is fetched, and remembers it under its name for [`Self::from_name`].
    ///
    /// Layers that are there already are not fetched. After a failure, what was complete stays: the next try goes on.
    ///
    /// # Errors
    ///
    /// As [`Self::from_layout`], and what `fetch` returns.
    pub fn from_fetch(
        &self,
        name: &Reference,
        fetch: Arc<dyn Fetch>,
    ) -> Result<ImageRoot, ImageError> {
        let named = fetch.named(self.limits.document_bytes)?;
        let bundle = Bundle::Elsewhere { name: name.to_string().into(), fetch };
        let (platform, limits) = (&self.platform, &self.limits);
        let resolved = resolve::resolve_elsewhere(&bundle, &named, name.digest, platform, limits)?;
        let root = self.root_of(&bundle, resolved)?;
        self.remember(&self.key_of_name(name), &root)?;
        Ok(root)
    }

    /// Returns the root of an image that was fetched before under this name. Reaches nothing outside of the cache.
    ///
    /// # Errors
    ///
    /// [`ImageError::NotFound`] if it was not fetched, or a part of it was removed to make room.
    pub fn from_name(&self, name: &Reference) -> Result<ImageRoot, ImageError> {
        self.known(&self.key_of_name(name))?.ok_or_else(|| ImageError::NotFound {
            what: "image in the cache under the name",
            name: name.to_string(),
            known: Vec::new(),
        })
    }

    fn key_of_name(&self, name: &Reference) -> Digest {
        Digest::of(format!("name {name} {}", self.platform).as_bytes())
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Unpacks what is not there yet.
    pub(crate) fn root_of(
        &self,
        bundle: &Bundle,
        resolved: Resolved,
    ) -> Result<ImageRoot, ImageError> {
        let mut layers = Vec::new();
        for (number, place) in resolved.layers.iter().enumerate() {
            layers.push(self.ensure(bundle, place, number + 1)?);
        }
        Ok(ImageRoot::new(self.clone(), layers, resolved.search_path))
    }

    fn ensure(
        &self,
        bundle: &Bundle,
        place: &LayerPlace,
        number: usize,
    ) -> Result<Layer, ImageError> {
        if let Some(layer) = self.find(&place.diff_id)? {
            return Ok(layer);
        }
        let _making = self.store.making(&place.diff_id)?;
        // Another may have made it while this one waited.
        if let Some(layer) = self.find(&place.diff_id)? {
            return Ok(layer);
        }
        let what = format!("layer {number}");
        let part = bundle
            .open(Path::new(&place.file))?
            .ok_or_else(|| malformed(&what, format!("the file {:?} is not there", place.file)))?;
        let mut part = part;
        if let Some((_, size)) = place.packed {
            if let Some(found) = part.size.filter(|found| *found != size) {
                let reason = format!("it has {found} bytes, and {size} were named");
                return Err(malformed(&what, reason));
            }
            // One more, so that what is too long has another digest.
            part.reader = Box::new(part.reader.take(size.saturating_add(1)));
        }
        let (draft, facts, diff_id, packed) = self.unpack(part, &what)?;
        if let Some((expected, _)) = place.packed {
            verify(&what, expected, packed)?;
        }
        verify(&format!("{what}, unpacked,"), place.diff_id, diff_id)?;
        self.finish(draft, &diff_id, &facts)?;
        self.layer(&diff_id)
    }

    /// Unpacks a stream, and returns the digests of it as it came and unpacked.
    fn unpack(
        &self,
        part: Part,
        what: &str,
    ) -> Result<(Draft, LayerFacts, Digest, Digest), ImageError> {
        let draft = self.store.draft()?;
        let mut packed = HashReader::new(part.reader);
        let stream = compression::decoded(&mut packed, &self.limits)
            .map_err(|error| members::broken(what, error))?;
        let mut unpacked = HashReader::new(stream);
        let facts = unpack::unpack(&mut unpacked, what, &draft.tree, &self.limits)?;
        // What follows the end of the archive belongs to the digests.
        io::copy(&mut unpacked, &mut io::sink()).map_err(|error| members::broken(what, error))?;
        let diff_id = unpacked.finish();
        io::copy(&mut packed, &mut io::sink()).map_err(|error| members::broken(what, error))?;
        Ok((draft, facts, diff_id, packed.finish()))
    }

    fn finish(&self, draft: Draft, key: &Digest, facts: &LayerFacts) -> Result<(), ImageError> {
        self.store.finish(draft, Shelf::Layers, key, facts, facts.disk_bytes)
    }

    fn find(&self, key: &Digest) -> Result<Option<Layer>, ImageError> {
        let found = self.store.find(Shelf::Layers, key)?;
        Ok(found.map(|(lease, facts)| Layer { diff_id: *key, lease, facts }))
    }

    /// Returns a layer that has just been finished.
    fn layer(&self, key: &Digest) -> Result<Layer, ImageError> {
        self.find(key)?.ok_or_else(|| {
            // Only if the cache is so small that another process had to remove it at once.
            ImageError::Cache {
                operation: "find a layer that was just made",
                source: io::ErrorKind::NotFound.into(),
            }
        })
    }

    /// Returns the root that an archive was found to be, if all of its layers are still there.
    fn known(&self, key: &Digest) -> Result<Option<ImageRoot>, ImageError> {
        let Some(known) = self.store.recall::<Known>(key) else { return Ok(None) };
        let layers: Option<Vec<Layer>> =
            known.layers.iter().map(|key| self.find(key)).collect::<Result<_, _>>()?;
        Ok(layers.map(|layers| ImageRoot::new(self.clone(), layers, known.search_path)))
    }

    fn remember(&self, key: &Digest, root: &ImageRoot) -> Result<(), ImageError> {
        let known =
            Known { layers: root.diff_ids(), search_path: root.search_path().map(str::to_owned) };
        self.store.remember(key, &known)
    }

    /// Returns a key that changes when the file does: no program can set the time of change.
    fn key_of(
        &self,
        file: &File,
        path: &Path,
        form: &str,
        name: Option<&str>,
    ) -> Result<Digest, ImageError> {
        let found = file.metadata().map_err(source(path))?;
        if !found.is_file() {
            return Err(malformed(&path.display().to_string(), "it is no file".to_owned()));
        }
        let facts = (
            [found.dev(), found.ino(), found.size()],
            [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()],
            (form, name, self.platform.to_string()),
        );
        Ok(Digest::of(format!("{facts:?}").as_bytes()))
    }

    /// Returns a tar file that can be read at any place: the file itself, or a nameless unpacked copy.
    fn plain(&self, mut file: File, path: &Path) -> Result<File, ImageError> {
        let mut start = [0; 4];
        let count = file.read(&mut start).map_err(source(path))?;
        file.rewind().map_err(source(path))?;
        if !compression::is_packed(&start[..count]) {
            return Ok(file);
        }
        let what = path.display().to_string();
        let draft = self.store.draft()?;
        let place: PathBuf = draft.directory.join("plain");
        let failed = |source| ImageError::Cache { operation: "unpack an archive", source };
        let mut copy =
            File::options().read(true).write(true).create_new(true).open(&place).map_err(failed)?;
        let mut stream = compression::decoded(file, &self.limits)
            .map_err(|error| members::broken(&what, error))?;
        io::copy(&mut stream, &mut copy).map_err(|error| members::broken(&what, error))?;
        copy.rewind().map_err(failed)?;
        // The draft goes, with the name; the content stays until the last reader closes it.
        Ok(copy)
    }
}
