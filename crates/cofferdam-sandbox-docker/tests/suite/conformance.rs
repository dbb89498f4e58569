//! The conformance suite on this backend.

use cofferdam_sandbox::conformance::{self, Options};

use crate::engine::TestEngine;

#[tokio::test(flavor = "multi_thread")]
async fn conformance() {
    let Some(engine) = TestEngine::get("conformance") else { return };
    let options = Options { spec: engine.spec(), ..Options::default() };
    let report = conformance::run(&engine.backend(), &options).await;
    println!("{report}");
    report.assert_passed();
}
