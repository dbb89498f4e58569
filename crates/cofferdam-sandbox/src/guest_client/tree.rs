//! [`Tree`] over the guest.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use cofferdam_core::WorkspacePath;
use cofferdam_guest::{
    DownloadTree, FileKind, HostMessage, Metadata, NO_TIME, SkipReason, TreeDecoder, TreeRecord,
    UploadTree, encode_end, encode_entry,
};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};

use super::{
    GuestClient,
    connection::Connection,
    files::{refused, wire},
    operation::Operation,
};
use crate::{
    DownloadOptions, SandboxError, SkippedEntry, Tree, TreeEntry, TreeEntryKind, TreeEvent,
};

/// Bytes of an upload that are put together before they are sent.
const BATCH: usize = 64 * 1024;

#[async_trait]
impl Tree for GuestClient {
    async fn upload(
        &self,
        target: &WorkspacePath,
        mut entries: BoxStream<'static, Result<TreeEvent, SandboxError>>,
    ) -> Result<u64, SandboxError> {
        let request = UploadTree { path: wire(target) };
        let operation = self.connection.open(&HostMessage::UploadTree(request)).await?;
        let handle = operation.handle();
        let mut batch = Vec::new();
        let mut content_left = 0;
        while let Some(event) = entries.next().await {
            encode_event(event?, &mut content_left, &mut batch)?;
            if batch.len() >= BATCH {
                handle.send_data(&batch).await?;
                batch.clear();
            }
            if handle.is_over() {
                break;
            }
        }
        if !handle.is_over() && content_left > 0 {
            return Err(SandboxError::InvalidRequest {
                reason: format!("the last file of the tree lacks {content_left} bytes"),
            });
        }
        encode_end(false, &mut batch);
        handle.send_data(&batch).await?;
        handle.send(&HostMessage::EndOfData).await?;
        operation.done().await?.map_err(|failure| refused("upload to", target, &failure))
    }

    async fn download(
        &self,
        source: &WorkspacePath,
        options: &DownloadOptions,
    ) -> Result<BoxStream<'static, Result<TreeEvent, SandboxError>>, SandboxError> {
        let request = DownloadTree {
            path: wire(source),
            max_bytes: options.max_bytes,
            max_entries: options.max_entries,
        };
        let operation = self.connection.open(&HostMessage::DownloadTree(request)).await?;
        let download = Download {
            connection: Arc::clone(&self.connection),
            operation,
            source: source.clone(),
            decoder: TreeDecoder::with_content(),
            ready: VecDeque::new(),
            bytes_left: options.max_bytes,
            entries_left: options.max_entries,
            finished: false,
        };
        Ok(stream::unfold(download, Download::next).boxed())
    }
}

/// Appends a piece of a tree. `content_left` is what the file that began last still lacks.
fn encode_event(
    event: TreeEvent,
    content_left: &mut u64,
    out: &mut Vec<u8>,
) -> Result<(), SandboxError> {
    let invalid = |reason: String| Err(SandboxError::InvalidRequest { reason });
    match event {
        TreeEvent::Entry(entry) => {
            let path = entry.path;
            if *content_left > 0 {
                return invalid(format!(
                    "the file before {:?} lacks {content_left} bytes",
                    String::from_utf8_lossy(&path)
                ));
            }
            require_inside(&path).map_err(|reason| SandboxError::InvalidRequest { reason })?;
            let (kind, size, link_target) = match entry.kind {
                TreeEntryKind::Directory => (FileKind::Directory, 0, Vec::new()),
                TreeEntryKind::File { size } => (FileKind::Regular, size, Vec::new()),
                TreeEntryKind::Link { target } => (FileKind::Symlink, 0, target),
            };
            *content_left = size;
            let modified_ns = entry.modified_ns.unwrap_or(NO_TIME);
            let metadata = Metadata { kind, mode: entry.mode, size, modified_ns, link_target };
            encode_entry(&path, &metadata, out);
            Ok(())
        }
        TreeEvent::Content(bytes) => match content_left.checked_sub(bytes.len() as u64) {
            Some(left) => {
                *content_left = left;
                out.extend_from_slice(&bytes);
                Ok(())
            }
            None => invalid("a file of the tree has more content than its size".to_owned()),
        },
        // Only downloads skip, and a tree may be uploaded as it came.
        TreeEvent::Skipped(_) => Ok(()),
    }
}

