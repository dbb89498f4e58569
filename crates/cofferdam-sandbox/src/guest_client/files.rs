//! [`Files`] over the guest.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use cofferdam_core::WorkspacePath;
use cofferdam_guest::{
    Failure, FileRequest, HostMessage, ListDirectory, Metadata, ReadFile, TreeDecoder, TreeRecord,
    WriteFile,
};

use super::{
    GuestClient, connection::protocol_error, operation::failure_text, tree::require_inside,
};
use crate::{
    FileKind, FileMetadata, Files, ListOptions, Listing, ListingEntry, SandboxError, WriteOptions,
};

#[async_trait]
impl Files for GuestClient {
    async fn read(
        &self,
        path: &WorkspacePath,
        offset: u64,
        max_bytes: u64,
    ) -> Result<Bytes, SandboxError> {
        let request = ReadFile { path: wire(path), offset, max_bytes };
        let operation = self.connection.open(&HostMessage::ReadFile(request)).await?;
        let mut content = BytesMut::new();
        while let Some(piece) =
            operation.data().await?.map_err(|failure| refused("read", path, &failure))?
        {
            content.extend_from_slice(&piece);
            if content.len() as u64 > max_bytes {
                return Err(self.breach("a file came with more content than was asked for"));
            }
        }
        Ok(content.freeze())
    }

    async fn write(
        &self,
        path: &WorkspacePath,
        content: Bytes,
        options: &WriteOptions,
    ) -> Result<(), SandboxError> {
        let request = WriteFile {
            path: wire(path),
            mode: options.mode,
            keep_mode: options.keep_mode,
            must_be_new: options.must_be_new,
            make_parents: options.make_parents,
            expected_size: Some(content.len() as u64),
        };
        let operation = self.connection.open(&HostMessage::WriteFile(request)).await?;
        operation.handle().send_data(&content).await?;
        operation.handle().send(&HostMessage::EndOfData).await?;
        operation.done().await?.map(drop).map_err(|failure| refused("write", path, &failure))
    }

    async fn list(
        &self,
        path: &WorkspacePath,
        options: &ListOptions,
    ) -> Result<Listing, SandboxError> {
        let request = ListDirectory {
            path: wire(path),
            depth: options.depth,
            max_entries: options.max_entries,
        };
        let operation = self.connection.open(&HostMessage::List(request)).await?;
        let mut decoder = TreeDecoder::without_content();
        let mut listing = Listing::default();
        while let Some(piece) =
            operation.data().await?.map_err(|failure| refused("list", path, &failure))?
        {
            decoder.push(&piece);
            while let Some(record) = decoder.next_record().map_err(protocol_error)? {
                match record {
                    TreeRecord::Entry(entry) => {
                        require_inside(&entry.path).map_err(|detail| self.breach(&detail))?;
                        listing.entries.push(ListingEntry {
                            path: entry.path,
                            metadata: metadata(entry.metadata),
                        });
                    }
                    TreeRecord::End { truncated } => listing.truncated = truncated,
                    _ => return Err(self.breach("a listing has something else than entries")),
                }
                if listing.entries.len() as u64 > u64::from(options.max_entries) {
                    return Err(self.breach("a listing has more entries than were asked for"));
                }
            }
        }
        if !decoder.ended() {
            return Err(self.breach("a listing is cut short"));
        }
        listing.entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(listing)
    }

    async fn stat(&self, path: &WorkspacePath) -> Result<FileMetadata, SandboxError> {
        let request = FileRequest::Stat { path: wire(path), follow: false };
        let operation = self.connection.open(&HostMessage::File(request)).await?;
        let found = operation.metadata().await?;
        found.map(metadata).map_err(|failure| refused("describe", path, &failure))
    }

    async fn make_directory(&self, path: &WorkspacePath, mode: u32) -> Result<(), SandboxError> {
        let request = FileRequest::MakeDirectory { path: wire(path), mode, parents: true };
        self.change("make directory", path, request).await
    }

    async fn rename(
        &self,
        from: &WorkspacePath,
        to: &WorkspacePath,
        replace: bool,
    ) -> Result<(), SandboxError> {
        let request = FileRequest::Rename { from: wire(from), to: wire(to), replace };
        self.change("rename", from, request).await
    }

    async fn remove(&self, path: &WorkspacePath, recursive: bool) -> Result<(), SandboxError> {
        self.change("remove", path, FileRequest::Remove { path: wire(path), recursive }).await
    }
}

impl GuestClient {
    async fn change(
        &self,
        operation: &'static str,
        path: &WorkspacePath,
        request: FileRequest,
    ) -> Result<(), SandboxError> {
        let channel = self.connection.open(&HostMessage::File(request)).await?;
        channel.done().await?.map(drop).map_err(|failure| refused(operation, path, &failure))
    }

    /// Ends the connection with a guest that sent what makes no sense.
    pub(super) fn breach(&self, detail: &str) -> SandboxError {
        self.connection.breach(detail.to_owned());
        SandboxError::Protocol { detail: detail.to_owned() }
    }
}

/// Returns a path as the guest takes it.
pub(super) fn wire(path: &WorkspacePath) -> Vec<u8> {
    path.as_str().as_bytes().to_vec()
}

/// Makes the error for what the guest refused to do.
pub(super) fn refused(
    operation: &'static str,
    path: &WorkspacePath,
    failure: &Failure,
) -> SandboxError {
    let path = if failure.path.is_empty() {
        path.as_str().to_owned()
    } else {
        String::from_utf8_lossy(&failure.path).into_owned()
    };
    SandboxError::File { operation, path, reason: failure_text(failure), errno: failure.errno }
}

fn metadata(found: Metadata) -> FileMetadata {
    let kind = match found.kind {
        cofferdam_guest::FileKind::Regular => FileKind::File,
        cofferdam_guest::FileKind::Directory => FileKind::Directory,
        cofferdam_guest::FileKind::Symlink => FileKind::Link,
        _ => FileKind::Special,
    };
    FileMetadata {
        kind,
        size: found.size,
        mode: found.mode & 0o7777,
        modified_ns: found.modified_ns,
        link_target: (kind == FileKind::Link).then_some(found.link_target),
    }
}
