//! Hunks on one file: matching, endings, placement, reports and help.

use cofferdam_apply_patch::{
    Anchors, Applied, FinalNewline, Fuzz, HunkError, Operation, Options, PathRules, Placement,
    apply_hunks,
};

fn try_apply(original: &[u8], diff: &str, options: &Options) -> Result<Applied, HunkError> {
    match Operation::update("f", diff, None, &PathRules::default()) {
        Ok(Operation::Update { hunks, .. }) => apply_hunks(original, &hunks, options),
        other => panic!("{other:?}"),
    }
}

fn apply(original: &str, diff: &str) -> Applied {
    try_apply(original.as_bytes(), diff, &Options::default())
        .unwrap_or_else(|error| panic!("{}", error.explain()))
}

fn check(original: &str, diff: &str, expected: &str) {
    let applied = apply(original, diff);
    assert_eq!(String::from_utf8(applied.content).unwrap(), expected, "{original:?} with {diff:?}");
}

fn fails(original: &str, diff: &str) -> HunkError {
    try_apply(original.as_bytes(), diff, &Options::default()).expect_err(diff)
}

#[test]
fn hunks_change_what_they_name() {
    check("a\nb\nc\n", "-b\n+B", "a\nB\nc\n");
    check("a\nb\nc\n", " a\n-b\n c", "a\nc\n");
    check("a\nb\nc\nd\n", "-a\n+A\n@@\n-c\n+C", "A\nb\nC\nd\n");
    check("a\nb\n", " a\n+x\n b", "a\nx\nb\n");
    check("a\n", "-a", "");
    // Context alone changes nothing.
    check("a\nb\n", " a\n b", "a\nb\n");
    // Order inside a hunk is the patch's order.
    check("a\nb\nc\n", "+0\n a\n+1\n-b\n+2\n c\n+3", "0\na\n1\n2\nc\n3\n");
}

#[test]
fn endings_marks_and_missing_final_newlines_are_kept() {
    for (original, diff, expected) in [
        ("a\r\nb\r\n", "-b\n+B\n+c", "a\r\nB\r\nc\r\n"),
        ("a\rb\rc\r", "-b\n+B", "a\rB\rc\r"),
        // Inserted lines take the first ending of a mixed file; the others keep theirs.
        ("a\r\nb\nc\rd\n", " b\n+x\n c", "a\r\nb\nx\r\nc\rd\n"),
        ("a\nb\r\nc\n", "-b\n+B", "a\nB\nc\n"),
        ("a\nb", "-a\n+A", "A\nb"),
        ("a\nb", "-b\n+B", "a\nB"),
        ("a\nb", " b\n+c", "a\nb\nc"),
        ("a\r\nb", "+c\n*** End of File", "a\r\nb\r\nc"),
        ("a\nb", "-b", "a"),
        ("a\r\nb", "-b", "a"),
        ("a", "-a\n+b", "b"),
        ("\u{feff}a\nb\n", "-a\n+A", "\u{feff}A\nb\n"),
        ("\u{feff}a\r\n", "-\u{feff}a\n+A", "\u{feff}A\r\n"),
        ("\u{feff}a\n", "+b\n a", "\u{feff}b\na\n"),
        ("", "+a", "a\n"),
        ("\u{feff}", "+a", "\u{feff}a\n"),
        // A line of the patch with a lone CR in it stands for two lines of the file.
        ("x\ra\nb\n", "-x\ra\n+y", "y\rb\n"),
        // Separators of other kinds are ordinary characters.
        ("a\u{2028}b\u{85}c\n", "-a\u{2028}b\u{85}c\n+d", "d\n"),
    ] {
        check(original, diff, expected);
    }
}

#[test]
fn a_final_newline_is_added_only_on_request() {
    let peer = Options { final_newline: FinalNewline::Always, ..Options::default() };
    for (original, diff, expected) in [
        ("a\nb", "-a\n+A", "A\nb\n"),
        ("a\nb", "-b\n+B", "a\nB\n"),
        ("a\r\nb", "-a", "b\n"),
        ("a\n", "-a", ""),
        ("a\n", "-a\n+b", "b\n"),
    ] {
        let expected = if original.contains("\r\n") {
            expected.replace('\n', "\r\n")
        } else {
            expected.to_owned()
        };
        let applied = try_apply(original.as_bytes(), diff, &peer).unwrap();
        assert_eq!(
            String::from_utf8(applied.content).unwrap(),
            expected,
            "{original:?} with {diff:?}"
        );
    }
}

