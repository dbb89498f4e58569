//! Stopping a sandbox for a moment, by its cgroup.

use std::{io, sync::Arc, time::Duration};

use async_trait::async_trait;
use cofferdam_sandbox::{Freezer, Frozen, LossReason, SandboxError};
use tokio::{sync::Mutex, time::Instant};

use crate::{cgroups::Group, setup::host};

/// Stops a sandbox whose cgroup can do that.
#[derive(Debug)]
pub(crate) struct LinuxFreezer {
    group: Arc<Group>,
    /// Held from the freeze to the thaw, so that no thaw ends the freeze of somebody else.
    one: Arc<Mutex<()>>,
}

impl LinuxFreezer {
    /// Returns what stops the sandbox of a group, if the group can.
    pub(crate) fn of(group: &Arc<Group>) -> Option<Self> {
        group.can_freeze().then(|| Self { group: Arc::clone(group), one: Arc::default() })
    }
}

#[async_trait]
impl Freezer for LinuxFreezer {
    async fn freeze(&self, max: Duration) -> Result<Frozen, SandboxError> {
        let one = Arc::clone(&self.one).lock_owned().await;
        let deadline = Instant::now() + max;
        let thaw = Thaw(Some(Arc::clone(&self.group)));
        self.group.freeze().map_err(failed)?;
        match tokio::time::timeout_at(deadline, self.group.frozen()).await {
            Ok(frozen) => frozen.map_err(failed)?,
            Err(_elapsed) => return Err(SandboxError::FreezeTimeout { max }),
        }
        Ok(Frozen::hold(deadline - Instant::now(), async move {
            let _one = one;
            match thaw.now() {
                // It has ended, and stood still until then.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
                thawed => thawed.map_err(host("let a sandbox go on")),
            }
        }))
    }
}

/// Lets a sandbox go on when it is dropped, whatever happened.
struct Thaw(Option<Arc<Group>>);

impl Thaw {
    /// Returns whether the sandbox still stood still.
    fn now(mut self) -> io::Result<bool> {
        let Some(group) = self.0.take() else { return Ok(false) };
        // Its supervisor lets it go on when another host that was attached is gone.
        let still = group.is_frozen();
        group.thaw()?;
        still
    }
}

impl Drop for Thaw {
    fn drop(&mut self) {
        let Some(group) = self.0.take() else { return };
        match group.thaw() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%group, %error, "could not let a sandbox go on");
            }
            _ => {}
        }
    }
}

/// Makes the error for a freeze that failed; a group that is not there is that of a sandbox that has ended.
fn failed(error: io::Error) -> SandboxError {
    match error.kind() {
        io::ErrorKind::NotFound => SandboxError::Lost {
            reason: LossReason::GuestEnded { detail: "its cgroup is gone".to_owned() },
        },
        _ => host("stop a sandbox for a moment")(error),
    }
}
