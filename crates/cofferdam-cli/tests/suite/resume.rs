//! Runs that outlive their processes: `resume`, `runs`, `sandboxes`, and a run under blows.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Stdio},
};

use serde_json::Value;

use crate::support::{Done, Place, can_seal};

const AGENT: &str = "
version: 1
name: counter
task: count
model: {default: 'scripted:script.yaml'}
outputs: [{path: log}]
";

/// Each command adds a line, so a command that ran twice, or never, is seen in the output.
const SCRIPT: &str = r#"
name: counter
turns:
  - items: [{call: exec_command, arguments: {cmd: "echo one >> log"}}]
  - items: [{call: exec_command, arguments: {cmd: "echo two >> log; sleep 1; echo three >> log; wc -l < log"}}]
  - expect: {last_output_contains: ["3"]}
    items:
      - call: apply_patch
        input: |
          *** Begin Patch
          *** Update File: log
          @@
           three
          +four
          *** End Patch
  - items: [{call: exec_command, arguments: {cmd: "echo five >> log; cat log"}}]
  - expect: {last_output_contains: ["five"]}
    items: [{message: counted}]
"#;

const LOG: &str = "one\ntwo\nthree\nfour\nfive\n";

fn place(agent: &str) -> Place {
    Place::new(&[("agent.yaml", agent), ("script.yaml", SCRIPT)])
}

/// A run that stops before its patch, until somebody allows it.
fn asking_place() -> Place {
    place(&format!(
        "{AGENT}policy: [{{tool: apply_patch, decision: ask, reason: patches are looked at}}]\n"
    ))
}

