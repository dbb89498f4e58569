//! The conformance suite of the seam: what every [`SandboxBackend`] must do, as cases that run on a live one.
//!
//! A backend from outside runs all of it in ten lines:
//!
//! ```no_run
//! # use cofferdam_sandbox::SandboxBackend;
//! # async fn conformance(backend: &dyn SandboxBackend) {
//! use cofferdam_sandbox::conformance::{self, Options};
//!
//! let report = conformance::run(backend, &Options::default()).await;
//! println!("{report}");
//! report.assert_passed(); // panics with the table of what failed
//! # }
//! ```
//!
//! Each case makes its own sandboxes, has a bound of time, and looks only through the seam, so what it finds is what a
//! caller would find. A panic in a case is a failure of that case alone. What a case made is closed after it, and a close
//! that fails is a failure too. A case is skipped only for a wall that the backend itself reports as weaker than full, for
//! network access that it refuses by name, for what [`crate::Capabilities`] say that it cannot do here, or for a tool that the
//! root file system lacks; the report says which.
//!
//! The root file system needs a POSIX `sh`, the file and text tools of coreutils or busybox, and `/proc` of the
//! sandbox's own processes; a writable `/tmp` stands for what is outside of the workspace.
//!
//! - [`cases`]: the table. Commands are in the groups `exec`, `start`, `streams`, `signals`, `terminals`, `processes` and
//!   `clock`, the workspace in `files`, `paths`, `tree`, `scan`, `generated` and `races`, what only some can in `capabilities`, `base`
//!   and `freeze`, and the rest in `cancel`, `lifecycle`, `listing` and `limits`.
//! - [`run`]: runs those that match [`Options::filter`].
//! - [`Report`]: what came of each.

mod base;
mod cancel;
mod capabilities;
mod clock;
mod exec;
mod files;
mod freeze;
mod generated;
mod host_tree;
mod layout;
mod lifecycle;
mod limits;
mod listing;
mod model;
mod paths;
mod processes;
mod races;
mod report;
mod scan;
mod signals;
mod start;
mod streams;
mod support;
mod terminals;
mod tree;
mod trial;

use std::{
    panic::AssertUnwindSafe,
    path::PathBuf,
    time::{Duration, Instant},
};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};

pub use self::report::{CaseFailure, CaseReport, Outcome, Report};
use self::trial::{Stop, Trial};
use crate::{SandboxBackend, SandboxError, SandboxSpec};

/// How the suite is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Runs only the cases whose name contains this text, such as `files::`. Default: all.
    pub filter: Option<String>,
    /// Time that one case may take. Default 30 s.
    pub case_timeout: Duration,
    /// Cases at a time. Default 4.
    pub parallel: usize,
    /// Sandboxes at a time in the case that makes many. Default 200; lower it where a sandbox is dear.
    pub at_once: usize,
    /// Bytes of output in the case that reads much. Default 1 GiB.
    pub huge_output_bytes: u64,
    /// Whether sandboxes have a POSIX `sh`. Default true. Without one, cases that start it are skipped; that is for doubles
    /// that have no programs but a few of their own, not for backends.
    pub shell: bool,
    /// A directory of the host in which cases make directories that workspaces begin with, and remove them. Default
    /// `/var/tmp`.
    pub host_directory: PathBuf,
    /// What sandboxes are made of, such as a root file system of the backend's own; cases that test a limit change that
    /// limit. Default: [`SandboxSpec::default`].
    pub spec: SandboxSpec,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            filter: None,
            case_timeout: Duration::from_secs(30),
            parallel: 4,
            at_once: 200,
            huge_output_bytes: 1 << 30,
            shell: true,
            host_directory: PathBuf::from("/var/tmp"),
            spec: SandboxSpec::default(),
        }
    }
}

/// One rule of the seam and how it is tried.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Case {
    /// Group and name, such as `exec::exit_codes`.
    pub name: &'static str,
    /// The rule, in words.
    pub rule: &'static str,
    run: for<'a> fn(&'a Trial<'a>) -> BoxFuture<'a, Result<(), Stop>>,
}

/// Writes the table of a group: each row is a function of the file and the rule that it tries.
macro_rules! case_table {
    ($group:literal: $($function:ident: $rule:literal,)+) => {
        pub(super) const CASES: &[crate::conformance::Case] = &[$(crate::conformance::Case {
            name: concat!($group, "::", stringify!($function)),
            rule: $rule,
            run: |trial| Box::pin($function(trial)),
        }),+];
    };
}
use case_table;

/// Returns every case, in the order in which they are started.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    [
        exec::CASES,
        start::CASES,
        streams::CASES,
        signals::CASES,
        terminals::CASES,
        processes::CASES,
        clock::CASES,
        files::CASES,
        paths::CASES,
        tree::CASES,
        scan::CASES,
        generated::CASES,
        races::CASES,
        cancel::CASES,
        capabilities::CASES,
        base::CASES,
        freeze::CASES,
        lifecycle::CASES,
        listing::CASES,
        limits::CASES,
    ]
    .into_iter()
    .flatten()
}

/// Runs the suite on a backend.
///
/// # Cancel safety
///
/// If the future is dropped, the sandboxes of the cases under way are closed by being dropped.
pub async fn run(backend: &dyn SandboxBackend, options: &Options) -> Report {
    let chosen = cases().filter(|case| {
        options.filter.as_ref().is_none_or(|text| case.name.contains(text.as_str()))
    });
    let mut cases: Vec<_> = stream::iter(chosen.enumerate())
        .map(|(place, case)| async move {
            let start = Instant::now();
            let outcome = run_case(backend, options, case).await;
            let took = start.elapsed();
            (place, CaseReport { name: case.name, rule: case.rule, outcome, took })
        })
        .buffer_unordered(options.parallel.max(1))
        .collect()
        .await;
    cases.sort_by_key(|(place, _)| *place);
    let cases = cases.into_iter().map(|(_, case)| case).collect();
    Report { backend: backend.name().to_owned(), cases }
}

async fn run_case(backend: &dyn SandboxBackend, options: &Options, case: &Case) -> Outcome {
    let trial = Trial::new(backend, options);
    let tried = bounded(options.case_timeout, (case.run)(&trial)).await;
    let closed = bounded(options.case_timeout, trial.close()).await;
    match tried.and(closed) {
        Ok(()) => Outcome::Passed,
        Err(Stop::Failed(CaseFailure::Call(SandboxError::NotStarted { program, .. })))
            if !options.shell && program == "sh" =>
        {
            Outcome::Skipped("the options say that sandboxes have no shell".to_owned())
        }
        // What is refused by name is not there; whoever has a terminal has all of one.
        Err(Stop::Failed(CaseFailure::Call(error @ SandboxError::Unsupported { .. })))
            if case.name.contains("terminal") =>
        {
            Outcome::Skipped(error.to_string())
        }
        Err(Stop::Failed(failure)) => Outcome::Failed(failure),
        Err(Stop::Skipped(reason)) => Outcome::Skipped(reason),
    }
}

async fn bounded(
    limit: Duration,
    tried: impl Future<Output = Result<(), Stop>>,
) -> Result<(), Stop> {
    match tokio::time::timeout(limit, AssertUnwindSafe(tried).catch_unwind()).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(CaseFailure::Panicked(text.unwrap_or_else(|| "no text".to_owned())).into())
        }
        Err(_elapsed) => Err(CaseFailure::TimedOut(limit).into()),
    }
}
