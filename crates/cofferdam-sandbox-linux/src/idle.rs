//! [`EndOfUse`]: a sandbox that nobody can use any more is ended, also when nobody asks for it.
//!
//! The guest's client measures idle time and closes its stream when it is over, and also when the guest breaks the
//! protocol. A guest ends when its stream closes; one that is hostile or stopped does not, so the launcher is told as well.

use cofferdam_sandbox::{LossReason, SandboxError};
use tokio::task::JoinHandle;

/// Ends a sandbox when its connection is over; does nothing once it is dropped.
#[derive(Debug)]
pub(crate) struct EndOfUse(JoinHandle<()>);

impl EndOfUse {
    /// Waits in the background for the loss of a connection, and then stops the sandbox; one that lingers only if nobody
    /// else may use it either.
    pub(crate) fn watch(
        lost: impl Future<Output = SandboxError> + Send + 'static,
        lingers: bool,
        stop: impl FnOnce() + Send + 'static,
    ) -> Self {
        Self(tokio::spawn(async move {
            let reason = lost.await;
            if !lingers || is_end(&reason) {
                tracing::debug!(%reason, "a sandbox is ended");
                stop();
            }
        }))
    }
}

/// Returns true if a sandbox that lingers ends with a connection that was lost so: its time is over, or it is hostile.
pub(crate) fn is_end(lost: &SandboxError) -> bool {
    matches!(
        lost,
        SandboxError::Protocol { .. } | SandboxError::Lost { reason: LossReason::IdleTime }
    )
}

impl Drop for EndOfUse {
    fn drop(&mut self) {
        self.0.abort();
    }
}
