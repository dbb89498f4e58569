//! [`ApplyPatchTool`]: the model's tool `apply_patch` over a sandbox's files.
//!
//! The patch is worked out in the control plane against what the files hold, and carried out through
//! [`cofferdam_sandbox::Files`] as a [`Transaction`]: new content is staged beside its place, then renamed, and rolled
//! back if a step fails. The model is told what changed, what was fuzzy or ambiguous, or why nothing changed with the
//! nearest lines of the file.
//!
//! - `input`: the forms in which a patch comes: the text, and the JSON operations of built-in patch tools.
//! - `intent`: what is written down before, so that it can be found out later whether a patch was carried out.
//! - `workspace`: reading the files of a patch, and doing the steps of a transaction.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use cofferdam_core::{EffectClass, Effects, Grammar, ToolInputSpec, ToolOutput, ToolSpec};
use cofferdam_sandbox::Sandbox;
use cofferdam_tool::{ProbeOutcome, Tool, ToolContext, ToolError, ToolInput};
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::options::Options;
use crate::path::PathRules;
use crate::plan::{Action, Plan, plan};
use crate::transaction::Transaction;

mod input;
mod intent;
mod workspace;

use intent::Intent;
use workspace::Workspace;

const NAME: &str = "apply_patch";

const DESCRIPTION: &str = "Edits files of the workspace. The input is a patch, not JSON: `*** Begin Patch`, then \
    operations (`*** Add File: path`, `*** Delete File: path`, `*** Update File: path` with an optional \
    `*** Move to: path`), then `*** End Patch`. An update has hunks of context lines (` `), removed lines (`-`) and added \
    lines (`+`); `@@ line` before a hunk names a line above it, such as a class or function header, and several may be \
    stacked. Either the whole patch is applied or nothing is changed.";

/// The envelope in Lark's notation, as constrained decoding takes it. The parser accepts more than this.
const GRAMMAR: &str = r#"start: begin operation+ end
begin: "*** Begin Patch" LF
end: "*** End Patch" LF?

operation: add | delete | update
add: "*** Add File: " path LF added*
delete: "*** Delete File: " path LF
update: "*** Update File: " path LF (move changes? | changes)
move: "*** Move to: " path LF

changes: (lines | hunk) hunk*
hunk: anchor+ lines
anchor: ("@@" | "@@ " /(.+)/) LF
lines: line+ end_of_file?
line: ("+" | "-" | " ") /(.*)/ LF
added: "+" /(.*)/ LF
end_of_file: "*** End of File" LF
path: /(.+)/

%import common.LF
"#;

/// The tool `apply_patch`.
///
/// # Cancel safety
///
/// A cancelled run rolls the patch back. If the future is dropped between two steps, each file has its old or its new
/// content, and temporary files (`.patch-*`) may be left beside them.
#[derive(Debug)]
pub struct ApplyPatchTool {
    spec: ToolSpec,
    sandbox: Arc<dyn Sandbox>,
    options: Options,
    rules: PathRules,
}

impl ApplyPatchTool {
    /// Makes the tool with the strict [`Options`] for a workspace at `/workspace`.
    pub fn new(sandbox: Arc<dyn Sandbox>) -> Self {
        let grammar = Grammar { syntax: "lark".to_owned(), definition: GRAMMAR.to_owned() };
        Self {
            spec: ToolSpec {
                name: NAME.to_owned(),
                description: DESCRIPTION.to_owned(),
                input: ToolInputSpec::Text { grammar: Some(grammar) },
            },
            sandbox,
            options: Options::default(),
            rules: PathRules::inside_root("/workspace"),
        }
    }

    /// Applies patches with other choices, such as [`Options::peer_compatible`].
    #[must_use]
    pub fn with_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Accepts absolute paths below this place of the workspace inside the sandbox.
    #[must_use]
    pub fn with_workspace_root(mut self, root: &str) -> Self {
        self.rules = PathRules::inside_root(root);
        self
    }

    /// Works a patch out against the files as they are.
    async fn plan(&self, input: &ToolInput) -> Result<(Plan, Workspace<'_>), Failure> {
        let patch = input::patch(input, &self.rules)
            .map_err(|message| Failure::Told(format!("{NAME} verification failed: {message}")))?;
        let mut workspace = Workspace::new(self.sandbox.files(), self.options.max_file_bytes);
        workspace.load(patch.paths()).await?;
        let plan =
            plan(&patch, &self.options, &mut |path| workspace.state(path)).map_err(|error| {
                Failure::Told(format!(
                    "{NAME} verification failed: {}\nOperation {} failed, so nothing was changed.",
                    error.explain(),
                    error.operation
                ))
            })?;
        Ok((plan, workspace))
    }

    async fn apply(&self, context: &ToolContext, input: &ToolInput) -> Result<Plan, Failure> {
        let (plan, workspace) = self.plan(input).await?;
        self.commit(context, &plan, &workspace).await?;
        match &plan.failure {
            None => Ok(plan),
            Some(error) => Err(Failure::Told(format!(
                "{NAME} failed: {}\nOperation {} failed; the operations before it stay applied.",
                error.explain(),
                error.operation
            ))),
        }
    }

