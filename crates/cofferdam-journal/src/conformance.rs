//! The conformance suite of the seam: what every [`Journal`] must do, as cases that run on a live one.
//!
//! A store from outside runs all of it in ten lines:
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use cofferdam_core::Clock;
//! # use cofferdam_journal::{Journal, JournalError, MemoryJournal as MyJournal};
//! use cofferdam_journal::conformance::{self, Options, Subject};
//!
//! struct Mine;
//!
//! #[async_trait::async_trait]
//! impl Subject for Mine {
//!     async fn fresh(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn Journal>, JournalError> {
//!         Ok(Arc::new(MyJournal::new(clock)))
//!     }
//! }
//!
//! # async fn test() {
//! let report = conformance::run(&Mine, &Options::default()).await;
//! report.assert_passed(); // panics with the table of what failed
//! # }
//! ```
//!
//! Each case has an empty store of its own and a clock that only it moves, looks only through the seam, and has a bound of
//! time. A panic in a case is a failure of that case alone. Run it in a tokio runtime that has its clock turned on.

mod appends;
mod leases;
mod lists;
mod races;
mod reads;
mod reopening;
mod report;
mod support;

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use cofferdam_core::{Clock, Timestamp};
use futures::{FutureExt as _, future::BoxFuture};

pub use self::report::{CaseReport, Outcome, Report};
use self::support::{Stop, Trial};
use crate::{Journal, JournalError};

/// The store that is tried.
#[async_trait]
pub trait Subject: Send + Sync {
    /// Makes an empty store that tells the time by this clock.
    ///
    /// # Errors
    ///
    /// The case fails.
    async fn fresh(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn Journal>, JournalError>;

    /// Closes a store that [`Subject::fresh`] made and opens it again; `None`, the default, if it lives only as long as its
    /// process. Cases that need it are skipped then.
    ///
    /// # Errors
    ///
    /// The case fails.
    async fn reopen(
        &self,
        _journal: Arc<dyn Journal>,
        _clock: Arc<dyn Clock>,
    ) -> Result<Option<Arc<dyn Journal>>, JournalError> {
        Ok(None)
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct HandClock(AtomicU64);

impl HandClock {
    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Default for HandClock {
    /// Some day in 2026.
    fn default() -> Self {
        Self(AtomicU64::new(1_780_000_000_000))
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// How the suite is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Runs only the cases whose name contains this text, such as `leases::`. Default: all.
    pub filter: Option<String>,
    /// Time that one case may take. Default 30 s.
    pub case_timeout: Duration,
    /// Whether the store sees at once that a lease was dropped with all of its clones. Default true; false for a store that
    /// knows of its holders only by expiry.
    pub sees_dropped_leases: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { filter: None, case_timeout: Duration::from_secs(30), sees_dropped_leases: true }
    }
}

/// One rule of the seam and how it is tried.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Case {
    /// Group and name, such as `leases::expired_is_taken_over`.
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

/// Returns every case, in the order in which they run.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    [appends::CASES, leases::CASES, reads::CASES, lists::CASES, races::CASES, reopening::CASES]
        .into_iter()
        .flatten()
}

/// Runs the suite on a store, one case after the other.
///
/// # Cancel safety
///
/// If the future is dropped, the store of the case under way is dropped with it.
pub async fn run(subject: &dyn Subject, options: &Options) -> Report {
    let mut reports = Vec::new();
    for case in cases() {
        if options.filter.as_ref().is_none_or(|text| case.name.contains(text.as_str())) {
            let outcome = run_case(subject, options, case).await;
            reports.push(CaseReport { name: case.name, rule: case.rule, outcome });
        }
    }
    Report { cases: reports }
}

async fn run_case(subject: &dyn Subject, options: &Options, case: &Case) -> Outcome {
    let tried = async {
        let trial = Trial::new(subject, options).await?;
        (case.run)(&trial).await
    };
    let bounded =
        tokio::time::timeout(options.case_timeout, AssertUnwindSafe(tried).catch_unwind());
    match bounded.await {
        Ok(Ok(Ok(()))) => Outcome::Passed,
        Ok(Ok(Err(Stop::Failed(detail)))) => Outcome::Failed(detail),
        Ok(Ok(Err(Stop::Skipped(why)))) => Outcome::Skipped(why),
        Ok(Err(panic)) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Outcome::Failed(format!("panicked: {}", text.unwrap_or_default()))
        }
        Err(_) => Outcome::Failed(format!("not over within {:?}", options.case_timeout)),
    }
}
