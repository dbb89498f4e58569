//! [`Contexts`]: what zstd works with, kept from one use to the next. To make one takes longer than a small node does.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use zstd::bulk;

/// The level at which frames are compressed.
const LEVEL: i32 = 1;
/// How many of each kind are kept; more are made while more threads work, and dropped after.
const KEPT: usize = 4;

/// Contexts that nobody uses at the moment.
#[derive(Default)]
pub(crate) struct Contexts {
    compressors: Kept<bulk::Compressor<'static>>,
    decompressors: Kept<bulk::Decompressor<'static>>,
}

impl fmt::Debug for Contexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Contexts")
    }
}

impl Contexts {
    /// Returns the compressed form of content if it is at least 3 % smaller.
    pub(crate) fn compress(&self, content: &[u8]) -> Option<Vec<u8>> {
        // Without a context, content is stored raw.
        let mut context = self.compressors.take().or_else(|| bulk::Compressor::new(LEVEL).ok())?;
        let compressed = context.compress(content).ok();
        self.compressors.keep(context);
        compressed.filter(|compressed| compressed.len() < content.len() - content.len() * 3 / 100)
    }

    /// Returns what a compressed form holds; `None` if it is none of at most `length` bytes.
    pub(crate) fn decompress(&self, compressed: &[u8], length: usize) -> Option<Vec<u8>> {
        let mut context = self.decompressors.take().or_else(|| bulk::Decompressor::new().ok())?;
        let content = context.decompress(compressed, length).ok();
        self.decompressors.keep(context);
        content
    }
}

struct Kept<T>(Mutex<Vec<T>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Kept<T> {
    fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn keep(&self, context: T) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(context);
        }
    }
}
