//! Roots from images and archives: what the cache of images has, as a layout, and what keeps it there.

use std::{
    collections::BTreeMap,
    error::Error,
    ffi::{OsStr, OsString},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use cofferdam_core::NetworkAccess;
use cofferdam_image::{
    ImageCache, ImageCacheOptions, ImageEntry, ImageError, ImageRoot, ImageTree, Reference,
};
use cofferdam_sandbox::{ImageSource, RootFilesystem, SandboxError};

use crate::{
    layout::Layout,
    report::Step,
    setup::{describe, host, invalid},
};

/// The cache of images of a backend, opened at its first use.
#[derive(Debug, Default)]
pub(crate) struct Images {
    place: Option<(PathBuf, ImageCacheOptions)>,
    cache: OnceLock<ImageCache>,
    /// Whether this host has refused to stack layers.
    merges: AtomicBool,
}

/// A root from an image.
#[derive(Debug)]
pub(crate) struct Rootfs {
    pub(crate) layout: Layout,
    /// The `PATH` that the image sets.
    pub(crate) search_path: Option<String>,
    pub(crate) lease: ImageLease,
}

/// Keeps the trees of an image in the cache as long as it lives.
#[derive(Debug)]
pub(crate) struct ImageLease {
    root: ImageRoot,
    merged: Option<ImageTree>,
}

impl ImageLease {
    /// Returns descriptors that do the same in whatever process has them open.
    pub(crate) fn keepers(&self) -> io::Result<Vec<OwnedFd>> {
        match &self.merged {
            Some(merged) => Ok(vec![merged.keeper()?]),
            None => self.root.keepers(),
        }
    }
}

/// How the trees of an image become one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    /// They are one already.
    Tree(&'a Path),
    /// An overlay file system stacks them, the first one uppermost.
    Stack(&'a [PathBuf]),
}

impl Images {
    pub(crate) fn new(directory: PathBuf, options: ImageCacheOptions) -> Self {
        Self { place: Some((directory, options)), ..Self::default() }
    }

    /// Returns the root that a spec asks for, if it comes from an image. Blocks on the disk.
    pub(crate) fn rootfs(
        &self,
        root: &RootFilesystem,
        network: NetworkAccess,
    ) -> Result<Option<Rootfs>, SandboxError> {
        let Some(name) = name_of(root) else { return Ok(None) };
        let failed = |error| explain(&name, error);
        let cache = self.cache(&name)?;
        let image = match root {
            RootFilesystem::Archive(file) => {
                absolute(file)?;
                cache.from_root_archive(file)
            }
            RootFilesystem::Image(ImageSource::Layout { directory, name }) => {
                absolute(directory)?;
                cache.from_layout(directory, name.as_deref())
            }
            RootFilesystem::Image(ImageSource::Archive { file, name }) => {
                absolute(file)?;
                cache.from_archive(file, name.as_deref())
            }
            RootFilesystem::Image(ImageSource::Reference(text)) => {
                let reference: Reference =
                    text.parse().map_err(|error| invalid(format!("{error}")))?;
                // A backend reaches no network: whoever may has fetched it before.
                cache.from_name(&reference)
            }
            other => {
                return Err(SandboxError::Image {
                    image: name,
                    reason: format!("the linux backend does not know the source {other:?}"),
                    remedy: "save the image as an archive or a layout, and name that".to_owned(),
                });
            }
        }
        .map_err(|error| match (root, error) {
            (
                RootFilesystem::Image(ImageSource::Reference(_)),
                error @ ImageError::NotFound { .. },
            ) => SandboxError::Image {
                image: name.clone(),
                reason: error.to_string(),
                remedy: "fetch it into the cache first, with `cofferdam_registry::Registry::pull`"
                    .to_owned(),
            },
            (_, error) => failed(error),
        })?;
        let lists = lists(&image).map_err(failed)?;
        let stack =
            image.stack().filter(|stack| stack.len() == 1 || !self.merges.load(Ordering::Relaxed));
        let (layout, merged) = match stack.as_deref() {
            Some([tree]) => (Layout::of_image(Source::Tree(tree), &lists, network), None),
            Some(stack) => (Layout::of_image(Source::Stack(stack), &lists, network), None),
            None => {
                let merged = image.merged().map_err(failed)?;
                let layout = Layout::of_image(Source::Tree(merged.path()), &lists, network);
                (layout, Some(merged))
            }
        };
        let search_path = image.search_path().map(str::to_owned);
        Ok(Some(Rootfs { layout, search_path, lease: ImageLease { root: image, merged } }))
    }

    /// Returns true if a sandbox did not start because this host does not stack layers, and remembers it: from now on
    /// they are merged. The walls are the same.
    pub(crate) fn has_refused_to_stack(&self, error: &SandboxError) -> bool {
        let refused = matches!(error, SandboxError::HostUnable { step, .. }
            if step.starts_with(describe(Step::StackLayers)));
        if refused {
            tracing::info!(%error, "layers of images are merged, since this host does not stack them");
            self.merges.store(true, Ordering::Relaxed);
        }
        refused
    }

    fn cache(&self, image: &str) -> Result<&ImageCache, SandboxError> {
        if let Some(cache) = self.cache.get() {
            return Ok(cache);
        }
        let Some((directory, options)) = &self.place else {
            return Err(SandboxError::Image {
                image: image.to_owned(),
                reason: "the backend has no directory to unpack images in".to_owned(),
                remedy: "give it one with `LinuxBackend::with_image_cache`".to_owned(),
            });
        };
        let opened =
            ImageCache::open(directory, options.clone()).map_err(|error| explain(image, error))?;
        Ok(self.cache.get_or_init(|| opened))
    }
}

/// Directories of an image, as all layers together show them.
#[derive(Debug)]
pub(crate) struct Lists {
    pub(crate) top: BTreeMap<OsString, ImageEntry>,
    /// Whether `/var/lib` is a directory, without links on the way.
    pub(crate) has_var_lib: bool,
    /// Whether `/etc/resolv.conf` is a file, without links on the way.
    pub(crate) has_resolver: bool,
}

fn lists(image: &ImageRoot) -> Result<Lists, ImageError> {
    // What is below a link is not listed.
    let entry = |directory: &str, name: &str| -> Result<Option<ImageEntry>, ImageError> {
        Ok(image.list(Path::new(directory))?.remove(OsStr::new(name)))
    };
    Ok(Lists {
        top: image.list(Path::new(""))?,
        has_var_lib: entry("var", "lib")? == Some(ImageEntry::Directory),
        has_resolver: matches!(entry("etc", "resolv.conf")?, Some(ImageEntry::File(_))),
    })
}

/// Returns the name of an image in errors; `None` if the root is none.
fn name_of(root: &RootFilesystem) -> Option<String> {
    let named = |place: &Path, name: &Option<String>| match name {
        Some(name) => format!("{name} in {}", place.display()),
        None => place.display().to_string(),
    };
    match root {
        RootFilesystem::Archive(file) => Some(file.display().to_string()),
        RootFilesystem::Image(ImageSource::Layout { directory, name }) => {
            Some(named(directory, name))
        }
        RootFilesystem::Image(ImageSource::Archive { file, name }) => Some(named(file, name)),
        RootFilesystem::Image(ImageSource::Reference(name)) => Some(name.clone()),
        _ => None,
    }
}

fn absolute(path: &Path) -> Result<(), SandboxError> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(invalid(format!("the image {} is not an absolute path", path.display())))
}

/// Makes the error for an image that cannot be used.
fn explain(image: &str, error: ImageError) -> SandboxError {
    match error {
        // The disk is full or the like: nothing is wrong with the image.
        ImageError::Cache { source, operation } => {
            tracing::debug!(operation, %source, "the image cache failed");
            host("use the image cache")(source)
        }
        error => SandboxError::Image {
            image: image.to_owned(),
            reason: match error.source() {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            },
            remedy: error.remedy().to_owned(),
        },
    }
}
