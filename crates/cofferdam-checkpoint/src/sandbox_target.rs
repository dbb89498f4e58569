//! [`SandboxTarget`]: a live sandbox's workspace as a place that a snapshot is restored to.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{
    ListOptions, Sandbox, SandboxError, ScanEvent, ScanKind, ScanOptions, TreeEntry, TreeEntryKind,
    TreeEvent,
};
use cofferdam_snapshot::{
    Metadata, RestorePlan, SnapshotError, Target, TargetEntry, TargetError, Totals, TreeChanges,
    TreePath,
};
use futures::{StreamExt, stream::BoxStream};
use tokio::sync::mpsc;

/// Pieces of a stream that wait for a slow sandbox.
const WAITING_PIECES: usize = 8;
/// Zeros that are sent for holes; the guest makes holes of them again.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
/// What a mode may hold inside; set-id bits are dropped there.
const MODE_BITS: u16 = 0o1777;

/// Restores into the empty workspace of a live sandbox, as one upload. What was made is counted afterwards by a scan inside.
///
/// Extended attributes do not pass: a workspace that has some keeps them only where it begins with a directory of the host.
#[derive(Debug)]
pub struct SandboxTarget {
    sandbox: Arc<dyn Sandbox>,
}

impl SandboxTarget {
    /// Makes one of a sandbox, which stays the caller's; after an error it is good for nothing but to be closed.
    #[must_use]
    pub fn new(sandbox: Arc<dyn Sandbox>) -> Self {
        Self { sandbox }
    }

    async fn demand_empty(&self) -> Result<(), TargetError> {
        let options = ListOptions { depth: 1, max_entries: 1 };
        let listing = self.sandbox.files().list(&WorkspacePath::root(), &options).await;
        match listing.map_err(|error| failed(&TreePath::root(), error))?.entries.first() {
            None => Ok(()),
            Some(entry) => {
                let what = String::from_utf8_lossy(&entry.path).into_owned();
                Err(TargetError::InTheWay { what })
            }
        }
    }

    /// Brings a workspace that holds one tree to another.
    ///
    /// # Errors
    ///
    /// As [`Target::restore`]; the workspace is good for nothing then.
    pub async fn bring(&self, changes: TreeChanges) -> Result<(), TargetError> {
        let TreeChanges { removed, mut entries, root, .. } = changes;
        for path in &removed {
            let text = std::str::from_utf8(path.as_bytes()).ok();
            let place = text.and_then(|text| WorkspacePath::new(text).ok());
            let Some(place) = place else {
                let source = "the name of what is to be removed is no text".into();
                return Err(TargetError::Make { path: path.clone(), source });
            };
            self.sandbox.files().remove(&place, true).await.map_err(|error| failed(path, error))?;
        }
        self.upload(&root, &mut entries).await
    }