#[test]
fn fuzz_is_taken_and_reported() {
    for (original, diff, expected, fuzz) in [
        ("a\nb\n", "-b\n+B", "a\nB\n", Fuzz::Exact),
        ("a\nb \t\n", "-b\n+B", "a\nB\n", Fuzz::TrailingSpace),
        ("a\nb\n", "-b  \n+B", "a\nB\n", Fuzz::TrailingSpace),
        // Inserted lines keep the patch's indentation, and context the file's.
        ("    a\n    b\n", " a\n-b\n+B", "    a\nB\n", Fuzz::Whitespace),
        (
            "say \u{201c}hi\u{201d}\u{a0}\u{2014} now\n",
            "-say \"hi\" - now\n+bye",
            "bye\n",
            Fuzz::Unicode,
        ),
        ("it\u{2019}s\n", "-it's\n+x", "x\n", Fuzz::Unicode),
        ("a - b\n", "-a \u{2212} b\n+x", "x\n", Fuzz::Unicode),
    ] {
        let applied = apply(original, diff);
        assert_eq!(
            (String::from_utf8(applied.content).unwrap().as_str(), applied.hunks[0].fuzz),
            (expected, fuzz)
        );
        assert_eq!(applied.hunks[0].warning().is_some(), fuzz != Fuzz::Exact);
    }
}

#[test]
fn an_exact_match_further_down_wins_over_a_loose_one() {
    check("  x\nx\n", "-x\n+y", "  x\ny\n");
}

#[test]
fn ambiguity_takes_the_first_place_and_is_reported() {
    let applied = apply("x\na\nx\na\nx\n", "-x\n+y");
    assert_eq!(applied.content, b"y\na\nx\na\nx\n");
    assert_eq!(applied.hunks[0].alternatives, 2);
    insta::assert_snapshot!(applied.hunks[0].warning().unwrap(), @"line 1, 2 other places match as well; the first was taken");
    // Places above the cursor are out of the question.
    assert_eq!(apply("x\na\nx\n", "-a\n@@\n-x").hunks[1].alternatives, 0);
}

#[test]
fn anchors_move_the_search() {
    let file = "class A:\n  def f():\n    x\nclass B:\n  def f():\n    x\n";
    check(
        file,
        "@@ class B:\n-    x\n+    y",
        "class A:\n  def f():\n    x\nclass B:\n  def f():\n    y\n",
    );
    check(
        file,
        "@@ class B:\n@@   def f():\n-    x\n+    y",
        "class A:\n  def f():\n    x\nclass B:\n  def f():\n    y\n",
    );
    let applied = apply(file, "@@ class A:\n@@ def f():\n-    x");
    let anchors: Vec<_> =
        applied.hunks[0].anchors.iter().map(|anchor| (anchor.line, anchor.fuzz)).collect();
    assert_eq!(anchors, [(Some(1), Fuzz::Exact), (Some(2), Fuzz::Whitespace)]);
    assert_eq!(applied.hunks[0].line, 3);
}