struct Download {
    connection: Arc<Connection>,
    operation: Operation,
    source: WorkspacePath,
    decoder: TreeDecoder,
    /// Events of the last piece.
    ready: VecDeque<TreeEvent>,
    bytes_left: u64,
    entries_left: u64,
    finished: bool,
}

impl Download {
    async fn next(mut self) -> Option<(Result<TreeEvent, SandboxError>, Self)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((Ok(event), self));
            }
            if self.finished {
                return None;
            }
            let error = match self.operation.data().await {
                Ok(Ok(Some(piece))) => {
                    self.decoder.push(&piece);
                    match self.decode() {
                        Ok(()) => continue,
                        Err(detail) => self.breach(detail),
                    }
                }
                Ok(Ok(None)) if self.decoder.ended() => return None,
                Ok(Ok(None)) => self.breach("a tree is cut short".to_owned()),
                Ok(Err(failure)) => refused("download", &self.source, &failure),
                Err(error) => error,
            };
            self.finished = true;
            self.ready.clear();
            return Some((Err(error), self));
        }
    }

    fn breach(&self, detail: String) -> SandboxError {
        self.connection.breach(detail.clone());
        SandboxError::Protocol { detail }
    }

    /// Makes events of what arrived; an error says how the guest broke its word.
    fn decode(&mut self) -> Result<(), String> {
        while let Some(record) = self.decoder.next_record().map_err(|error| error.to_string())? {
            let event = match record {
                TreeRecord::Entry(entry) => {
                    require_inside(&entry.path)?;
                    let metadata = entry.metadata;
                    let kind = match metadata.kind {
                        FileKind::Directory => TreeEntryKind::Directory,
                        FileKind::Regular => TreeEntryKind::File { size: metadata.size },
                        FileKind::Symlink => TreeEntryKind::Link { target: metadata.link_target },
                        other => return Err(format!("a tree has an entry of kind {other:?}")),
                    };
                    // The guest counts neither the root nor what it skips; the host counts all, for what it holds.
                    if !entry.path.is_empty() {
                        self.entries_left = self
                            .entries_left
                            .checked_sub(1)
                            .ok_or("a tree has too many entries")?;
                    }
                    TreeEvent::Entry(TreeEntry {
                        path: entry.path,
                        mode: metadata.mode & 0o7777,
                        modified_ns: Some(metadata.modified_ns),
                        kind,
                    })
                }
                TreeRecord::Content(bytes) => {
                    self.bytes_left = self
                        .bytes_left
                        .checked_sub(bytes.len() as u64)
                        .ok_or("a tree has too many bytes")?;
                    TreeEvent::Content(bytes::Bytes::copy_from_slice(bytes))
                }
                TreeRecord::Skipped { path, reason } => {
                    require_inside(&path)?;
                    TreeEvent::Skipped(SkippedEntry { path, reason: skip_text(reason) })
                }
                TreeRecord::End { .. } => continue,
            };
            self.ready.push_back(event);
        }
        Ok(())
    }
}

fn skip_text(reason: SkipReason) -> String {
    match reason {
        SkipReason::Fifo => "fifo".to_owned(),
        SkipReason::Socket => "socket".to_owned(),
        SkipReason::Device => "device".to_owned(),
        SkipReason::Unreadable => "unreadable".to_owned(),
        SkipReason::Unknown(raw) => format!("reason {raw}"),
    }
}

/// Refuses a path that is not relative and plain: whoever unpacks a tree may rely on it.
pub(super) fn require_inside(path: &[u8]) -> Result<(), String> {
    let plain = path.is_empty()
        || (!path.contains(&0)
            && path
                .split(|&byte| byte == b'/')
                .all(|component| !matches!(component, b"" | b"." | b"..")));
    if plain {
        Ok(())
    } else {
        Err(format!("{:?} is no path in a tree", String::from_utf8_lossy(path)))
    }
}
