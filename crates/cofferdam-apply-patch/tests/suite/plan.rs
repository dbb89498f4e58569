//! Whole patches worked out in memory: staging, conflicts, moves, modes and the peers' mode.

use cofferdam_apply_patch::{
    Action, FileState, Options, Patch, Plan, PlanError, PlanFault, commit, parse, plan,
};

use crate::memory::{Memory, path};

fn patch(body: &str) -> Patch {
    parse(&format!("*** Begin Patch\n{body}\n*** End Patch"))
        .unwrap_or_else(|error| panic!("{error}"))
}

fn planned(files: &Memory, body: &str, options: &Options) -> Result<Plan, PlanError> {
    plan(&patch(body), options, &mut |path| files.read(path))
}

/// Plans and carries out, and returns all files.
fn check(before: &[(&str, &str)], body: &str, after: &str) {
    let mut files = Memory::new(before);
    let plan = planned(&files, body, &Options::default())
        .unwrap_or_else(|error| panic!("{}", error.explain()));
    commit(&plan, "t", &mut files).unwrap();
    assert_eq!(files.list(), after, "{body}");
}

fn fault(files: &Memory, body: &str) -> String {
    planned(files, body, &Options::default()).expect_err(body).explain()
}

#[test]
fn operations_apply_in_order_on_the_staged_state() {
    check(
        &[("a", "1\n")],
        "*** Add File: d/e/b\n+2\n*** Update File: a\n-1\n+3\n*** Delete File: d/e/b",
        "a=3|",
    );
    check(
        &[("a", "1\n2\n")],
        "*** Update File: a\n-2\n+3\n*** Update File: ./a\n-1\n+2\n@@\n-3\n+4",
        "a=2|4|",
    );
    check(
        &[],
        "*** Add File: a\n+1\n*** Update File: a\n-1\n+2\n*** Update File: a\n*** Move to: b",
        "b=2|",
    );
    check(&[("a", "1\n")], "*** Delete File: a\n*** Add File: a\n+2", "a=2|");
    check(&[("a", "1\n")], "*** Update File: a\n-1\n+2\n*** Update File: a\n-2\n+1", "a=1|");
}

#[test]
fn moves_are_safe() {
    check(&[("a", "1\n")], "*** Update File: a\n*** Move to: d/b\n-1\n+2", "d/b=2|");
    check(&[("a", "1\n")], "*** Update File: a\n*** Move to: b", "b=1|");
    // To the same path, however spelt.
    check(&[("a", "1\n")], "*** Update File: a\n*** Move to: a\n-1\n+2", "a=2|");
    check(&[("a", "1\n")], "*** Update File: a\n*** Move to: ./a", "a=1|");
    // In a ring.
    let ring = "*** Update File: a\n*** Move to: t\n*** Update File: b\n*** Move to: a\n*** Update File: t\n*** Move to: b";
    check(&[("a", "1\n"), ("b", "2\n")], ring, "a=2| b=1|");
}

#[test]
fn a_pure_rename_moves_bytes_that_are_not_text() {
    let mut files = Memory::new(&[("a", "")]);
    files.files.get_mut(&path("a")).unwrap().bytes = b"\0\xff".to_vec().into();
    let plan = planned(&files, "*** Update File: a\n*** Move to: b", &Options::default()).unwrap();
    commit(&plan, "t", &mut files).unwrap();
    assert_eq!(*files.files[&path("b")].bytes, b"\0\xff");
    assert_eq!(
        plan.moves().map(|(from, to)| (from.as_str(), to.as_str())).collect::<Vec<_>>(),
        [("a", "b")]
    );
}

