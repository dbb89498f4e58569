//! [`OutputFiles`]: output that was too long for the model, kept where its tools can read it.

use std::collections::VecDeque;

use bytes::Bytes;
use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{FileKind, ListOptions, Sandbox, SandboxError, WriteOptions};
use tokio::sync::Mutex;

use crate::options::ShellOptions;

/// Where output files are, in the workspace.
const DIRECTORY: &str = ".cofferdam/output";

/// Greater numbers were not given here: a command made such a file.
const MAX_NUMBER: u64 = 1 << 48;

/// The numbered output files of one workspace, bounded in number and in bytes: the oldest go first.
#[derive(Debug)]
pub(crate) struct OutputFiles {
    max_files: usize,
    max_bytes: u64,
    /// `None` until the first write has seen what an earlier run left. An asynchronous lock, so that numbers are given
    /// and files removed in order.
    index: Mutex<Option<Index>>,
}

#[derive(Debug, Default)]
struct Index {
    /// Number and size, oldest first.
    files: VecDeque<(u64, u64)>,
    next: u64,
}

impl OutputFiles {
    pub(crate) fn new(options: &ShellOptions) -> Self {
        Self {
            max_files: options.max_output_files.max(1),
            max_bytes: options.max_output_file_bytes,
            index: Mutex::new(None),
        }
    }

    /// Writes a file and returns its path.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the file is there or not, and its number may be given again.
    pub(crate) async fn write(
        &self,
        sandbox: &dyn Sandbox,
        content: String,
    ) -> Result<WorkspacePath, SandboxError> {
        let mut guard = self.index.lock().await;
        let index = match &mut *guard {
            Some(index) => index,
            None => guard.insert(found(sandbox).await?),
        };
        let size = content.len() as u64;
        while index.files.len() >= self.max_files
            || index.bytes() + size > self.max_bytes && !index.files.is_empty()
        {
            if let Some((oldest, _)) = index.files.pop_front() {
                // A command may have removed it; what cannot be removed now is found again by the next run.
                let _ = sandbox.files().remove(&path(oldest)?, false).await;
            }
        }
        let target = path(index.next)?;
        sandbox.files().write(&target, Bytes::from(content), &WriteOptions::default()).await?;
        index.files.push_back((index.next, size));
        index.next += 1;
        Ok(target)
    }
}

impl Index {
    fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, size)| size).sum()
    }
}

/// Finds the files that are there; on first use the directory is made, hidden from version control.
async fn found(sandbox: &dyn Sandbox) -> Result<Index, SandboxError> {
    const NOT_FOUND: i32 = 2;
    let directory = checked(DIRECTORY)?;
    let listing = match sandbox.files().list(&directory, &ListOptions::default()).await {
        Ok(listing) => listing,
        Err(SandboxError::File { errno: NOT_FOUND, .. }) => {
            let ignore = checked(&format!("{DIRECTORY}/.gitignore"))?;
            let all = Bytes::from_static(b"*\n");
            sandbox.files().write(&ignore, all, &WriteOptions::default()).await?;
            return Ok(Index { files: VecDeque::new(), next: 1 });
        }
        Err(error) => return Err(error),
    };
    let mut files: Vec<(u64, u64)> = listing
        .entries
        .iter()
        .filter(|entry| entry.metadata.kind == FileKind::File)
        .filter_map(|entry| {
            let name = std::str::from_utf8(&entry.path).ok()?;
            Some((name.strip_suffix(".txt")?.parse().ok()?, entry.metadata.size))
        })
        .filter(|(number, _)| *number < MAX_NUMBER)
        .collect();
    files.sort_unstable();
    let next = files.last().map_or(1, |(last, _)| last + 1);
    Ok(Index { files: files.into(), next })
}

fn path(number: u64) -> Result<WorkspacePath, SandboxError> {
    checked(&format!("{DIRECTORY}/{number:06}.txt"))
}

fn checked(path: &str) -> Result<WorkspacePath, SandboxError> {
    WorkspacePath::new(path)
        .map_err(|error| SandboxError::InvalidRequest { reason: error.to_string() })
}
