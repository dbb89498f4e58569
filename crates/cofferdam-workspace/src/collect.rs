//! [`collect`]: copies declared outputs out of a sandbox.

use std::path::Path;

use cofferdam_core::WorkspacePath;
use cofferdam_manifest::OutputSpec;
use cofferdam_sandbox::{DownloadOptions, Sandbox, SandboxError};
use futures::StreamExt;
use rustix::io::Errno;
use tokio::sync::mpsc;

use crate::{
    Collected, WorkspaceError,
    materializer::{blocking, joined},
    output_writer::OutputWriter,
};

/// Pieces of a stream that wait for a slow disk.
const WAITING_PIECES: usize = 8;

/// What is copied out, for all outputs together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectOptions {
    /// Files, directories and links at most. Default 100 000.
    pub max_files: u64,
    /// Bytes of content at most. Default 1 GiB.
    pub max_bytes: u64,
    /// Paths that are left out with all in them, such as [`cofferdam_manifest::Manifest::ephemeral_paths`]. Default:
    /// none.
    pub exclude: Vec<WorkspacePath>,
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self { max_files: 100_000, max_bytes: 1 << 30, exclude: Vec::new() }
    }
}

/// Copies outputs to a directory of the host, each at its path in the workspace.
///
/// The directory is made if it is not there, and must be empty otherwise. The sandbox is not trusted: names that leave
/// the directory and trees that contradict themselves are refused, set-id and foreign write bits are dropped, and the
/// owner can always read and remove what was written. A file appears whole or not at all. Links that stay inside of
/// their output are kept and made last, so that nothing is written through one; other links, sockets, fifos and devices
/// are left out and listed in the receipt. An output that is not there is listed as missing unless it is optional.
///
/// # Errors
///
/// [`WorkspaceError::Destination`], [`WorkspaceError::OutputOverCap`], [`WorkspaceError::Hostile`],
/// [`WorkspaceError::Io`] and [`WorkspaceError::Sandbox`]. Files that were whole stay.
///
/// # Cancel safety
///
/// If the future is dropped, whole files are there, and nothing half-written.
pub async fn collect(
    sandbox: &dyn Sandbox,
    outputs: &[OutputSpec],
    directory: &Path,
    options: &CollectOptions,
) -> Result<Collected, WorkspaceError> {
    let (place, settings) = (directory.to_owned(), options.clone());
    let mut writer = blocking(move || OutputWriter::create(&place, settings)).await?;
    // An output inside of another comes with it. Sorting puts the outer one first.
    let mut sorted: Vec<&OutputSpec> = outputs.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let mut copied: Vec<&WorkspacePath> = Vec::new();
    for output in sorted {
        if !copied.iter().any(|outer| outer.contains(&output.path)) {
            writer = copy(sandbox, output, writer, options).await?;
            copied.push(&output.path);
        }
        let (path, optional) = (output.path.clone(), output.optional);
        writer = blocking(move || {
            writer.note(path, optional);
            Ok(writer)
        })
        .await?;
    }
    blocking(move || writer.finish()).await
}

/// Copies one output; leaves the writer as it was if the output is not there.
async fn copy(
    sandbox: &dyn Sandbox,
    output: &OutputSpec,
    mut writer: OutputWriter,
    options: &CollectOptions,
) -> Result<OutputWriter, WorkspaceError> {
    let failed = |source| WorkspaceError::Sandbox {
        what: format!("the download of output {}", output.path),
        source,
    };
    // One more than is allowed, so that the writer sees the excess and names it.
    let bounds = DownloadOptions {
        max_bytes: options.max_bytes.saturating_add(1),
        max_entries: options.max_files.saturating_add(1),
    };
    let mut events = match sandbox.tree().download(&output.path, &bounds).await {
        Ok(events) => events,
        Err(error) if is_absent(&error) => return Ok(writer),
        Err(error) => return Err(failed(error)),
    };
    let (sender, mut receiver) = mpsc::channel(WAITING_PIECES);
    let path = output.path.clone();
    let writing = tokio::task::spawn_blocking(move || {
        writer.begin(path)?;
        while let Some(event) = receiver.blocking_recv() {
            writer.take(event)?;
        }
        Ok(writer)
    });
    let mut first = true;
    let mut outcome = Ok(());
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                // A writer that is gone says why below.
                if sender.send(event).await.is_err() {
                    break;
                }
            }
            Err(error) if first && is_absent(&error) => break,
            Err(error) => {
                outcome = Err(failed(error));
                break;
            }
        }
        first = false;
    }
    drop(sender);
    let mut writer = joined(writing.await)?;
    outcome?;
    blocking(move || {
        writer.end()?;
        Ok(writer)
    })
    .await
}

fn is_absent(error: &SandboxError) -> bool {
    let absent = [Errno::NOENT.raw_os_error(), Errno::NOTDIR.raw_os_error()];
    matches!(error, SandboxError::File { errno, .. } if absent.contains(errno))
}