#[test]
fn mode_bits_are_kept() {
    let files = Memory::new(&[("a", "1\n"), ("b", "1\n")]);
    let body = "*** Update File: a\n-1\n+2\n*** Update File: b\n*** Move to: c\n-1\n+2\n*** Add File: d\n+1";
    let plan = planned(&files, body, &Options::default()).unwrap();
    let modes: Vec<_> = plan
        .changes
        .iter()
        .map(|change| (change.path.as_str(), change.after.as_ref().map(|after| after.mode)))
        .collect();
    assert_eq!(
        modes,
        [("a", Some(Some(0o640))), ("c", Some(Some(0o640))), ("b", None), ("d", Some(None))]
    );
    let paths = |changes: Vec<&cofferdam_apply_patch::Change>| {
        changes.iter().map(|change| change.path.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(paths(plan.creates().collect()), ["c", "d"]);
    assert_eq!(paths(plan.writes().collect()), ["a"]);
    assert_eq!(paths(plan.deletes().collect()), ["b"]);
}

#[test]
fn a_fault_names_the_path_and_the_remedy() {
    let mut files = Memory::new(&[("a", "one\n"), ("b", "1\n"), ("dir/x", "1\n")]);
    files.links.push(path("link"));
    insta::assert_snapshot!(fault(&files, "*** Update File: none\n-1"), @"none: there is no such file; add it, or correct the path");
    insta::assert_snapshot!(fault(&files, "*** Delete File: none"), @"none: there is no such file; add it, or correct the path");
    insta::assert_snapshot!(fault(&files, "*** Add File: a\n+1"), @"a: a file is already there; update it, or delete it first");
    insta::assert_snapshot!(fault(&files, "*** Update File: a\n*** Move to: b"), @"b: a file is already there; update it, or delete it first");
    insta::assert_snapshot!(fault(&files, "*** Delete File: dir"), @"dir: it is a directory; a patch changes files only");
    insta::assert_snapshot!(fault(&files, "*** Add File: dir\n+1"), @"dir: it is a directory; a patch changes files only");
    insta::assert_snapshot!(fault(&files, "*** Update File: link\n-1"), @"link: it is a symbolic link, and links are not followed; name the file itself");
    insta::assert_snapshot!(fault(&files, "*** Add File: link\n+1"), @"link: it is a symbolic link, and links are not followed; name the file itself");
    insta::assert_snapshot!(fault(&files, "*** Update File: b\n-1\n+2\n*** Update File: ./a\n-once"), @"
    ./a: hunk 1: its 1 context and removed lines are not in the file after line 0
    expected:
        once
    no similar lines in the file; read it again
    ");
    let unreadable = plan(&patch("*** Delete File: a"), &Options::default(), &mut |_| {
        Err("the line is dead".into())
    });
    insta::assert_snapshot!(unreadable.expect_err("unreadable").explain(), @"a: it cannot be read: the line is dead");
}

#[test]
fn a_binary_file_is_refused_by_name_but_may_be_deleted() {
    let mut files = Memory::new(&[("logo.png", "")]);
    files.files.get_mut(&path("logo.png")).unwrap().bytes = b"\x89PNG\0".to_vec().into();
    insta::assert_snapshot!(fault(&files, "*** Update File: logo.png\n-1"), @"logo.png: the file is not UTF-8 text; a patch changes UTF-8 text only, so write the file whole");
    assert_eq!(
        planned(&files, "*** Delete File: logo.png", &Options::default())
            .unwrap()
            .deletes()
            .count(),
        1
    );
}

#[test]
fn a_link_is_removed_and_not_followed() {
    let mut files = Memory::default();
    files.links.push(path("link"));
    let plan = planned(&files, "*** Delete File: link", &Options::default()).unwrap();
    assert_eq!(plan.changes[0].before, Some(FileState::Symlink));
    insta::assert_snapshot!(plan.reverse().expect_err("irreversible"), @"the plan removes the symbolic link link, whose target is not known; make it again by hand");
    commit(&plan, "t", &mut files).unwrap();
    assert!(files.links.is_empty());
}

#[test]
fn the_peers_mode_keeps_what_was_applied_and_lists_it() {
    let mut files = Memory::new(&[("a", "1\n"), ("b", "1\n")]);
    let body = "*** Add File: a\n+over\n*** Delete File: none\n*** Delete File: b";
    assert!(matches!(
        planned(&files, body, &Options::default()).unwrap_err().fault,
        PlanFault::AlreadyExists
    ));

    let plan = planned(&files, body, &Options::peer_compatible()).unwrap();
    let applied: Vec<_> =
        plan.outcomes.iter().map(|outcome| (outcome.action, outcome.path.as_str())).collect();
    assert_eq!(applied, [(Action::Added, "a")]);
    let failure = plan.failure.as_ref().unwrap();
    assert_eq!((failure.operation, failure.path.as_str()), (2, "none"));
    commit(&plan, "t", &mut files).unwrap();
    assert_eq!(files.list(), "a=over| b=1|");
}

#[test]
fn the_peers_mode_overwrites_a_destination_and_ends_files_with_a_newline() {
    let mut files = Memory::new(&[("a", "1\n2"), ("b", "1\n")]);
    let plan =
        planned(&files, "*** Update File: a\n*** Move to: b\n-1\n+3", &Options::peer_compatible())
            .unwrap();
    commit(&plan, "t", &mut files).unwrap();
    assert_eq!(files.list(), "b=3|2|");
}

#[test]
fn warnings_name_file_hunk_and_line() {
    let files = Memory::new(&[("a", "x \ny\nx \n")]);
    let plan = planned(&files, "*** Update File: a\n@@\n-x\n+z", &Options::default()).unwrap();
    insta::assert_snapshot!(plan.warnings().collect::<Vec<_>>().join("\n"), @"a: hunk 1 at line 1, trailing white space differs, 1 other place matches as well; the first was taken");
}

#[test]
fn each_path_is_read_once() {
    let mut asked = Vec::new();
    let body = "*** Add File: a\n+1\n*** Update File: a\n*** Move to: b\n*** Delete File: b";
    let patch = patch(body);
    plan(&patch, &Options::default(), &mut |path| {
        asked.push(path.to_string());
        Ok(None)
    })
    .unwrap();
    assert_eq!(asked, ["a", "b"]);
    assert_eq!(patch.paths().map(ToString::to_string).collect::<Vec<_>>(), ["a", "a", "b", "b"]);
}
