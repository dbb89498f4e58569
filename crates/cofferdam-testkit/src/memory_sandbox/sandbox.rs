//! [`MemorySandbox`]: the seams over a sandbox in memory.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::{SandboxId, WorkspacePath};
use cofferdam_sandbox::{
    DownloadOptions, ExecRequest, FileMetadata, Files, ListOptions, Listing, LossReason, Process,
    Sandbox, SandboxError, SandboxSpec, SandboxState, ScanEvent, ScanOptions, Tree, TreeEvent,
    WriteOptions,
};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::{
    BACKEND, invalid,
    live::{Live, file_error},
    process,
};
use crate::{file_tree::FileTree, tree_stream};

/// A live sandbox in memory.
#[derive(Debug)]
pub(super) struct MemorySandbox {
    id: SandboxId,
    live: Arc<Live>,
    timer: JoinHandle<()>,
}

impl MemorySandbox {
    pub(super) fn new(id: SandboxId, spec: &SandboxSpec) -> Self {
        let live = Arc::new(Live::new(spec));
        let (limit, weak) = (spec.limits.wall_time, Arc::downgrade(&live));
        let timer = tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            if let Some(live) = weak.upgrade() {
                live.end(LossReason::WallTime);
            }
        });
        Self { id, live, timer }
    }

    pub(super) fn loss(&self) -> Option<LossReason> {
        self.live.loss()
    }
}

impl Drop for MemorySandbox {
    fn drop(&mut self) {
        self.live.end(LossReason::Closed);
        self.timer.abort();
    }
}

#[async_trait]
impl Sandbox for MemorySandbox {
    fn id(&self) -> &SandboxId {
        &self.id
    }

    fn state(&self) -> SandboxState {
        SandboxState {
            version: 1,
            backend: BACKEND.to_owned(),
            id: self.id.clone(),
            data: Value::Null,
        }
    }

    async fn exec(&self, request: ExecRequest) -> Result<Process, SandboxError> {
        process::start(&self.live, request).await
    }

    fn files(&self) -> &dyn Files {
        self
    }

    fn tree(&self) -> &dyn Tree {
        self
    }

    async fn lost(&self) -> SandboxError {
        let error = self.live.lost().await;
        tokio::task::yield_now().await;
        error
    }

    async fn close(&self) -> Result<(), SandboxError> {
        // The end is at the first poll, so that dropping the rest changes nothing.
        self.live.end(LossReason::Closed);
        self.timer.abort();
        tokio::task::yield_now().await;
        Ok(())
    }
}

fn bytes(path: &WorkspacePath) -> &[u8] {
    path.as_str().as_bytes()
}

/// Refuses a mode with bits that the seam does not define.
fn check_mode(mode: u32) -> Result<(), SandboxError> {
    if mode & !0o7777 != 0 {
        return Err(invalid(format!("mode {mode:o} has bits beyond the permissions")));
    }
    Ok(())
}

#[async_trait]
impl Files for MemorySandbox {
    async fn read(
        &self,
        path: &WorkspacePath,
        offset: u64,
        max_bytes: u64,
    ) -> Result<Bytes, SandboxError> {
        self.live
            .change("read", path.as_str(), |tree| tree.read(bytes(path), offset, max_bytes))
            .await
    }

    async fn write(
        &self,
        path: &WorkspacePath,
        content: Bytes,
        options: &WriteOptions,
    ) -> Result<(), SandboxError> {
        check_mode(options.mode)?;
        self.live
            .change("write", path.as_str(), |tree| tree.write(bytes(path), content, options))
            .await
    }

    async fn list(
        &self,
        path: &WorkspacePath,
        options: &ListOptions,
    ) -> Result<Listing, SandboxError> {
        if options.depth == 0 || options.max_entries == 0 {
            return Err(invalid(format!("a listing of nothing: {options:?}")));
        }
        self.live.change("list", path.as_str(), |tree| tree.list(bytes(path), options)).await
    }

