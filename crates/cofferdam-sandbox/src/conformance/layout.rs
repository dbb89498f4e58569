//! Trees as data: made in a workspace by the seam alone, and read back whole.

use bytes::Bytes;
use futures::{StreamExt as _, stream};

use super::{
    support::{CaseResult, holds, mismatch, path},
    trial::Stop,
};
use crate::{
    DownloadOptions, Sandbox, SandboxError, SkippedEntry, TreeEntry, TreeEntryKind, TreeEvent,
};

/// The time of entries that say none, in nanoseconds since the Unix epoch.
pub(super) const TIME: i64 = 1_600_000_000_123_456_789;

pub(super) fn entry(path: impl Into<Vec<u8>>, mode: u32, kind: TreeEntryKind) -> TreeEvent {
    TreeEvent::Entry(TreeEntry { path: path.into(), mode, modified_ns: Some(TIME), kind })
}

pub(super) fn directory(path: &str) -> TreeEvent {
    entry(path, 0o755, TreeEntryKind::Directory)
}

pub(super) fn link(path: &str, target: &str) -> TreeEvent {
    entry(path, 0o777, TreeEntryKind::Link { target: target.as_bytes().to_vec() })
}

/// A file as the events that it is; content may come in pieces.
pub(super) fn file(path: impl Into<Vec<u8>>, mode: u32, content: &[u8]) -> Vec<TreeEvent> {
    let mut events = vec![entry(path, mode, TreeEntryKind::File { size: content.len() as u64 })];
    events.extend(
        content.chunks(50_000).map(|piece| TreeEvent::Content(Bytes::copy_from_slice(piece))),
    );
    events
}

pub(super) async fn upload(
    sandbox: &dyn Sandbox,
    target: &str,
    events: Vec<TreeEvent>,
) -> Result<u64, SandboxError> {
    sandbox.tree().upload(&path(target)?, stream::iter(events.into_iter().map(Ok)).boxed()).await
}

/// Makes what a list says, one entry each: `directory/`, `link -> target` or `file: content`.
pub(super) async fn lay(sandbox: &dyn Sandbox, entries: &[&str]) -> CaseResult {
    let mut events = Vec::new();
    for text in entries {
        if let Some(name) = text.strip_suffix('/') {
            events.push(directory(name));
        } else if let Some((name, target)) = text.split_once(" -> ") {
            events.push(link(name, target));
        } else {
            let (name, content) = text.split_once(": ").unwrap_or((text, ""));
            events.extend(file(name, 0o644, content.as_bytes()));
        }
    }
    upload(sandbox, ".", events).await?;
    Ok(())
}

/// An entry with its content.
pub(super) type Whole = (TreeEntry, Vec<u8>);

/// Downloads a tree without the entry of its root.
pub(super) async fn download(sandbox: &dyn Sandbox, source: &str) -> Result<Vec<Whole>, Stop> {
    let (found, skipped) = download_or_skip(sandbox, source).await?;
    holds("what was left out", skipped.is_empty(), "nothing", &skipped)?;
    Ok(found)
}

/// The same, where something may be left out because it changes all the time.
pub(super) async fn download_or_skip(
    sandbox: &dyn Sandbox,
    source: &str,
) -> Result<(Vec<Whole>, Vec<SkippedEntry>), Stop> {
    let mut events = sandbox.tree().download(&path(source)?, &DownloadOptions::default()).await?;
    let (mut found, mut skipped): (Vec<Whole>, _) = (Vec::new(), Vec::new());
    while let Some(event) = events.next().await {
        match (event?, found.last_mut()) {
            (TreeEvent::Entry(entry), _) => found.push((entry, Vec::new())),
            (TreeEvent::Content(bytes), Some((_, content))) => content.extend(bytes),
            (TreeEvent::Skipped(entry), _) => skipped.push(entry),
            (other, _) => return Err(mismatch("an event", "an entry and its content", &other)),
        }
    }
    found.retain(|(entry, _)| !entry.path.is_empty());
    Ok((found, skipped))
}

/// Starts a download and takes its first event; an error may come at either.
pub(super) async fn first_event(
    sandbox: &dyn Sandbox,
    source: &str,
) -> Result<Option<TreeEvent>, SandboxError> {
    let mut events = sandbox.tree().download(&path(source)?, &DownloadOptions::default()).await?;
    events.next().await.transpose()
}
