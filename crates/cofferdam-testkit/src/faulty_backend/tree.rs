//! Defects of tree transfers.

use async_trait::async_trait;
use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{
    DownloadOptions, SandboxError, ScanEvent, ScanOptions, Tree, TreeEntry, TreeEntryKind,
    TreeEvent,
};
use futures::{
    StreamExt as _,
    future::ready,
    stream::{self, BoxStream},
};

use super::{Defect, FaultySandbox};

type Events = BoxStream<'static, Result<TreeEvent, SandboxError>>;

/// Puts the defect into an entry that goes up.
fn going(defect: Defect, mut entry: TreeEntry) -> TreeEntry {
    match defect {
        Defect::UploadCleansPaths => {
            let plain = |name: &&[u8]| !matches!(*name, b"" | b"." | b"..");
            let names: Vec<_> = entry.path.split(|&byte| byte == b'/').filter(plain).collect();
            entry.path = names.join(&b'/');
        }
        Defect::UploadLosesModes => entry.mode = 0o755,
        Defect::UploadLosesSticky => entry.mode &= 0o777,
        Defect::UploadLosesTimes => entry.modified_ns = None,
        Defect::UploadIgnoresHardLinks if matches!(entry.kind, TreeEntryKind::HardLink { .. }) => {
            entry.kind = TreeEntryKind::File { size: 0 };
        }
        _ => {}
    }
    entry
}

/// Puts the defect into an entry that comes down.
fn coming(defect: Defect, mut entry: TreeEntry) -> TreeEntry {
    if let (Defect::DownloadLosesLinks, TreeEntryKind::Link { .. }) = (defect, &entry.kind) {
        entry.kind = TreeEntryKind::File { size: 0 };
    }
    entry
}

#[async_trait]
impl Tree for FaultySandbox {
    async fn upload(&self, target: &WorkspacePath, entries: Events) -> Result<u64, SandboxError> {
        let defect = self.defect;
        let mut entries = entries
            .map(move |event| match event? {
                TreeEvent::Entry(entry) => Ok(TreeEvent::Entry(going(defect, entry))),
                event => Ok(event),
            })
            .boxed();
        if defect == Defect::UploadSwallowsErrors {
            entries = entries.take_while(|event| ready(event.is_ok())).boxed();
        }
        let made = self.inner.tree().upload(target, entries).await?;
        Ok(if defect == Defect::UploadCountsFiles { made.saturating_sub(1) } else { made })
    }

    async fn download(
        &self,
        source: &WorkspacePath,
        options: &DownloadOptions,
    ) -> Result<Events, SandboxError> {
        let options = match self.defect {
            Defect::DownloadHasNoBound => DownloadOptions::default(),
            _ => *options,
        };
        let defect = self.defect;
        let events = self.inner.tree().download(source, &options).await?;
        let events = events
            .map(move |event| match event? {
                TreeEvent::Entry(entry) => Ok(TreeEvent::Entry(coming(defect, entry))),
                event => Ok(event),
            })
            .boxed();
        Ok(match defect {
            Defect::DownloadEndsEarly => events.take(100).boxed(),
            Defect::DownloadIsUnsorted => {
                let mut all: Vec<_> = events.collect().await;
                all.reverse();
                stream::iter(all).boxed()
            }
            _ => events,
        })
    }

    async fn scan(
        &self,
        root: &WorkspacePath,
        options: &ScanOptions,
    ) -> Result<BoxStream<'static, Result<ScanEvent, SandboxError>>, SandboxError> {
        let options = match self.defect {
            Defect::ScanHasNoBound => ScanOptions::default(),
            _ => *options,
        };
        let defect = self.defect;
        let events = self.inner.tree().scan(root, &options).await?;
        Ok(events
            .map(move |event| {
                let mut event = event?;
                if let ScanEvent::Entry(entry) = &mut event {
                    match defect {
                        Defect::ScanTrustsForgedTimes => entry.changed_ns = entry.modified_ns,
                        Defect::ScanLosesLinks => (entry.inode, entry.links) = (entry.size, 1),
                        _ => {}
                    }
                }
                Ok(event)
            })
            .boxed())
    }
}
