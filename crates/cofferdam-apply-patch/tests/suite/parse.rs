//! Text to patch: every leniency, and every message.

use cofferdam_apply_patch::{Operation, ParseError, PathRules, parse, parse_with};

/// Parses `body` between the markers and returns the canonical text, without the markers.
fn body(body: &str) -> String {
    let text = format!("*** Begin Patch\n{body}\n*** End Patch");
    let canonical = parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}")).to_string();
    canonical
        .strip_prefix("*** Begin Patch\n")
        .unwrap()
        .strip_suffix("*** End Patch\n")
        .unwrap()
        .to_owned()
}

fn error(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

fn body_error(body: &str) -> String {
    error(&format!("*** Begin Patch\n{body}\n*** End Patch"))
}

#[test]
fn a_canonical_patch_is_read_and_written_unchanged() {
    let text = "\
*** Begin Patch
*** Add File: dir/new.txt
+first

*** Update File: old.rs
*** Move to: new.rs
@@ impl Thing
@@     fn run(&self) {
 context
-removed
+inserted
@@
+at the end
*** End of File
*** Delete File: gone.txt
*** End Patch
"
    .replace("\n\n", "\n+\n");
    assert_eq!(parse(&text).unwrap().to_string(), text);
}

#[test]
fn wrappings_are_taken_off() {
    let plain = "*** Begin Patch\n*** Delete File: a\n*** End Patch";
    let expected = parse(plain).unwrap();
    for text in [
        format!("\n\n  {plain}\n \n"),
        format!("\u{feff}{plain}"),
        plain.replace('\n', "\r\n"),
        plain
            .replace("*** Begin Patch", "  *** Begin Patch \t")
            .replace("*** End Patch", " *** End Patch "),
        plain.replace("*** Delete", "   *** Delete"),
        format!("<<EOF\n{plain}\nEOF"),
        format!("<<'EOF'\n{plain}\nEOF\n"),
        format!("<<\"EOF\"\n{plain}\n  EOF"),
        format!("apply_patch <<'EOF'\n{plain}\nEOF"),
        format!("applypatch <<EOF\n{plain}\nEOF"),
        format!("```\n{plain}\n```"),
        format!("```diff\n{plain}\n```\n"),
        plain.replace("*** Delete", "*** Environment ID: remote-1\n*** Delete"),
        plain.replace("*** Delete", "\n*** Delete").replace(": a", ": a\n \n"),
    ] {
        assert_eq!(parse(&text).as_ref(), Ok(&expected), "{text:?}");
    }
}

#[test]
fn hunks_may_be_written_loosely() {
    for (loose, canonical) in [
        // The first hunk may omit its marker.
        ("*** Update File: f\n-a\n+b", "*** Update File: f\n@@\n-a\n+b\n"),
        // An empty line is an empty context line.
        ("*** Update File: f\n a\n\n-b", "*** Update File: f\n@@\n a\n \n-b\n"),
        // Bare markers say nothing, and texts stack.
        (
            "*** Update File: f\n@@ class A\n@@\n@@  def b\n+c",
            "*** Update File: f\n@@ class A\n@@  def b\n+c\n",
        ),
        ("*** Update File: f\n@@anchor\n+c", "*** Update File: f\n@@ anchor\n+c\n"),
        // Git's ranges are not text to look for.
        ("*** Update File: f\n@@ -1,2 +1,3 @@\n+c", "*** Update File: f\n@@\n+c\n"),
        ("*** Update File: f\n@@ -1 +1,3 @@ fn main() {\n-a", "*** Update File: f\n@@\n-a\n"),
        ("*** Update File: f\n@@ -x +1 @@\n-a", "*** Update File: f\n@@ -x +1 @@\n-a\n"),
        // Empty lines after added ones only separate.
        (
            "*** Update File: f\n@@ x\n+a\n\n\n*** Delete File: g",
            "*** Update File: f\n@@ x\n+a\n*** Delete File: g\n",
        ),
        ("*** Update File: f\n\n@@ x\n+a", "*** Update File: f\n@@ x\n+a\n"),
        // Within a hunk a marker with a space before it is context.
        ("*** Update File: f\n *** End Patch\n-a", "*** Update File: f\n@@\n *** End Patch\n-a\n"),
        (
            "*** Update File: f\n *** Delete File: g\n+a",
            "*** Update File: f\n@@\n *** Delete File: g\n+a\n",
        ),
        (
            "*** Update File: f\n-a\n*** End of File  \n\n@@\n-b",
            "*** Update File: f\n@@\n-a\n*** End of File\n@@\n-b\n",
        ),
        ("*** Update File: f\n-a\n\\ No newline at end of file", "*** Update File: f\n@@\n-a\n"),
        // Blank space around headers and paths.
        (
            "   *** Update File:   f  \n  *** Move to:  g \n-a",
            "*** Update File: f\n*** Move to: g\n@@\n-a\n",
        ),
        // Without changes: a pure rename, and an empty new file.
        ("*** Update File: f\n*** Move to: g", "*** Update File: f\n*** Move to: g\n"),
        ("*** Add File: f", "*** Add File: f\n"),
        (
            "*** Add File: f\n+a\n\\ No newline at end of file",
            "*** Add File: f\n+a\n\\ No newline at end of file\n",
        ),
        ("*** Add File: f\n++\n+-\n+*** End Patch", "*** Add File: f\n++\n+-\n+*** End Patch\n"),
    ] {
        assert_eq!(body(loose), canonical, "{loose}");
    }
}

#[test]
fn errors_name_the_line_and_the_remedy() {
    insta::assert_snapshot!(error(""), @"the first line of the patch must be '*** Begin Patch', got \"\"");
    insta::assert_snapshot!(error("{\"patch\": \"*** Begin Patch\"}"), @r#"the first line of the patch must be '*** Begin Patch', got "{\"patch\": \"*** Begin Patch\"}"; this looks like JSON: pass the text of the patch itself"#);
    insta::assert_snapshot!(error("*** Begin Patch\n*** Delete File: a"), @r#"the last line of the patch must be '*** End Patch', got "*** Delete File: a""#);
    insta::assert_snapshot!(error("*** Begin Patch"), @r#"the last line of the patch must be '*** End Patch', got "*** Begin Patch""#);
    insta::assert_snapshot!(error("*** Begin Patch\n*** End Patch"), @"the patch has no operations; nothing to do");
    insta::assert_snapshot!(body_error("*** Delete File: a\n*** End Patch\n*** Delete File: b"), @"line 4: text after '*** End Patch'; put all operations before it");
    insta::assert_snapshot!(body_error("*** Frobnicate: a"), @r#"line 2: "*** Frobnicate: a" is not a header; valid headers are '*** Add File: path', '*** Delete File: path' and '*** Update File: path', and each line of an added file starts with '+'"#);
    insta::assert_snapshot!(body_error("*** Add File: a\n+b\nc"), @r#"line 4: "c" is not a header; valid headers are '*** Add File: path', '*** Delete File: path' and '*** Update File: path', and each line of an added file starts with '+'"#);
    insta::assert_snapshot!(body_error("*** Delete File: a\n-b"), @r#"line 3: "-b" is not a header; valid headers are '*** Add File: path', '*** Delete File: path' and '*** Update File: path', and each line of an added file starts with '+'"#);
    insta::assert_snapshot!(body_error("*** Update File: a"), @r#"line 2: the update of "a" has no changes; give at least one hunk or a '*** Move to:' line"#);
    insta::assert_snapshot!(body_error("*** Update File: a\n@@ b"), @"line 3: the hunk has no lines; give lines that start with ' ', '-' or '+'");
    insta::assert_snapshot!(body_error("*** Update File: a\n*** End of File"), @"line 3: the hunk has no lines; give lines that start with ' ', '-' or '+'");
    insta::assert_snapshot!(body_error("*** Update File: a\n-b\nc"), @r#"line 4: "c" in a hunk must start with ' ' (context), '-' (removed) or '+' (added)"#);
    insta::assert_snapshot!(body_error("*** Update File: a\n-b\n*** Move to: c"), @r#"line 4: "*** Move to: c" in a hunk must start with ' ' (context), '-' (removed) or '+' (added)"#);
    insta::assert_snapshot!(body_error("*** Update File: a\n-b\n*** End of File\n-c"), @r#"line 5: a hunk must start with '@@', got "-c""#);
    insta::assert_snapshot!(body_error("*** Environment ID:\n*** Delete File: a"), @"line 2: the environment id cannot be empty");
    insta::assert_snapshot!(body_error("*** Environment ID: a\n*** Environment ID: b\n*** Delete File: a"), @"line 3: the environment id cannot be given more than once");
    insta::assert_snapshot!(body_error("*** Delete File: ../a"), @r#"line 2: path "../a" has a '..' component; name the file without it"#);
    insta::assert_snapshot!(body_error("*** Update File: a\n*** Move to: /b\n-c"), @r#"line 3: path "/b" is absolute and outside the workspace; give it relative to the workspace"#);
    insta::assert_snapshot!(body_error("*** Add File:\n+a"), @r#"line 2: path "" is empty; name a file"#);
}

#[test]
fn an_incomplete_heredoc_is_not_taken_off() {
    for text in [
        "<<EOF\n*** Begin Patch\nEOF",
        "<<EOX\n*** Begin Patch\n*** End Patch\nEOX",
        "<< EOF\n*** Begin Patch\n*** End Patch\nEOF",
    ] {
        assert!(matches!(parse(text), Err(ParseError::MissingBegin { .. })), "{text}");
    }
}

#[test]
fn absolute_paths_inside_the_root_are_mapped_on_request() {
    let text = "*** Begin Patch\n*** Delete File: /work/a/b\n*** End Patch";
    assert!(matches!(parse(text), Err(ParseError::Path { line: 2, .. })));
    let patch = parse_with(text, &PathRules::inside_root("/work/")).unwrap();
    let path = patch.operations[0].path();
    assert_eq!((path.as_str(), path.given()), ("a/b", "/work/a/b"));
}

#[test]
fn operations_may_come_as_path_and_diff() {
    let rules = PathRules::default();
    for (diff, content) in [
        ("+hello", "hello"),
        ("+hello\n", "hello"),
        ("+hello\n+", "hello\n"),
        ("+a\r\n+b\r\n+\r\n", "a\r\nb\r\n"),
        ("+\u{2028}x", "\u{2028}x"),
        ("", ""),
    ] {
        let Operation::Create { content: read, .. } = Operation::create("f", diff, &rules).unwrap()
        else {
            panic!()
        };
        assert_eq!(read, content, "{diff:?}");
    }
    let update = Operation::update("f", "@@ a\n-b\r\n+c\n", Some("g"), &rules).unwrap();
    assert_eq!(update.to_string(), "*** Update File: f\n*** Move to: g\n@@ a\n-b\n+c\n");
    assert_eq!(
        Operation::update("f", "", Some("g"), &rules).unwrap().to_string(),
        "*** Update File: f\n*** Move to: g\n"
    );
    assert_eq!(Operation::delete("f", &rules).unwrap().to_string(), "*** Delete File: f\n");

    insta::assert_snapshot!(Operation::create("f", "+a\nb", &rules).unwrap_err(), @r#"line 2: "b" in the content of a new file must start with '+'"#);
    insta::assert_snapshot!(Operation::update("f", "", None, &rules).unwrap_err(), @r#"line 1: the update of "f" has no changes; give at least one hunk or a '*** Move to:' line"#);
    insta::assert_snapshot!(Operation::update("f", "-a\n*** Delete File: g", None, &rules).unwrap_err(), @r#"line 2: "*** Delete File: g" in a hunk must start with ' ' (context), '-' (removed) or '+' (added)"#);
    insta::assert_snapshot!(Operation::delete("../f", &rules).unwrap_err(), @r#"path "../f" has a '..' component; name the file without it"#);
}
