//! [`Session`]: an agent with its sandbox, from the first file in it to the last output out of it.

use std::{path::Path, sync::Arc};

use cofferdam_apply_patch::tool::ApplyPatchTool;
use cofferdam_harness::{Harness, HarnessParts, RunReport, RunRequest};
use cofferdam_manifest::{OutputSpec, ToolName};
use cofferdam_sandbox::Sandbox;
use cofferdam_shell::{FileTools, ShellOptions, ShellTools, ViewImageTool};
use cofferdam_tool::{Tool, ToolSet};
use cofferdam_workspace::{Collected, Collector, Materialized};

use crate::{AgentError, DefaultStacks, SystemClock, SystemEntropy, agent::Setup};

/// A live sandbox with a filled workspace, and the harness that works in it.
///
/// Dropping it closes the sandbox in the background; [`Session::close`] tells when it is gone.
#[derive(Debug)]
pub struct Session {
    setup: Arc<Setup>,
    sandbox: Arc<dyn Sandbox>,
    materialized: Materialized,
    harness: Harness,
}

impl Session {
    pub(crate) async fn open(setup: Arc<Setup>) -> Result<Self, AgentError> {
        let sandbox = setup.backend.create(&setup.sandbox_spec()?).await?;
        let materialized = setup.materializer().materialize(&setup.manifest, &*sandbox).await?;
        let tools = ToolSet::new(tools(&setup, &sandbox))?;
        let entropy = Arc::new(SystemEntropy);
        let stacks = DefaultStacks {
            model: Arc::clone(&setup.model),
            tools: tools.clone(),
            policy: Arc::clone(&setup.policy),
            approver: Arc::clone(&setup.approver),
            audit: Arc::clone(&setup.audit),
            entropy: entropy.clone(),
            limits: setup.limits,
        };
        let harness = Harness::new(HarnessParts {
            tools,
            stacks: Arc::new(stacks),
            journal: Arc::clone(&setup.journal),
            clock: Arc::new(SystemClock),
            entropy,
            owner: format!("process {}", std::process::id()),
            keeper: None,
        });
        Ok(Self { setup, sandbox, materialized, harness })
    }

    /// Returns the sandbox.
    #[must_use]
    pub fn sandbox(&self) -> &Arc<dyn Sandbox> {
        &self.sandbox
    }

    /// Returns what the workspace was filled with.
    #[must_use]
    pub fn materialized(&self) -> &Materialized {
        &self.materialized
    }

    /// Makes a request for a run with the agent's own instructions, settings and bounds.
    pub fn request(&self, task: impl Into<String>) -> RunRequest {
        RunRequest {
            instructions: self.setup.instructions.clone(),
            settings: Arc::clone(&self.setup.settings),
            options: self.setup.options,
            ..RunRequest::new(self.setup.name.clone(), task)
        }
    }

    /// Runs the agent in this sandbox.
    ///
    /// # Errors
    ///
    /// [`AgentError::Run`]; the sandbox lives on and its files can be collected.
    ///
    /// # Cancel safety
    ///
    /// As [`Harness::run`].
    pub async fn run(&self, request: RunRequest) -> Result<RunReport, AgentError> {
        Ok(self.harness.run(request).await?)
    }

    /// Copies outputs out of the workspace into a directory of the host, which is made.
    ///
    /// # Errors
    ///
    /// [`AgentError::Outputs`]; an output that is not there is listed in the receipt, and is no error.
    pub async fn collect(
        &self,
        outputs: &[OutputSpec],
        directory: &Path,
    ) -> Result<Collected, AgentError> {
        let collector = Collector::new(directory).exclude(self.setup.manifest.ephemeral_paths());
        Ok(collector.collect(&*self.sandbox, outputs).await?)
    }

    /// Closes the sandbox: every process ends, and nothing of it stays on the host.
    ///
    /// # Errors
    ///
    /// [`AgentError::Sandbox`]; calling again retries.
    pub async fn close(&self) -> Result<(), AgentError> {
        Ok(self.sandbox.close().await?)
    }
}

fn tools(setup: &Setup, sandbox: &Arc<dyn Sandbox>) -> Vec<Arc<dyn Tool>> {
    let mut tools: Vec<Arc<dyn Tool>> = Vec::new();
    for name in &setup.tool_names {
        match name {
            ToolName::Shell => {
                tools.extend(ShellTools::new(Arc::clone(sandbox), ShellOptions::default()))
            }
            ToolName::ApplyPatch => tools.push(Arc::new(ApplyPatchTool::new(Arc::clone(sandbox)))),
            ToolName::Files => tools.extend(FileTools::new(Arc::clone(sandbox))),
            ToolName::ViewImage => tools.push(Arc::new(ViewImageTool::new(Arc::clone(sandbox)))),
            _ => {}
        }
    }
    tools.extend(setup.more_tools.iter().cloned());
    tools
}
