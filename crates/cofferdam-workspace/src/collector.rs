//! [`Collector`]: copies declared outputs out of a sandbox.

use std::path::PathBuf;

use cofferdam_core::WorkspacePath;
use cofferdam_manifest::OutputSpec;
use cofferdam_sandbox::{DownloadOptions, Sandbox, SandboxError};
use futures::StreamExt;
use rustix::io::Errno;
use tokio::sync::mpsc;

use crate::{
    CollectError, Collected,
    host_file::{blocking, joined},
    output_writer::OutputWriter,
};

/// Pieces of a stream that wait for a slow disk.
const WAITING_PIECES: usize = 8;

/// Bounds on what is copied out, for all outputs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollectLimits {
    /// Files, directories and links at most. Default 100 000.
    pub max_files: u64,
    /// Bytes of content at most. Default 1 GiB.
    pub max_bytes: u64,
}

impl Default for CollectLimits {
    fn default() -> Self {
        Self { max_files: 100_000, max_bytes: 1 << 30 }
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
/// ```no_run
/// # async fn example(
/// #     agent: &cofferdam_manifest::AgentFile,
/// #     sandbox: &dyn cofferdam_sandbox::Sandbox,
/// # ) -> Result<(), cofferdam_workspace::CollectError> {
/// use cofferdam_workspace::Collector;
///
/// let receipt = Collector::new("results")
///     .exclude(agent.workspace.ephemeral_paths())
///     .collect(sandbox, &agent.outputs)
///     .await?;
/// assert_eq!(receipt.missing, []);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Collector {
    directory: PathBuf,
    limits: CollectLimits,
    exclude: Vec<WorkspacePath>,
}

impl Collector {
    /// Makes one that writes to this directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        Self { directory, limits: CollectLimits::default(), exclude: Vec::new() }
    }

    /// Sets the bounds on what is copied out.
    #[must_use]
    pub fn limits(mut self, limits: CollectLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Leaves out these paths with all in them, such as [`cofferdam_manifest::Manifest::ephemeral_paths`].
    #[must_use]
    pub fn exclude(mut self, paths: impl IntoIterator<Item = WorkspacePath>) -> Self {
        self.exclude.extend(paths);
        self
    }

    /// Copies the outputs.
    ///
    /// # Errors
    ///
    /// [`CollectError`]; files that were whole stay.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, whole files are there, and nothing half-written.
    pub async fn collect(
        &self,
        sandbox: &dyn Sandbox,
        outputs: &[OutputSpec],
    ) -> Result<Collected, CollectError> {
        let this = self.clone();
        let mut writer =
            blocking(move || OutputWriter::create(&this.directory, this.limits, this.exclude))
                .await?;
        // An output inside of another comes with it. Sorting puts the outer one first.
        let mut sorted: Vec<&OutputSpec> = outputs.iter().collect();
        sorted.sort_by(|a, b| a.path.cmp(&b.path));
        let mut copied: Vec<&WorkspacePath> = Vec::new();
        for output in sorted {
            if !copied.iter().any(|outer| outer.contains(&output.path)) {
                writer = copy(sandbox, output, writer, self.limits).await?;
                copied.push(&output.path);
            }
            writer.note(output.path.clone(), output.optional);
        }
        blocking(move || writer.finish()).await
    }
}

/// Copies one output; leaves the writer as it was if the output is not there.
async fn copy(
    sandbox: &dyn Sandbox,
    output: &OutputSpec,
    mut writer: OutputWriter,
    limits: CollectLimits,
) -> Result<OutputWriter, CollectError> {
    let failed = |source| CollectError::Sandbox { output: output.path.clone(), source };
    // One more than is allowed, so that the writer sees the excess and names it.
    let bounds = DownloadOptions {
        max_bytes: limits.max_bytes.saturating_add(1),
        max_entries: limits.max_files.saturating_add(1),
        ..DownloadOptions::default()
    };
    let mut events = match sandbox.tree().download(&output.path, &bounds).await {
        Ok(events) => events,
        Err(error) if is_absent(&error) => return Ok(writer),
        Err(error) => return Err(failed(error)),
    };
    let (sender, mut receiver) = mpsc::channel(WAITING_PIECES);
    let path = output.path.clone();
    let writing = tokio::task::spawn_blocking(move || {
        // Nothing is made for an output that is not there.
        let Some(first) = receiver.blocking_recv() else { return Ok(writer) };
        writer.begin(path)?;
        writer.take(first)?;
        while let Some(event) = receiver.blocking_recv() {
            writer.take(event)?;
        }
        Ok::<_, CollectError>(writer)
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
    writer.end()?;
    Ok(writer)
}

fn is_absent(error: &SandboxError) -> bool {
    let absent = [Errno::NOENT.raw_os_error(), Errno::NOTDIR.raw_os_error()];
    matches!(error, SandboxError::File { errno, .. } if absent.contains(errno))
}
