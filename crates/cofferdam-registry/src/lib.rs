//! Fetches container images from registries into the image cache.
//!
//! ```no_run
//! use cofferdam_image::{ImageCache, ImageCacheOptions};
//! use cofferdam_registry::{Registry, RegistryOptions};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = ImageCache::open("/var/cache/cofferdam", ImageCacheOptions::default())?;
//! let registry = Registry::new(RegistryOptions::default())?;
//! registry.pull(&"debian:bookworm".parse()?, &cache).await?;
//! // From now on, and without a network: `RootFilesystem::Image(ImageSource::Reference("debian:bookworm"))`.
//! # Ok(())
//! # }
//! ```
//!
//! # Who reaches what
//!
//! The control plane calls [`Registry::pull`]; a sandbox backend only looks into the cache. So no start of a sandbox waits
//! for a network, a name means what was last fetched under it, and what a sandbox may run is decided before it starts.
//!
//! - HTTPS only, with the operating system's trusted roots; plain HTTP to a registry on loopback.
//! - Credentials come from a [`CredentialProvider`] that the caller gives, never from the environment, a file or a proxy
//!   setting. They go to the registry they are for, and to the token service that this registry names, over HTTPS.
//! - A redirect is followed without them, at most five times, and never from HTTPS to HTTP.
//! - Every document and layer is held against its digest by `cofferdam-image`; sizes, tokens, tries and times are bounded.
//!
//! # Why not a registry library?
//!
//! Pulling is three requests and a token. Of the libraries, those that are kept well read a manifest of any size into
//! memory, take proxies from the environment and decide on redirects by themselves; here these are the point.
#![forbid(unsafe_code)]

mod challenge;
mod client;
mod credentials;
mod fetch;
mod registry;
mod tls;

pub use credentials::{CredentialProvider, Login};
pub use registry::{Registry, RegistryOptions};
