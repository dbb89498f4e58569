//! `manifest`, `apply-patch` and `doctor`.

use serde_json::Value;

use crate::support::{Place, can_seal};

const MANIFEST: &str =
    "version: 1\nentries:\n  a.txt: {type: file, content: hi, description: a greeting}\n";

#[test]
fn manifests_are_checked_and_shown() {
    let place = Place::new(&[("w.yaml", MANIFEST), ("bad.yaml", "version: 1\nentrees: {}\n")]);
    let done = place.run(&["manifest", "check", "w.yaml"]);
    assert_eq!((done.code, done.stdout.as_str()), (0, "w.yaml: a good manifest, 0 warnings\n"));
    let done = place.run(&["manifest", "show", "w.yaml"]);
    assert_eq!(done.code, 0);
    assert!(done.stdout.contains("a.txt") && done.stdout.contains("a greeting"), "{done:?}");
    let done = place.run(&["manifest", "check", "bad.yaml"]);
    assert_eq!(done.code, 2);
    assert!(
        done.stderr.contains("bad.yaml:2:1: entrees: unknown field; did you mean `entries`?"),
        "{done:?}"
    );
}

#[test]
fn the_schema_is_json() {
    let done = Place::new(&[]).run(&["manifest", "schema"]);
    let schema: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(schema["title"], "Cofferdam agent file");
}

#[test]
fn patches_apply_or_fail_as_a_whole() {
    let place = Place::new(&[("a.txt", "one\ntwo\n")]);
    let patch = "*** Begin Patch\n*** Update File: a.txt\n@@\n one\n-two\n+2\n*** Add File: b.txt\n+b\n*** End Patch\n";
    let done = place.run_with_input(&["apply-patch"], patch);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(done.stdout, "Success. Updated the following files:\nA b.txt\nM a.txt\n");
    assert_eq!(std::fs::read_to_string(place.path().join("a.txt")).unwrap(), "one\n2\n");

    let worse = "*** Begin Patch\n*** Add File: c.txt\n+c\n*** Update File: a.txt\n@@\n-three\n+3\n*** End Patch\n";
    let done = place.run(&["apply-patch", worse]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("Failed to find expected lines in"), "{done:?}");
    assert!(!place.path().join("c.txt").exists(), "nothing of a patch that fails is applied");
    assert_eq!(place.run(&["apply-patch"]).code, 2);
}

#[test]
fn the_doctor_names_every_wall() {
    if !can_seal("the_doctor_names_every_wall") {
        return;
    }
    let place = Place::new(&[]);
    let done = place.run(&["doctor"]);
    for wall in [
        "file system",
        "network",
        "processes",
        "privileges",
        "system calls",
        "memory limit",
        "teardown",
    ] {
        assert!(done.stdout.contains(wall), "{wall} in {done:?}");
    }
    let json: Value = serde_json::from_str(&place.run(&["doctor", "--json"]).stdout).unwrap();
    assert!(json["backends"][0]["walls"].as_array().unwrap().len() >= 10, "{json}");
    assert!(json["backends"][0]["capabilities"]["linger"].is_boolean(), "{json}");
    let one = place.run(&["doctor", "--backend", "linux"]);
    assert!(one.stdout.starts_with("backend linux\n"), "{one:?}");
    let unknown = place.run(&["doctor", "--backend", "vm"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.stderr.contains("no sandbox backend \"vm\""), "{unknown:?}");
}
