//! The conformance suite on the stores of this crate.

use cofferdam_journal::conformance::{self, Options, Subject};

use crate::kit::{Memory, Sqlite};

async fn check(subject: &dyn Subject, skipped: usize) {
    let report = conformance::run(subject, &Options::default()).await;
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
