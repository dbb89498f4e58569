//! Whole trees into and out of [`MemoryFiles`].

use async_trait::async_trait;
use bytes::BytesMut;
use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{
    DownloadOptions, SandboxError, SkippedEntry, Tree, TreeEntry, TreeEntryKind, TreeEvent,
};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};

use super::memory_files::{Content, MemoryFiles};

/// An error number of Linux: file too large.
const EFBIG: i32 = 27;

#[async_trait]
impl Tree for MemoryFiles {
    async fn upload(
        &self,
        target: &WorkspacePath,
        mut entries: BoxStream<'static, Result<TreeEvent, SandboxError>>,
    ) -> Result<u64, SandboxError> {
        let invalid = |reason: String| SandboxError::InvalidRequest { reason };
        let mut made = 0;
        let mut open: Option<(WorkspacePath, u32, usize, BytesMut)> = None;
        while let Some(event) = entries.next().await {
            match event? {
                TreeEvent::Entry(entry) => {
                    if open.is_some() {
                        return Err(invalid("an entry came before the content of the last".into()));
                    }
                    let name = String::from_utf8_lossy(&entry.path).into_owned();
                    let relative = if name.is_empty() { "." } else { &name };
                    let path = target.join(relative).map_err(|error| invalid(error.to_string()))?;
                    made += 1;
                    match entry.kind {
                        TreeEntryKind::File { size } => {
                            let size = usize::try_from(size)
                                .map_err(|error| invalid(error.to_string()))?;
                            open = Some((path, entry.mode & 0o1777, size, BytesMut::new()));
                        }
                        TreeEntryKind::Link { target } => {
                            let target = String::from_utf8_lossy(&target).into_owned();
                            self.put(&path, Content::Link(target), 0o777)?;
                        }
                        _ => self.put(&path, Content::Directory, entry.mode & 0o1777)?,
                    }
                }
                TreeEvent::Content(bytes) => match &mut open {
                    Some((.., content)) => content.extend_from_slice(&bytes),
                    None => return Err(invalid("content came without a file".into())),
                },
                other => return Err(invalid(format!("not for an upload: {other:?}"))),
            }
            if let Some((path, mode, size, content)) =
                open.take_if(|(.., size, content)| content.len() >= *size)
            {
                if content.len() > size {
                    return Err(invalid(format!("{path} is longer than announced")));
                }
                self.put(&path, Content::File(content.freeze()), mode)?;
            }
        }
        match open {
            Some((path, ..)) => Err(invalid(format!("{path} is shorter than announced"))),
            None => Ok(made),
        }
    }

    async fn download(
        &self,
        source: &WorkspacePath,
        options: &DownloadOptions,
    ) -> Result<BoxStream<'static, Result<TreeEvent, SandboxError>>, SandboxError> {
        let nodes = self.with("download", source, |state| Ok(state.below(source)))?;
        let mut events = vec![Ok(TreeEvent::Entry(TreeEntry {
            path: Vec::new(),
            mode: 0o755,
            modified_ns: None,
            kind: TreeEntryKind::Directory,
        }))];
        let (mut bytes, mut entries) = (0_u64, 1_u64);
        for (name, node) in nodes {
            let (kind, content) = match node.content {
                Content::File(content) => {
                    (TreeEntryKind::File { size: content.len() as u64 }, Some(content))
                }
                Content::Directory => (TreeEntryKind::Directory, None),
                Content::Link(target) => {
                    (TreeEntryKind::Link { target: target.into_bytes() }, None)
                }
                Content::Special => {
                    let skipped = SkippedEntry { path: name.into_bytes(), reason: "socket".into() };
                    events.push(Ok(TreeEvent::Skipped(skipped)));
                    continue;
                }
            };
            entries += 1;
            bytes += content.as_ref().map_or(0, |content| content.len() as u64);
            if entries > options.max_entries || bytes > options.max_bytes {
                events.push(self.with("download", source, |_| Err(EFBIG)));
                break;
            }
            events.push(Ok(TreeEvent::Entry(TreeEntry {
                path: name.into_bytes(),
                mode: node.mode,
                modified_ns: Some(node.modified_ns),
                kind,
            })));
            events.extend(
                content
                    .filter(|content| !content.is_empty())
                    .map(|content| Ok(TreeEvent::Content(content))),
            );
        }
        Ok(stream::iter(events).boxed())
    }
}

impl MemoryFiles {
    fn put(&self, path: &WorkspacePath, content: Content, mode: u32) -> Result<(), SandboxError> {
        self.with("upload", path, |state| {
            if let Some(parent) = path.parent() {
                state.make_directories(&parent, 0o755)?;
            }
            if matches!(content, Content::Directory) {
                state.make_directories(path, mode)?;
            } else {
                state.put(path, content, mode);
            }
            Ok(())
        })
    }
}
