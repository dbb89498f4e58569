//! [`Freezer`]: stops a sandbox for a moment, so that its files can be read as they are at one point in time.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::SandboxError;

/// Stops every process of a sandbox at once, also its guest, and lets them go on.
#[async_trait]
pub trait Freezer: Debug + Send + Sync + 'static {
    /// Stops the sandbox, waits until all of it stands still, and keeps it so until the result is thawed or dropped, but never
    /// for longer than `max`. [`DEFAULT_FREEZE`] is a good bound.
    ///
    /// Operations on the sandbox that are under way wait meanwhile and then go on; so do commands, without noticing anything but
    /// the clock. Limits of time go on. One freeze at a time: a second one waits for the end of the first.
    ///
    /// # Errors
    ///
    /// [`SandboxError::FreezeTimeout`] if not everything stood still within `max`; it goes on. [`SandboxError::Lost`] if the
    /// sandbox has ended.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the sandbox goes on.
    async fn freeze(&self, max: Duration) -> Result<Frozen, SandboxError>;
}

/// How long a sandbox is usually frozen at most.
pub const DEFAULT_FREEZE: Duration = Duration::from_secs(2);

/// A sandbox that stands still. Dropping it lets the sandbox go on.
#[derive(Debug)]
#[must_use = "dropping it lets the sandbox go on"]
pub struct Frozen {
    /// Whose end asks for the thaw.
    release: oneshot::Sender<()>,
    thawed: oneshot::Receiver<Result<bool, SandboxError>>,
}

impl Frozen {
    /// Keeps a sandbox that stands still: `thaw` is run when the result is thawed or dropped, or when `max` is over, whichever
    /// comes first. It returns whether the sandbox had stood still until then. For implementations of [`Freezer`].
    ///
    /// It is run in a task of its own. If the runtime ends first, `thaw` is dropped without having been run, so what it owns has
    /// to thaw then.
    pub fn hold<F>(max: Duration, thaw: F) -> Self
    where
        F: Future<Output = Result<bool, SandboxError>> + Send + 'static,
    {
        let (release, released) = oneshot::channel();
        let (tell, thawed) = oneshot::channel();
        tokio::spawn(async move {
            let in_time = tokio::time::timeout(max, released).await.is_ok();
            // Nobody listens if it was dropped.
            let _ = tell.send(thaw.await.map(|still| in_time && still));
        });
        Self { release, thawed }
    }

    /// Lets the sandbox go on, and returns whether it stood still until now; false means that the bound was over before, or
    /// that somebody else let it go on, so that files may have changed meanwhile.
    ///
    /// # Errors
    ///
    /// What came of the thaw, such as [`SandboxError::Lost`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the sandbox goes on.
    pub async fn thaw(self) -> Result<bool, SandboxError> {
        let Self { release, thawed } = self;
        drop(release);
        thawed.await.unwrap_or(Ok(false))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    const MAX: Duration = Duration::from_secs(2);

    fn held() -> (Frozen, Arc<AtomicUsize>) {
        let thaws = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&thaws);
        let frozen = Frozen::hold(MAX, async move {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(true)
        });
        (frozen, thaws)
    }

    #[tokio::test(start_paused = true)]
    async fn thawing_in_time_says_that_nothing_moved() {
        let (frozen, thaws) = held();
        assert!(frozen.thaw().await.expect("thawed"));
        assert_eq!(thaws.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_bound_thaws_and_is_told() {
        let (frozen, thaws) = held();
        tokio::time::sleep(MAX + Duration::from_millis(1)).await;
        assert_eq!(thaws.load(Ordering::Relaxed), 1);
        assert!(!frozen.thaw().await.expect("thawed"));
        assert_eq!(thaws.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_thaws() {
        let (frozen, thaws) = held();
        drop(frozen);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(thaws.load(Ordering::Relaxed), 1);
    }
}
