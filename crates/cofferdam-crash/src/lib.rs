//! The crash suite: the process of an agent is killed at every named point, and its run must go on as if nothing had been.
//!
//! A process runs a scripted agent over a journal on disk, snapshots and a sandbox, and is killed, at a named point or at a random
//! time. The next process resumes the run, and may be killed too. In the end the run must have ended as one that nobody
//! disturbed: the same last words, the same conversation but for ids and times, the same workspace. A ledger outside, which no
//! part of the product writes, must show each effect once, or the run must have said that it does not know.
//!
//! Nothing in the product knows of this: points are passed by decorators of its seams.
//!
//! - [`point`]: what a point is, and how a process dies at one.
//! - [`crashing`]: the decorators.
//! - [`ledger`], [`tools`]: the world outside, and the tools that change it.
//! - [`script`], [`world`]: what the agent does, and what it works in.
//! - [`drive`], [`ending`]: one process, and what it says at its end.
//! - [`process`], [`scenario`]: killing it, and what comes after.
//! - [`judge`]: what must hold.
//! - [`plan`], [`suite`], [`table`]: which points are struck, by how many at a time, and what came of it.
//! - [`defect`]: guarantees that are broken on purpose; the suite must notice.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

pub mod crashing;
pub mod defect;
pub mod drive;
pub mod ending;
mod faulty;
pub mod judge;
pub mod ledger;
pub mod plan;
pub mod point;
pub mod process;
mod random;
pub mod scenario;
pub mod script;
pub mod suite;
pub mod table;
pub mod tools;
pub mod world;
