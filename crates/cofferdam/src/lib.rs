//! Agents with sealed sandboxes: a trusted control plane drives untrusted compute planes.
//!
//! This crate is thin. [`Agent`] puts the parts together, [`DefaultStacks`] is the default order of layers, and the rest
//! are the crates themselves, re-exported; whatever is done here can be done with them by hand, as the example
//! `custom_stack` shows.
//!
//! ```no_run
//! use cofferdam::{Agent, manifest::{Entry, Manifest}, model::ScriptedModel};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let model = ScriptedModel::from_yaml(&std::fs::read_to_string("script.yaml")?)?;
//! let workspace = Manifest::builder().entry("notes.txt", Entry::file("buy milk\n")).build()?;
//! let agent = Agent::builder("tidy").model(model).workspace(workspace, ".").build()?;
//! let report = agent.run("sort the notes").await?;
//! println!("{} ({} turns)", report.output, report.turns);
//! # Ok(())
//! # }
//! ```
//!
//! Features: `linux` (default) brings sealed sandboxes on Linux without a daemon, `docker` the same in containers, `openai`
//! (default) the clients of the Responses and Chat Completions APIs, `registry` the fetching of images that sandboxes name.
#![forbid(unsafe_code)]

pub mod agent;
pub mod backends;
mod keeping;
pub mod models;
pub mod retention;
pub mod runs;
pub mod secrets;
pub mod session;
pub mod stacks;
pub mod state_directory;
pub mod system;

pub use agent::{Agent, AgentBuilder, AgentError};
pub use cofferdam_apply_patch as apply_patch;
pub use cofferdam_checkpoint as checkpoint;
pub use cofferdam_core as core;
pub use cofferdam_harness as harness;
pub use cofferdam_journal as journal;
pub use cofferdam_layers as layers;
pub use cofferdam_manifest as manifest;
pub use cofferdam_model as model;
#[cfg(feature = "openai")]
pub use cofferdam_model_openai as model_openai;
pub use cofferdam_policy as policy;
pub use cofferdam_sandbox as sandbox;
#[cfg(feature = "docker")]
pub use cofferdam_sandbox_docker as sandbox_docker;
#[cfg(feature = "linux")]
pub use cofferdam_sandbox_linux as sandbox_linux;
pub use cofferdam_shell as shell;
pub use cofferdam_snapshot as snapshot;
pub use cofferdam_tool as tool;
pub use cofferdam_workspace as workspace;
pub use retention::{AutomaticCleanUp, CleanedUp};
pub use runs::ResumeOptions;
pub use session::Session;
pub use stacks::{DefaultStacks, StackLimits};
pub use state_directory::{StateDirectory, StateError};
pub use system::{SystemClock, SystemEntropy};

/// The examples of the project's README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct ReadmeExamples;

/// The examples of the guide, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/runs-that-survive.md")]
pub struct GuideExamples;
