//! [`Tree`] over the guest.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use cofferdam_core::WorkspacePath;
use cofferdam_guest::{
    DownloadTree, FileKind, HostMessage, Metadata, NO_TIME, ScanTree, SkipReason, TreeDecoder,
    TreeRecord, UploadTree, encode_end, encode_entry, encode_hard_link,
};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};

use super::{
    GuestClient,
    connection::Connection,
    files::{refused, wire},
    operation::{Operation, unsupported},
};
use crate::{
    DownloadOptions, SandboxError, ScanEntry, ScanEvent, ScanKind, ScanOptions, SkippedEntry, Tree,
    TreeEntry, TreeEntryKind, TreeEvent,
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
            hard_links: options.hard_links,
        };
        let operation = self.connection.open(&HostMessage::DownloadTree(request)).await?;
        let (mut bytes_left, mut entries_left) = (options.max_bytes, options.max_entries);
        let hard_links = options.hard_links;
        let incoming = self.incoming("download", source, operation, TreeDecoder::with_content());
        Ok(incoming.events(move |record| {
            downloaded(record, hard_links, &mut bytes_left, &mut entries_left)
        }))
    }

    async fn scan(
        &self,
        root: &WorkspacePath,
        options: &ScanOptions,
    ) -> Result<BoxStream<'static, Result<ScanEvent, SandboxError>>, SandboxError> {
        let request = ScanTree { path: wire(root), max_entries: options.max_entries };
        let operation = self.connection.open(&HostMessage::ScanTree(request)).await?;
        let mut entries_left = options.max_entries;
        let incoming = self.incoming("scan", root, operation, TreeDecoder::without_content());
        Ok(incoming.events(move |record| scanned(record, &mut entries_left)))
    }
}

