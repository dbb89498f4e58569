//! Running this test program once more as a user that owns nothing.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Command,
};

/// `nobody`: exists everywhere and owns nothing.
const ORDINARY: u32 = 65534;

/// Runs this test program again with these arguments, and demands that so many tests ran and all passed.
///
/// Run by an ordinary user already, it says so and does nothing: the tests ran as one.
#[expect(clippy::print_stdout, reason = "what they print is what this test shows")]
pub(crate) fn run_again(arguments: &[&str], at_least: usize) {
    if !rustix::process::geteuid().is_root() {
        cofferdam_testkit::skip("as an ordinary user", "this is an ordinary user already");
        return;
    }
    // The build directory may be closed to others.
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("open to all");
    let program = directory.path().join("suite");
    fs::copy(std::env::current_exe().expect("this program"), &program).expect("copied");
    let output = Command::new(&program)
        .args(arguments)
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
    println!("{text}");
    // All of them, not an empty selection.
    let ran =
        text.lines().filter(|line| line.starts_with("test ") && line.ends_with("... ok")).count();
    assert!(ran >= at_least, "only {ran} tests ran:\n{text}");
}
