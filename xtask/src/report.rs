//! What passed, what failed, what was skipped and why; and the last line that says so.

use std::collections::BTreeSet;

use crate::libtest::TestRun;
use crate::table;

/// The sum over everything that a task ran.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) passed: u64,
    pub(crate) failures: Vec<String>,
    pub(crate) skips: Vec<Skip>,
}

/// Something that did not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skip {
    pub(crate) what: String,
    pub(crate) why: String,
}

impl Report {
    pub(crate) fn pass(&mut self) {
        self.passed += 1;
    }

    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        let what = what.into();
        println!("FAILED: {what}");
        self.failures.push(what);
    }

    pub(crate) fn skip(&mut self, what: impl Into<String>, why: impl Into<String>) {
        let skip = Skip { what: what.into(), why: why.into() };
        println!("skipped: {}: {}", skip.what, skip.why);
        self.skips.push(skip);
    }

    /// Counts one check.
    pub(crate) fn check(&mut self, what: &str, good: bool) {
        if good { self.pass() } else { self.fail(what) }
    }

    /// Adds a run of `cargo test`, with the skips that its tests announced.
    ///
    /// To libtest a skipped test is one that passed; here it is not. A test that was skipped before and ran now (a
    /// suite brought what it needs) is no longer a skip.
    pub(crate) fn add_run(&mut self, run: TestRun, skips: Vec<Skip>) {
        let ran = |what: &str| run.passed.iter().any(|test| is_name(what, test));
        let skipped: BTreeSet<&str> =
            skips.iter().map(|skip| skip.what.as_str()).filter(|what| ran(what)).collect();
        self.passed += run.passed_count.saturating_sub(skipped.len() as u64);
        self.skips.retain(|skip| !ran(&skip.what) || skipped.contains(skip.what.as_str()));
        self.failures.extend(run.failures);
        let ignored = run.ignored.into_iter().map(|(what, why)| {
            let why = if why.is_empty() {
                "marked `ignore`, with no reason given".to_owned()
            } else {
                why
            };
            Skip { what, why }
        });
        for skip in skips.into_iter().chain(ignored) {
            if !self.skips.contains(&skip) {
                self.skips.push(skip);
            }
        }
    }

    /// Whether nothing was counted.
    pub(crate) fn is_empty(&self) -> bool {
        self.passed == 0 && self.failures.is_empty() && self.skips.is_empty()
    }

    pub(crate) fn succeeded(&self) -> bool {
        self.failures.is_empty()
    }

    /// Prints the failures, the skips if asked for, and the last line; answers whether all went well.
    pub(crate) fn print(&self, list_skips: bool) -> bool {
        print!("{}", self.render(list_skips));
        self.succeeded()
    }

    fn render(&self, list_skips: bool) -> String {
        let mut text = String::new();
        if !self.failures.is_empty() {
            text += "\nfailed:\n";
            for failure in &self.failures {
                text += &format!("  {failure}\n");
            }
        }
        if list_skips && !self.skips.is_empty() {
            let rows: Vec<_> =
                self.skips.iter().map(|skip| [skip.what.clone(), skip.why.clone()]).collect();
            text += &format!("\n{}", table::render(["skipped", "why"], &rows));
        }
        let (passed, failed, skipped) = (self.passed, self.failures.len(), self.skips.len());
        text + &format!("\n{passed} passed, {failed} failed, {skipped} skipped\n")
    }
}

/// Whether what a skip names is that test: by its whole path, or by the function's name alone.
fn is_name(what: &str, test: &str) -> bool {
    test.strip_suffix(what).is_some_and(|before| before.is_empty() || before.ends_with("::"))
}

#[cfg(test)]
mod tests {
    use super::{Report, Skip, TestRun};
    use crate::skip_log::parse as parse_skip_log;

    fn run(names: &[&str]) -> TestRun {
        let mut run = TestRun::default();
        run.read(&format!("running {} tests", names.len()));
        names.iter().for_each(|name| run.read(&format!("test {name} ... ok")));
        run.read(&format!("test result: ok. {} passed; 0 failed", names.len()));
        run.finish(true)
    }

    #[test]
    fn a_skipped_test_did_not_pass() {
        let mut report = Report::default();
        report.add_run(
            run(&["a", "tests::b", "ab"]),
            parse_skip_log("b\tno user namespaces\nsuite x\tno network\n"),
        );
        assert_eq!(report.passed, 2);
        assert_eq!(
            report.render(true),
            "\n  skipped  why\n  b        no user namespaces\n  suite x  no network\n\n2 passed, 0 failed, 2 skipped\n"
        );
        assert_eq!(report.render(false), "\n2 passed, 0 failed, 2 skipped\n");
    }

    #[test]
    fn a_suite_redeems_what_was_skipped_before() {
        let mut report = Report::default();
        report.add_run(run(&["a", "needs_model"]), parse_skip_log("needs_model\tno model"));
        report.add_run(run(&["live::needs_model"]), Vec::new());
        assert_eq!((report.passed, report.skips.len()), (2, 0));
    }

    #[test]
    fn a_test_skipped_twice_is_listed_once() {
        let mut report = Report::default();
        for _ in 0..2 {
            report.add_run(run(&["needs_model"]), parse_skip_log("needs_model\tno model"));
        }
        assert_eq!((report.passed, report.skips.len()), (0, 1));
    }

    #[test]
    fn ignored_tests_are_skips_and_failures_are_named() {
        let mut report = Report::default();
        let mut ignored = TestRun::default();
        "running 1 test
test slow ... ignored
test result: ok. 0 passed; 0 failed; 1 ignored"
            .lines()
            .for_each(|line| ignored.read(line));
        report.add_run(ignored.finish(true), Vec::new());
        report.check("fmt", false);
        assert!(!report.succeeded());
        assert_eq!(
            report.skips,
            [Skip { what: "slow".into(), why: "marked `ignore`, with no reason given".into() }]
        );
        assert_eq!(report.render(false), "\nfailed:\n  fmt\n\n0 passed, 1 failed, 1 skipped\n");
    }
}
