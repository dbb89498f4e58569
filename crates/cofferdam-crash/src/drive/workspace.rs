//! Reads a workspace, so that it can be compared.

use std::collections::BTreeMap;

use anyhow::Result;
use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{DownloadOptions, Sandbox, TreeEntryKind, TreeEvent};
use futures::TryStreamExt;

/// Returns what is at each path: kind, mode and content. Files of this suite's agent are short texts.
pub(super) async fn read(sandbox: &dyn Sandbox) -> Result<BTreeMap<String, String>> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut last = String::new();
    let mut events =
        sandbox.tree().download(&WorkspacePath::root(), &DownloadOptions::default()).await?;
    while let Some(event) = events.try_next().await? {
        match event {
            TreeEvent::Entry(entry) => {
                last = String::from_utf8_lossy(&entry.path).into_owned();
                let mode = entry.mode;
                let what = match entry.kind {
                    TreeEntryKind::Directory => format!("directory {mode:o}"),
                    TreeEntryKind::File { .. } => format!("file {mode:o}: "),
                    TreeEntryKind::Link { target } => {
                        format!("link to {}", String::from_utf8_lossy(&target))
                    }
                    other => format!("{other:?}"),
                };
                found.insert(last.clone(), what);
            }
            TreeEvent::Content(bytes) => {
                if let Some(what) = found.get_mut(&last) {
                    what.push_str(&String::from_utf8_lossy(&bytes));
                }
            }
            TreeEvent::Skipped(skipped) => {
                let path = String::from_utf8_lossy(&skipped.path).into_owned();
                found.insert(path, format!("left out: {}", skipped.reason));
            }
            _ => {}
        }
    }
    Ok(found)
}
