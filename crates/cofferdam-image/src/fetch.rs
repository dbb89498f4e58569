//! [`Fetch`]: where an image is fetched from, if it is not on this machine.

use std::{fmt::Debug, io::Read};

use crate::{Digest, ImageError};

/// What gets the parts of one image from elsewhere.
///
/// What it returns is not trusted: everything but what the name stands for is held against its digest. All methods block.
pub trait Fetch: Debug + Send + Sync + 'static {
    /// Returns the index or manifest that the image's name stands for now, of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// [`ImageError::NotFound`], [`ImageError::Denied`], [`ImageError::Fetch`], and [`ImageError::TooLarge`] above the
    /// limit.
    fn named(&self, limit: u64) -> Result<Vec<u8>, ImageError>;

    /// Returns an index or manifest by its digest, of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// As [`Self::named`].
    fn manifest(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, ImageError>;

    /// Opens a configuration or a layer by its digest. Reading fails with an [`ImageError`] inside of the
    /// [`std::io::Error`].
    ///
    /// # Errors
    ///
    /// As [`Self::named`].
    fn blob(&self, digest: &Digest) -> Result<Box<dyn Read + Send>, ImageError>;
}
