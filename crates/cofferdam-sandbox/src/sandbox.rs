//! [`Sandbox`]: one live, isolated workspace.

use std::fmt::Debug;

use async_trait::async_trait;
use cofferdam_core::SandboxId;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ExecEvent, ExecOutput, ExecRequest, Files, Freezer, HostWorkspace, Ports, Process,
    SandboxError, Sessions, Tree, Watcher,
};

/// A live sandbox. All methods may be called at the same time from many tasks.
///
/// Dropping the last handle closes the sandbox in the background; call [`Sandbox::close`] to know when it is gone.
#[async_trait]
pub trait Sandbox: Debug + Send + Sync + 'static {
    /// Returns the sandbox's name.
    fn id(&self) -> &SandboxId;

    /// Returns what [`crate::SandboxBackend::attach`] needs to find this sandbox again. It is no snapshot.
    fn state(&self) -> SandboxState;

    /// Starts a command.
    ///
    /// # Errors
    ///
    /// [`SandboxError::NotStarted`] if the command cannot be started (no such program, limit of processes).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, a command that was started is killed with all its descendants. The same happens when
    /// the returned [`Process`] is dropped before its end.
    async fn exec(&self, request: ExecRequest) -> Result<Process, SandboxError>;

    /// Returns the file operations, all confined to the workspace.
    fn files(&self) -> &dyn Files;

    /// Returns the transfer of whole trees.
    fn tree(&self) -> &dyn Tree;

    /// Returns the commands of earlier connections, if commands of this sandbox outlive a connection.
    fn sessions(&self) -> Option<&dyn Sessions> {
        None
    }

    /// Returns the forwarding of connections, if there is one.
    fn ports(&self) -> Option<&dyn Ports> {
        None
    }

    /// Returns the watching of files, if there is one.
    fn watcher(&self) -> Option<&dyn Watcher> {
        None
    }

    /// Returns the workspace as files of the host, if the host can see it. It can be read also after the sandbox was lost.
    fn host_workspace(&self) -> Option<&dyn HostWorkspace> {
        None
    }

    /// Returns what stops the sandbox for a moment, if something can.
    fn freezer(&self) -> Option<&dyn Freezer> {
        None
    }

    /// Waits until the sandbox has ended by itself or by [`Sandbox::close`], and says why.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    async fn lost(&self) -> SandboxError;

    /// Ends every process and removes everything of the sandbox from the host. Idempotent: later calls return `Ok`.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Cleanup`] names what is left; calling again retries.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, closing goes on in the background.
    async fn close(&self) -> Result<(), SandboxError>;
}

/// What finds a live sandbox again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxState {
    /// Version of this form; 1.
    pub version: u32,
    /// [`crate::SandboxBackend::name`] of the backend that made it.
    pub backend: String,
    /// The sandbox's name.
    pub id: SandboxId,
    /// The backend's own data.
    pub data: Value,
}

/// Comfortable forms over every [`Sandbox`].
#[async_trait]
pub trait SandboxExt: Sandbox {
    /// Runs a command to its end and collects its output, at most `max_output_bytes` of each stream; what is beyond is
    /// dropped and counted.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::exec`] and the events of [`Process`].
    ///
    /// # Cancel safety
    ///
    /// As [`Sandbox::exec`].
    async fn run(
        &self,
        request: ExecRequest,
        max_output_bytes: usize,
    ) -> Result<ExecOutput, SandboxError> {
        let mut process = self.exec(request).await?;
        let mut output = ExecOutput::default();
        while let Some(event) = process.next().await {
            match event? {
                ExecEvent::Started { .. } => {}
                ExecEvent::OutputLost { stdout, stderr } => {
                    output.stdout.dropped_bytes += stdout;
                    output.stderr.dropped_bytes += stderr;
                }
                ExecEvent::Stdout(bytes) => output.stdout.push(&bytes, max_output_bytes),
                ExecEvent::Stderr(bytes) => output.stderr.push(&bytes, max_output_bytes),
                ExecEvent::Exited(status) => {
                    output.status = Some(status);
                    break;
                }
            }
        }
        Ok(output)
    }
}

impl<T: Sandbox + ?Sized> SandboxExt for T {}