    /// Makes the entries in the workspace, as one upload, and demands that all of them were made.
    async fn upload(
        &self,
        root_metadata: &Metadata,
        entries: &mut BoxStream<'_, Result<TargetEntry, SnapshotError>>,
    ) -> Result<(), TargetError> {
        let (sender, receiver) = mpsc::channel(WAITING_PIECES);
        let events = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|event| (event, receiver))
        });
        let root = WorkspacePath::root();
        let upload = self.sandbox.tree().upload(&root, events.boxed());
        let feed = async {
            let mut sent = 0_u64;
            // A closed channel means that the upload has ended, and says why.
            let root = directory(&TreePath::root(), root_metadata);
            if sender.send(Ok(TreeEvent::Entry(root))).await.is_err() {
                return Ok(sent);
            }
            sent += 1;
            while let Some(entry) = entries.next().await {
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(error) => {
                        // The guest must not take a part for the whole.
                        let source = "the snapshot could not be read".into();
                        let operation = "read a snapshot";
                        let cut = SandboxError::Host { operation, source };
                        let _ = sender.send(Err(cut)).await;
                        return Err(TargetError::Snapshot(error));
                    }
                };
                let (event, holes) = match entry {
                    TargetEntry::Hole(length) => (None, zeros(length)),
                    entry => (Some(event_of(entry)?), zeros(0)),
                };
                for event in event.into_iter().chain(holes) {
                    sent += u64::from(matches!(event, TreeEvent::Entry(_)));
                    if sender.send(Ok(event)).await.is_err() {
                        return Ok(sent);
                    }
                }
            }
            drop(sender);
            Ok(sent)
        };
        let (made, sent) = tokio::join!(upload, feed);
        let sent = sent?;
        let made = made.map_err(|error| failed(&TreePath::root(), error))?;
        if made != sent {
            let reason = format!("the sandbox says that it made {made} of {sent} entries");
            let path = TreePath::root();
            return Err(TargetError::Make { path, source: reason.into() });
        }
        Ok(())
    }

    /// Counts what is in the workspace.
    async fn count(&self) -> Result<Totals, TargetError> {
        let failed = |error| failed(&TreePath::root(), error);
        let options = ScanOptions::default();
        let mut events =
            self.sandbox.tree().scan(&WorkspacePath::root(), &options).await.map_err(failed)?;
        let mut totals = Totals::default();
        while let Some(event) = events.next().await {
            let ScanEvent::Entry(entry) = event.map_err(failed)? else { continue };
            match entry.kind {
                _ if entry.path.is_empty() => {}
                ScanKind::Directory => totals.directories += 1,
                ScanKind::Link { .. } => totals.symbolic_links += 1,
                ScanKind::File => {
                    totals.files += 1;
                    totals.bytes = totals.bytes.saturating_add(entry.size);
                }
                _ => {}
            }
        }
        Ok(totals)
    }
}

#[async_trait]
impl Target for SandboxTarget {
    async fn restore(
        &mut self,
        plan: &RestorePlan,
        mut entries: BoxStream<'_, Result<TargetEntry, SnapshotError>>,
    ) -> Result<Totals, TargetError> {
        self.demand_empty().await?;
        self.upload(&plan.root, &mut entries).await?;
        self.count().await
    }
}

/// Turns a step of a restore into that of an upload.
fn event_of(entry: TargetEntry) -> Result<TreeEvent, TargetError> {
    Ok(TreeEvent::Entry(match entry {
        TargetEntry::Data(bytes) => return Ok(TreeEvent::Content(bytes)),
        TargetEntry::Directory { path, metadata } => directory(&path, &metadata),
        TargetEntry::File { path, metadata, size } => {
            tree_entry(&path, &metadata, TreeEntryKind::File { size })
        }
        TargetEntry::SymbolicLink { path, metadata, target } => {
            tree_entry(&path, &metadata, TreeEntryKind::Link { target })
        }
        TargetEntry::HardLink { path, to } => {
            let kind = TreeEntryKind::HardLink { to: to.as_bytes().to_vec() };
            TreeEntry { path: path.as_bytes().to_vec(), mode: 0, modified_ns: None, kind }
        }
        other => {
            let reason = format!("a step of a restore that is not known here: {other:?}");
            return Err(TargetError::Make { path: TreePath::root(), source: reason.into() });
        }
    }))
}

/// Returns the pieces of a hole.
fn zeros(length: u64) -> impl Iterator<Item = TreeEvent> {
    let piece = ZEROS.len() as u64;
    (0..length.div_ceil(piece)).map(move |place| {
        let rest = usize::try_from(length - place * piece).unwrap_or(ZEROS.len());
        TreeEvent::Content(Bytes::from_static(&ZEROS[..rest.min(ZEROS.len())]))
    })
}

fn directory(path: &TreePath, metadata: &Metadata) -> TreeEntry {
    tree_entry(path, metadata, TreeEntryKind::Directory)
}

fn tree_entry(path: &TreePath, metadata: &Metadata, kind: TreeEntryKind) -> TreeEntry {
    TreeEntry {
        path: path.as_bytes().to_vec(),
        mode: u32::from(metadata.mode & MODE_BITS),
        modified_ns: Some(metadata.modified_ns),
        kind,
    }
}

/// Says whether the sandbox or what was to be made in it is the matter.
fn failed(path: &TreePath, error: SandboxError) -> TargetError {
    if error.is_loss() {
        return TargetError::Gone { what: "sandbox".to_owned(), source: Some(error.into()) };
    }
    TargetError::Make { path: path.clone(), source: error.into() }
}
