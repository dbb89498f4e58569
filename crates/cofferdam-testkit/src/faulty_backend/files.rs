//! Defects of file operations.

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{
    ExecOutput, ExecRequest, FileKind, FileMetadata, Files, ListOptions, Listing, SandboxError,
    SandboxExt as _, WriteOptions,
};
use futures::StreamExt as _;

use super::{Defect, FaultySandbox};
use crate::file_tree::errno::{ENOENT, ENOTDIR};

impl FaultySandbox {
    /// Returns the path that the defect makes of a path.
    fn led(&self, path: &WorkspacePath) -> WorkspacePath {
        let lower = path.as_str().to_lowercase();
        match WorkspacePath::new(&lower) {
            Ok(lower) if self.has(Defect::NamesHaveNoCase) => lower,
            _ => path.clone(),
        }
    }

    /// Runs a script on a path, as a backend does that has no other way into its sandboxes.
    async fn by_command(
        &self,
        script: &str,
        path: &WorkspacePath,
    ) -> Result<ExecOutput, SandboxError> {
        let request = ExecRequest::program(["sh", "-c", script, "sh", path.as_str()]);
        let output = self.inner.run(request, 1 << 30).await?;
        if output.status.is_some_and(|status| status.success()) {
            return Ok(output);
        }
        let reason = output.stderr.to_text().into_owned();
        Err(SandboxError::File { operation: "run", path: path.to_string(), reason, errno: ENOENT })
    }
}

fn shown(mut metadata: FileMetadata, defect: Defect) -> FileMetadata {
    if defect == Defect::TimesAreZero {
        metadata.modified_ns = 0;
    }
    metadata
}

#[async_trait]
impl Files for FaultySandbox {
    async fn read(
        &self,
        path: &WorkspacePath,
        mut offset: u64,
        mut max_bytes: u64,
    ) -> Result<Bytes, SandboxError> {
        match self.defect {
            Defect::ReadPanics => panic!("a defect that was planted"),
            Defect::ReadIgnoresOffset => offset = 0,
            Defect::ReadIgnoresBound => max_bytes = u64::MAX,
            Defect::ReadsAreCommands => {
                return Ok(self.by_command("cat < \"$1\"", path).await?.stdout.bytes.into());
            }
            Defect::DroppedCallsKeepPlaces => {
                if let Ok(place) = self.leaking.acquire().await {
                    place.forget();
                }
                let content = self.inner.files().read(path, offset, max_bytes).await;
                self.leaking.add_permits(1);
                return content;
            }
            _ => {}
        }
        match self.inner.files().read(&self.led(path), offset, max_bytes).await {
            Err(SandboxError::File { errno: ENOENT, .. }) if self.has(Defect::MissingIsEmpty) => {
                Ok(Bytes::new())
            }
            read => read.map_err(|error| self.tell(error)),
        }
    }

    async fn write(
        &self,
        path: &WorkspacePath,
        content: Bytes,
        options: &WriteOptions,
    ) -> Result<(), SandboxError> {
        let mut options = *options;
        let path = self.led(path);
        match self.defect {
            Defect::NewFileReplaces => options.must_be_new = false,
            Defect::ParentsAreAlwaysMade => options.make_parents = true,
            Defect::WriteIgnoresModes => options.mode = 0o644,
            Defect::WriteIgnoresKeepMode => options.keep_mode = false,
            Defect::WriteIsNotAtomic if !options.must_be_new => {
                let half = content.slice(..content.len() / 2);
                self.inner.files().write(&path, half, &options).await?;
            }
            Defect::WriteLeavesAFileBeside => {
                if let Ok(beside) = WorkspacePath::new(&format!("{path}.part")) {
                    self.inner.files().write(&beside, Bytes::new(), &options).await?;
                }
            }
            Defect::WritesAreCommands => {
                let script = "mkdir -p \"$(dirname \"$1\")\" && cat > \"$1\"";
                let argv = ["sh", "-c", script, "sh", path.as_str()];
                let request = ExecRequest { stdin: true, ..ExecRequest::program(argv) };
                let process = self.inner.exec(request).await?;
                process.control().write_stdin(content).await?;
                process.control().close_stdin().await?;
                process.for_each(|_| async {}).await;
                return Ok(());
            }
            _ => {}
        }
        self.inner.files().write(&path, content, &options).await.map_err(|error| self.tell(error))
    }

    async fn list(
        &self,
        path: &WorkspacePath,
        options: &ListOptions,
    ) -> Result<Listing, SandboxError> {
        let mut options = *options;
        if self.has(Defect::ListingGoesDeeper) {
            options.depth += 1;
        }
        let mut listing = self.inner.files().list(&self.led(path), &options).await?;
        match self.defect {
            Defect::ListingIsUnsorted => listing.entries.reverse(),
            Defect::ListingIsCutInSilence => listing.truncated = false,
            Defect::NamesAreText => {
                for entry in &mut listing.entries {
                    entry.path = String::from_utf8_lossy(&entry.path).into_owned().into_bytes();
                }
            }
            _ => {}
        }
        Ok(listing)
    }

    async fn stat(&self, path: &WorkspacePath) -> Result<FileMetadata, SandboxError> {
        let found = self.inner.files().stat(&self.led(path)).await?;
        if self.has(Defect::StatFollowsLinks) && found.kind == FileKind::Link {
            let target = found.link_target.unwrap_or_default();
            let target = String::from_utf8_lossy(&target).into_owned();
            let parent = path.parent().unwrap_or_else(WorkspacePath::root);
            return match parent.join(&target) {
                Ok(target) => self.inner.files().stat(&target).await,
                Err(error) => Err(SandboxError::InvalidRequest { reason: error.to_string() }),
            };
        }
        Ok(shown(found, self.defect))
    }

    async fn make_directory(&self, path: &WorkspacePath, mode: u32) -> Result<(), SandboxError> {
        match self.inner.files().make_directory(&self.led(path), mode).await {
            Err(SandboxError::File { errno: ENOTDIR, .. })
                if self.has(Defect::MakeDirectoryIsAlwaysOk) =>
            {
                Ok(())
            }
            made => made,
        }
    }

    async fn rename(
        &self,
        from: &WorkspacePath,
        to: &WorkspacePath,
        replace: bool,
    ) -> Result<(), SandboxError> {
        let files = self.inner.files();
        let replace = replace || self.has(Defect::RenameReplaces);
        let kept = match files.read(from, 0, u64::MAX).await {
            Ok(content) if self.has(Defect::RenameCopies) => Some(content),
            _ => None,
        };
        files.rename(&self.led(from), &self.led(to), replace).await?;
        match kept {
            Some(content) => files.write(from, content, &WriteOptions::default()).await,
            None => Ok(()),
        }
    }

    async fn remove(&self, path: &WorkspacePath, recursive: bool) -> Result<(), SandboxError> {
        let recursive = recursive || self.has(Defect::RemoveIsRecursive);
        self.inner.files().remove(&self.led(path), recursive).await
    }
}
