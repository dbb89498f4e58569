//! [`Trial`]: what one case works with, and how it stops.

use std::sync::{Arc, Mutex, PoisonError};

use super::{CaseFailure, Options};
use crate::{Enforcement, Sandbox, SandboxBackend, SandboxError, SandboxSpec, Wall};

/// The backend as one case sees it. Sandboxes made through it are closed after the case.
pub(super) struct Trial<'a> {
    pub(super) backend: &'a dyn SandboxBackend,
    pub(super) spec: &'a SandboxSpec,
    pub(super) options: &'a Options,
    made: Mutex<Vec<Arc<dyn Sandbox>>>,
}

/// Why a case ended early.
pub(super) enum Stop {
    Failed(CaseFailure),
    Skipped(String),
}

impl<E: Into<CaseFailure>> From<E> for Stop {
    fn from(failure: E) -> Self {
        Self::Failed(failure.into())
    }
}

impl<'a> Trial<'a> {
    pub(super) fn new(backend: &'a dyn SandboxBackend, options: &'a Options) -> Self {
        Self { backend, spec: &options.spec, options, made: Mutex::default() }
    }

    /// Makes a sandbox as the options say.
    pub(super) async fn sandbox(&self) -> Result<Arc<dyn Sandbox>, SandboxError> {
        self.sandbox_with(|_| {}).await
    }

    /// Makes a sandbox from the options' specification with a change.
    pub(super) async fn sandbox_with(
        &self,
        change: impl FnOnce(&mut SandboxSpec),
    ) -> Result<Arc<dyn Sandbox>, SandboxError> {
        let mut spec = self.spec.clone();
        change(&mut spec);
        Ok(self.adopt(self.backend.create(&spec).await?))
    }

    /// Closes after the case a sandbox that was not made through here.
    pub(super) fn adopt(&self, sandbox: Arc<dyn Sandbox>) -> Arc<dyn Sandbox> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&sandbox));
        sandbox
    }

    /// Skips the case if the backend says that a wall is not full.
    pub(super) async fn needs(&self, wall: Wall) -> Result<(), Stop> {
        match self.backend.guarantees().await?.enforcement(wall) {
            Enforcement::Full { .. } => Ok(()),
            _ => Err(Stop::Skipped(format!("the backend does not claim the {wall} as full"))),
        }
    }

    /// Skips the case if the backend says that it falls short of the wall around processes, as it does where a sandbox has no
    /// `/proc`: there a command sees nothing of its own processes either, and its tree is not found.
    pub(super) async fn sees_processes(&self) -> Result<(), Stop> {
        match self.backend.guarantees().await?.enforcement(Wall::Processes) {
            Enforcement::Weak { gap, .. } => {
                Err(Stop::Skipped(format!("the wall around processes is weak: {gap}")))
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn close(&self) -> Result<(), Stop> {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        for sandbox in made {
            sandbox.close().await?;
        }
        Ok(())
    }
}
