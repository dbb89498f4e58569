//! Skipping a test aloud: a suite that cannot run says why and is counted.

use std::io::Write as _;

/// Says that a test cannot run here and why; the caller returns right after.
///
/// Prints `skipped: <name>: <reason>`, and appends a line `<name>\t<reason>` to the file that `COFFERDAM_SKIP_LOG`
/// names, from which `cargo xtask test` makes its list.
#[expect(clippy::print_stderr, reason = "a skip must be seen where the test runs")]
#[expect(
    clippy::disallowed_methods,
    reason = "the test runner passes the log's path in the environment"
)]
pub fn skip(name: &str, reason: &str) {
    eprintln!("skipped: {name}: {reason}");
    let Some(log) = std::env::var_os("COFFERDAM_SKIP_LOG") else { return };
    let line = format!("{name}\t{}\n", reason.replace(['\n', '\t'], " "));
    let written = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        eprintln!("cannot write to the skip log {}: {error}", log.display());
    }
}
