//! The turn loop: ask the model, run the tools it calls, tell it what came of them, until it is done.
//!
//! - [`harness`]: [`Harness`] and what it is made of.
//! - [`stacks`]: the closed tower stacks that it is given; it knows no layer, no provider and no backend.
//! - [`request`]: [`RunRequest`] and [`RunOptions`].
//! - [`event`]: [`RunEvent`], [`RunObserver`] and [`RunStream`].
//! - [`keeper`]: [`WorkspaceKeeper`], who takes checkpoints of what a run works in, and makes it anew when it is lost.
//! - [`error`]: the failures, [`RunFailure`] and [`RunError`].
//!
//! What the loop promises:
//!
//! - The whole answer of the model is in the journal before anything acts on it.
//! - The intent of a call is in the journal before it starts; that is the journal layer's work, in the tool stack.
//! - Calls of one answer run at the same time where none of them writes; a call that writes runs alone, and results are
//!   told to the model in the order of its calls.
//! - A failure that the model can act on is told to it; any other ends the run with what it cost.
//! - Cancelling reaches the running tool, which gets a moment to end softly and is then dropped.
#![forbid(unsafe_code)]

mod calls;
pub mod error;
pub mod event;
pub mod harness;
pub mod keeper;
pub mod request;
mod run;
pub mod stacks;

pub use error::{Difference, RunError, RunFailure};
pub use event::{NoObserver, RunDelta, RunEvent, RunObserver, RunStream, StreamItem};
pub use harness::{Harness, HarnessParts};
pub use keeper::{CheckpointPoint, CheckpointTaken, KeeperError, Recovered, WorkspaceKeeper};
pub use request::{
    CheckpointTrigger, Checkpoints, GivenDecision, OnChanged, OnUnknown, ResumeRequest, RunOptions,
    RunReport, RunRequest,
};
pub use stacks::{ModelStack, RunScope, Stacks, ToolStack};
