//! Bad input is answered with what is wrong, where, and what to do; nothing is started.

use crate::support::Place;

const SCRIPT: &str = "name: s\nturns: [{items: [{message: done}]}]\n";

/// Runs `agent.yaml` with this content and checks the code and the message.
fn check(agent: &str, code: i32, expect: &str) {
    let place =
        Place::new(&[("agent.yaml", agent), ("script.yaml", SCRIPT), ("data/a.txt", "12345")]);
    let done = place.run(&["run", "agent.yaml"]);
    assert_eq!(done.code, code, "{done:?}");
    assert!(done.stderr.contains(expect), "expected {expect:?} in:\n{}", done.stderr);
    assert!(!place.path().join("out").exists(), "nothing was started");
}

fn agent(rest: &str) -> String {
    format!("version: 1\nname: a\ntask: t\nmodel: {{default: 'scripted:script.yaml'}}\n{rest}")
}

#[test]
fn malformed_yaml() {
    check("version: 1\nname: [a\n", 2, "agent.yaml:");
}

#[test]
fn an_unknown_field_with_a_suggestion() {
    check(
        &agent("limts: {max_turns: 3}\n"),
        2,
        "agent.yaml:5:1: limts: unknown field; did you mean `limits`?",
    );
}

#[test]
fn an_escaping_path() {
    check(&agent("workspace:\n  entries:\n    ../up: {type: dir}\n"), 2, "agent.yaml:7:5: ");
    check(&agent("workspace:\n  entries:\n    ../up: {type: dir}\n"), 2, "`..`");
}

#[test]
fn an_empty_task() {
    check(
        "version: 1\nname: a\nmodel: {default: 'scripted:script.yaml'}\n",
        2,
        "agent.yaml has no `task`",
    );
}

#[test]
fn a_missing_script() {
    let text = agent("").replace("script.yaml", "gone.yaml");
    check(&text, 2, "the script ./gone.yaml cannot be read: No such file or directory");
}

#[cfg(feature = "openai")]
#[test]
fn a_chat_model_without_an_address() {
    let text = agent("").replace("scripted:script.yaml", "chat:m");
    check(&text, 2, "model \"chat:m\" needs the address of its server; give one with `--base-url`");
}

#[cfg(feature = "openai")]
#[test]
fn a_live_model_without_a_key() {
    let text = agent("").replace("scripted:script.yaml", "openai:m");
    check(&text, 2, "secret env:OPENAI_API_KEY is not set in the environment of this process");
}

#[test]
fn a_missing_local_path() {
    if !crate::support::can_seal("a_missing_local_path") {
        return;
    }
    check(&agent("workspace: {entries: {d: {type: local_dir, source: gone}}}\n"), 2, "gone");
}

#[test]
fn a_workspace_over_its_cap() {
    if !crate::support::can_seal("a_workspace_over_its_cap") {
        return;
    }
    let text = agent("workspace: {entries: {d: {type: local_dir, source: data, max_bytes: 4B}}}\n");
    check(&text, 2, "4");
}

#[test]
fn a_missing_file() {
    let done = Place::new(&[]).run(&["run", "gone.yaml"]);
    assert_eq!(done.code, 2);
    assert_eq!(
        done.stderr,
        "error: cannot read gone.yaml: No such file or directory (os error 2)\n"
    );
}
