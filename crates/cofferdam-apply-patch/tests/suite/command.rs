//! The command: the peers' streams and exit codes, and what we add to them.
#![cfg(all(feature = "host", unix))]

use std::ffi::OsString;
use std::fs;

use cofferdam_apply_patch::command::run;
use tempfile::TempDir;

fn workspace(files: &[(&str, &[u8])]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(directory.path().join(name), content).unwrap();
    }
    directory
}

/// Runs the command and returns code, standard output and standard error, with the directory shown as `CWD`.
fn call(directory: &TempDir, args: &[&str], stdin: &str) -> (u8, String, String) {
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run(&args, &mut stdin.as_bytes(), directory.path(), &mut out, &mut err);
    let shown = |bytes| {
        String::from_utf8(bytes).unwrap().replace(directory.path().to_str().unwrap(), "CWD")
    };
    (code, shown(out), shown(err))
}

fn patch(body: &str) -> String {
    format!("*** Begin Patch\n{body}\n*** End Patch\n")
}

fn read(directory: &TempDir, name: &str) -> String {
    fs::read_to_string(directory.path().join(name)).unwrap()
}

#[test]
fn success_lists_added_then_modified_then_deleted() {
    let directory = workspace(&[("m", b"1\n"), ("d", b"1\n"), ("r", b"1\n")]);
    let body = "*** Delete File: d\n*** Update File: ./m\n-1\n+2\n*** Update File: r\n*** Move to: s\n*** Add File: x/a\n+1";
    let expected = "Success. Updated the following files:\nA x/a\nM ./m\nM s\nD d\n".to_owned();
    assert_eq!(call(&directory, &[&patch(body)], ""), (0, expected, String::new()));
    assert_eq!(read(&directory, "x/a"), "1\n");
    assert_eq!(read(&directory, "s"), "1\n");
    let by_stdin = patch("*** Update File: m\n-2\n+3");
    assert_eq!(call(&directory, &[], &by_stdin).1, "Success. Updated the following files:\nM m\n");
    assert_eq!(read(&directory, "m"), "3\n");
}

#[test]
fn an_absolute_path_inside_the_directory_is_accepted() {
    let directory = workspace(&[("m", b"1\n")]);
    let path = directory.path().join("m");
    let body = format!("*** Update File: {}\n-1\n+2", path.display());
    assert_eq!(
        call(&directory, &[&patch(&body)], "").1,
        "Success. Updated the following files:\nM CWD/m\n"
    );
}

#[test]
fn wrong_usage_is_code_2() {
    let directory = workspace(&[]);
    let usage = "Usage: apply_patch 'PATCH'\n       echo 'PATCH' | apply_patch\n".to_owned();
    assert_eq!(call(&directory, &[], ""), (2, String::new(), usage));
    let two = "Error: apply_patch accepts exactly one argument.\n".to_owned();
    assert_eq!(call(&directory, &["a", "b"], ""), (2, String::new(), two));
}

/// Failures in the peers' words, which `--compat` prints alone and the default prints first.
#[test]
fn failures_are_code_1_and_in_the_peers_words() {
    for (body, message) in [
        (
            "*** Frob",
            "Invalid patch hunk on line 2: '*** Frob' is not a valid hunk header. Valid hunk headers: '*** Add File: {path}', '*** Delete File: {path}', '*** Update File: {path}'",
        ),
        (
            "*** Update File: f",
            "Invalid patch hunk on line 2: Update file hunk for path 'f' is empty",
        ),
        (
            "*** Update File: f\n@@",
            "Invalid patch hunk on line 3: Update hunk does not contain any lines",
        ),
        (
            "*** Update File: f\n@@\nbad",
            "Invalid patch hunk on line 4: Unexpected line found in update hunk: 'bad'. Every line should start with ' ' (context line), '+' (added line), or '-' (removed line)",
        ),
        (
            "*** Update File: f\n-a\n*** End of File\n+b",
            "Invalid patch hunk on line 5: Expected update hunk to start with a @@ context marker, got: '+b'",
        ),
        (
            "*** Delete File: f\n*** End Patch\nx",
            "Invalid patch: The last line of the patch must be '*** End Patch'",
        ),
        (
            "*** Environment ID: \n*** Delete File: f",
            "Invalid patch: apply_patch environment_id cannot be empty",
        ),
        ("", "No files were modified."),
        ("*** Update File: f\n@@ nowhere\n-a", "Failed to find context 'nowhere' in CWD/f"),
        ("*** Update File: f\n-no\n-such", "Failed to find expected lines in CWD/f:\nno\nsuch"),
        (
            "*** Update File: none\n-a",
            "Failed to read file to update CWD/none: No such file or directory (os error 2)",
        ),
        ("*** Delete File: none", "Failed to delete file CWD/none"),
        (
            "*** Update File: latin\n-a",
            "Failed to read file to update CWD/latin: invalid utf-8 sequence of 1 bytes from index 0",
        ),
    ] {
        let directory = workspace(&[("f", b"a\nb\n"), ("latin", b"\xe9\n")]);
        let expected = (1, String::new(), format!("{message}\n"));
        assert_eq!(call(&directory, &["--compat", &patch(body)], ""), expected, "{body}");
        let (code, out, err) = call(&directory, &[&patch(body)], "");
        assert_eq!((code, out.as_str()), (1, ""), "{body}");
        assert!(err.starts_with(message), "{err}");
        assert_eq!(read(&directory, "f"), "a\nb\n");
    }
    let directory = workspace(&[]);
    for (text, message) in [
        ("nonsense", "Invalid patch: The first line of the patch must be '*** Begin Patch'\n"),
        (
            "*** Begin Patch\n*** Delete File: f",
            "Invalid patch: The last line of the patch must be '*** End Patch'\n",
        ),
    ] {
        assert_eq!(
            call(&directory, &["--compat", text], ""),
            (1, String::new(), message.to_owned())
        );
    }
}