impl GuestClient {
    fn incoming(
        &self,
        what: &'static str,
        root: &WorkspacePath,
        operation: Operation,
        decoder: TreeDecoder,
    ) -> Incoming {
        let (connection, root) = (Arc::clone(&self.connection), root.clone());
        Incoming { connection, operation, what, root, decoder, finished: false }
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
            let inside = |path: &[u8]| {
                require_inside(path).map_err(|reason| SandboxError::InvalidRequest { reason })
            };
            inside(&path)?;
            let (kind, size, link_target) = match entry.kind {
                TreeEntryKind::Directory => (FileKind::Directory, 0, Vec::new()),
                TreeEntryKind::File { size } => (FileKind::Regular, size, Vec::new()),
                TreeEntryKind::Link { target } => (FileKind::Symlink, 0, target),
                TreeEntryKind::HardLink { to } => {
                    inside(&to)?;
                    encode_hard_link(&path, &to, out);
                    return Ok(());
                }
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

/// A tree stream that comes.
struct Incoming {
    connection: Arc<Connection>,
    operation: Operation,
    /// The operation and what it is of, for errors.
    what: &'static str,
    root: WorkspacePath,
    decoder: TreeDecoder,
    finished: bool,
}

impl Incoming {
    /// Makes events of the records; `convert` says how the guest broke its word, and `None` to pass a record over.
    fn events<T: Send + 'static>(
        self,
        convert: impl FnMut(TreeRecord<'_>) -> Result<Option<T>, String> + Send + 'static,
    ) -> BoxStream<'static, Result<T, SandboxError>> {
        let state = (self, convert, VecDeque::new());
        stream::unfold(state, |(mut incoming, mut convert, mut ready)| async move {
            let event = incoming.next(&mut convert, &mut ready).await?;
            Some((event, (incoming, convert, ready)))
        })
        .boxed()
    }

    /// Returns the next event; `ready` holds those of the last piece.
    async fn next<T>(
        &mut self,
        convert: &mut (impl FnMut(TreeRecord<'_>) -> Result<Option<T>, String> + Send),
        ready: &mut VecDeque<T>,
    ) -> Option<Result<T, SandboxError>> {
        loop {
            if let Some(event) = ready.pop_front() {
                return Some(Ok(event));
            }
            if self.finished {
                return None;
            }
            let error = match self.operation.data().await {
                Ok(Ok(Some(piece))) => {
                    self.decoder.push(&piece);
                    match self.decode(convert, ready) {
                        Ok(()) => continue,
                        Err(detail) => self.breach(detail),
                    }
                }
                Ok(Ok(None)) if self.decoder.ended() => return None,
                Ok(Ok(None)) => self.breach("a tree is cut short".to_owned()),
                Ok(Err(failure)) => unsupported(self.what, &failure)
                    .unwrap_or_else(|| refused(self.what, &self.root, &failure)),
                Err(error) => error,
            };
            self.finished = true;
            ready.clear();
            return Some(Err(error));
        }
    }

    fn breach(&self, detail: String) -> SandboxError {
        self.connection.breach(detail.clone());
        SandboxError::Protocol { detail }
    }

    /// Makes events of what arrived; an error says how the guest broke its word.
    fn decode<T>(
        &mut self,
        convert: &mut (impl FnMut(TreeRecord<'_>) -> Result<Option<T>, String> + Send),
        ready: &mut VecDeque<T>,
    ) -> Result<(), String> {
        while let Some(record) = self.decoder.next_record().map_err(|error| error.to_string())? {
            ready.extend(convert(record)?);
        }
        Ok(())
    }
}

/// Makes the event of a record of a download.
fn downloaded(
    record: TreeRecord<'_>,
    hard_links: bool,
    bytes_left: &mut u64,
    entries_left: &mut u64,
) -> Result<Option<TreeEvent>, String> {
    // The guest counts neither the root nor what it skips; the host counts all, for what it holds.
    let mut count = |path: &[u8]| {
        require_inside(path)?;
        if !path.is_empty() {
            *entries_left = entries_left.checked_sub(1).ok_or("a tree has too many entries")?;
        }
        Ok::<_, String>(())
    };
    Ok(Some(match record {
        TreeRecord::Entry(entry) => {
            count(&entry.path)?;
            let metadata = entry.metadata;
            let kind = match metadata.kind {
                FileKind::Directory => TreeEntryKind::Directory,
                FileKind::Regular => TreeEntryKind::File { size: metadata.size },
                FileKind::Symlink => TreeEntryKind::Link { target: metadata.link_target },
                other => return Err(format!("a tree has an entry of kind {other:?}")),
            };
            TreeEvent::Entry(TreeEntry {
                path: entry.path,
                mode: metadata.mode & 0o7777,
                modified_ns: Some(metadata.modified_ns),
                kind,
            })
        }
        TreeRecord::HardLink { path, to } if hard_links => {
            count(&path)?;
            require_inside(&to)?;
            let kind = TreeEntryKind::HardLink { to };
            TreeEvent::Entry(TreeEntry { path, mode: 0, modified_ns: None, kind })
        }
        TreeRecord::Content(bytes) => {
            *bytes_left =
                bytes_left.checked_sub(bytes.len() as u64).ok_or("a tree has too many bytes")?;
            TreeEvent::Content(bytes::Bytes::copy_from_slice(bytes))
        }
        TreeRecord::Skipped { path, reason } => {
            require_inside(&path)?;
            TreeEvent::Skipped(SkippedEntry { path, reason: skip_text(reason) })
        }
        TreeRecord::End { .. } => return Ok(None),
        TreeRecord::HardLink { .. } => return Err("a tree has a hard link".to_owned()),
        TreeRecord::Scanned(_) => return Err("a tree has an entry of a scan".to_owned()),
    }))
}

/// Makes the event of a record of a scan.
fn scanned(record: TreeRecord<'_>, entries_left: &mut u64) -> Result<Option<ScanEvent>, String> {
    Ok(Some(match record {
        TreeRecord::Scanned(entry) => {
            require_inside(&entry.path)?;
            if !entry.path.is_empty() {
                *entries_left = entries_left.checked_sub(1).ok_or("a scan has too many entries")?;
            }
            let kind = match entry.kind {
                FileKind::Directory => ScanKind::Directory,
                FileKind::Regular => ScanKind::File,
                FileKind::Symlink => ScanKind::Link { target: entry.link_target },
                FileKind::Fifo => ScanKind::Fifo,
                FileKind::Socket => ScanKind::Socket,
                // A kind that this release does not know cannot be kept either.
                _ => ScanKind::Device,
            };
            ScanEvent::Entry(ScanEntry {
                path: entry.path,
                kind,
                mode: entry.mode & 0o7777,
                size: entry.size,
                device: entry.device,
                inode: entry.inode,
                modified_ns: entry.modified_ns,
                changed_ns: entry.changed_ns,
                links: entry.links,
            })
        }
        TreeRecord::Skipped { path, reason } => {
            require_inside(&path)?;
            ScanEvent::Skipped(SkippedEntry { path, reason: skip_text(reason) })
        }
        TreeRecord::End { .. } => return Ok(None),
        _ => return Err("a scan has an entry of a tree".to_owned()),
    }))
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
