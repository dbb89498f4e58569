//! Sudden death: a process drives a real backend through every operation, and at a random moment something is killed.
//!
//! The test program is both sides. As the *director* it starts itself as the *harness*, waits for a random time, kills its
//! victim, and looks whether anything is left; [`run`] is all of it. Everything in a round follows from its seed but the
//! exact moment, which the machine decides, so a failure is played again by its seed, some ten times if need be.
//!
//! After each round must hold:
//!
//! - a harness that lives ends: every call has an answer in a bounded time, which is an answer of the operation or a loss,
//!   never a breach of the protocol; a new sandbox works, as soon as what the backend stands on is there; its descriptors are
//!   those from before;
//! - nothing that it started lives, no namespace is held, no file is left in its temporary directory;
//! - after the next start, which sweeps, nothing that the backend keeps elsewhere is left: [`Subject::leftovers`].
//!
//! To try another backend, write a [`Subject`]:
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use cofferdam_sandbox::SandboxBackend;
//! use cofferdam_testkit::chaos::{self, Subject, Victim};
//!
//! # #[derive(Debug)] struct Docker;
//! # impl Docker { fn backend() -> Arc<dyn SandboxBackend> { unimplemented!() } }
//! impl Subject for Docker {
//!     fn backend(&self) -> Arc<dyn SandboxBackend> {
//!         Docker::backend()
//!     }
//!     fn victims(&self) -> Vec<Victim> {
//!         vec![Victim::Harness, Victim::Guest, Victim::Inside, Victim::Engine]
//!     }
//!     fn find(&self, victim: Victim, harness: u32) -> Vec<u32> {
//!         Vec::new() // process ids, from the labels of containers and `docker top`
//!     }
//!     fn leftovers(&self, harness: u32) -> Vec<String> {
//!         Vec::new() // containers, volumes and networks with the label of this owner
//!     }
//! }
//!
//! // The name of the test function, as libtest knows it.
//! chaos::run("chaos", &Docker);
//! ```
//!
//! `COFFERDAM_CHAOS_ROUNDS` sets the number of rounds (default [`Subject::rounds`]), `COFFERDAM_CHAOS_SEED` the seed of the
//! first (default 1; the next ones are its successors).

mod director;
mod harness;
mod lingering;
mod outcome;
mod processes;

use std::{ffi::OsString, fmt, sync::Arc, time::Duration};

use cofferdam_core::SandboxId;
use cofferdam_sandbox::{SandboxBackend, SandboxSpec};

pub use self::processes::{Process, children, descendants};

/// A backend that is tried.
pub trait Subject: Sync {
    /// Makes the backend, as a program at its start would. Called in a runtime.
    fn backend(&self) -> Arc<dyn SandboxBackend>;

    /// What sandboxes are made of. They need `sh`, `sleep` and `head`.
    fn spec(&self) -> SandboxSpec {
        SandboxSpec::default()
    }

    /// The victims that this backend has.
    fn victims(&self) -> Vec<Victim>;

    /// Returns the processes of a kind that belong to a harness at this moment; may be empty.
    fn find(&self, victim: Victim, harness: u32) -> Vec<u32>;

    /// Returns what the backend has left outside of processes, namespaces and temporary files, a line each.
    ///
    /// It is asked after the sweep as well, and must then be empty. What belongs to others must not be named.
    fn leftovers(&self, harness: u32) -> Vec<String>;

    /// Returns what is left of one sandbox outside of processes, for [`run_lingering`].
    fn leftovers_of(&self, _sandbox: &SandboxId) -> Vec<String> {
        Vec::new()
    }

    /// Brings back what a victim took away from everybody, such as an engine. Called after each kill, while the harness may
    /// still live.
    fn recover(&self, _victim: Victim) {}

    /// What a harness is told in its environment, such as where the engine listens that all rounds share.
    fn environment(&self) -> Vec<(&'static str, OsString)> {
        Vec::new()
    }

    /// Processes below the director that are of no round, such as an engine's. What they start is of the round all the same.
    fn bystanders(&self) -> Vec<u32> {
        Vec::new()
    }

    /// How long a harness begins new sandboxes, which is also the time in which the kill comes. Some lives of a sandbox
    /// should fit.
    fn length(&self) -> Duration {
        Duration::from_millis(600)
    }

    /// Rounds that are played if nobody asks for another number.
    fn rounds(&self) -> u64 {
        20
    }
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Victim {
    /// The process that uses the backend.
    Harness,
    /// A process of the backend outside of sandboxes.
    Helper,
    /// Both of these, the helper first.
    HelperAndHarness,
    /// The first process of a sandbox.
    Guest,
    /// Any other process in a sandbox.
    Inside,
    /// A service that the backend stands on.
    Engine,
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Harness => "harness",
            Self::Helper => "helper",
            Self::HelperAndHarness => "helper, harness",
            Self::Guest => "guest",
            Self::Inside => "inside",
            Self::Engine => "engine",
        })
    }
}

/// Set for the harness; its value is the seed.
const HARNESS: &str = "COFFERDAM_CHAOS_HARNESS";

/// Plays the rounds, or one round as the harness if this process is one.
///
/// Nothing else may start processes in this process at the same time: what is below it at the end of a round is taken for a
/// leftover.
///
/// # Panics
///
/// With the table of outcomes and the seeds of the rounds in which something did not hold.
pub fn run(test: &str, subject: &dyn Subject) {
    play(test, subject, harness::play, director::direct);
}

/// Plays rounds in which sandboxes outlive a harness that is killed and are found by the next one; or one round as the harness.
///
/// The backend must have them linger. Nothing else may start processes in this process at the same time.
///
/// # Panics
///
/// As [`run`].
pub fn run_lingering(test: &str, subject: &dyn Subject) {
    play(test, subject, lingering::play, lingering::direct);
}

#[expect(clippy::disallowed_methods, reason = "rounds and seed come from whoever runs the tests")]
#[expect(clippy::print_stdout, reason = "the table is what the test shows")]
fn play(
    test: &str,
    subject: &dyn Subject,
    harness: impl FnOnce(&dyn Subject, u64),
    direct: impl FnOnce(&str, &dyn Subject, u64, u64) -> outcome::Table,
) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number(HARNESS) {
        return harness(subject, seed);
    }
    let rounds = number("COFFERDAM_CHAOS_ROUNDS").unwrap_or_else(|| subject.rounds());
    let first = number("COFFERDAM_CHAOS_SEED").unwrap_or(1);
    let table = direct(test, subject, first, rounds);
    println!("{table}");
    assert!(table.failures().is_empty(), "not everything held; see the table above");
}
