//! Whole trees into and out of [`MemoryFiles`].

use async_trait::async_trait;
use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{DownloadOptions, SandboxError, ScanEvent, ScanOptions, Tree, TreeEvent};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};

use super::memory_files::MemoryFiles;
use crate::tree_stream;

#[async_trait]
impl Tree for MemoryFiles {
    async fn upload(
        &self,
        target: &WorkspacePath,
        entries: BoxStream<'static, Result<TreeEvent, SandboxError>>,
    ) -> Result<u64, SandboxError> {
        let root = target.as_str().as_bytes();
        tree_stream::upload(entries, |made| {
            self.with("upload", target, |state| made.place(&mut state.tree, root))
        })
        .await
    }

    async fn download(
        &self,
        source: &WorkspacePath,
        options: &DownloadOptions,
    ) -> Result<BoxStream<'static, Result<TreeEvent, SandboxError>>, SandboxError> {
        let events = self.with("download", source, |state| {
            tree_stream::download(&state.tree, source.as_str().as_bytes(), options)
        })?;
        Ok(self.named("download", source, events))
    }

    async fn scan(
        &self,
        root: &WorkspacePath,
        options: &ScanOptions,
    ) -> Result<BoxStream<'static, Result<ScanEvent, SandboxError>>, SandboxError> {
        let events = self.with("scan", root, |state| {
            tree_stream::scan(&state.tree, root.as_str().as_bytes(), options)
        })?;
        Ok(self.named("scan", root, events))
    }
}

impl MemoryFiles {
    /// Makes a stream of events whose errors name the operation.
    fn named<T: Send + 'static>(
        &self,
        operation: &'static str,
        path: &WorkspacePath,
        events: Vec<Result<T, i32>>,
    ) -> BoxStream<'static, Result<T, SandboxError>> {
        let named: Vec<_> = events
            .into_iter()
            .map(|event| event.or_else(|errno| self.with(operation, path, |_| Err(errno))))
            .collect();
        stream::iter(named).boxed()
    }
}
