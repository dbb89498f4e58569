//! The same job with a model behind HTTP: a mock server on loopback, and its faults as a person meets them.

use cofferdam_testkit::mock_server::{Fault, MockItem, MockModelServer, MockScript, MockTurn};
use serde_json::json;

use crate::support::{Done, Place, can_seal};

const AGENT: &str = "
version: 1
name: a
task: go
model: {default: 'scripted:none.yaml'}
outputs: [{path: note.txt, optional: true}]
";

/// Runs the agent against a server that plays these turns; returns what it did and how many requests were sent.
fn run(turns: Vec<MockTurn>, model: &str) -> (Done, usize) {
    let place = Place::new(&[("agent.yaml", AGENT)]);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(MockModelServer::start(MockScript::new(turns))).unwrap();
    let url = server.base_url();
    let done = place.run(&["run", "agent.yaml", "--model", model, "--base-url", &url]);
    server.assert_paired();
    let requests = server.requests().len();
    (done, requests)
}

fn turns() -> Vec<MockTurn> {
    vec![
        MockTurn::new([
            MockItem::function_call(
                "exec_command",
                json!({"cmd": "echo hi > note.txt; cat note.txt"}),
            ),
            MockItem::function_call("no_such_tool", json!({})),
            MockItem::function_call("exec_command", json!("{\"cmd\": ")),
        ]),
        MockTurn::new([MockItem::message("written")]),
    ]
}

#[test]
fn both_wires_run_the_job_and_the_model_hears_of_its_mistakes() {
    if !can_seal("both_wires_run_the_job_and_the_model_hears_of_its_mistakes") {
        return;
    }
    for model in ["openai:mock", "chat:mock"] {
        let (done, requests) = run(turns(), model);
        assert_eq!((done.code, requests), (0, 2), "{model}: {done:?}");
        assert!(done.stdout.contains("written"), "{done:?}");
    }
}

/// A server that fails for good: the exit code and the message.
fn check(fault: Fault, expect: &str) {
    let (done, _) = run(vec![MockTurn::new([MockItem::message("x")]).fault(fault)], "openai:mock");
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains(expect), "expected {expect:?} in:\n{}", done.stderr);
}

#[test]
fn what_a_failing_server_looks_like() {
    if !can_seal("what_a_failing_server_looks_like") {
        return;
    }
    check(Fault::Html, "openai:mock answered with something that is not its protocol");
    check(
        Fault::error(401, "invalid_api_key", "no such key"),
        "refused the credentials: no such key",
    );
    check(Fault::error(429, "insufficient_quota", "pay first"), "has no quota left: pay first");
    check(Fault::rate_limited("600"), "it asks to wait longer than 120s");
    check(Fault::error(400, "context_length_exceeded", "too long"), "the conversation is too long");
}
