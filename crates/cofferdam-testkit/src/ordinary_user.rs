//! Runs tests once more as an ordinary user, because other mechanisms hold then.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::{Command, Stdio},
};

/// `nobody`: exists everywhere and owns nothing.
const ORDINARY: u32 = 65534;

/// Runs this test program with other arguments as an ordinary user, and returns what it prints. Returns `None` if this is
/// an ordinary user already.
///
/// # Panics
///
/// With what it prints, if a test fails.
#[must_use]
#[expect(clippy::expect_used, reason = "a test that cannot begin has failed")]
#[expect(clippy::disallowed_methods, reason = "the tests are run by another user")]
pub fn run_again(arguments: &[&str]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    // The build directory may be closed to others.
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("open to all");
    let program = directory.path().join("tests");
    fs::copy(std::env::current_exe().expect("this program"), &program).expect("copied");
    let output = Command::new(&program)
        .args(arguments)
        .current_dir("/")
        .env_remove("CARGO_MANIFEST_DIR")
        .uid(ORDINARY)
        .gid(ORDINARY)
        .stdin(Stdio::null())
        .output()
        .expect("starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("test result: ok."),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(text)
}
