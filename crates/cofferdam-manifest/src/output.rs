//! [`OutputSpec`] and [`EvaluationSpec`]: what comes out of a workspace, and what it is compared with.

use cofferdam_core::WorkspacePath;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{entry::is_default, schema};

/// Something that is copied out of the workspace at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct OutputSpec {
    /// File or directory in the workspace.
    #[schemars(schema_with = "schema::workspace_path")]
    pub path: WorkspacePath,
    /// What it is, for people and for the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether the run is good without it. Default false.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(default)]
    pub optional: bool,
}

/// A comparison of an output with the truth: JSON Lines with JSON Lines, giving precision and recall.
///
/// The control plane compares after the run; the agent never sees the truth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct EvaluationSpec {
    /// Name of the comparison, in reports.
    pub name: String,
    /// The output, in JSON Lines; one of `outputs` or a file inside of one.
    #[schemars(schema_with = "schema::workspace_path")]
    pub output: WorkspacePath,
    /// The truth, in JSON Lines; path on the host, relative to the directory of this file.
    pub expected: String,
    /// Fields that tell which lines belong together.
    #[schemars(length(min = 1))]
    pub key: Vec<String>,
    /// Fields that must be equal. Default: only the key counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub compare: Vec<String>,
}
