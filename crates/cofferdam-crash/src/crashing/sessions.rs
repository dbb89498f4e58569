//! `CrashingSessions`: the commands of earlier connections, with points.

use std::sync::Arc;

use async_trait::async_trait;
use cofferdam_sandbox::{CommandInfo, OutputPosition, Process, Sandbox, SandboxError, Sessions};

use crate::point::Points;

#[derive(Debug)]
pub(super) struct CrashingSessions {
    sandbox: Arc<dyn Sandbox>,
    points: Arc<Points>,
}

impl CrashingSessions {
    pub(super) fn new(sandbox: Arc<dyn Sandbox>, points: Arc<Points>) -> Self {
        Self { sandbox, points }
    }

    fn inner(&self) -> Result<&dyn Sessions, SandboxError> {
        let unsupported = SandboxError::Unsupported { backend: "sandbox's", operation: "sessions" };
        self.sandbox.sessions().ok_or(unsupported)
    }
}

#[async_trait]
impl Sessions for CrashingSessions {
    async fn list(&self) -> Result<Vec<CommandInfo>, SandboxError> {
        self.inner()?.list().await
    }

    async fn attach(&self, id: &str, from: OutputPosition) -> Result<Process, SandboxError> {
        self.points
            .around_in(&*self.sandbox, "sandbox.session.attach", self.inner()?.attach(id, from))
            .await
    }

    async fn forget(&self, id: &str) -> Result<(), SandboxError> {
        self.points
            .around_in(&*self.sandbox, "sandbox.session.forget", self.inner()?.forget(id))
            .await
    }
}
