//! `cofferdam run` with a scripted model in a real sandbox.

use std::{process::Stdio, time::Duration};

use serde_json::Value;

use crate::support::{Place, can_seal};

const AGENT: &str = "
version: 1
name: sorter
task: sort the numbers
model: {default: 'scripted:script.yaml'}
workspace:
  entries:
    numbers.txt: {type: local_file, source: data/numbers.txt}
outputs: [{path: sorted.jsonl}]
evaluations: [{name: order, output: sorted.jsonl, expected: truth.jsonl, key: [n]}]
";

fn place(script: &str) -> Place {
    Place::new(&[
        ("agent.yaml", AGENT),
        ("script.yaml", script),
        ("data/numbers.txt", "3\n1\n2\n"),
        ("truth.jsonl", "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n{\"n\":4}\n"),
    ])
}

const GOOD: &str = r#"
name: sorter
turns:
  - items: [{call: exec_command, arguments: {cmd: "sort numbers.txt | sed 's/.*/{\"n\":&}/' > sorted.jsonl; cat sorted.jsonl"}}]
  - expect: {last_output_contains: ['{"n":1}'], last_exit_code: 0}
    items: [{message: sorted}]
"#;

#[test]
fn a_job_ends_with_its_outputs_and_their_evaluation() {
    if !can_seal("a_job_ends_with_its_outputs_and_their_evaluation") {
        return;
    }
    let place = place(GOOD);
    let done = place.run(&["run", "agent.yaml"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stderr.contains("scripted: its words are fixed in advance"), "{}", done.stderr);
    assert!(done.stdout.contains(
        "evaluation order: precision 1.000, recall 0.750 (3 found, 4 in the truth, 3 in both)"
    ));
    let sorted = std::fs::read_to_string(place.run_directory().join("sorted.jsonl")).unwrap();
    assert_eq!(sorted, "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n");
}

#[test]
fn json_is_one_object_a_line() {
    if !can_seal("json_is_one_object_a_line") {
        return;
    }
    let done = place(GOOD).run(&["run", "agent.yaml", "--json"]);
    assert_eq!(done.code, 0, "{done:?}");
    let lines: Vec<Value> =
        done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(
        types,
        [
            "run_started",
            "turn_started",
            "model_answered",
            "checkpoint_taken",
            "tool_started",
            "tool_finished",
            "turn_started",
            "model_answered",
            "checkpoint_taken",
            "run_finished",
            "result"
        ]
    );
    assert_eq!(lines.last().unwrap()["evaluations"][0]["recall"], 0.75);
}

#[test]
fn a_missing_output_has_its_own_exit_code() {
    if !can_seal("a_missing_output_has_its_own_exit_code") {
        return;
    }
    let text = AGENT
        .lines()
        .filter(|line| !line.starts_with("evaluations"))
        .collect::<Vec<_>>()
        .join("\n");
    let place = place("name: s\nturns: [{items: [{message: nothing}]}]\n");
    std::fs::write(place.path().join("agent.yaml"), text).unwrap();
    let done = place.run(&["run", "agent.yaml"]);
    assert_eq!(done.code, 4, "{done:?}");
    assert!(done.stdout.contains("missing output: sorted.jsonl"), "{done:?}");
}

#[test]
fn a_failed_run_keeps_what_was_written() {
    if !can_seal("a_failed_run_keeps_what_was_written") {
        return;
    }
    let script = GOOD.replace("last_exit_code: 0", "last_exit_code: 7");
    let place = place(&script);
    let done = place.run(&["run", "agent.yaml"]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        done.stderr.contains("turn 2 of the script \"scripted:sorter\" expects exit code 7"),
        "{done:?}"
    );
    assert!(place.run_directory().join("sorted.jsonl").exists());
}

#[test]
fn a_cancelled_run_ends_its_command_and_says_so() {
    if !can_seal("a_cancelled_run_ends_its_command_and_says_so") {
        return;
    }
    let script = "name: s\nturns: [{items: [{call: exec_command, arguments: {cmd: 'trap \"\" TERM INT; echo started; sleep 600', yield_time_ms: 30000}}]}]\n";
    let place = place(script);
    let child = place
        .command()
        .args(["run", "agent.yaml", "--json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    // The command runs once its start has been written; a signal before that would cancel as well, and prove less.
    std::thread::sleep(Duration::from_millis(1500));
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let done = place.done(&child.wait_with_output().unwrap());
    assert_eq!(done.code, 130, "{done:?}");
    assert!(done.stdout.contains("\"tool_started\""), "{done:?}");
    assert!(done.stderr.contains("the run was cancelled"), "{done:?}");
}
