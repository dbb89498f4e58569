//! Whole trees into and out of [`MemoryFiles`].

use async_trait::async_trait;
use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{DownloadOptions, SandboxError, Tree, TreeEvent};
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
            self.with("upload", target, |state| {
                state.tree.place(root, &made.path, made.content, made.mode, made.modified_ns)
            })
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
        let named: Vec<_> = events
            .into_iter()
            .map(|event| event.or_else(|errno| self.with("download", source, |_| Err(errno))))
            .collect();
        Ok(stream::iter(named).boxed())
    }
}
