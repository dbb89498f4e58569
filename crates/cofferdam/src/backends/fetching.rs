//! [`FetchingBackend`]: the backend without a daemon, with a way to registries for images that are asked for by name.
//!
//! The backend itself opens no connection: it finds a name in its cache or refuses it. This fetches a name that is not
//! there, once, and asks again.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use cofferdam_core::SandboxId;
use cofferdam_image::{ImageCache, ImageCacheOptions, ImageError, Reference};
use cofferdam_registry::{Registry, RegistryOptions};
use cofferdam_sandbox::{
    Capabilities, Guarantees, ImageSource, ListedSandbox, RootFilesystem, Sandbox, SandboxBackend,
    SandboxError, SandboxSpec, SandboxState,
};

/// A backend that finds images in a cache, and the cache.
#[derive(Debug)]
pub(super) struct FetchingBackend<B> {
    pub(super) inner: B,
    /// Where `inner` unpacks images.
    pub(super) cache: PathBuf,
}

#[async_trait]
impl<B: SandboxBackend> SandboxBackend for FetchingBackend<B> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn guarantees(&self) -> Result<Guarantees, SandboxError> {
        self.inner.guarantees().await
    }

    async fn capabilities(&self) -> Result<Capabilities, SandboxError> {
        self.inner.capabilities().await
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<Arc<dyn Sandbox>, SandboxError> {
        if let RootFilesystem::Image(ImageSource::Reference(name)) = &spec.root {
            self.fetch_if_missing(name).await?;
        }
        self.inner.create(spec).await
    }

    async fn attach(&self, state: &SandboxState) -> Result<Arc<dyn Sandbox>, SandboxError> {
        self.inner.attach(state).await
    }

    async fn list(&self) -> Result<Vec<ListedSandbox>, SandboxError> {
        self.inner.list().await
    }

    async fn remove(&self, id: &SandboxId) -> Result<(), SandboxError> {
        self.inner.remove(id).await
    }
}

impl<B: Sync> FetchingBackend<B> {
    /// Fetches what a name stands for, unless something was fetched under it before.
    async fn fetch_if_missing(&self, name: &str) -> Result<(), SandboxError> {
        let failed = |error: ImageError| {
            SandboxError::Image {
            image: name.to_owned(),
            reason: match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            },
            remedy: "check the name and the way to its registry, or name a saved image, as `archive:FILE` or `oci:DIR`"
                .to_owned(),
        }
        };
        let reference: Reference = name
            .parse()
            .map_err(|error| SandboxError::InvalidRequest { reason: format!("{error}") })?;
        let (directory, wanted) = (self.cache.clone(), reference.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let cache = ImageCache::open(directory, ImageCacheOptions::default())?;
            match cache.from_name(&wanted) {
                Ok(_) => Ok(None),
                Err(ImageError::NotFound { .. }) => Ok(Some(cache)),
                Err(error) => Err(error),
            }
        });
        let missing = looked.await.map_err(|error| SandboxError::Host {
            operation: "look into the image cache",
            source: Box::new(error),
        })?;
        let Some(cache) = missing.map_err(failed)? else { return Ok(()) };
        tracing::info!(image = name, "fetching an image");
        let registry = Registry::new(RegistryOptions::default()).map_err(failed)?;
        registry.pull(&reference, &cache).await.map(drop).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_testkit::MemoryBackend;

    use super::*;

    fn spec(name: &str) -> SandboxSpec {
        let root = RootFilesystem::Image(ImageSource::Reference(name.to_owned()));
        SandboxSpec { root, ..SandboxSpec::default() }
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_fetched_is_told_with_what_to_do() {
        let place = tempfile::tempdir().unwrap();
        let backend =
            FetchingBackend { inner: MemoryBackend::default(), cache: place.path().join("images") };
        // Nobody listens there.
        let error = backend.create(&spec("127.0.0.1:1/nothing:1")).await.unwrap_err();
        let SandboxError::Image { image, remedy, .. } = &error else { panic!("{error}") };
        assert_eq!(image, "127.0.0.1:1/nothing:1");
        assert!(remedy.contains("archive:FILE"), "{remedy}");
        let error = backend.create(&spec("NOT A NAME")).await.unwrap_err();
        assert!(matches!(error, SandboxError::InvalidRequest { .. }), "{error}");
    }

    #[tokio::test]
    async fn other_roots_are_the_backends_own_affair() {
        let place = tempfile::tempdir().unwrap();
        let cache = place.path().join("images");
        let backend = FetchingBackend { inner: MemoryBackend::default(), cache: cache.clone() };
        let sandbox = backend.create(&SandboxSpec::default()).await.unwrap();
        sandbox.close().await.unwrap();
        assert!(!cache.exists());
    }
}
