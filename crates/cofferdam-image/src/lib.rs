//! Container images to root file systems: read, verify, unpack, cache.
//!
//! ```no_run
//! use std::path::Path;
//! use cofferdam_image::{ImageCache, ImageCacheOptions};
//!
//! # fn main() -> Result<(), cofferdam_image::ImageError> {
//! let cache = ImageCache::open("/var/cache/cofferdam", ImageCacheOptions::default())?;
//! let root = cache.from_archive(Path::new("debian.tar"), Some("debian:bookworm"))?;
//! println!("{:?}", root.stack());
//! # Ok(())
//! # }
//! ```
//!
//! # What is read
//!
//! | Source | Method |
//! |---|---|
//! | a directory in OCI image layout | [`ImageCache::from_layout`] |
//! | a file of `docker save` or `podman save`, old form and new | [`ImageCache::from_archive`] |
//! | a tar file of an image layout | [`ImageCache::from_archive`] |
//! | a tar file of a root file system | [`ImageCache::from_root_archive`] |
//! | a registry, through whatever fetches from it | [`ImageCache::from_fetch`], later [`ImageCache::from_name`] |
//!
//! Layers may be plain, gzip or zstd. Of an image's configuration only the platform, the layers and the `PATH` of its
//! environment count: what runs, where and as whom is the business of whoever makes the sandbox.
//!
//! # What is trusted
//!
//! Nothing but the digest that the caller knows, and the place that the caller names. Every document and every layer is
//! held against the digest by which it was named, packed and unpacked, before it is seen. A layer may be hostile: the
//! kernel keeps its entries beneath a directory of their own (`openat2`), never a comparison of strings; what two readers
//! could understand differently is refused; everything has a bound ([`ImageLimits`]).
//!
//! # What is kept of a file
//!
//! Its content, whether it is executable, its time, its name, its `user.` attributes. Owners, set-id bits, capabilities
//! and device nodes are not: the tree is shown read-only to one user who was none of the owners, and who may read all of
//! it.
//!
//! # Why trees and not a file system image?
//!
//! A tree is shared between images that share layers, is stacked by the kernel without a daemon, as root and as an
//! ordinary user, and can be looked at with `ls`.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

mod bundle;
mod cache;
mod compression;
mod confine;
mod digest;
mod document;
mod error;
mod fetch;
mod limits;
mod member_path;
mod members;
mod merge;
mod name;
mod platform;
mod resolve;
mod root;
mod store;
mod unpack;

pub use cache::{ImageCache, ImageCacheOptions};
pub use digest::{Digest, InvalidDigest};
pub use error::{EntryProblem, ImageError};
pub use fetch::Fetch;
pub use limits::ImageLimits;
pub use name::{InvalidReference, Reference};
pub use platform::Platform;
pub use root::{ImageEntry, ImageRoot, ImageTree};
