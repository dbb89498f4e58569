//! The V4A patch format: a pure, linear, all-or-nothing engine, and its tool
#![forbid(unsafe_code)]

mod apply;
mod candidates;
#[cfg(all(feature = "host", unix))]
pub mod command;
mod fuzz;
#[cfg(all(feature = "host", unix))]
pub mod host;
mod index;
mod lines;
mod options;
mod parse;
mod patch;
mod path;
mod plan;
mod report;
mod transaction;

pub use apply::{Applied, HunkError, apply_hunks};
pub use candidates::{Candidate, Difference, MAX_CANDIDATES, MAX_DIFFERENCES};
pub use fuzz::Fuzz;
pub use index::MAX_ALTERNATIVES;
pub use options::{Anchors, Existing, FinalNewline, Mode, Options};
pub use parse::{MAX_PATCH_BYTES, ParseError, parse, parse_with};
pub use patch::{Hunk, HunkLine, Operation, Patch};
pub use path::{MAX_PATH_BYTES, PatchPath, PathError, PathReason, PathRules};
pub use plan::{
    Action, Change, FileContent, FileState, Irreversible, Outcome, Plan, PlanError, PlanFault,
    ReadError, plan,
};
pub use report::{AnchorReport, HunkReport, Placement};
pub use transaction::{
    CommitError, Committed, Leftover, Step, StepDone, Target, Transaction, commit,
};
