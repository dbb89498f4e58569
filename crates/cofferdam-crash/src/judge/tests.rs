//! The judge on small journals and ledgers.

use cofferdam_core::{Effects, Item, RunId, StepId, Timestamp, ToolOutput, Usage};
use cofferdam_journal::{ApprovalVerdict, Entry, Record, RecordBody, Seq};

use super::{Expected, Judge, Notices, at_the_end};
use crate::{
    ending::Final,
    ledger::{Deed, Line},
};

fn asked(turn: u32) -> RecordBody {
    RecordBody::ModelRequested { turn, items: 1 }
}

fn answered(turn: u32) -> RecordBody {
    RecordBody::ModelResponded {
        turn,
        response_id: None,
        items: vec![Item::assistant("so")],
        usage: Usage::default(),
        cut: None,
    }
}

fn step(turn: u32) -> StepId {
    StepId { turn, call: 0 }
}

fn intended(turn: u32) -> RecordBody {
    RecordBody::ToolIntended {
        step: step(turn),
        tool: "pay".to_owned(),
        input_hash: String::new(),
        effects: Effects::default(),
        idempotency_key: String::new(),
        probe: serde_json::Value::Null,
        outside: true,
    }
}

fn finished(turn: u32) -> RecordBody {
    RecordBody::ToolFinished {
        step: step(turn),
        output: Some(ToolOutput::text("paid")),
        error: None,
    }
}

fn rewound(to: u64) -> RecordBody {
    RecordBody::RunRewound { to: Seq(to), checkpoint: None, reason: "lost".to_owned() }
}

fn records(bodies: Vec<RecordBody>) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    for body in bodies {
        let entry = Entry { time: Timestamp(0), body };
        records.push(Record::following(&RunId::new("r"), records.last(), entry).unwrap());
    }
    records
}

fn question(process: u32, turn: u32) -> Line {
    Line { process, deed: Deed::Asked { turn } }
}

fn effect(turn: u32, tool: &str) -> Line {
    let deed = Deed::Effect {
        step: step(turn).to_string(),
        tool: tool.to_owned(),
        key: format!("r/{turn}.0"),
        what: "7".to_owned(),
    };
    Line { process: 0, deed }
}

#[test]
fn a_journal_and_a_ledger_that_fit() {
    let check = |lines: &[Line], bodies: Vec<RecordBody>, expect: &str| {
        assert_eq!(Judge::default().after(0, lines, &records(bodies)).join("; "), expect);
    };
    let sound = vec![asked(1), answered(1), intended(1), finished(1)];
    check(&[question(0, 1), effect(1, "pay")], sound, "");
    check(
        &[question(0, 1), effect(1, "pay")],
        vec![asked(1), answered(1)],
        "step 1.0 (pay) took effect and the journal has no intent of it",
    );
    check(
        &[question(0, 1), question(0, 1)],
        vec![asked(1)],
        "the model was asked 2 times, and the journal has 1 requests",
    );
    check(
        &[question(0, 1)],
        vec![asked(1), answered(1), asked(1)],
        "record 3: turn 1 had its answer already",
    );
    check(
        &[question(0, 1)],
        vec![asked(1), answered(1), intended(1), finished(1), intended(1)],
        "record 5: step 1.0 had its result already",
    );
    check(&[], vec![finished(1)], "record 1: step 1.0 has a result and no intent");
    // What was undone may be done anew.
    let undone = vec![asked(1), answered(1), intended(1), rewound(1), asked(2), answered(2)];
    check(&[question(0, 1), question(0, 1)], undone, "");
}

#[test]
fn a_model_is_not_asked_for_what_is_in_the_journal() {
    let check = |later: Vec<RecordBody>, expect: &str| {
        let mut judge = Judge::default();
        let first = vec![asked(1), answered(1)];
        let all = [first.clone(), later].concat();
        assert_eq!(judge.after(0, &[question(0, 1)], &records(first)), [""; 0]);
        let lines = [question(0, 1), question(1, 1)];
        assert_eq!(judge.after(1, &lines, &records(all)).join("; "), expect);
    };
    // The conversation that was sent had no answer in it, whatever the number of the turn.
    check(vec![asked(2)], "the model was asked again for answer 1, which was in the journal");
    check(vec![rewound(0), asked(2)], "");
}

