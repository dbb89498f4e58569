//! [`Report`]: what came of each case, printed as a table.

use std::fmt;

/// What came of a run of the suite.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// One entry a case, in the order in which they ran.
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
}

/// Passed, failed with what, or skipped and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The rule holds.
    Passed,
    /// The rule does not hold: what was found instead.
    Failed(String),
    /// The case says nothing on this store, for this reason.
    Skipped(String),
}

impl Report {
    /// Returns the cases that failed.
    pub fn failed(&self) -> impl Iterator<Item = &CaseReport> {
        self.cases.iter().filter(|case| matches!(case.outcome, Outcome::Failed(_)))
    }

    /// Returns the cases that were skipped.
    pub fn skipped(&self) -> impl Iterator<Item = &CaseReport> {
        self.cases.iter().filter(|case| matches!(case.outcome, Outcome::Skipped(_)))
    }

    /// Ends a test if a case failed, or if no case passed.
    ///
    /// # Panics
    ///
    /// With the table.
    pub fn assert_passed(&self) {
        assert!(self.failed().next().is_none(), "{self}");
        let passed = self.cases.iter().any(|case| case.outcome == Outcome::Passed);
        assert!(passed, "no case of the conformance suite passed: {self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (failed, skipped) = (self.failed().count(), self.skipped().count());
        let passed = self.cases.len() - failed - skipped;
        writeln!(f, "journal conformance: {passed} passed, {failed} failed, {skipped} skipped")?;
        for case in &self.cases {
            match &case.outcome {
                Outcome::Passed => writeln!(f, "passed   {}", case.name)?,
                Outcome::Failed(detail) => {
                    writeln!(f, "FAILED   {}: {}: {detail}", case.name, case.rule)?;
                }
                Outcome::Skipped(why) => writeln!(f, "skipped  {}: {why}", case.name)?,
            }
        }
        Ok(())
    }
}
