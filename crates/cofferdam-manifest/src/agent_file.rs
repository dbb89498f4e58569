//! [`AgentFile`]: an agent in one file: what it is told, what drives it, what it works in and what comes out.

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    AgentFileError, EvaluationSpec, FieldPath, HumanDuration, Manifest, ModelSpec, OutputSpec,
    Warning, decode, entry::is_default, warnings,
};

/// Bytes that an agent file or a manifest may have.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// The version of the file that this crate reads and writes.
pub const VERSION: u32 = 1;

/// An agent: what it is told, what drives it, what it works in and what comes out.
///
/// ```
/// use cofferdam_manifest::AgentFile;
///
/// let agent = AgentFile::parse(
///     "
/// version: 1
/// name: greeter
/// model: {default: 'openai:gpt-5'}
/// task: Write a greeting to greeting.txt
/// outputs: [{path: greeting.txt}]
/// ",
///     "agent.yaml",
/// )?;
/// assert_eq!(agent.name, "greeter");
///
/// let error = AgentFile::parse("version: 1\nname: x\ntaks: y\nmodel: {default: 'chat:m'}\n", "a.yaml");
/// assert!(error.unwrap_err().to_string().starts_with("a.yaml:3:1: taks: unknown field; did you mean `task`?"));
/// # Ok::<(), cofferdam_manifest::AgentFileError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, title = "Cofferdam agent file")]
pub struct AgentFile {
    /// Version of this form: 1.
    #[schemars(range(min = 1, max = 1))]
    pub version: u32,
    /// Name of the agent: letters, digits, `-`, `_` and `.`, at most 64.
    #[schemars(regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    pub name: String,
    /// What the agent is for, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What the model is told in every turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// The first message of the user, if the caller gives none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Which model drives the agent.
    pub model: ModelSpec,
    /// Tools that the model gets. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<ToolName>>,
    /// Rules on tool calls; of those that match, the strictest decides. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub policy: Vec<PolicyRuleSpec>,
    /// Bounds on the run.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(default)]
    pub limits: RunLimits,
    /// What the agent works in. Default: an empty workspace in a sealed sandbox.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(default)]
    pub workspace: Manifest,
    /// What is copied out of the workspace at the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub outputs: Vec<OutputSpec>,
    /// How outputs are compared with the truth at the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub evaluations: Vec<EvaluationSpec>,
}

/// A tool that comes with Cofferdam.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ToolName {
    /// Commands, with and without a terminal.
    Shell,
    /// Edits of many files at once.
    ApplyPatch,
    /// Reading, listing and searching of files.
    Files,
    /// Images of the workspace for the model to look at.
    ViewImage,
}

impl ToolName {
    /// Every tool with its name.
    pub const ALL: [(&'static str, Self); 4] = [
        ("shell", Self::Shell),
        ("apply_patch", Self::ApplyPatch),
        ("files", Self::Files),
        ("view_image", Self::ViewImage),
    ];

    /// Returns the name of the tool.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::ApplyPatch => "apply_patch",
            Self::Files => "files",
            Self::ViewImage => "view_image",
        }
    }
}

/// A rule on tool calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PolicyRuleSpec {
    /// Names of the tools that it is about; `*` stands for any text.
    pub tool: String,
    /// What happens to their calls.
    pub decision: PolicyDecision,
    /// Why, for the model, the user and the audit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a rule does to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PolicyDecision {
    /// The call is made.
    Allow,
    /// The call is refused, and the model is told why.
    Deny,
    /// A person is asked.
    Ask,
}

impl PolicyDecision {
    /// Every decision with its name.
    pub const ALL: [(&'static str, Self); 3] =
        [("allow", Self::Allow), ("deny", Self::Deny), ("ask", Self::Ask)];

    /// Returns the name of the decision.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Ask => "ask",
        }
    }
}

/// Bounds on a run; what is not given has the harness's default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RunLimits {
    /// Model calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_turns: Option<u32>,
    /// Input and output tokens together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_tokens: Option<u64>,
    /// Time of the whole run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_time: Option<HumanDuration>,
    /// Time of one tool call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_time: Option<HumanDuration>,
}

impl AgentFile {
    /// Parses and checks a file; YAML 1.2, and so JSON too.
    ///
    /// `name` is the file's name in messages; nothing is read.
    ///
    /// # Errors
    ///
    /// Reports every problem found, each with its line and what to do.
    pub fn parse(yaml: &str, name: &str) -> Result<Self, AgentFileError> {
        decode::document(yaml, name, decode::agent::agent_file)
    }

    /// Returns what deserves a second look although it is allowed, such as text that looks like a secret.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        warnings::manifest(&self.workspace, &FieldPath::root().key("workspace"))
    }
}
