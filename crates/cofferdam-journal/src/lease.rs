//! [`Lease`]: the right to append to one run.
//!
//! A store grants leases one at a time to each run, numbers them ([`Epoch`]) in rising order, and refuses whatever is done
//! under another than the newest. This alone keeps two processes from driving one run. When a lease *ends* is only a
//! question of how soon another may begin:
//!
//! - it is released, or
//! - it expires by the store's clock, unless it is renewed, or
//! - its *hold* is gone: the last clone of the [`Lease`] was dropped, or the process that had it died. A store on the
//!   holder's own host learns of it at once, so a run whose process was killed is taken over without a wait.
//!
//! | The lease | `append` under it | `renew` | `lease` of another |
//! |---|---|---|---|
//! | runs, and is held | is done | extends it | is refused: [`Leased`](crate::JournalError::Leased) |
//! | has expired, nobody came | is refused: [`Expired`](crate::JournalError::Expired) | extends it | is granted |
//! | is held by nobody | (nobody has it) | (nobody has it) | is granted |
//! | is not the newest, or was released | is refused: [`Fenced`](crate::JournalError::Fenced) | is refused: `Fenced` | as the newest says |
//!
//! An append under an expired lease is refused though nobody else came, so that a process that slept through its expiry
//! learns it before it acts, not after somebody else did.

use std::{any::Any, fmt, sync::Arc};

use cofferdam_core::{RunId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Seq;

/// The number of a lease: it rises with each that a store grants, so a former holder is told apart.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The right to append to one run until it expires, is released, or is dropped with all of its clones.
#[derive(Clone)]
#[non_exhaustive]
pub struct Lease {
    /// The run.
    pub run: RunId,
    /// The fencing number.
    pub epoch: Epoch,
    /// When another process may take the run over.
    pub expires: Timestamp,
    /// The last record that was there when the lease was granted or renewed.
    pub last: Seq,
    hold: Option<Arc<dyn Any + Send + Sync>>,
}

impl Lease {
    /// Makes a lease that ends only by release and expiry; for stores.
    #[must_use]
    pub fn new(run: RunId, epoch: Epoch, expires: Timestamp, last: Seq) -> Self {
        Self { run, epoch, expires, last, hold: None }
    }

    /// Adds what is dropped with the lease's last clone, and by which the store sees that nobody has it any more.
    #[must_use]
    pub fn with_hold(mut self, hold: Arc<dyn Any + Send + Sync>) -> Self {
        self.hold = Some(hold);
        self
    }

    /// Returns the lease with another end and another last record, and the same hold; for stores, to renew it.
    #[must_use]
    pub fn extended(&self, expires: Timestamp, last: Seq) -> Self {
        Self { expires, last, ..self.clone() }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("run", &self.run)
            .field("epoch", &self.epoch)
            .field("expires", &self.expires)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

/// Returns when a lease of this duration ends that begins now.
#[must_use]
pub(crate) fn expiry(now: Timestamp, duration: std::time::Duration) -> Timestamp {
    let duration = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Timestamp(now.as_millis().saturating_add(duration))
}
