//! The conformance suite on this backend.

use cofferdam_sandbox::conformance::{self, Options};
use cofferdam_testkit::TestEngine;

use crate::engine::{PATIENCE, TestEngineExt as _};

#[tokio::test(flavor = "multi_thread")]
async fn conformance() {
    let Some(engine) = TestEngine::get("conformance") else { return };
    // A container is dearer than a sandbox of the linux backend, and its output passes through the engine.
    let options = Options {
        spec: engine.spec(),
        case_timeout: PATIENCE,
        at_once: 20,
        huge_output_bytes: 128 << 20,
        ..Options::default()
    };
    let report = conformance::run(&engine.backend(), &options).await;
    println!("{report}");
    report.assert_passed();
}
