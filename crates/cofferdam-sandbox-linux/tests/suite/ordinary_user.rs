//! All tests once more as an ordinary user, when they are run by root.

use std::{fs, os::unix::process::CommandExt, process::Command};

use crate::host::open_to_all;

/// `nobody`: exists everywhere and owns nothing.
const ORDINARY: u32 = 65534;

#[test]
fn everything_holds_as_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        println!("this is an ordinary user already");
        return;
    }
    // The build directory may be closed to others.
    let directory = tempfile::tempdir().expect("a directory");
    open_to_all(directory.path());
    let program = directory.path().join("suite");
    fs::copy(std::env::current_exe().expect("this program"), &program).expect("copied");
    let output = Command::new(&program)
        .args(["--skip", "everything_holds_as_an_ordinary_user", "--test-threads=2"])
        .current_dir("/")
        .env_remove("CARGO_MANIFEST_DIR")
        .uid(ORDINARY)
        .gid(ORDINARY)
        .output()
        .expect("starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("test result: ok."),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // All of them, not an empty selection.
    let ran =
        text.lines().filter(|line| line.starts_with("test ") && line.ends_with("... ok")).count();
    assert!(ran >= 20, "only {ran} tests ran:\n{text}");
}
