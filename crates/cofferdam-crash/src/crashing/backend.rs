//! [`CrashingBackend`]: any sandbox backend, with points.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use cofferdam_core::SandboxId;
use cofferdam_sandbox::{
    Capabilities, Guarantees, ListedSandbox, Sandbox, SandboxBackend, SandboxError, SandboxSpec,
    SandboxState,
};

use super::sandbox::CrashingSandbox;
use crate::point::Points;

/// A backend whose process may die when a sandbox is made or found again, and at the calls on its sandboxes.
#[derive(Debug)]
pub struct CrashingBackend {
    inner: Arc<dyn SandboxBackend>,
    linger: Duration,
    points: Arc<Points>,
}

impl CrashingBackend {
    /// Puts points around a backend whose sandboxes outlive their process for so long at most; zero: not at all.
    pub fn new(inner: Arc<dyn SandboxBackend>, linger: Duration, points: Arc<Points>) -> Self {
        Self { inner, linger, points }
    }

    fn decorate(&self, sandbox: Arc<dyn Sandbox>) -> Arc<dyn Sandbox> {
        Arc::new(CrashingSandbox::new(sandbox, Arc::clone(&self.points)))
    }
}

#[async_trait]
impl SandboxBackend for CrashingBackend {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn guarantees(&self) -> Result<Guarantees, SandboxError> {
        self.inner.guarantees().await
    }

    async fn capabilities(&self) -> Result<Capabilities, SandboxError> {
        let mut can = self.inner.capabilities().await?;
        can.linger &= !self.linger.is_zero();
        Ok(can)
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<Arc<dyn Sandbox>, SandboxError> {
        let spec = SandboxSpec { linger: spec.linger.min(self.linger), ..spec.clone() };
        let made = self.points.around("sandbox.create", self.inner.create(&spec)).await?;
        Ok(self.decorate(made))
    }

    async fn attach(&self, state: &SandboxState) -> Result<Arc<dyn Sandbox>, SandboxError> {
        let found = self.points.around("sandbox.attach", self.inner.attach(state)).await?;
        Ok(self.decorate(found))
    }

    async fn list(&self) -> Result<Vec<ListedSandbox>, SandboxError> {
        self.points.around("sandbox.list", self.inner.list()).await
    }

    async fn remove(&self, id: &SandboxId) -> Result<(), SandboxError> {
        self.points.around("sandbox.remove", self.inner.remove(id)).await
    }
}