/// The runs that are recorded, oldest first.
fn runs(place: &Place) -> Vec<Value> {
    let done = place.run(&["runs", "list", "--json"]);
    assert_eq!(done.code, 0, "{done:?}");
    done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn only_run(place: &Place) -> String {
    let runs = runs(place);
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs[0]["run"].as_str().unwrap().to_owned()
}

fn log(place: &Place, run: &str) -> String {
    let path = place.path().join("out").join(run).join("log");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Starts the run, and kills it for certain once an event with these words is printed.
fn kill_at(place: &Place, words: &[&str]) {
    let mut child = begin(place, words);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Starts the run, and returns its process once an event with these words is printed.
fn begin(place: &Place, words: &[&str]) -> Child {
    let mut child = place
        .command()
        .args(["run", "agent.yaml", "--json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let seen = lines.map(|line| line.unwrap()).any(|line| words.iter().all(|it| line.contains(it)));
    assert!(seen, "no event has {words:?}");
    child
}

fn check_end(place: &Place, run: &str, done: &Done) {
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stdout.contains("counted"), "{done:?}");
    assert_eq!(log(place, run), LOG, "{done:?}");
}

#[test]
fn a_killed_run_is_resumed_and_does_nothing_twice() {
    if !can_seal("a_killed_run_is_resumed_and_does_nothing_twice") {
        return;
    }
    for words in [&["tool_started", "three"][..], &["tool_started", "five"], &["\"turn\":3"]] {
        let place = place(AGENT);
        kill_at(&place, words);
        let run = only_run(&place);
        let listed = place.run(&["runs", "list"]);
        assert!(listed.stdout.contains("was cut off"), "{listed:?}");
        let done = place.run(&["resume", &run]);
        check_end(&place, &run, &done);
        let listed = place.run(&["runs", "list"]);
        assert!(listed.stdout.contains("has ended"), "{listed:?}");
        // A process may have died after the end and before the outputs were there.
        let done = place.run(&["resume", &run]);
        check_end(&place, &run, &done);
        assert!(place.path().join("out").join(format!("{run}.1")).join("log").exists());
    }
}

#[test]
fn blows_change_nothing() {
    if !can_seal("blows_change_nothing") {
        return;
    }
    for seed in 1..=3 {
        let place = place(AGENT);
        let done =
            place.run(&["run", "agent.yaml", &format!("--chaos={seed}"), "--chaos-blows", "3"]);
        let run = only_run(&place);
        check_end(&place, &run, &done);
        assert!(done.stderr.contains(&format!("chaos with seed {seed}: 3 blows")), "{done:?}");
        assert!(done.stderr.contains("chaos: the harness was killed"), "{done:?}");
    }
}

#[test]
fn a_run_waits_for_approval_without_a_process() {
    if !can_seal("a_run_waits_for_approval_without_a_process") {
        return;
    }
    let place = asking_place();
    let done = place.run(&["run", "agent.yaml"]);
    let run = only_run(&place);
    assert_eq!(done.code, 5, "{done:?}");
    assert!(done.stderr.contains("waits for approval of step 3.0"), "{done:?}");
    assert!(done.stderr.contains(&format!("cofferdam resume {run}` with `--approve`")), "{done:?}");
    let waiting = place.run(&["runs", "list"]);
    assert!(waiting.stdout.contains("waits for somebody"), "{waiting:?}");
    let sandboxes = place.run(&["sandboxes", "list", "--backend", "linux", "--json"]);
    assert!(!sandboxes.stdout.contains(&run), "{sandboxes:?}");
    // Without an answer it waits on, and asks nobody again.
    let done = place.run(&["resume", &run]);
    assert_eq!(done.code, 5, "{done:?}");
    let done = place.run(&["resume", &run, "--approve", "--reason", "looked at"]);
    check_end(&place, &run, &done);
    let shown = place.run(&["runs", "show", &run]);
    assert!(shown.stdout.contains("looked at"), "{shown:?}");
    assert_eq!(shown.stdout.matches("waits for approval: patches are looked at").count(), 1);
}

#[test]
fn a_refused_call_is_told_to_the_model() {
    if !can_seal("a_refused_call_is_told_to_the_model") {
        return;
    }
    let place = asking_place();
    let done = place.run(&["run", "agent.yaml"]);
    assert_eq!(done.code, 5, "{done:?}");
    let run = only_run(&place);
    let done = place.run(&["resume", &run, "--refuse", "--reason", "no patches today"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(log(&place, &run), LOG.replace("four\n", ""));
}

#[test]
fn a_changed_agent_is_not_the_same_run() {
    if !can_seal("a_changed_agent_is_not_the_same_run") {
        return;
    }
    let place = place(AGENT);
    kill_at(&place, &["turn_started", "\"turn\":3"]);
    let run = only_run(&place);
    let changed = format!("{AGENT}instructions: count backwards\n");
    std::fs::write(place.path().join("agent.yaml"), changed).unwrap();
    let done = place.run(&["resume", &run]);
    assert_eq!(done.code, 2, "{done:?}");
    assert!(done.stderr.contains("not what the run began with (instructions)"), "{done:?}");
    let done = place.run(&["resume", &run, "--fork"]);
    let all = runs(&place);
    assert_eq!(all.len(), 2, "{all:?}");
    let fork = all.iter().map(|it| it["run"].as_str().unwrap()).find(|it| *it != run).unwrap();
    check_end(&place, fork, &done);
}

#[test]
fn runs_are_shown_followed_and_forgotten() {
    if !can_seal("runs_are_shown_followed_and_forgotten") {
        return;
    }
    let place = place(AGENT);
    let done = place.run(&["run", "agent.yaml"]);
    assert_eq!(done.code, 0, "{done:?}");
    let run = only_run(&place);

    let shown = place.run(&["runs", "show", &run]);
    assert_eq!(shown.code, 0, "{shown:?}");
    for words in [
        "run started: agent counter",
        "checkpoint of record",
        "3.0 apply_patch begins",
        "run ended: done",
    ] {
        assert!(shown.stdout.contains(words), "no {words:?} in {shown:?}");
    }
    let tail = place.run(&["runs", "tail", &run, "-n", "2", "--follow", "--json"]);
    assert_eq!(tail.code, 0, "{tail:?}");
    let last: Value = serde_json::from_str(tail.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(last["body"]["kind"], "run_finished");
    assert_eq!(tail.stdout.lines().count(), 2);

    // What would be removed is told, and stays.
    let planned = place.run(&["runs", "gc", "--dry-run", "--keep", "runs=0"]);
    assert_eq!(planned.code, 0, "{planned:?}");
    assert!(planned.stdout.starts_with(&format!("would forget {run}\n")), "{planned:?}");
    assert!(planned.stdout.ends_with("nothing was changed\n"), "{planned:?}");
    let kept = place.run(&["runs", "gc"]);
    assert!(kept.stdout.contains(" 0 dropped; 0 packs marked, 0 deleted"), "{kept:?}");
    assert_eq!(runs(&place).len(), 1);

    let forgotten = place.run(&["runs", "rm", &run]);
    assert_eq!(forgotten.code, 0, "{forgotten:?}");
    assert!(runs(&place).is_empty());
    // What was made within the last day stays, whoever it is of.
    let freed = place.run(&["runs", "gc"]);
    assert_eq!(freed.code, 0, "{freed:?}");
    assert!(freed.stdout.contains(" 0 dropped; 0 packs marked, 0 deleted"), "{freed:?}");
    for command in [&["runs", "show", &run][..], &["runs", "rm", &run], &["resume", &run]] {
        let done = place.run(command);
        assert_eq!(done.code, 2, "{done:?}");
        assert!(done.stderr.starts_with("error: "), "{done:?}");
    }
}

#[test]
fn a_run_without_state_is_not_recorded() {
    if !can_seal("a_run_without_state_is_not_recorded") {
        return;
    }
    let place = place(AGENT);
    let done = place.run(&["run", "agent.yaml", "--no-state"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(!Path::new(&place.state()).exists());
    assert!(runs(&place).is_empty());
}

#[test]
fn what_is_not_there_is_said() {
    let place = Place::new(&[]);
    for (arguments, expect) in [
        (&["resume", "nothing"][..], "was not started by `cofferdam run`"),
        (&["resume", "../../x"], "made of letters and digits"),
        (&["runs", "show", "nothing"], "no run nothing is recorded here"),
        (&["runs", "gc", "--keep", "everything"], "`all` stands alone"),
        (&["sandboxes", "reap", "nothing", "--backend", "linux"], "no sandbox nothing lives here"),
    ] {
        let done = place.run(arguments);
        assert_eq!(done.code, 2, "{done:?}");
        assert!(done.stderr.contains(expect), "{done:?}");
    }
    assert_eq!(place.run(&["runs", "list"]).stdout, "no runs are recorded here\n");
}

/// Two more answers, for a run that is told something more when it was over.
const MORE: &str = r#"
  - items: [{call: exec_command, arguments: {cmd: "echo six >> log"}}]
  - items: [{message: counted on}]
"#;

fn inputs(place: &Place, run: &str) -> usize {
    let shown = place.run(&["runs", "tail", run, "-n", "1000", "--json"]);
    shown.stdout.lines().filter(|line| line.contains("\"kind\":\"input_given\"")).count()
}

#[test]
fn a_run_that_was_over_is_told_something_more() {
    if !can_seal("a_run_that_was_over_is_told_something_more") {
        return;
    }
    let place = Place::new(&[("agent.yaml", AGENT), ("script.yaml", &format!("{SCRIPT}{MORE}"))]);
    let done = place.run(&["run", "agent.yaml"]);
    let run = only_run(&place);
    check_end(&place, &run, &done);
    let done = place.run(&["resume", &run, "--input", " "]);
    assert_eq!((done.code, inputs(&place, &run)), (2, 0), "{done:?}");

    let say = ["resume", &run, "--input", "and one more", "--input-key", "mail-17"];
    for _ in 0..2 {
        // The second time it is there already, and only the outputs are copied out.
        let done = place.run(&say);
        assert_eq!(done.code, 0, "{done:?}");
        assert!(done.stdout.contains("counted on"), "{done:?}");
        assert_eq!(log(&place, &run), format!("{LOG}six\n"));
        assert_eq!(inputs(&place, &run), 1);
    }
    let shown = place.run(&["runs", "show", &run]);
    assert!(shown.stdout.contains("input given: and one more"), "{shown:?}");
}

#[test]
fn a_run_that_waits_for_somebody_takes_no_input() {
    if !can_seal("a_run_that_waits_for_somebody_takes_no_input") {
        return;
    }
    let place = asking_place();
    assert_eq!(place.run(&["run", "agent.yaml"]).code, 5);
    let run = only_run(&place);
    let done = place.run(&["resume", &run, "--input", "hurry"]);
    assert_eq!((done.code, inputs(&place, &run)), (5, 0), "{done:?}");
    for words in ["the input was not taken", "waits for approval of step 3.0", "--approve"] {
        assert!(done.stderr.contains(words), "{words}: {done:?}");
    }
    let done = place.run(&["resume", &run, "--approve", "--input", "thanks"]);
    check_end(&place, &run, &done);
    assert_eq!(inputs(&place, &run), 1);
}

#[test]
fn a_cancelled_run_is_taken_back_to_a_checkpoint() {
    if !can_seal("a_cancelled_run_is_taken_back_to_a_checkpoint") {
        return;
    }
    let place = place(AGENT);
    let mut child = begin(&place, &["tool_started", "two"]);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let run = only_run(&place);
    let listed = place.run(&["runs", "list"]);
    assert!(listed.stdout.contains("was cancelled; `cofferdam resume`"), "{listed:?}");

    // What was not asked is not answered.
    let done = place.run(&["resume", &run, "--approve"]);
    assert_eq!(done.code, 2, "{done:?}");
    assert!(done.stderr.contains("is not asking for an approval"), "{done:?}");
    // The checkpoint of before the first command is of record 2.
    let shown = place.run(&["runs", "show", &run]);
    assert!(shown.stdout.contains("checkpoint of record 2"), "{shown:?}");
    let done = place.run(&["resume", &run, "--back-to", "999"]);
    assert_eq!(done.code, 2, "{done:?}");
    assert!(done.stderr.contains("has no checkpoint 999; its newest are those of"), "{done:?}");
    let done = place.run(&["resume", &run, "--back-to", "2"]);
    check_end(&place, &run, &done);
    let done = place.run(&["resume", &run, "--back-to", "2"]);
    assert_eq!(done.code, 2, "{done:?}");
    assert!(done.stderr.contains("it has ended"), "{done:?}");
}

#[test]
fn a_reader_that_has_enough_is_not_complained_to() {
    let place = place(AGENT);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let listed = place.command().args(["runs", "list"]).stdout(writer).output().unwrap();
    assert_eq!(listed.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&listed.stderr), "");
}
