//! Idleness: how long no operation was under way.
//!
//! Every open channel holds a [`Busy`] from the request until the caller has dropped it. A command is under way as long
//! as it runs or its output is open, however long that is, and no longer, also if the caller keeps it.

use std::time::Duration;

use tokio::sync::watch;

/// The number of operations that are under way.
#[derive(Debug)]
pub(super) struct Activity(watch::Sender<usize>);

/// One operation that is under way.
#[derive(Debug)]
pub(super) struct Busy(watch::Sender<usize>);

impl Activity {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    pub(super) fn begin(&self) -> Busy {
        self.0.send_modify(|operations| *operations += 1);
        Busy(self.0.clone())
    }

    /// Waits until nothing has been under way for this time without a break.
    pub(super) async fn idle_for(&self, time: Duration) {
        let mut operations = self.0.subscribe();
        loop {
            // The sender lives in `self`, so the waiting cannot fail.
            if operations.wait_for(|&operations| operations == 0).await.is_err() {
                return std::future::pending().await;
            }
            // Also an operation that began and ended while this did not look is a change.
            if tokio::time::timeout(time, operations.changed()).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|operations| *operations -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, sleep};

    /// Returns after how many seconds it is idle for ten, if operations begin and end at these seconds.
    async fn check(operations: &'static [(u64, u64)]) -> u64 {
        let activity = std::sync::Arc::new(Activity::new());
        let started = Instant::now();
        for &(begin, end) in operations {
            let activity = std::sync::Arc::clone(&activity);
            tokio::spawn(async move {
                sleep(Duration::from_secs(begin)).await;
                let _busy = activity.begin();
                sleep(Duration::from_secs(end - begin)).await;
            });
        }
        activity.idle_for(Duration::from_secs(10)).await;
        started.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn idleness_starts_again_after_each_operation() {
        for (operations, expect) in [
            (&[][..], 10),
            (&[(5, 6)], 16),
            // A long one.
            (&[(5, 500)], 510),
            // Of no length.
            (&[(9, 9)], 19),
            // Two at once.
            (&[(1, 5), (2, 100)], 110),
            // Too late.
            (&[(11, 12)], 10),
            (&[(9, 10), (19, 20), (29, 31)], 41),
        ] {
            assert_eq!(check(operations).await, expect, "{operations:?}");
        }
    }
}
