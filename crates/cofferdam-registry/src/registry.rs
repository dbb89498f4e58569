//! [`Registry`]: pulls images.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use cofferdam_image::{ImageCache, ImageError, ImageRoot, Reference};
use reqwest::redirect::Policy;
use tokio::runtime::Handle;

use crate::{CredentialProvider, client::Client, fetch::RegistryFetch, tls};

/// Fetches images from registries. Cloning it gives another handle.
#[derive(Debug, Clone)]
pub struct Registry {
    http: reqwest::Client,
    options: RegistryOptions,
}

/// How registries are spoken to.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Who one is at which registry. Default: nobody anywhere.
    pub credentials: Option<Arc<dyn CredentialProvider>>,
    /// How long to wait for an answer, and for more of it. Default 30 seconds.
    pub timeout: Duration,
    /// How often an image is tried, when a failure may pass. Default 4.
    pub tries: u32,
    /// How long to wait before the second try; doubled before each further one. Default one second.
    pub backoff: Duration,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            credentials: None,
            timeout: Duration::from_secs(30),
            tries: 4,
            backoff: Duration::from_secs(1),
        }
    }
}

impl Registry {
    /// Returns a way to registries; nothing is reached yet.
    ///
    /// # Errors
    ///
    /// [`ImageError::Fetch`] if this machine has no trusted roots.
    pub fn new(options: RegistryOptions) -> Result<Self, ImageError> {
        let failed = |source| ImageError::Fetch {
            what: "anything: TLS cannot be set up".to_owned(),
            passing: false,
            source,
        };
        let http = reqwest::Client::builder()
            // The environment is not ours to read, and a redirect would take credentials elsewhere.
            .no_proxy()
            .redirect(Policy::none())
            .connect_timeout(options.timeout)
            .user_agent(concat!("cofferdam/", env!("CARGO_PKG_VERSION")))
            .tls_backend_preconfigured(tls::client_config().map_err(|e| failed(e.into()))?)
            .build()
            .map_err(|error| failed(error.into()))?;
        Ok(Self { http, options })
    }

    /// Fetches what an image's name stands for now, and remembers it under this name in the cache.
    ///
    /// Layers that are in the cache are not fetched. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// As [`ImageCache::from_fetch`]. A failure that may pass has been tried again.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the layer that is being fetched is finished in the background; layers that are complete
    /// stay in the cache.
    pub async fn pull(
        &self,
        name: &Reference,
        cache: &ImageCache,
    ) -> Result<ImageRoot, ImageError> {
        let login = self.options.credentials.as_ref().and_then(|known| known.login(&name.registry));
        let client = Arc::new(Client {
            http: self.http.clone(),
            name: name.clone(),
            login,
            timeout: self.options.timeout,
            entry: Arc::new(Mutex::new(None)),
        });
        let mut backoff = self.options.backoff;
        let mut tried = 1;
        loop {
            let fetch = RegistryFetch { client: Arc::clone(&client), handle: Handle::current() };
            let (cache, wanted) = (cache.clone(), name.clone());
            let pulled =
                tokio::task::spawn_blocking(move || cache.from_fetch(&wanted, Arc::new(fetch)));
            let pulled = pulled.await.unwrap_or_else(|error| {
                let what = name.to_string();
                Err(ImageError::Fetch { what, passing: false, source: error.into() })
            });
            match pulled {
                Err(error @ ImageError::Fetch { passing: true, .. })
                    if tried < self.options.tries =>
                {
                    tracing::debug!(%error, tried, "fetching the image again");
                    tokio::time::sleep(backoff).await;
                    backoff = backoff.saturating_mul(2);
                    tried += 1;
                }
                pulled => return pulled,
            }
        }
    }
}