#[test]
fn a_failure_comes_with_the_nearest_lines() {
    let directory = workspace(&[("a", b"1\n"), ("f", b"let total = 1;\nlet other = 2;\n")]);
    let body = "*** Update File: a\n-1\n+2\n*** Update File: f\n-let total = 3;\n+let total = 4;";
    let (_, _, err) = call(&directory, &[&patch(body)], "");
    insta::assert_snapshot!(err, @r#"
    Failed to find expected lines in CWD/f:
    let total = 3;
    hunk 1: its 1 context and removed lines are not in the file after line 0
    nearest places:
      line 1: 1 of 1 lines differ
        1: expected "let total = 3;", found "let total = 1;"
    operation 2 failed, so nothing was changed
    "#);
    assert_eq!(read(&directory, "a"), "1\n");
}

#[test]
fn fuzz_and_ambiguity_are_warnings_on_standard_error() {
    let files: &[(&str, &[u8])] = &[("f", b"x \ny\nx \n")];
    let text = patch("*** Update File: f\n-x\n+z");
    let directory = workspace(files);
    let (code, out, err) = call(&directory, &[&text], "");
    assert_eq!((code, out.as_str()), (0, "Success. Updated the following files:\nM f\n"));
    insta::assert_snapshot!(err, @"warning: f: hunk 1 at line 1, trailing white space differs, 1 other place matches as well; the first was taken");
    assert_eq!(call(&workspace(files), &["--compat", &text], "").2, "");
}

#[test]
fn compat_applies_in_part_overwrites_and_ends_files_with_a_newline() {
    let text = patch(
        "*** Add File: a\n+over\n*** Update File: b\n-1\n+2\n*** Delete File: none\n*** Delete File: b",
    );
    let directory = workspace(&[("a", b"old\n"), ("b", b"1\n2")]);
    let (code, out, err) = call(&directory, &["--compat", &text], "");
    assert_eq!((code, out.as_str(), err.as_str()), (1, "", "Failed to delete file CWD/none\n"));
    assert_eq!(
        (read(&directory, "a"), read(&directory, "b")),
        ("over\n".to_owned(), "2\n2\n".to_owned())
    );

    let directory = workspace(&[("a", b"old\n"), ("b", b"1\n2")]);
    assert_eq!(call(&directory, &[&text], "").0, 1);
    assert_eq!(
        (read(&directory, "a"), read(&directory, "b")),
        ("old\n".to_owned(), "1\n2".to_owned())
    );
}

#[test]
fn compat_keeps_work_that_the_peers_lose() {
    let directory = workspace(&[("f", b"1\n")]);
    let same = patch("*** Update File: f\n*** Move to: f\n-1\n+2");
    assert_eq!(call(&directory, &["--compat", &same], "").0, 0);
    assert_eq!(read(&directory, "f"), "2\n");
    for escape in ["../f", "/etc/passwd"] {
        let (code, _, err) =
            call(&directory, &["--compat", &patch(&format!("*** Add File: {escape}\n+x"))], "");
        assert_eq!(code, 1);
        assert!(err.starts_with("Invalid patch hunk on line 2: path "), "{err}");
    }
}

#[test]
fn standard_input_that_is_not_text_is_refused() {
    let directory = workspace(&[]);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    assert_eq!(run(&[], &mut b"\xff".as_slice(), directory.path(), &mut out, &mut err), 1);
    assert!(err.starts_with(b"Error: Failed to read PATCH from stdin.\n"));
}