#[test]
fn a_run_may_go_back_to_a_place_that_it_reached_after_it_went_back() {
    let mut judge = Judge::default();
    let first =
        vec![asked(1), answered(1), rewound(0), asked(2), answered(2), asked(3), answered(3)];
    let back = [first, vec![rewound(5)]].concat();
    assert_eq!(
        judge.after(0, &[question(0, 1), question(0, 1), question(0, 2)], &records(back.clone())),
        [""; 0]
    );
    // Of the first three answers only the second holds.
    let again = [back, vec![asked(4)]].concat();
    let lines = [question(0, 1), question(0, 1), question(0, 2), question(1, 2)];
    assert_eq!(judge.after(1, &lines, &records(again)), [""; 0]);
}

#[test]
fn a_person_is_not_asked_again() {
    let given = RecordBody::ApprovalGiven {
        step: step(1),
        verdict: ApprovalVerdict::Approved,
        by: "a person".to_owned(),
        reason: String::new(),
    };
    let question = |process| Line { process, deed: Deed::Approval { step: step(1).to_string() } };
    let mut judge = Judge::default();
    let none: Vec<Record> = records(vec![asked(1), answered(1)]);
    assert_eq!(judge.after(0, &[question(0)], &none), [""; 0]);
    // The answer was not durable: the question may come again.
    let all = records(vec![asked(1), answered(1), given]);
    let lines = [question(0), question(1)];
    assert_eq!(judge.after(1, &lines, &all), [""; 0]);
    assert_eq!(
        judge.after(2, &[question(0), question(1), question(2)], &all),
        ["a person was asked again about step 1.0, and the answer was in the journal"]
    );
}

#[test]
fn records_do_not_go_away() {
    let mut judge = Judge::default();
    assert_eq!(judge.after(0, &[], &records(vec![asked(1), answered(1)])), [""; 0]);
    let wrong = judge.after(1, &[], &records(vec![asked(1)]));
    assert_eq!(wrong, ["the journal has 1 records, after 2 before"]);
}

#[test]
fn an_end_is_that_of_the_undisturbed_run() {
    let result =
        |text: &str| serde_json::json!({"type": "tool_result", "call_id": "c", "output": text});
    let end = |text: &str| Final {
        output: "done".to_owned(),
        conversation: vec![result(text)],
        workspace: [("lines".to_owned(), "file 644: one".to_owned())].into(),
    };
    let expected = Expected::of(end("paid"), &[effect(1, "pay"), effect(2, "set")]);
    let check = |end: &Final, lines: &[Line], told: &[&str], expect: &str| {
        let unknown = told.iter().map(|&call| call.to_owned()).collect();
        let notices = Notices { unknown, other_workspace: false };
        assert_eq!(at_the_end(&expected, end, lines, &notices).join("; "), expect);
    };
    let (pay, set) = (effect(1, "pay"), effect(2, "set"));
    check(&end("paid"), &[pay.clone(), set.clone()], &[], "");
    // What may be repeated may show twice; the step's number says nothing.
    check(&end("paid"), &[effect(3, "pay"), set.clone(), set.clone()], &[], "");
    check(
        &end("paid"),
        &[pay.clone(), pay.clone(), set.clone()],
        &[],
        "`pay: 7` took effect 2 times",
    );
    check(&end("paid"), std::slice::from_ref(&set), &[], "`pay: 7` took effect 0 times");
    check(
        &end("paid"),
        &[pay.clone(), set.clone(), effect(3, "send")],
        &[],
        "`send: 7` took effect 1 times, and nobody asked for it",
    );
    let lines = [pay, set];
    check(
        &end("unknown"),
        &lines,
        &[],
        "item 0 of the conversation is {\"call_id\":\"c\",\"output\":\"unknown\",\"type\":\"tool_result\"}, not \
         {\"call_id\":\"c\",\"output\":\"paid\",\"type\":\"tool_result\"}",
    );
    check(&end("unknown"), &lines, &["c"], "");
    let mut other = end("paid");
    other.workspace.clear();
    other.output.clear();
    check(
        &other,
        &lines,
        &[],
        "the output is \"\", not \"done\"; the workspace is {}, not {\"lines\": \"file 644: one\"}",
    );
    // Somebody decided to go on with an older workspace, and the model was told.
    let mut older = end("gone");
    older.workspace.clear();
    older.conversation.insert(0, serde_json::json!({"type": "message", "role": "developer"}));
    let notices = Notices { other_workspace: true, ..Notices::default() };
    assert_eq!(at_the_end(&expected, &older, &lines, &notices), [""; 0]);
    assert_ne!(at_the_end(&expected, &older, &lines, &Notices::default()), [""; 0]);
}
