//! Outputs, from honest and from hostile sandboxes.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use bytes::Bytes;
use cofferdam_manifest::OutputSpec;
use cofferdam_sandbox::{SkippedEntry, TreeEntry, TreeEntryKind, TreeEvent};
use cofferdam_workspace::{CollectError, CollectLimits, Collected, Collector};
use proptest::prelude::*;

use crate::fake::{FakeSandbox, Node, directory, file, link};

fn output(path: &str, optional: bool) -> OutputSpec {
    OutputSpec { path: path.parse().unwrap(), description: None, optional }
}

/// Renders what is in a directory of the host, one line a path.
fn listing(root: &Path) -> String {
    fn walk(root: &Path, directory: &Path, lines: &mut Vec<String>) {
        let mut entries: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let mode = metadata.permissions().mode() & 0o7777;
            if metadata.is_symlink() {
                lines.push(format!("link {name} -> {}", fs::read_link(&path).unwrap().display()));
            } else if metadata.is_dir() {
                lines.push(format!("{mode:04o} {name}/"));
                walk(root, &path, lines);
            } else {
                lines.push(format!("{mode:04o} {name} {:?}", fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut lines = Vec::new();
    walk(root, root, &mut lines);
    lines.join("\n")
}

fn summary(collected: &Collected) -> String {
    let skipped: Vec<String> =
        collected.skipped.iter().map(|s| format!("{}: {}", s.path, s.reason)).collect();
    format!(
        "{} files, {} bytes, found {:?}, missing {:?}, skipped {skipped:?}",
        collected.files, collected.bytes, collected.found, collected.missing
    )
}

#[tokio::test]
async fn copies_what_is_declared() {
    let sandbox = FakeSandbox::new();
    sandbox.put("out", Node::Directory(0o777));
    sandbox.put("out/empty", Node::Directory(0o000));
    sandbox.put("out/report.md", Node::File(0o666, b"# Report".to_vec()));
    sandbox.put("out/run", Node::File(0o6755, b"x".to_vec()));
    sandbox.put("out/none", Node::File(0o000, Vec::new()));
    sandbox.put("out/link", Node::Link(b"report.md".to_vec()));
    sandbox.put("out/passwd", Node::Link(b"/etc/passwd".to_vec()));
    sandbox.put("private", Node::File(0o644, b"not an output".to_vec()));
    sandbox.put("deep/er/one.txt", Node::File(0o644, b"one".to_vec()));
    sandbox.put("linked", Node::Link(b"private".to_vec()));
    let home = tempfile::tempdir().unwrap();
    let place = home.path().join("new/outputs");
    let outputs = [
        output("out/report.md", false),
        output("out", false),
        output("deep/er/one.txt", false),
        output("absent", false),
        output("maybe", true),
        output("linked", true),
    ];
    let collected = Collector::new(&place).collect(&sandbox, &outputs).await.unwrap();
    insta::assert_snapshot!(listing(&place), @r##"
    0755 deep/
    0755 deep/er/
    0644 deep/er/one.txt "one"
    0755 out/
    0700 out/empty/
    link out/link -> report.md
    0600 out/none ""
    0644 out/report.md "# Report"
    0755 out/run "x"
    "##);
    insta::assert_snapshot!(summary(&collected), @r#"4 files, 12 bytes, found ["deep/er/one.txt", "out", "out/report.md"], missing ["absent"], skipped ["linked: a link that leads out, to private", "out/passwd: a link that leads out, to /etc/passwd"]"#);
}

#[tokio::test]
async fn leaves_out_what_is_excluded() {
    let sandbox = FakeSandbox::new();
    sandbox.put("cache", Node::Directory(0o755));
    sandbox.put("cache/big", Node::File(0o644, b"big".to_vec()));
    sandbox.put("cache/empty", Node::File(0o644, Vec::new()));
    sandbox.put("cached", Node::File(0o644, b"kept".to_vec()));
    sandbox.put("note", Node::File(0o644, b"n".to_vec()));
    let home = tempfile::tempdir().unwrap();
    let collected = Collector::new(home.path())
        .exclude(["cache".parse().unwrap(), "note".parse().unwrap()])
        .collect(&sandbox, &[output(".", false)])
        .await
        .unwrap();
    insta::assert_snapshot!(listing(home.path()), @r#"0644 cached "kept""#);
    insta::assert_snapshot!(summary(&collected), @r#"1 files, 4 bytes, found ["."], missing [], skipped ["cache: an ephemeral entry", "note: an ephemeral entry"]"#);
}

#[tokio::test]
async fn the_place_must_be_empty() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("x"), "mine").unwrap();
    let sandbox = FakeSandbox::sending(file("", 0o644, b"theirs"));
    let outputs = [output("x", false)];
    let error = Collector::new(home.path()).collect(&sandbox, &outputs).await.unwrap_err();
    assert_eq!(
        error.to_string().replace(&home.path().display().to_string(), "PLACE"),
        "cannot collect outputs into PLACE: it is not empty; name a new or empty directory"
    );
    assert_eq!(fs::read_to_string(home.path().join("x")).unwrap(), "mine");
}

/// Sends events as the output `o`, and returns what was refused and what was written.
async fn hostile(events: Vec<TreeEvent>) -> String {
    let home = tempfile::tempdir().unwrap();
    let place = home.path().join("place");
    let sandbox = FakeSandbox::sending(events);
    let limits = CollectLimits { max_files: 8, max_bytes: 100 };
    let result =
        Collector::new(&place).limits(limits).collect(&sandbox, &[output("o", false)]).await;
    let outside: Vec<_> = fs::read_dir(home.path()).unwrap().collect();
    assert_eq!(outside.len(), 1, "something was written outside");
    let result = match result {
        Ok(collected) => summary(&collected),
        Err(error) => error.to_string(),
    };
    format!("{result}\n{}", listing(&place))
}

fn all(parts: impl IntoIterator<Item = Vec<TreeEvent>>) -> Vec<TreeEvent> {
    parts.into_iter().flatten().collect()
}

#[tokio::test]
async fn hostile_trees_do_not_escape() {
    let root = || vec![directory("", 0o755)];
    insta::assert_snapshot!(hostile(all([root(), file("../up", 0o644, b"x")])).await, @r#"
    output o: the sandbox sent a tree that is not sound: `../up` is no path inside of an output
    0700 o/
    "#);
    insta::assert_snapshot!(hostile(all([root(), file("/etc/x", 0o644, b"x")])).await, @r#"
    output o: the sandbox sent a tree that is not sound: `/etc/x` is no path inside of an output
    0700 o/
    "#);
    insta::assert_snapshot!(hostile(all([root(), file("a//b", 0o644, b"x")])).await, @r#"
    output o: the sandbox sent a tree that is not sound: `a//b` is no path inside of an output
    0700 o/
    "#);
    insta::assert_snapshot!(hostile(all([root(), file(".", 0o644, b"x")])).await, @r#"
    output o: the sandbox sent a tree that is not sound: `.` is no path inside of an output
    0700 o/
    "#);
    insta::assert_snapshot!(hostile(all([root(), file("a\0b", 0o644, b"x")])).await, @r#"
    output o: the sandbox sent a tree that is not sound: `a\u{0}b` is no path inside of an output
    0700 o/
    "#);
    insta::assert_snapshot!(
        hostile(all([root(), file("a", 0o644, b"1"), file("a", 0o644, b"2")])).await, @r#"
    output o: the sandbox sent a tree that is not sound: o/a comes twice
    0700 o/
    0644 o/a "1"
    "#
    );
    insta::assert_snapshot!(
        hostile(all([root(), vec![link("l", b"..")], file("l/x", 0o644, b"x")])).await, @r#"
    output o: the sandbox sent a tree that is not sound: o/l/x comes before its directory
    0700 o/
    "#
    );
    insta::assert_snapshot!(
        hostile(all([root(), vec![link("l", b"d")], file("l", 0o644, b"x")])).await, @r#"
    output o: the sandbox sent a tree that is not sound: o/l comes twice
    0700 o/
    "#
    );
    insta::assert_snapshot!(
        hostile(all([root(), vec![directory("l", 0o755), link("l", b"/etc")]])).await, @r#"
    output o: the sandbox sent a tree that is not sound: o/l comes twice
    0700 o/
    0700 o/l/
    "#
    );
    insta::assert_snapshot!(
        hostile(all([root(), vec![link("l", b"d/../../../etc"), link("m", b"x/..")]])).await, @r#"
    0 files, 0 bytes, found ["o"], missing [], skipped ["o/l: a link that leads out, to d/../../../etc", "o/m: a link that leads out, to x/.."]
    0755 o/
    "#
    );
    insta::assert_snapshot!(hostile(all([root(), file("d/x", 0o644, b"x")])).await, @r#"
    output o: the sandbox sent a tree that is not sound: o/d/x comes before its directory
    0700 o/
    "#);
    insta::assert_snapshot!(hostile(file("../o", 0o644, b"x")).await, @r#"output o: the sandbox sent a tree that is not sound: `../o` is no path inside of an output"#);
}

#[tokio::test]
async fn trees_that_contradict_themselves_are_refused() {
    let begin = |size| {
        let kind = TreeEntryKind::File { size };
        let entry = TreeEntry { path: b"f".to_vec(), mode: 0o644, modified_ns: None, kind };
        vec![directory("", 0o755), TreeEvent::Entry(entry)]
    };
    let content = |bytes: &'static [u8]| vec![TreeEvent::Content(Bytes::from_static(bytes))];
    insta::assert_snapshot!(hostile(all([begin(5), content(b"1234")])).await, @r#"
    output o: the sandbox sent a tree that is not sound: o/f ends 1 bytes early
    0700 o/
    "#);
    insta::assert_snapshot!(hostile(all([begin(5), content(b"123456")])).await, @r#"
    output o: the sandbox sent a tree that is not sound: o/f is longer than it said
    0700 o/
    "#);
    insta::assert_snapshot!(hostile(all([begin(1), content(b"1"), content(b"2")])).await, @r#"
    output o: the sandbox sent a tree that is not sound: content of no file
    0700 o/
    0644 o/f "1"
    "#);
    insta::assert_snapshot!(hostile(content(b"x")).await, @r#"output o: the sandbox sent a tree that is not sound: content of no file"#);
    insta::assert_snapshot!(hostile(begin(101)).await, @r#"
    output o: the outputs hold more than 100 bytes; raise the bound or declare less as outputs
    0700 o/
    "#);
    insta::assert_snapshot!(hostile(begin(u64::MAX)).await, @r#"
    output o: the outputs hold more than 100 bytes; raise the bound or declare less as outputs
    0700 o/
    "#);
    let many = (0..9).map(|n| directory(format!("d{n}"), 0o755)).collect();
    insta::assert_snapshot!(hostile(all([vec![directory("", 0o755)], many])).await, @r#"
    output o: the outputs hold more than 8 files; raise the bound or declare less as outputs
    0700 o/
    0700 o/d0/
    0700 o/d1/
    0700 o/d2/
    0700 o/d3/
    0700 o/d4/
    0700 o/d5/
    0700 o/d6/
    "#);
    let skipped = SkippedEntry { path: b"s\x1b[2J".to_vec(), reason: "socket\n".to_owned() };
    insta::assert_snapshot!(
        hostile(vec![directory("", 0o755), TreeEvent::Skipped(skipped)]).await, @r#"
    0 files, 0 bytes, found ["o"], missing [], skipped ["o/s\\u{1b}[2J: socket\\n"]
    0755 o/
    "#
    );
}

fn any_event() -> impl Strategy<Value = TreeEvent> {
    let path = prop::sample::select(vec![
        "",
        "a",
        "a/b",
        "a/b/c",
        "b",
        "..",
        "../x",
        "/x",
        "a/../../x",
        "./a",
        "a/",
        "l",
        "l/x",
        "l/../x",
    ]);
    let target =
        prop::sample::select(vec!["a", "..", "../..", "/etc", "l", "a/..", ".", "../../../x"]);
    prop_oneof![
        path.clone().prop_map(|path| directory(path, 0o7777)),
        (path.clone(), 0..4_u64).prop_map(|(path, size)| {
            let kind = TreeEntryKind::File { size };
            TreeEvent::Entry(TreeEntry { path: path.into(), mode: 0o7777, modified_ns: None, kind })
        }),
        (path, target).prop_map(|(path, target)| link(path, target.as_bytes())),
        (0..4_usize).prop_map(|size| TreeEvent::Content(Bytes::from(vec![b'x'; size]))),
    ]
}

/// Every link, followed as far as it leads, stays inside.
fn no_link_leads_out(root: &Path, directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o6000, 0, "set-id bits on {path:?}");
        if metadata.is_symlink() {
            if let Ok(end) = fs::canonicalize(&path) {
                assert!(end.starts_with(root), "{path:?} leads to {end:?}");
            }
        } else if metadata.is_dir() {
            no_link_leads_out(root, &path);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_tree_escapes(events in prop::collection::vec(any_event(), 0..12)) {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join("place");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let sandbox = FakeSandbox::sending(events);
        let outputs = [output("a", true)];
        let result = runtime.block_on(Collector::new(&place).collect(&sandbox, &outputs));
        let refused = matches!(result, Err(CollectError::Hostile { .. }));
        prop_assert!(result.is_ok() || refused, "{result:?}");
        prop_assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
        no_link_leads_out(&fs::canonicalize(&place).unwrap(), &place);
    }
}
