//! What the tests of this suite share.

use std::{fs, path::Path, sync::Arc, time::Duration};

use cofferdam_core::Secret;
use cofferdam_image::{ImageCache, ImageCacheOptions, ImageError, ImageRoot};
use cofferdam_registry::{CredentialProvider, Login, Registry, RegistryOptions};
use cofferdam_testkit::{ImageBuilder, LayerBuilder};
use tempfile::TempDir;

/// The one user that registries of these tests know.
pub(crate) const USER: (&str, &str) = ("somebody", "letmein");

#[derive(Debug)]
struct Known(&'static str);

impl CredentialProvider for Known {
    fn login(&self, _registry: &str) -> Option<Login> {
        Some(Login { user: USER.0.to_owned(), password: Secret::new(self.0) })
    }
}

/// A cache of its own, and a way to registries.
pub(crate) struct Place {
    _directory: TempDir,
    pub(crate) cache: ImageCache,
    registry: Registry,
}

impl Place {
    /// Asks as nobody, or as the user with this password.
    pub(crate) fn new(password: Option<&'static str>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = directory.path().join("cache");
        let cache = ImageCache::open(cache, ImageCacheOptions::default()).expect("a cache");
        let credentials =
            password.map(|password| Arc::new(Known(password)) as Arc<dyn CredentialProvider>);
        let options = RegistryOptions {
            credentials,
            timeout: Duration::from_secs(20),
            backoff: Duration::from_millis(1),
            ..RegistryOptions::default()
        };
        let registry = Registry::new(options).expect("a registry client");
        Self { _directory: directory, cache, registry }
    }

    pub(crate) async fn pull(&self, name: &str) -> Result<ImageRoot, ImageError> {
        self.registry.pull(&name.parse().expect("a name"), &self.cache).await
    }

    /// Returns what a pulled image holds, or why it was not pulled.
    pub(crate) async fn which(&self, name: &str) -> Result<String, ImageError> {
        let root = self.pull(name).await?;
        Ok(which(&root))
    }
}

/// An image that says which one it is.
pub(crate) fn image(content: &str) -> ImageBuilder {
    ImageBuilder::new()
        .layer(LayerBuilder::new().file("base", b"base"))
        .layer(LayerBuilder::new().file("which", content.as_bytes()))
}

pub(crate) fn which(root: &ImageRoot) -> String {
    let tree = root.merged().expect("merged");
    fs::read_to_string(Path::new(tree.path()).join("which")).expect("a file")
}

/// Returns an error and its causes as one text.
pub(crate) fn said(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", said(cause)),
        None => error.to_string(),
    }
}
