//! Tree streams into and out of a [`FileTree`], for every sandbox in memory.

use std::collections::BTreeMap;

use bytes::BytesMut;
use cofferdam_sandbox::{
    DownloadOptions, SandboxError, ScanEntry, ScanEvent, ScanKind, ScanOptions, SkippedEntry,
    TreeEntry, TreeEntryKind, TreeEvent,
};
use futures::{StreamExt, stream::BoxStream};

use crate::file_tree::{
    Content, FileTree, MODE_BITS, Node,
    errno::{EFBIG, EINVAL},
};

/// What an upload makes at a path.
#[derive(Debug)]
pub(crate) struct Made {
    path: Vec<u8>,
    content: MadeContent,
    mode: u32,
    modified_ns: Option<i64>,
}

#[derive(Debug)]
enum MadeContent {
    New(Content),
    /// A second name of the file at this path.
    SecondName(Vec<u8>),
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
                    TreeEntryKind::HardLink { to } => {
                        require_plain(to)?;
                        let content = MadeContent::SecondName(to.clone());
                        make(Made { content, ..Made::of(entry, Content::Directory) })?;
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
    let mut first_names = BTreeMap::<u64, Vec<u8>>::new();
    for (path, node) in tree.walk(path)? {
        let is_root = path.is_empty();
        let second_name = options.hard_links && first_names.contains_key(&node.number);
        let (kind, content) = match &node.content {
            Content::File(_) if second_name => {
                (TreeEntryKind::HardLink { to: first_names[&node.number].clone() }, None)
            }
            Content::File(content) => {
                first_names.insert(node.number, path.clone());
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
        let entry = match kind {
            TreeEntryKind::HardLink { .. } => TreeEntry { path, mode: 0, modified_ns: None, kind },
            _ => TreeEntry { path, mode: *mode, modified_ns: Some(*modified_ns), kind },
        };
        events.push(Ok(TreeEvent::Entry(entry)));
        let content = content.filter(|content| !content.is_empty());
        events.extend(content.map(|content| Ok(TreeEvent::Content(content.clone()))));
    }
    Ok(events)
}

/// Returns what a scan tells, up to the error at its bound.
pub(crate) fn scan(
    tree: &FileTree,
    path: &[u8],
    options: &ScanOptions,
) -> Result<Vec<Result<ScanEvent, i32>>, i32> {
    let mut events = Vec::new();
    for (at, (path, node)) in tree.walk(path)?.into_iter().enumerate() {
        // The root does not count.
        if at as u64 > options.max_entries {
            events.push(Err(EFBIG));
            break;
        }
        let (kind, size) = match &node.content {
            Content::File(content) => (ScanKind::File, content.len() as u64),
            Content::Directory => (ScanKind::Directory, 0),
            Content::Link(target) => {
                (ScanKind::Link { target: target.clone() }, target.len() as u64)
            }
            Content::Special => (ScanKind::Socket, 0),
        };
        events.push(Ok(ScanEvent::Entry(ScanEntry {
            path,
            kind,
            mode: node.mode,
            size,
            device: 1,
            inode: node.number,
            modified_ns: node.modified_ns,
            changed_ns: node.changed_ns,
            links: u32::try_from(tree.names_of(node.number)).unwrap_or(u32::MAX),
        })));
    }
    Ok(events)
}

impl Made {
    fn of(entry: TreeEntry, content: Content) -> Self {
        let TreeEntry { path, mode, modified_ns, .. } = entry;
        Self { path, content: MadeContent::New(content), mode: mode & MODE_BITS, modified_ns }
    }

    /// Makes it below a directory of a tree.
    pub(crate) fn place(self, tree: &mut FileTree, root: &[u8]) -> Result<(), i32> {
        match self.content {
            MadeContent::New(content) => {
                tree.place(root, &self.path, content, self.mode, self.modified_ns)
            }
            MadeContent::SecondName(to) => tree.link(root, &self.path, &to),
        }
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
