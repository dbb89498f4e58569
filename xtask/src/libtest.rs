//! Reads what `cargo test` prints: the counts, the names, and test programs that ended without a result.

use std::collections::BTreeSet;

/// What one `cargo test` did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TestRun {
    pub(crate) passed: BTreeSet<String>,
    /// Counted apart from the names: two programs may each have a test of one name.
    pub(crate) passed_count: u64,
    pub(crate) failures: Vec<String>,
    /// Name and reason of tests that carry `#[ignore]`.
    pub(crate) ignored: Vec<(String, String)>,
    /// The test program whose output is being read: after `running N tests` and before its result.
    open: Option<Program>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Program {
    passed: u64,
    failed: u64,
    /// After its tests: what follows up to the result is what failed tests printed, which may look like anything.
    telling: bool,
}

impl TestRun {
    /// Takes in one line of standard output.
    pub(crate) fn read(&mut self, line: &str) {
        let telling = self.open.as_ref().is_some_and(|program| program.telling);
        if let Some(counts) = line.strip_prefix("test result: ") {
            let (passed, failed) = (count(counts, " passed"), count(counts, " failed"));
            let own = |program: &Program| (program.passed, program.failed) == (passed, failed);
            if !telling || self.open.as_ref().is_some_and(own) {
                self.open = None;
                self.passed_count += passed;
            }
        } else if is_start(line) && !telling {
            self.close();
            self.open = Some(Program::default());
        } else if let Some(program) = self.open.as_mut().filter(|_| !telling) {
            if line == "failures:" {
                program.telling = true;
            } else if let Some((name, verdict)) =
                line.strip_prefix("test ").and_then(|line| line.rsplit_once(" ... "))
            {
                match verdict
                    .split_once(',')
                    .map_or((verdict, ""), |(verdict, why)| (verdict, why.trim()))
                {
                    ("ok", _) => {
                        program.passed += 1;
                        self.passed.insert(name.to_owned());
                    }
                    ("FAILED", _) => {
                        program.failed += 1;
                        self.failures.push(name.to_owned());
                    }
                    ("ignored", why) => self.ignored.push((name.to_owned(), why.to_owned())),
                    _ => {}
                }
            }
        }
    }

    /// The end of the output; `success` is what the exit status of `cargo test` said.
    pub(crate) fn finish(mut self, success: bool) -> Self {
        self.close();
        if !success && self.failures.is_empty() {
            self.failures
                .push("cargo test failed before any test did; its message is above".to_owned());
        }
        self
    }

    fn close(&mut self) {
        if self.open.take().is_some() {
            self.failures.push("a test program ended before it printed its result".to_owned());
        }
    }
}

fn is_start(line: &str) -> bool {
    line.strip_prefix("running ")
        .and_then(|rest| rest.strip_suffix(" tests").or_else(|| rest.strip_suffix(" test")))
        .is_some_and(|number| number.parse::<u64>().is_ok())
}

/// The number before `label` in `ok. 3 passed; 0 failed; …`.
fn count(counts: &str, label: &str) -> u64 {
    let number = |part: &str| part.trim().strip_suffix(label)?.rsplit(' ').next()?.parse().ok();
    counts.split(';').find_map(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::TestRun;

    fn check(output: &str, success: bool, expect: (u64, &[&str], &[(&str, &str)])) {
        let mut run = TestRun::default();
        output.lines().for_each(|line| run.read(line));
        let run = run.finish(success);
        let ignored: Vec<_> =
            run.ignored.iter().map(|(name, why)| (name.as_str(), why.as_str())).collect();
        assert_eq!(
            (
                run.passed_count,
                run.failures.iter().map(String::as_str).collect::<Vec<_>>(),
                ignored
            ),
            {
                let (passed, failures, ignored) = expect;
                (passed, failures.to_vec(), ignored.to_vec())
            }
        );
    }

    const GOOD: &str = "
running 2 tests
test path::tests::refuses_dots ... ok
test slow ... ignored, takes an hour

test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    const BAD: &str = "
running 3 tests
test a ... ok
test b ... FAILED
test src/lib.rs - Thing (line 3) - compile fail ... ok

failures:

---- b stdout ----
running 2 tests
test inner ... FAILED
test other ... ok
test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
test result: this line is the test's own
running out of ideas

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
";

    #[test]
    fn sums_programs() {
        check(GOOD, true, (1, &[], &[("slow", "takes an hour")]));
        check(&[GOOD, BAD].concat(), false, (3, &["b"], &[("slow", "takes an hour")]));
    }

    #[test]
    fn a_build_that_failed_is_a_failure() {
        check(
            "",
            false,
            (0, &["cargo test failed before any test did; its message is above"], &[]),
        );
    }

    #[test]
    fn a_program_that_died_is_a_failure() {
        let died = "running 2 tests\ntest a ... ok\n";
        let failure = "a test program ended before it printed its result";
        check(died, false, (0, &[failure], &[]));
        check(&[died, GOOD].concat(), false, (1, &[failure], &[("slow", "takes an hour")]));
    }

    #[test]
    fn empty_programs_count_nothing() {
        check(
            "running 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored",
            true,
            (0, &[], &[]),
        );
    }
}