#[test]
fn an_anchor_must_be_found_unless_it_is_advice() {
    let error = fails("a\nb\n", "@@ c\n-b");
    assert!(
        matches!(&error, HunkError::AnchorNotFound { hunk: 1, anchor, after: 0, .. } if anchor == "c"),
        "{error:?}"
    );
    assert!(matches!(
        fails("c\na\nb\n", "@@ c\n@@ zz\n-b"),
        HunkError::AnchorNotFound { after: 1, .. }
    ));
    // Stacked anchors go forward only.
    assert!(matches!(fails("c\nd\nb\n", "@@ d\n@@ c\n-b"), HunkError::AnchorNotFound { .. }));

    let advisory = Options { anchors: Anchors::Advisory, ..Options::default() };
    let applied = try_apply(b"a\nb\n", "@@ c\n-b", &advisory).unwrap();
    assert_eq!(applied.content, b"a\n");
    insta::assert_snapshot!(applied.hunks[0].warning().unwrap(), @r#"line 2, anchor "c" not found and passed over"#);
    for strict in ["@@ c\n+x", "@@ c\n@@ d\n-b"] {
        assert!(
            matches!(
                try_apply(b"a\nb\n", strict, &advisory),
                Err(HunkError::AnchorNotFound { .. })
            ),
            "{strict}"
        );
    }
}

#[test]
fn a_pure_addition_lands_at_its_anchor_or_at_the_end() {
    for (original, diff, expected, placement) in [
        ("a\nb\nc\n", "@@ b\n+x\n+y", "a\nb\nx\ny\nc\n", Placement::AfterAnchor),
        ("a\nb", "@@ b\n+x", "a\nb\nx", Placement::AfterAnchor),
        ("f\nx\ng\nx\n", "@@ g\n@@ x\n+y", "f\nx\ng\nx\ny\n", Placement::AfterAnchor),
        ("a\nb\n", "@@\n+x", "a\nb\nx\n", Placement::EndOfFile),
        ("a\nb\n", "@@ a\n+x\n*** End of File", "a\nb\nx\n", Placement::EndOfFile),
    ] {
        check(original, diff, expected);
        assert_eq!(apply(original, diff).hunks[0].placement, placement, "{diff:?}");
    }
    check("a\nb\nc\n", "@@ a\n+x\n@@\n-c\n+C", "a\nx\nb\nC\n");
    // An addition to the end does not end the search, and keeps its turn there.
    check("a\nb\n", "@@\n+x\n@@\n-a\n+A\n@@ b\n+y\n@@\n+z", "A\nb\ny\nx\nz\n");
}

#[test]
fn the_end_of_file_marker_takes_the_last_place() {
    check("x\na\nx\n", "-x\n+y\n*** End of File", "x\na\ny\n");
    check("x\na\n x \n", "-x\n+y\n*** End of File", "x\na\ny\n");
    // Not at the end, but nowhere else: taken, and reported.
    let applied = apply("x\na\n", "-x\n+y\n*** End of File");
    assert_eq!(applied.content, b"y\na\n");
    insta::assert_snapshot!(applied.hunks[0].warning().unwrap(), @"line 1, not at the end of the file as the patch says");
    // Not at the end, and in two places: refused.
    insta::assert_snapshot!(fails("x\nx\na\n", "-x\n*** End of File").explain(), @r#"
    hunk 1: its 1 context and removed lines are not in the file after line 0, neither at its end nor in just one other place
    expected:
        x
    nearest places:
      line 1: all lines match; this is not the end of the file
      line 2: all lines match; this is not the end of the file
    "#);
}

#[test]
fn an_empty_last_line_may_be_the_end_of_the_file() {
    check("a\nb\n", " a\n-b\n+B\n ", "a\nB\n");
    check("a\nb\n", " b\n \n+c", "a\nb\n\nc\n");
    check("a\nb\n", "-b\n-", "a\n");
    check("a\n", " a\n-\n+b\n+", "a\nb\n");
    check("", "-\n+a", "a\n");
    assert!(matches!(fails("a\n", "-\n+x"), HunkError::LinesNotFound { .. }));
}

#[test]
fn hunks_must_be_in_file_order() {
    insta::assert_snapshot!(fails("alpha one\nbeta two\n", "-beta two\n@@\n-alpha one").explain(), @"
    hunk 2: its 1 context and removed lines are not in the file after line 2
    expected:
        alpha one
    nearest places:
      line 1: all lines match; this is above the hunk before, and hunks must be in file order
    ");
}

#[test]
fn a_failed_hunk_answers_with_the_nearest_lines() {
    let file = "fn add(a: u32, b: u32) -> u32 {\n    a + b\n}\n\nfn sub(a: u32, b: u32) -> u32 {\n    a - b\n}\n";
    insta::assert_snapshot!(fails(file, " fn sub(a: u64, b: u64) -> u64 {\n-    a - b\n+    a.saturating_sub(b)\n }").explain(), @r#"
    hunk 1: its 3 context and removed lines are not in the file after line 0
    expected:
        fn sub(a: u64, b: u64) -> u64 {
            a - b
        }
    nearest places:
      line 5: 1 of 3 lines differ
        5: expected "fn sub(a: u64, b: u64) -> u64 {", found "fn sub(a: u32, b: u32) -> u32 {"
      line 1: 2 of 3 lines differ
        1: expected "fn sub(a: u64, b: u64) -> u64 {", found "fn add(a: u32, b: u32) -> u32 {"
        2: expected "    a - b", found "    a + b"
    "#);
    insta::assert_snapshot!(fails(file, "@@ fn sub(\n+x").explain(), @r#"
    hunk 1: the anchor "fn sub(" is not in the file after line 0
    no similar lines in the file; read it again
    "#);
    insta::assert_snapshot!(fails(file, "-nothing like this").explain(), @"
    hunk 1: its 1 context and removed lines are not in the file after line 0
    expected:
        nothing like this
    no similar lines in the file; read it again
    ");
}

#[test]
fn help_is_bounded() {
    let file = format!("{}\n", "word ".repeat(5_000)).repeat(200);
    let diff = format!("-{}\n", "word ".repeat(4_000) + "other").repeat(1_000);
    let explanation = fails(&file, &diff).explain();
    assert!(explanation.len() < 20_000, "{}", explanation.len());
}

#[test]
fn only_text_is_patched() {
    let refused = |bytes: &[u8]| {
        try_apply(bytes, "-a", &Options::default()).expect_err("refused").to_string()
    };
    insta::assert_snapshot!(refused(b"a\n\0b"), @"the file is binary (NUL byte at offset 2); a patch changes text only, so write the file whole");
    insta::assert_snapshot!(refused(b"a\xff\n"), @"the file is not UTF-8 text; a patch changes UTF-8 text only, so write the file whole");
    let small = Options { max_file_bytes: 3, ..Options::default() };
    insta::assert_snapshot!(try_apply(b"a\nb\n", "-a", &small).expect_err("too large"), @"the file has 4 bytes and may have 3");
}
