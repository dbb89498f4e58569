//! The declared workspace and the agent file: parse, check, render. Pure: nothing here reads a file, the environment or
//! the network, and the same text always gives the same answer.
//!
//! - [`AgentFile`]: an agent in one YAML file. [`AgentFile::parse`] reports everything that is wrong, each with its
//!   line, the field, and what to do ([`AgentFileError`]).
//! - [`Manifest`]: its workspace, also usable alone or made in code: [`Entry`]s, environment, limits, network.
//! - [`show`]: the tree that the workspace will be, and everything that the file opens, for a reviewer.
//! - [`json_schema`]: the JSON Schema of the file, for editors.
//! - [`ByteSize`], [`HumanDuration`], [`Mode`], [`ModelChoice`]: how people write sizes, times, modes and models.
//!
//! # Why not `#[derive(Deserialize)]`?
//!
//! A derived reader stops at the first problem and cannot say where a buffered part of a tagged type stands. A person
//! who repairs a file wants all problems at once, each at its line. So the file becomes a plain tree, and small readers
//! take it apart; each field that a reader asks for is known, and everything else is an error with a suggestion. The
//! schema comes from the types, and a test compares the fields of both.
#![forbid(unsafe_code)]

mod agent_file;
mod byte_size;
mod decode;
mod entry;
mod field_path;
mod host_path;
mod human_duration;
mod manifest;
mod mode;
mod model_spec;
mod node;
mod output;
mod problem;
mod root_source;
mod schema;
mod show;
mod suggest;
mod validate;
mod warnings;

pub use agent_file::{
    AgentFile, MAX_FILE_BYTES, PolicyDecision, PolicyRuleSpec, RunLimits, ToolName, VERSION,
};
pub use byte_size::{ByteSize, ByteSizeError};
pub use entry::{
    Entry, EntryOptions, EntrySource, GitSource, InlineFile, LocalDir, LocalFile, Owner,
};
pub use field_path::{FieldPath, Segment};
pub use human_duration::{HumanDuration, HumanDurationError};
pub use manifest::{Manifest, ManifestBuilder, WorkspaceLimits};
pub use mode::{Mode, ModeError};
pub use model_spec::{ModelChoice, ModelChoiceError, ModelSpec, ReasoningEffort};
pub use output::{EvaluationSpec, OutputSpec};
pub use problem::{AgentFileError, Location, MAX_PROBLEMS, Problem};
pub use root_source::RootSource;
pub use schema::json_schema;
pub use show::{show, show_manifest};
pub use warnings::Warning;
