//! The recorder of file operations, on shell scripts that save a file in right and in wrong ways.

#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "what is recorded is a process")]

use std::{collections::BTreeSet, fs, process::Command};

use cofferdam_testkit::{
    power_loss::{self, CrashState},
    skip,
};

/// Runs a script in a directory with a file `old` in it, and describes each state in which it may be left.
fn check(script: &str, describe: fn(&CrashState) -> String) -> Option<BTreeSet<String>> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("old"), "before").unwrap();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-e", "-c", script]).current_dir(directory.path());
    let log = match power_loss::record(&mut shell, directory.path(), &[]) {
        Err(error @ power_loss::Error::NoCompiler) => {
            skip("power_loss", &error.to_string());
            return None;
        }
        log => log.unwrap(),
    };
    Some(log.crash_states(1, 200).map(|state| describe(&state)).collect())
}

fn content(state: &CrashState) -> String {
    let content = match fs::read_to_string(state.directory.path().join("old")) {
        Ok(text) if ["before", "after"].contains(&text.as_str()) => text,
        Ok(text) if text.is_empty() => "empty".to_owned(),
        Ok(_) => "torn".to_owned(),
        Err(error) => error.kind().to_string(),
    };
    format!("{:?} {content}", state.acknowledged.trim())
}

fn states(found: Option<BTreeSet<String>>, expect: &[&str]) {
    if let Some(found) = found {
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expect);
    }
}

#[test]
fn saved_right() {
    let script = "printf after > new; sync new; mv new old; sync .; echo saved";
    states(check(script, content), &["\"\" after", "\"\" before", "\"saved\" after"]);
}

#[test]
fn the_content_was_not_flushed() {
    let script = "printf after > new; mv new old; sync .; echo saved";
    states(
        check(script, content),
        &[
            "\"\" after",
            "\"\" before",
            "\"\" empty",
            "\"\" torn",
            "\"saved\" after",
            "\"saved\" empty",
            "\"saved\" torn",
        ],
    );
}

#[test]
fn the_directory_was_not_flushed() {
    let script = "printf after > new; sync new; mv new old; echo saved";
    states(
        check(script, content),
        &["\"\" after", "\"\" before", "\"saved\" after", "\"saved\" before"],
    );
}

#[test]
fn overwritten_in_place() {
    let script = "printf after > old; sync old; echo saved";
    states(
        check(script, content),
        &["\"\" after", "\"\" before", "\"\" empty", "\"\" torn", "\"saved\" after"],
    );
}

#[test]
fn directories_and_links() {
    let script =
        "mkdir -p a/b; printf x > a/b/c; sync a/b/c a/b a; ln a/b/c d; rm old; sync .; echo saved";
    let describe = |state: &CrashState| {
        let there = |path: &str| fs::read_to_string(state.directory.path().join(path)).ok();
        format!("{:?} {:?} {:?}", state.acknowledged.trim(), there("a/b/c"), there("d"))
    };
    states(
        check(script, describe),
        &[
            r#""" None None"#,
            r#""" Some("") None"#,
            r#""" Some("x") None"#,
            r#""" Some("x") Some("x")"#,
            r#""saved" Some("x") Some("x")"#,
        ],
    );
}

#[test]
fn what_cannot_be_seen_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "LD_PRELOAD= sh -c 'echo unseen > file'"]).current_dir(directory.path());
    match power_loss::record(&mut shell, directory.path(), &[]) {
        Err(error @ power_loss::Error::NoCompiler) => skip("power_loss", &error.to_string()),
        Err(power_loss::Error::Unseen { path, .. }) => assert_eq!(path.to_str(), Some("file")),
        other => panic!("{other:?}"),
    }
}
