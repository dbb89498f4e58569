//! Doubles and helpers that the tests of all crates share; never a dependency of shipped code.
//!
//! - [`chaos`]: kills parts of a backend at random moments, and looks at what is left.
//! - [`mod@engine`]: [`TestEngine`], a container engine of the tests' own.
//! - [`faulty_backend`]: [`FaultyBackend`], any sandbox backend with one planted defect.
//! - [`faulty_store`]: [`FaultyStore`], an object store that fails as storage fails.
//! - [`fixed`]: [`FixedClock`] and [`CountingEntropy`], so that ids and times are the same in each run of a test.
//! - [`image`]: [`ImageBuilder`] and [`LayerBuilder`], which also write what no builder of images would.
//! - [`scripted_sandbox`]: [`ScriptedSandbox`], a strict sandbox without processes.
//! - [`memory_sandbox`]: [`MemoryBackend`], sandboxes in memory that are stricter than real ones.
//! - [`mock_server`]: [`MockModelServer`], a model server on loopback that plays a script, with faults.
//! - [`power_loss`]: the states in which a disk may be found after the power went while a program wrote.
//! - [`mod@skip`]: says aloud that a test cannot run here, and why.
//! - [`tools`]: [`FunctionTool`], a tool made of a closure.
#![forbid(unsafe_code)]

pub mod chaos;
pub mod engine;
pub mod faulty_backend;
pub mod faulty_store;
mod file_tree;
pub mod fixed;
pub mod image;
pub mod memory_sandbox;
pub mod mock_server;
pub mod power_loss;
mod random;
pub mod scripted_sandbox;
pub mod skip;
pub mod tools;
mod tree_stream;

pub use engine::TestEngine;
pub use faulty_backend::{Defect, FaultyBackend};
pub use faulty_store::{FaultPlan, FaultyStore};
pub use fixed::{CountingEntropy, FixedClock};
pub use image::{ImageBuilder, LayerBuilder, Packing};
pub use memory_sandbox::MemoryBackend;
pub use mock_server::MockModelServer;
pub use scripted_sandbox::{MemoryFiles, ScriptedCommand, ScriptedSandbox};
pub use skip::skip;
pub use tools::FunctionTool;
