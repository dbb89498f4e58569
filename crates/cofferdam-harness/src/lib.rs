//! The turn loop: ask the model, run the tools it calls, tell it what came of them, until it is done.
//!
//! - [`harness`]: [`Harness`] and what it is made of; [`resume`]: going on with a run, answering it, forking it.
//! - [`state`]: [`RunState`], what the records of a run say and what is next; pure.
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
//! - A fresh and a resumed run take the same way: a record is written, folded into the state, and the state says what is
//!   next. An answer that is in the journal is never asked for again; a result that is there is never made again.
//! - A call with an intent and no result is settled by its class: run again where that does no harm, asked about where
//!   the tool can tell, and left to a policy or a person where nobody can. It is never guessed.
//! - A sandbox that is lost is replaced from the newest checkpoint. If calls changed the workspace since, the run goes back to
//!   the first answer that did and makes those again; results of its calls that left the workspace alone stand.
//!   That needs that no later call touched more than the sandbox; otherwise somebody decides.
//! - A run that waits for somebody holds no process: it is paused, and resumed when the answer is there.
//! - A process that lost its lease stops at once, and writes nothing more.
//! - Calls of one answer run at the same time where none of them writes; a call that writes runs alone, and results are
//!   told to the model in the order of its calls.
//! - A failure that the model can act on is told to it; any other ends the run with what it cost.
//! - Cancelling reaches the running tool, which gets a moment to end softly and is then dropped.
#![forbid(unsafe_code)]

pub mod error;
pub mod event;
pub mod harness;
pub mod hold;
pub mod keeper;
mod recall;
pub mod request;
pub mod resume;
mod run;
mod setup;
pub mod stacks;
pub mod state;
mod tap;

pub use error::{Difference, RunError, RunFailure};
pub use event::{NoObserver, RunDelta, RunEvent, RunObserver, RunStream, StreamItem};
pub use harness::{Harness, HarnessParts};
pub use hold::Hold;
pub use keeper::{CheckpointPoint, CheckpointTaken, KeeperError, Recovered, WorkspaceKeeper};
pub use request::{
    CheckpointTrigger, Checkpoints, GivenDecision, GivenInput, OnChanged, OnUnknown, ResumeRequest,
    RunOptions, RunReport, RunRequest,
};
pub use stacks::{ModelStack, RunScope, Spent, Stacks, ToolStack};
pub use state::RunState;