    async fn stat(&self, path: &WorkspacePath) -> Result<FileMetadata, SandboxError> {
        let work = |tree: &mut FileTree| Ok(tree.node(bytes(path), false)?.metadata());
        self.live.change("describe", path.as_str(), work).await
    }

    async fn make_directory(&self, path: &WorkspacePath, mode: u32) -> Result<(), SandboxError> {
        check_mode(mode)?;
        self.live
            .change("make directory", path.as_str(), |tree| {
                tree.make_directories(bytes(path), mode).map(drop)
            })
            .await
    }

    async fn rename(
        &self,
        from: &WorkspacePath,
        to: &WorkspacePath,
        replace: bool,
    ) -> Result<(), SandboxError> {
        self.live
            .change("rename", from.as_str(), |tree| tree.rename(bytes(from), bytes(to), replace))
            .await
    }

    async fn remove(&self, path: &WorkspacePath, recursive: bool) -> Result<(), SandboxError> {
        self.live.change("remove", path.as_str(), |tree| tree.remove(bytes(path), recursive)).await
    }
}

#[async_trait]
impl Tree for MemorySandbox {
    async fn upload(
        &self,
        target: &WorkspacePath,
        entries: BoxStream<'static, Result<TreeEvent, SandboxError>>,
    ) -> Result<u64, SandboxError> {
        let _place = self.live.enter().await?;
        let root = bytes(target);
        let refused = |errno| file_error("upload to", target.as_str(), errno);
        self.live.tree().make_directories(root, 0o755).map_err(refused)?;
        let live = Arc::clone(&self.live);
        let paced = entries.then(move |event| {
            let live = Arc::clone(&live);
            async move { live.pause().await.and(event) }
        });
        let made = tree_stream::upload(paced.boxed(), |made| {
            made.place(&mut self.live.tree(), root).map_err(refused)
        });
        // A source that waits does not keep the end from being told.
        let made = tokio::select! {
            biased;
            error = self.live.lost() => Err(error),
            made = made => made,
        }?;
        self.live.pause().await?;
        Ok(made)
    }

    async fn download(
        &self,
        source: &WorkspacePath,
        options: &DownloadOptions,
    ) -> Result<BoxStream<'static, Result<TreeEvent, SandboxError>>, SandboxError> {
        self.paced("download", source, |tree, path| tree_stream::download(tree, path, options))
            .await
    }

    async fn scan(
        &self,
        root: &WorkspacePath,
        options: &ScanOptions,
    ) -> Result<BoxStream<'static, Result<ScanEvent, SandboxError>>, SandboxError> {
        self.paced("scan", root, |tree, path| tree_stream::scan(tree, path, options)).await
    }
}

impl MemorySandbox {
    /// Makes a stream of events that takes a place among the operations and lets others go first.
    async fn paced<T: Send + 'static>(
        &self,
        operation: &'static str,
        path: &WorkspacePath,
        look: impl FnOnce(&FileTree, &[u8]) -> Result<Vec<Result<T, i32>>, i32> + Send,
    ) -> Result<BoxStream<'static, Result<T, SandboxError>>, SandboxError> {
        let place = self.live.enter().await?;
        self.live.pause().await?;
        let path = path.as_str().to_owned();
        let events = look(&self.live.tree(), path.as_bytes())
            .map_err(|errno| file_error(operation, &path, errno))?;
        self.live.pause().await?;
        // The place is held until the stream is dropped or at its end.
        let state = (events.into_iter(), Arc::clone(&self.live), path, Some(place));
        let events = stream::unfold(state, move |(mut events, live, path, place)| async move {
            place.as_ref()?;
            if let Err(error) = live.pause().await {
                return Some((Err(error), (events, live, path, None)));
            }
            let event = events.next()?.map_err(|errno| file_error(operation, &path, errno));
            Some((event, (events, live, path, place)))
        });
        Ok(events.boxed())
    }
}
