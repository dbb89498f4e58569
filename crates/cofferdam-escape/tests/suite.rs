//! The suite itself: on a backend without walls most attacks work, and a broken probe is told as broken.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says no more than that it failed"
)]

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt, path::Path, process::Command};

use cofferdam_escape::{
    PROGRAM, PROGRAM_NAME,
    columns::{self, Launch, Peers, Target},
    report::{Kind, Outcome, Report},
    runner::Runner,
};

fn runner() -> Runner {
    Runner::new(Path::new(env!("CARGO_BIN_EXE_cofferdam-escape")), None).unwrap()
}

fn user() -> u32 {
    fs::metadata("/proc/self").unwrap().uid()
}

/// Attacks the backend without walls, beside the controls, as whoever runs the tests.
fn attack_the_plain_backend() -> Report {
    let mut targets = columns::targets(user() == 0, user(), &Peers::default());
    targets.retain(|target| target.kind == Kind::Control && target.user == user());
    targets.push(Target {
        name: "plain".to_owned(),
        kind: Kind::Own,
        user: user(),
        launch: Launch::Backend("plain".to_owned()),
    });
    runner().run(&targets, |_| {}).unwrap()
}

#[test]
fn most_attacks_work_on_a_backend_without_walls() {
    let report = attack_the_plain_backend();
    let [control, plain] = report.columns.as_slice() else { panic!("two columns") };
    let opened = |column: &cofferdam_escape::report::Column| -> BTreeSet<String> {
        let open = column.answers.values().filter(|it| it.outcome == Outcome::Open);
        open.map(|answer| answer.id.clone()).collect()
    };
    let broken: Vec<_> =
        plain.answers.values().filter(|it| it.outcome == Outcome::Broken).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    // As an ordinary user, the kernel itself denies half of them.
    let at_least = if user() == 0 { 50 } else { 35 };
    assert!(
        opened(plain).len() >= at_least,
        "only {} work: {:?}",
        opened(plain).len(),
        opened(plain)
    );
    let held: Vec<_> = opened(control)
        .difference(&opened(plain))
        .filter(|id| !HELD.contains(&id.as_str()))
        .cloned()
        .collect();
    assert!(held.is_empty(), "work outside and not on the plain backend: {held:?}");
}

/// What works without a sandbox and not on the plain backend: the guest and its interface are in the way there too.
const HELD: &[&str] = &[
    // The guest gives commands a session and pipes of their own, and closes what it was started with.
    "controlling-tty",
    "inherited-tty",
    "cve-2017-5226",
    "leaked-descriptors",
    // It resolves beneath the workspace, opens no special file, and ends its commands with itself.
    "link-race",
    "link-read",
    "link-write",
    "odd-names",
    "outlive-close",
    "outlive-command",
    "outlive-launcher",
    "outlive-linger",
    "outlive-maker",
    "outlive-remove",
    "sparse-file",
    "set-id-upload",
    "special-files",
    "tree-entries",
    // This backend has no root file systems, and says of itself that it has no walls.
    "cve-2019-19921",
    "cve-2021-30465",
    "cve-2024-45310",
    "cve-2025-31133-root",
    "cve-2026-87766",
    "weak-walls",
];

#[test]
fn every_attack_has_a_name_of_its_own() {
    let runner = runner();
    let ids: BTreeSet<_> = runner.attacks().iter().map(|attack| &attack.id).collect();
    assert_eq!(ids.len(), runner.attacks().len());
    assert!(ids.len() >= 150, "only {} attacks", ids.len());
}

#[test]
fn a_broken_probe_is_no_denial() {
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join(PROGRAM_NAME);
    fs::write(&program, PROGRAM).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(place.path().join("targets"), "token=x\n").unwrap();
    let ids = ["self-test-crash", "self-test-exit", "self-test-expected", "self-test-fault"];
    #[expect(clippy::disallowed_methods, reason = "the probe program is what is tested")]
    let output = Command::new(&program)
        .args(["run", "targets"])
        .args(ids)
        .current_dir(place.path())
        .output()
        .unwrap();
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @r#"
    {"id":"self-test-crash","outcome":"broken","evidence":"it died of signal 6"}
    {"id":"self-test-exit","outcome":"broken","evidence":"it ended with code 7"}
    {"id":"self-test-expected","outcome":"denied","evidence":"killed by signal 6"}
    {"id":"self-test-fault","outcome":"broken","evidence":"EINVAL"}
    "#);
}
