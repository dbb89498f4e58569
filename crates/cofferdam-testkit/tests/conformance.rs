//! The conformance suite on the sandbox in memory.

use cofferdam_sandbox::conformance::{self, Options};
use cofferdam_testkit::MemoryBackend;

fn options() -> Options {
    Options { shell: false, parallel: 8, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn conformance() {
    let backend = MemoryBackend::default();
    let report = conformance::run(&backend, &options()).await;
    println!("{report}");
    report.assert_passed();
    assert_eq!(backend.open_sandboxes(), 0);
}
