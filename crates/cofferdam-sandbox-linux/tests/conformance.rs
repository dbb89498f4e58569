//! The conformance suite on this backend, and the suite itself on backends with one planted defect each.

use cofferdam_sandbox::conformance::{self, Options};
use cofferdam_sandbox_linux::LinuxBackend;

#[tokio::test(flavor = "multi_thread")]
async fn conformance() {
    let report = conformance::run(&LinuxBackend::default(), &Options::default()).await;
    println!("{report}");
    report.assert_passed();
}
