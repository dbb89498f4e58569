//! [`Held`]: the sandboxes that this process has a handle of.
//!
//! An engine does not tell whether anybody is at the other end of a container's streams. Of other processes it is only known
//! whether they live; of this one it is known what it holds.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use cofferdam_core::SandboxId;

static HELD: Mutex<BTreeMap<SandboxId, usize>> = Mutex::new(BTreeMap::new());

fn table() -> MutexGuard<'static, BTreeMap<SandboxId, usize>> {
    // A panic leaves a count, which is a count.
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A handle that is counted as long as it is there.
#[derive(Debug)]
pub(crate) struct Held(SandboxId);

impl Held {
    pub(crate) fn new(id: &SandboxId) -> Self {
        *table().entry(id.clone()).or_default() += 1;
        Self(id.clone())
    }

    /// Returns whether this process has a handle of a sandbox.
    pub(crate) fn has(id: &SandboxId) -> bool {
        table().contains_key(id)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut table = table();
        if let Some(count) = table.get_mut(&self.0) {
            *count -= 1;
            if *count == 0 {
                table.remove(&self.0);
            }
        }
    }
}
