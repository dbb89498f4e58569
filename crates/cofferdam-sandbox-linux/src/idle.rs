//! [`EndOfUse`]: a sandbox that nobody can use any more is ended, also when nobody asks for it.
//!
//! The guest's client measures idle time and closes its stream when it is over, and also when the guest breaks the
//! protocol. A guest ends when its stream closes; one that is hostile or stopped does not, so the launcher is told as well.

use cofferdam_sandbox::SandboxError;
use tokio::task::JoinHandle;

/// Ends a sandbox when its connection is over; does nothing once it is dropped.
#[derive(Debug)]
pub(crate) struct EndOfUse(JoinHandle<()>);

impl EndOfUse {
    /// Waits in the background for the loss of a connection, and then stops the sandbox.
    pub(crate) fn watch(
        lost: impl Future<Output = SandboxError> + Send + 'static,
        stop: impl FnOnce() + Send + 'static,
    ) -> Self {
        Self(tokio::spawn(async move {
            let reason = lost.await;
            tracing::debug!(%reason, "a sandbox is ended");
            stop();
        }))
    }
}

impl Drop for EndOfUse {
    fn drop(&mut self) {
        self.0.abort();
    }
}
