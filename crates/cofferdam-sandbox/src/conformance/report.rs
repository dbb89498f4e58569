//! [`Report`]: what came of each case, printed as a table.

use std::{fmt, time::Duration};

use crate::SandboxError;

/// What came of a run of the suite.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// [`crate::SandboxBackend::name`] of the backend.
    pub backend: String,
    /// One entry a case, in the order of the table.
    pub cases: Vec<CaseReport>,
}

/// What came of one case.
#[derive(Debug)]
#[non_exhaustive]
pub struct CaseReport {
    /// Group and name.
    pub name: &'static str,
    /// The rule, in words.
    pub rule: &'static str,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took, the closing of its sandboxes included, beside the cases that ran at the same time.
    pub took: Duration,
}

/// Passed, failed with what, or skipped and why.
#[derive(Debug)]
pub enum Outcome {
    /// The rule holds.
    Passed,
    /// The rule does not hold.
    Failed(CaseFailure),
    /// The case says nothing on this backend, for this reason.
    Skipped(String),
}

/// Why a case failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaseFailure {
    /// Something else was found than the rule says.
    #[error("{what}: expected {expected}, found {found}")]
    Mismatch {
        /// What was looked at.
        what: String,
        /// What the rule says.
        expected: String,
        /// What was there.
        found: String,
    },
    /// A call failed that must not.
    #[error("a call failed: {0}")]
    Call(#[from] SandboxError),
    /// The case took longer than it may.
    #[error("not over within {0:?}")]
    TimedOut(Duration),
    /// The backend or the case panicked.
    #[error("panicked: {0}")]
    Panicked(String),
}

impl Report {
    /// Returns the cases that failed.
    pub fn failed(&self) -> impl Iterator<Item = &CaseReport> {
        self.cases.iter().filter(|case| matches!(case.outcome, Outcome::Failed(_)))
    }

    /// Returns the cases that passed.
    pub fn passed(&self) -> impl Iterator<Item = &CaseReport> {
        self.cases.iter().filter(|case| matches!(case.outcome, Outcome::Passed))
    }

    /// Returns the cases that were skipped.
    pub fn skipped(&self) -> impl Iterator<Item = &CaseReport> {
        self.cases.iter().filter(|case| matches!(case.outcome, Outcome::Skipped(_)))
    }

    /// Ends a test if a case failed, or if no case passed.
    ///
    /// # Panics
    ///
    /// With the table of what failed.
    pub fn assert_passed(&self) {
        let failed: Vec<_> = self.failed().collect();
        assert!(failed.is_empty(), "{}", Table { report: self, rows: &failed });
        assert!(self.passed().next().is_some(), "no case of the conformance suite passed: {self}");
    }
}

/// All cases as a table, and a line of sums.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = self.cases.iter().collect();
        Table { report: self, rows: &rows }.fmt(f)
    }
}

/// Some rows of a report.
struct Table<'a> {
    report: &'a Report,
    rows: &'a [&'a CaseReport],
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report;
        writeln!(
            f,
            "sandbox conformance of the {} backend: {} passed, {} failed, {} skipped",
            report.backend,
            report.passed().count(),
            report.failed().count(),
            report.skipped().count()
        )?;
        let width = self.rows.iter().map(|case| case.name.len()).max().unwrap_or(0);
        for case in self.rows {
            match &case.outcome {
                Outcome::Passed => writeln!(f, "  passed   {:width$}  {}", case.name, case.rule)?,
                Outcome::Skipped(why) => writeln!(f, "  skipped  {:width$}  {why}", case.name)?,
                Outcome::Failed(failure) => {
                    writeln!(f, "  FAILED   {:width$}  {}", case.name, case.rule)?;
                    writeln!(f, "           {:width$}  {failure}", "")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcomes: Vec<(&'static str, Outcome)>) -> Report {
        let case = |(name, outcome)| CaseReport {
            name,
            rule: "what must hold",
            outcome,
            took: Duration::ZERO,
        };
        Report { backend: "b".to_owned(), cases: outcomes.into_iter().map(case).collect() }
    }

    #[test]
    fn prints_a_table() {
        let failure = CaseFailure::Mismatch {
            what: "the exit code".to_owned(),
            expected: "1".to_owned(),
            found: "0".to_owned(),
        };
        let report = report(vec![
            ("exec::one", Outcome::Passed),
            ("exec::three", Outcome::Failed(failure)),
            ("limits::x", Outcome::Skipped("the wall is weak".to_owned())),
        ]);
        assert_eq!(
            report.to_string(),
            "sandbox conformance of the b backend: 1 passed, 1 failed, 1 skipped\n  \
             passed   exec::one    what must hold\n  \
             FAILED   exec::three  what must hold\n                        \
             the exit code: expected 1, found 0\n  \
             skipped  limits::x    the wall is weak\n"
        );
    }

    #[test]
    #[should_panic(expected = "no case of the conformance suite passed")]
    fn nothing_that_ran_is_no_success() {
        report(vec![("a", Outcome::Skipped("no".to_owned()))]).assert_passed();
    }
}
