//! [`Watcher`]: changes in a workspace, told as they happen.

use std::fmt::Debug;

use async_trait::async_trait;
use cofferdam_core::WorkspacePath;
use futures::stream::BoxStream;

use crate::SandboxError;

/// Watches files for changes.
#[async_trait]
pub trait Watcher: Debug + Send + Sync + 'static {
    /// Watches a file or directory until the stream is dropped. What changes after this returns is told.
    ///
    /// Changes of one path that were not read yet are told once. A reader that is too slow hears
    /// [`WatchEvent::Overflow`] in the place of what it missed; memory stays bounded. Links are not followed.
    ///
    /// # Errors
    ///
    /// [`SandboxError::File`] if the path cannot be watched; with `ENOSPC`, the host's limit of watches is reached.
    async fn watch(
        &self,
        path: &WorkspacePath,
        options: &WatchOptions,
    ) -> Result<BoxStream<'static, Result<WatchEvent, SandboxError>>, SandboxError>;
}

/// How something is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchOptions {
    /// Watch all directories below too, and those that appear. Default true.
    pub recursive: bool,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self { recursive: true }
    }
}

/// A change. Paths are bytes relative to what is watched; empty is that itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// Something is there that was not.
    Created {
        /// Its path.
        path: Vec<u8>,
    },
    /// Content or metadata changed.
    Modified {
        /// Its path.
        path: Vec<u8>,
    },
    /// It is gone.
    Removed {
        /// Its path.
        path: Vec<u8>,
    },
    /// It has another path.
    Moved {
        /// The path before.
        from: Vec<u8>,
        /// The path now.
        to: Vec<u8>,
    },
    /// Changes were missed: look at everything.
    Overflow,
    /// This directory could not be watched, so nothing is told of what is in it.
    Unwatched {
        /// Its path.
        path: Vec<u8>,
        /// Why, in words.
        reason: String,
        /// The error number, as on Linux: `ENOSPC` is the limit of watches.
        errno: i32,
    },
}