    async fn commit(
        &self,
        context: &ToolContext,
        plan: &Plan,
        workspace: &Workspace<'_>,
    ) -> Result<(), Failure> {
        // One step is carried out at most once at a time, so its place makes the temporary names unique.
        let mut transaction = Transaction::new(plan, &token(context));
        let mut is_cancelled = false;
        while let Some(step) = transaction.step() {
            if context.cancel.is_cancelled() && !is_cancelled {
                // Said once: this makes the transaction roll back, and the steps of that are done.
                is_cancelled = true;
                transaction.record(Err(io::ErrorKind::Interrupted.into()));
                continue;
            }
            let outcome = match workspace.perform(step).await {
                Ok(done) => Ok(done),
                Err(Failure::Lost(error)) => return Err(Failure::Lost(error)),
                Err(Failure::Step(error)) => Err(error),
                Err(Failure::Told(message)) => Err(io::Error::other(message)),
            };
            transaction.record(outcome);
        }
        match transaction.finish() {
            Ok(_) => Ok(()),
            Err(_) if is_cancelled => Err(Failure::Lost(ToolError::Cancelled)),
            Err(error) => Err(Failure::Told(format!("{NAME} failed: {error}: {}", error.cause))),
        }
    }
}

/// What makes the temporary names of a call.
fn token(context: &ToolContext) -> String {
    format!("{}-{}", context.run, context.step)
}

/// Why a patch was not applied.
#[derive(Debug)]
enum Failure {
    /// The model is told, and can correct it.
    Told(String),
    /// A step of the transaction failed, which rolls it back.
    Step(io::Error),
    /// The run cannot go on.
    Lost(ToolError),
}

#[async_trait]
impl Tool for ApplyPatchTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effects(&self, _: &ToolInput) -> Effects {
        // Whether the files hold the new content can be asked of the sandbox.
        Effects { class: EffectClass::Probe, writes: true, network: false }
    }

    async fn call(&self, context: &ToolContext, input: ToolInput) -> Result<ToolOutput, ToolError> {
        let told = |message: String| {
            let structured = json!({"status": "failed"});
            Ok(ToolOutput { structured, ..ToolOutput::error(message) })
        };
        match self.apply(context, &input).await {
            Ok(plan) => Ok(report(&plan)),
            Err(Failure::Told(message)) => told(message),
            Err(Failure::Step(error)) => told(format!("{NAME} failed: {error}")),
            Err(Failure::Lost(error)) => Err(error),
        }
    }

    async fn intend(&self, _: &ToolContext, input: &ToolInput) -> Result<Value, ToolError> {
        match self.plan(input).await {
            // A patch that fails in part has no one state in which it is done.
            Ok((plan, _)) if plan.failure.is_none() => {
                Ok(serde_json::to_value(Intent::of(&plan)).unwrap_or_default())
            }
            Err(Failure::Lost(error)) => Err(error),
            // It will fail, and change nothing.
            _ => Ok(Value::Null),
        }
    }

    async fn probe(
        &self,
        context: &ToolContext,
        input: &ToolInput,
        intended: &Value,
    ) -> Result<ProbeOutcome, ToolError> {
        let unknown = |why: String| Ok(ProbeOutcome::Unknown { why });
        if intended.is_null() {
            return match self.plan(input).await {
                Err(Failure::Lost(error)) => Err(error),
                // It cannot be applied now either, so that making the call again changes nothing.
                Err(_) => Ok(ProbeOutcome::NotStarted),
                Ok(_) => unknown("nothing was written down of what it was about to do".into()),
            };
        }
        let intent = match Intent::deserialize(intended) {
            Ok(intent) => intent,
            Err(error) => return unknown(format!("what was written down is malformed: {error}")),
        };
        let mut workspace = Workspace::new(self.sandbox.files(), self.options.max_file_bytes);
        match intent.find_out(&mut workspace, &token(context)).await {
            Ok(outcome) => Ok(outcome),
            Err(Failure::Lost(error)) => Err(error),
            Err(Failure::Told(message)) => unknown(message),
            Err(Failure::Step(error)) => unknown(error.to_string()),
        }
    }
}

fn report(plan: &Plan) -> ToolOutput {
    let warnings = plan.warnings().map(|warning| format!("warning: {warning}\n"));
    let text: String = std::iter::once(plan.summary()).chain(warnings).collect();
    let files: Vec<Value> = plan
        .outcomes
        .iter()
        .map(|outcome| {
            let action = match outcome.action {
                Action::Added => "added",
                Action::Modified => "modified",
                Action::Deleted => "deleted",
            };
            let moved_from = outcome.moved_from.as_ref().map(|path| path.as_str());
            json!({"action": action, "path": outcome.path.as_str(), "moved_from": moved_from})
        })
        .collect();
    ToolOutput {
        structured: json!({"status": "completed", "files": files}),
        ..ToolOutput::text(text)
    }
}

#[cfg(test)]
mod tests;
