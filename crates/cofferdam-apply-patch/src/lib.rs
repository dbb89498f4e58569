//! The V4A patch format: a pure, linear, all-or-nothing engine, and the command over it.
//!
//! V4A is the patch format that language models write: files are named, places are found by their lines instead of by
//! numbers. This crate reads it, works it out in memory and carries it out, in four steps that can be used apart:
//!
//! | Step | Function | I/O |
//! |---|---|---|
//! | read the text | [`parse`], or [`Operation::create`] and its sisters for operations that came as path and diff | none |
//! | one file | [`apply_hunks`] on bytes, with a [`HunkReport`] for each hunk | none |
//! | all files | [`plan()`] over a callback that reads, giving a [`Plan`] that can be reversed | the callback's |
//! | carry out | [`Transaction`], which names each [`Step`]; [`commit`] on a [`Target`] such as `host::HostDirectory` | the target's |
//!
//! ```
//! use cofferdam_apply_patch::{FileContent, FileState, Options, parse, plan};
//!
//! let patch = parse(
//!     "*** Begin Patch\n\
//!      *** Update File: src/main.rs\n\
//!      @@ fn main() {\n\
//!      -    old();\n\
//!      +    new();\n\
//!      *** End Patch\n",
//! )?;
//! let source = FileContent::new(b"fn main() {\n    old();\n}\n".to_vec(), Some(0o644));
//! let plan = plan(&patch, &Options::default(), &mut |_path| Ok(Some(FileState::File(source.clone()))))?;
//! let change = plan.writes().next().ok_or("one file changes")?;
//! let after = change.after.as_ref().ok_or("the file stays")?;
//! assert_eq!(after.bytes.as_slice(), b"fn main() {\n    new();\n}\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is kept of the peers' behaviour, and what is not
//!
//! The format has other engines, and models are trained on what those accept. Every patch that they apply as it is meant
//! applies here with the same result, except where the default is stricter; [`Options::peer_compatible`] takes that back.
//!
//! | Case | Peers | Here, by default | [`Options::peer_compatible`] |
//! |---|---|---|---|
//! | a later operation fails | the earlier ones stay | nothing is changed ([`Mode::Atomic`]) | as peers ([`Mode::Partial`]) |
//! | a file is added or moved over another | overwritten | refused ([`Existing::Refuse`]) | as peers |
//! | an updated file without final newline | gets one | has none ([`FinalNewline::Keep`]) | as peers |
//! | move to the same path | the file is deleted | it is updated | it is updated |
//! | move without hunks | refused | a rename, of any bytes | a rename |
//! | stacked `@@` lines | refused | each is found in turn | each is found in turn |
//! | only added lines after an anchor | end of the file | after the anchor | after the anchor |
//! | lines marked as the end of the file are elsewhere | refused | taken if nowhere else, and reported | the same |
//! | git's `@@ -1,2 +1,2 @@` | looked for as text | numbers ignored | the same |
//! | byte order mark | hides the first line | kept | kept |
//! | paths that leave the workspace, links | followed | refused | refused |
//! | a place that is not the only one | taken silently | taken and reported | taken and reported |
//!
//! # Why is there no file system interface?
//!
//! An engine that writes files has to choose between synchronous and asynchronous, and hides the order of its writes. Here
//! the order is data: a [`Transaction`] says what to do next and is told how it went. A sandbox behind an asynchronous
//! protocol and a host directory share the same roll-back, and a test fails every step in turn.
//!
//! # Features
//!
//! - `host` (default, Unix): the `host` and `command` modules, with `rustix`. Without it `thiserror` is the only
//!   dependency.
//! - `tool`: the `tool` module, the model's tool over a sandbox's files.
#![forbid(unsafe_code)]

mod apply;
mod candidates;
#[cfg(all(feature = "host", unix))]
pub mod command;
mod filter;
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
#[cfg(feature = "tool")]
pub mod tool;
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
