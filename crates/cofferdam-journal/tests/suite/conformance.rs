//! The conformance suite on the stores of this crate.

use std::time::Duration;

use cofferdam_journal::conformance::{self, Options, Subject};

use crate::kit::{Memory, Sqlite};

async fn check(subject: &dyn Subject, skipped: usize) {
    // Two cases write the longest record there may be, which takes long without optimisation and beside other tests.
    let options = Options { case_timeout: Duration::from_secs(120), ..Options::default() };
    let report = conformance::run(subject, &options).await;
    report.assert_passed();
    assert_eq!(report.skipped().count(), skipped, "{report}");
}

#[tokio::test]
async fn memory() {
    check(&Memory, 4).await;
}

#[tokio::test]
async fn sqlite() {
    check(&Sqlite::new(), 0).await;
}
