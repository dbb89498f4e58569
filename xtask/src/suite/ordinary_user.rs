//! Runs a test program as an ordinary user where the caller is root.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::{cargo_in, output, run_reading};
use crate::context::Context;
use crate::libtest::TestRun;
use crate::report::{Report, SKIP_LOG, Skip, read_skip_log};

/// `nobody`, who owns nothing and has the same number on every Linux system.
const USER: u32 = 65534;

/// Builds the test program and runs it as `nobody`, in a private directory that is its home and its temporary one.
pub(crate) fn run(context: &Context, package: &str, test: &str, report: &mut Report) -> Result<()> {
    let what = format!("{test} as an ordinary user");
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        // The caller is an ordinary user, and cargo test ran all there is to run.
        println!("{what}: cargo test ran as one");
        return Ok(());
    }
    let program = build(context, package, test)?;
    let home = PrivateDirectory::create(test)?;
    // The target directory may be closed to others.
    let copy = home.path.join(test);
    std::fs::copy(&program, &copy)?;
    let log = home.path.join("skipped.tsv");
    std::fs::write(&log, "")?;
    for path in [&copy, &log] {
        chown(path, Some(USER), Some(USER))?;
    }
    let mut command = Command::new(&copy);
    command.uid(USER).gid(USER).current_dir(&home.path).env_clear();
    command
        .env("HOME", &home.path)
        .env("TMPDIR", &home.path)
        .env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.env("USER", "nobody").env(SKIP_LOG, &log);
    let mut run = TestRun::default();
    let status = run_reading(&mut command, |line| run.read(line))?;
    report.add(as_ordinary_user(&what, run.finish(status.success()), read_skip_log(&log)?));
    Ok(())
}

/// A report whose names say who ran: a test that passes as root and is skipped here is skipped.
fn as_ordinary_user(what: &str, run: TestRun, skips: Vec<Skip>) -> Report {
    let mut report = Report::default();
    report.add_run(run, skips);
    for skip in &mut report.skips {
        skip.what = format!("{what}: {}", skip.what);
    }
    for failure in &mut report.failures {
        *failure = format!("{what}: {failure}");
    }
    report
}

/// The test program's path, from the messages that cargo prints for programs.
fn build(context: &Context, package: &str, test: &str) -> Result<PathBuf> {
    let mut command = cargo_in(&context.workspace.root);
    command.args([
        "test",
        "--all-features",
        "--no-run",
        "--message-format=json",
        "-p",
        package,
        "--test",
        test,
    ]);
    find_executable(&output(&mut command)?, test)
        .with_context(|| format!("cargo built no test program `{test}`"))
}

fn find_executable(messages: &str, test: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| {
            let is_it =
                message["reason"] == "compiler-artifact" && message["target"]["name"] == test;
            is_it.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
        })
}

/// A directory of `nobody`'s that goes when this value does.
struct PrivateDirectory {
    path: PathBuf,
}

impl PrivateDirectory {
    fn create(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("cofferdam-{name}-{}", std::process::id()));
        std::fs::create_dir(&path)
            .with_context(|| format!("could not create {}", path.display()))?;
        let directory = Self { path };
        give_away(&directory.path)?;
        Ok(directory)
    }
}

fn give_away(path: &Path) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    chown(path, Some(USER), Some(USER))?;
    Ok(())
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            println!("note: could not remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Skip, TestRun, as_ordinary_user, find_executable};

    #[test]
    fn names_say_who_ran() {
        let mut run = TestRun::default();
        for line in [
            "running 2 tests",
            "test a ... ok",
            "test b ... FAILED",
            "test result: FAILED. 1 passed; 1 failed",
        ] {
            run.read(line);
        }
        let skips = vec![Skip { what: "a".into(), why: "needs root".into() }];
        let report = as_ordinary_user("isolation as an ordinary user", run.finish(false), skips);
        assert_eq!(report.passed, 0);
        assert_eq!(report.failures, ["isolation as an ordinary user: b"]);
        assert_eq!(report.skips[0].what, "isolation as an ordinary user: a");
    }

    #[test]
    fn finds_the_test_program() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"lib"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"isolation"},"executable":"/t/isolation-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            find_executable(messages, "isolation").unwrap().to_str(),
            Some("/t/isolation-1")
        );
        assert_eq!(find_executable(messages, "conformance"), None);
    }
}
