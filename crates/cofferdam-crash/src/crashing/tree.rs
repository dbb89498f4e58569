//! `CrashingTree`: the trees of a sandbox, with a point at each of their entries.

use std::sync::Arc;

use async_trait::async_trait;
use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{
    DownloadOptions, Sandbox, SandboxError, ScanEvent, ScanOptions, Tree, TreeEvent,
};
use futures::{StreamExt, stream::BoxStream};

use crate::point::Points;

#[derive(Debug)]
pub(super) struct CrashingTree {
    sandbox: Arc<dyn Sandbox>,
    points: Arc<Points>,
}

type Events = BoxStream<'static, Result<TreeEvent, SandboxError>>;

impl CrashingTree {
    pub(super) fn new(sandbox: Arc<dyn Sandbox>, points: Arc<Points>) -> Self {
        Self { sandbox, points }
    }

    fn at_entries(&self, point: &'static str, events: Events) -> Events {
        let points = Arc::clone(&self.points);
        let pass = move |event: &Result<TreeEvent, SandboxError>| {
            if let Ok(TreeEvent::Entry(_)) = event {
                points.pass(point);
            }
        };
        events.inspect(pass).boxed()
    }
}

#[async_trait]
impl Tree for CrashingTree {
    async fn upload(&self, target: &WorkspacePath, entries: Events) -> Result<u64, SandboxError> {
        let entries = self.at_entries("sandbox.upload.entry", entries);
        self.points
            .around_in(
                &*self.sandbox,
                "sandbox.upload",
                self.sandbox.tree().upload(target, entries),
            )
            .await
    }

    async fn download(
        &self,
        source: &WorkspacePath,
        options: &DownloadOptions,
    ) -> Result<Events, SandboxError> {
        self.points.pass("sandbox.download.before");
        let events = self.sandbox.tree().download(source, options).await?;
        Ok(self.at_entries("sandbox.download.entry", events))
    }

    async fn scan(
        &self,
        root: &WorkspacePath,
        options: &ScanOptions,
    ) -> Result<BoxStream<'static, Result<ScanEvent, SandboxError>>, SandboxError> {
        self.points.pass_in(&*self.sandbox, "sandbox.scan.before").await;
        let events = self.sandbox.tree().scan(root, options).await?;
        let points = Arc::clone(&self.points);
        Ok(events.inspect(move |_| points.pass("sandbox.scan.entry")).boxed())
    }
}
