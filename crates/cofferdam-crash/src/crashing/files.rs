//! `CrashingFiles`: the files of a sandbox, with points.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{
    FileMetadata, Files, ListOptions, Listing, Sandbox, SandboxError, WriteOptions,
};

use crate::point::Points;

#[derive(Debug)]
pub(super) struct CrashingFiles {
    sandbox: Arc<dyn Sandbox>,
    points: Arc<Points>,
}

impl CrashingFiles {
    pub(super) fn new(sandbox: Arc<dyn Sandbox>, points: Arc<Points>) -> Self {
        Self { sandbox, points }
    }
}

#[async_trait]
impl Files for CrashingFiles {
    async fn read(
        &self,
        path: &WorkspacePath,
        offset: u64,
        max_bytes: u64,
    ) -> Result<Bytes, SandboxError> {
        let read = self.sandbox.files().read(path, offset, max_bytes);
        self.points.around_in(&*self.sandbox, "sandbox.file.read", read).await
    }

    async fn write(
        &self,
        path: &WorkspacePath,
        content: Bytes,
        options: &WriteOptions,
    ) -> Result<(), SandboxError> {
        let write = self.sandbox.files().write(path, content, options);
        self.points.around_in(&*self.sandbox, "sandbox.file.write", write).await
    }

    async fn list(
        &self,
        path: &WorkspacePath,
        options: &ListOptions,
    ) -> Result<Listing, SandboxError> {
        self.sandbox.files().list(path, options).await
    }

    async fn stat(&self, path: &WorkspacePath) -> Result<FileMetadata, SandboxError> {
        self.sandbox.files().stat(path).await
    }

    async fn make_directory(&self, path: &WorkspacePath, mode: u32) -> Result<(), SandboxError> {
        let make = self.sandbox.files().make_directory(path, mode);
        self.points.around_in(&*self.sandbox, "sandbox.file.make_directory", make).await
    }

    async fn rename(
        &self,
        from: &WorkspacePath,
        to: &WorkspacePath,
        replace: bool,
    ) -> Result<(), SandboxError> {
        let rename = self.sandbox.files().rename(from, to, replace);
        self.points.around_in(&*self.sandbox, "sandbox.file.rename", rename).await
    }

    async fn remove(&self, path: &WorkspacePath, recursive: bool) -> Result<(), SandboxError> {
        let remove = self.sandbox.files().remove(path, recursive);
        self.points.around_in(&*self.sandbox, "sandbox.file.remove", remove).await
    }
}
