//! Tree streams into and out of a [`FileTree`], for every sandbox in memory.

use bytes::BytesMut;
use cofferdam_sandbox::{
    DownloadOptions, SandboxError, SkippedEntry, TreeEntry, TreeEntryKind, TreeEvent,
};
use futures::{StreamExt, stream::BoxStream};

use crate::file_tree::{
    Content, FileTree, MODE_BITS, Node,
    errno::{EFBIG, EINVAL},
};

/// What an upload makes at a path.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) path: Vec<u8>,
    pub(crate) content: Content,
    pub(crate) mode: u32,
    pub(crate) modified_ns: Option<i64>,
}

/// A file whose content has not all come.
struct Open {
    entry: TreeEntry,
    size: usize,
    content: BytesMut,
}

/// Reads a tree stream to its end, hands each whole entry to `make`, and returns their number.
pub(crate) async fn upload(
    mut entries: BoxStream<'static, Result<TreeEvent, SandboxError>>,
    mut make: impl FnMut(Made) -> Result<(), SandboxError> + Send,
) -> Result<u64, SandboxError> {
    let mut made = 0;
    // Filling a directory changes its time, so that is set once more at the end, the innermost first.
    let mut directories = Vec::new();
    let mut open: Option<Open> = None;
    while let Some(event) = entries.next().await {
        match event? {
            TreeEvent::Entry(entry) => {
                if open.is_some() {
                    return Err(invalid("an entry came before the content of the last".to_owned()));
                }
                require_plain(&entry.path)?;
                made += 1;
                match &entry.kind {
                    TreeEntryKind::File { size } => {
                        let size = usize::try_from(*size).map_err(|e| invalid(e.to_string()))?;
                        open = Some(Open { entry, size, content: BytesMut::new() });
                    }
                    TreeEntryKind::Link { target } => {
                        let content = Content::Link(target.clone());
                        make(Made::of(entry, content))?;
                    }
                    _ => {
                        directories.push(entry.clone());
                        make(Made::of(entry, Content::Directory))?;
                    }
                }
            }
            TreeEvent::Content(bytes) => match &mut open {
                Some(open) => open.content.extend_from_slice(&bytes),
                None => return Err(invalid("content came without a file".to_owned())),
            },
            other => return Err(invalid(format!("not for an upload: {other:?}"))),
        }
        if let Some(whole) = open.take_if(|open| open.content.len() >= open.size) {
            if whole.content.len() > whole.size {
                return Err(invalid("a file is longer than announced".to_owned()));
            }
            make(Made::of(whole.entry, Content::File(whole.content.freeze())))?;
        }
    }
    if open.is_some() {
        return Err(invalid("the last file is shorter than announced".to_owned()));
    }
    for entry in directories.into_iter().rev() {
        make(Made::of(entry, Content::Directory))?;
    }
    Ok(made)
}

/// Returns what a download tells, up to the error at a bound.
pub(crate) fn download(
    tree: &FileTree,
    path: &[u8],
    options: &DownloadOptions,
) -> Result<Vec<Result<TreeEvent, i32>>, i32> {
    let mut events = Vec::new();
    let (mut bytes, mut entries) = (options.max_bytes, options.max_entries);
    for (path, node) in tree.walk(path)? {
        let is_root = path.is_empty();
        let (kind, content) = match &node.content {
            Content::File(content) => {
                (TreeEntryKind::File { size: content.len() as u64 }, Some(content))
            }
            Content::Directory => (TreeEntryKind::Directory, None),
            Content::Link(target) => (TreeEntryKind::Link { target: target.clone() }, None),
            Content::Special if is_root => return Err(EINVAL),
            Content::Special => {
                let skipped = SkippedEntry { path, reason: "socket".to_owned() };
                events.push(Ok(TreeEvent::Skipped(skipped)));
                continue;
            }
        };
        let counts = u64::from(!(is_root && node.is_directory()));
        let left = bytes.checked_sub(content.map_or(0, |content| content.len() as u64));
        let (Some(bytes_left), Some(entries_left)) = (left, entries.checked_sub(counts)) else {
            events.push(Err(EFBIG));
            break;
        };
        (bytes, entries) = (bytes_left, entries_left);
        let Node { mode, modified_ns, .. } = node;
        let entry = TreeEntry { path, mode: *mode, modified_ns: Some(*modified_ns), kind };
        events.push(Ok(TreeEvent::Entry(entry)));
        let content = content.filter(|content| !content.is_empty());
        events.extend(content.map(|content| Ok(TreeEvent::Content(content.clone()))));
    }
    Ok(events)
}

impl Made {
    fn of(entry: TreeEntry, content: Content) -> Self {
        let TreeEntry { path, mode, modified_ns, .. } = entry;
        Self { path, content, mode: mode & MODE_BITS, modified_ns }
    }
}

fn invalid(reason: String) -> SandboxError {
    SandboxError::InvalidRequest { reason }
}

/// Refuses a path that is not relative and plain.
fn require_plain(path: &[u8]) -> Result<(), SandboxError> {
    let odd = |name: &[u8]| matches!(name, b"" | b"." | b"..") || name.contains(&0);
    if !path.is_empty() && path.split(|&byte| byte == b'/').any(odd) {
        let path = String::from_utf8_lossy(path);
        return Err(invalid(format!("{path:?} is no path in a tree")));
    }
    Ok(())
}
