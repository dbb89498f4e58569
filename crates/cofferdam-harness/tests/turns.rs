//! The loop from outside: what the model is told, what the journal holds, what a failure leaves.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use cofferdam_core::{EffectClass, Effects, RunId, ToolOutput};
use cofferdam_harness::{RunError, RunOptions, RunRequest, RunStream, StreamItem};
use cofferdam_journal::RecordBody;
use cofferdam_testkit::FunctionTool;
use cofferdam_tool::{Tool, ToolError};
use common::{Recorder, bench, outputs, script};
use futures::StreamExt;

const WRITES: Effects = Effects { class: EffectClass::Unknown, writes: true, network: false };

fn echo() -> Arc<dyn Tool> {
    Arc::new(FunctionTool::new("echo", Effects::PURE, |_, input| async move {
        Ok(ToolOutput::text(input.decode_field::<String>("text")?))
    }))
}

#[tokio::test(start_paused = true)]
async fn a_run_is_journaled_step_by_step() {
    let model = script(
        "
  - items: [{message: looking}, {call: echo, arguments: {text: a}}, {call: echo, arguments: {text: b}}]
  - expect: {last_output_contains: [a, b]}
    items: [{message: done}]
",
    );
    let bench = bench(model, vec![echo()]);
    let report =
        bench.harness.run_as(RunId::new("r1"), RunRequest::new("demo", "go")).await.unwrap();
    assert_eq!((report.output.as_str(), report.turns, report.tool_calls), ("done", 2, 2));
    assert_eq!(outputs(&report.items), ["a", "b"]);

    let kinds: Vec<_> = bench
        .records(&report.run)
        .await
        .iter()
        .map(|record| {
            let value = serde_json::to_value(&record.body).unwrap();
            let step = value
                .get("step")
                .map_or(String::new(), |s| format!(" {}.{}", s["turn"], s["call"]));
            format!("{}{step}", value["kind"].as_str().unwrap())
        })
        .collect();
    insta::assert_snapshot!(kinds.join("\n"), @r"
    run_started
    model_requested
    model_responded
    tool_intended 1.0
    tool_finished 1.0
    tool_intended 1.1
    tool_finished 1.1
    model_requested
    model_responded
    run_finished
    ");
}

#[tokio::test(start_paused = true)]
async fn failures_that_the_model_can_act_on_are_told_to_it() {
    let model = script(
        r#"
  - items:
      - {call: nope, arguments: {}}
      - {call: echo, arguments: "{\"text\":"}
      - {call: echo, arguments: {txt: a}}
      - {call: fail, arguments: {}}
  - items: [{message: done}]
"#,
    );
    let fail = Arc::new(FunctionTool::new("fail", WRITES, |_, _| async {
        Err(ToolError::Failed { message: "disk is full".into() })
    }));
    let bench = bench(model, vec![echo(), fail]);
    let report = bench.harness.run(RunRequest::new("demo", "go")).await.unwrap();
    insta::assert_snapshot!(outputs(&report.items).join("\n"), @r#"
    error: there is no tool named "nope"; the tools are: echo, fail
    error: invalid input: the arguments are not JSON: EOF while parsing a value at line 1 column 8
    error: invalid input: missing field `text`
    error: disk is full
    "#);
    let refused = bench
        .records(&report.run)
        .await
        .iter()
        .filter(|record| matches!(record.body, RecordBody::ToolRefused { .. }))
        .count();
    assert!(refused >= 2, "unknown tool and broken JSON never started");
}

#[tokio::test(start_paused = true)]
async fn readers_run_together_and_writers_alone() {
    let running = Arc::new(AtomicU32::new(0));
    let tool = |name: &str, effects| -> Arc<dyn Tool> {
        let running = Arc::clone(&running);
        Arc::new(FunctionTool::new(name, effects, move |_, _| {
            let running = Arc::clone(&running);
            async move {
                running.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(500)).await;
                let together = running.load(Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(500)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(ToolOutput::text(together.to_string()))
            }
        }))
    };
    let model = script(
        "
  - items:
      - {call: read, arguments: {}}
      - {call: read, arguments: {}}
      - {call: read, arguments: {}}
      - {call: write, arguments: {}}
      - {call: write, arguments: {}}
      - {call: read, arguments: {}}
  - items: [{message: done}]
",
    );
    let bench = bench(model, vec![tool("read", Effects::PURE), tool("write", WRITES)]);
    let start = tokio::time::Instant::now();
    let report = bench.harness.run(RunRequest::new("demo", "go")).await.unwrap();
    assert_eq!(outputs(&report.items), ["3", "3", "3", "1", "1", "1"]);
    assert_eq!(start.elapsed().as_secs(), 4, "three reads at once, two writes and a read in turn");
}

#[tokio::test(start_paused = true)]
async fn cancelling_reaches_the_running_tool() {
    let seen = Arc::new(AtomicU32::new(0));
    let tool = {
        let seen = Arc::clone(&seen);
        Arc::new(FunctionTool::new("wait", WRITES, move |context, _| {
            let seen = Arc::clone(&seen);
            async move {
                context.cancel.cancelled().await;
                seen.fetch_add(1, Ordering::SeqCst);
                // A tool that does not end softly is dropped after the grace.
                std::future::pending::<()>().await;
                Ok(ToolOutput::default())
            }
        }))
    };
    let bench = bench(script("  - items: [{call: wait, arguments: {}}]\n"), vec![tool]);
    let request = RunRequest::new("demo", "go");
    let cancel = request.cancel.clone();
    let run = bench.harness.run_as(RunId::new("r"), request);
    let (result, ()) = tokio::join!(run, async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        cancel.cancel();
    });
    let failure = result.unwrap_err();
    assert!(matches!(failure.error, RunError::Cancelled), "{failure:?}");
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    let records = bench.records(&RunId::new("r")).await;
    let last = serde_json::to_string(&records.last().unwrap().body).unwrap();
    assert!(last.contains("\"outcome\":\"cancelled\""), "{last}");
    assert!(records.iter().any(|r| matches!(r.body, RecordBody::ToolIntended { .. })));
    assert!(
        !records.iter().any(|r| matches!(r.body, RecordBody::ToolFinished { .. })),
        "what became of the dropped tool is unknown, and the journal does not claim otherwise"
    );
}

#[tokio::test(start_paused = true)]
async fn bounds_end_a_run_with_a_typed_error() {
    let endless = || {
        script(
            "
  - items: [{call: echo, arguments: {text: a}}]
  - items: [{call: echo, arguments: {text: a}}, {call: echo, arguments: {text: a}}]
  - items: [{call: slow, arguments: {}}]
",
        )
    };
    let slow = || -> Arc<dyn Tool> {
        Arc::new(FunctionTool::new("slow", WRITES, |_, _| async {
            tokio::time::sleep(Duration::from_secs(1000)).await;
            Ok(ToolOutput::default())
        }))
    };
    let check = async |options: RunOptions, expect: &str| {
        let bench = bench(endless(), vec![echo(), slow()]);
        let request = RunRequest { options, ..RunRequest::new("demo", "go") };
        let failure = bench.harness.run(request).await.unwrap_err();
        assert_eq!(failure.error.to_string(), expect);
    };
    let options = RunOptions::default();
    check(
        RunOptions { max_turns: 1, ..options },
        "the model was not done after 1 turns; raise `limits.max_turns` or ask for less",
    )
    .await;
    check(
        RunOptions { max_calls_per_turn: 1, ..options },
        "the model asked for 2 tool calls in one answer; 1 are allowed",
    )
    .await;
    check(
        RunOptions { wall_time: Duration::from_secs(10), ..options },
        "the run took longer than 10s; raise `limits.wall_time` or ask for less",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_model_ends_the_run_with_its_cost() {
    let bench = bench(script("  - items: [{call: echo, arguments: {text: a}}]\n"), vec![echo()]);
    let failure = bench.harness.run(RunRequest::new("demo", "go")).await.unwrap_err();
    assert!(matches!(failure.error, RunError::Model(_)));
    assert_eq!((failure.turns, failure.usage.requests), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn events_come_in_order_and_as_json() {
    let model = script(
        "  - items: [{message: hm}, {call: echo, arguments: {text: x}}]\n  - items: [{message: done}]\n",
    );
    let bench = bench(model, vec![echo()]);
    let recorder = Arc::new(Recorder::default());
    let request = RunRequest { observer: recorder.clone(), ..RunRequest::new("demo", "go") };
    bench.harness.run_as(RunId::new("r"), request).await.unwrap();
    let events = recorder
        .0
        .lock()
        .unwrap()
        .iter()
        .map(|e| serde_json::to_string(e).unwrap())
        .collect::<Vec<_>>();
    insta::assert_snapshot!(events.join("\n"), @r#"
    {"type":"run_started","run":"r","agent":"demo","model":"scripted:t"}
    {"type":"turn_started","turn":1}
    {"type":"model_answered","turn":1,"text":"hm","calls":1,"usage":{"requests":1,"input_tokens":0,"cached_input_tokens":0,"output_tokens":0,"reasoning_tokens":0}}
    {"type":"tool_started","step":{"turn":1,"call":0},"tool":"echo","input":"{\"text\":\"x\"}"}
    {"type":"tool_finished","step":{"turn":1,"call":0},"tool":"echo","output":{"content":[{"type":"text","text":"x"}],"is_error":false},"duration_ms":0}
    {"type":"turn_started","turn":2}
    {"type":"model_answered","turn":2,"text":"done","calls":0,"usage":{"requests":1,"input_tokens":0,"cached_input_tokens":0,"output_tokens":0,"reasoning_tokens":0}}
    {"type":"run_finished","run":"r","error":null,"turns":2,"usage":{"requests":2,"input_tokens":0,"cached_input_tokens":0,"output_tokens":0,"reasoning_tokens":0}}
    "#);
}

#[tokio::test]
async fn a_stream_yields_events_and_deltas() {
    let bench = bench(script("  - items: [{message: hello}]\n"), vec![]);
    let (observer, stream) = RunStream::channel(64);
    let request = RunRequest { observer, ..RunRequest::new("demo", "go") };
    let (report, items) = tokio::join!(bench.harness.run(request), stream.collect::<Vec<_>>());
    assert_eq!(report.unwrap().output, "hello");
    assert!(items.iter().any(|item| matches!(item, StreamItem::Delta(_))));
    assert!(matches!(
        items.last(),
        Some(StreamItem::Event(cofferdam_harness::RunEvent::RunFinished { error: None, .. }))
    ));
}

#[tokio::test]
async fn a_hundred_runs_share_a_harness() {
    let model = script(
        "
  - items: [{call: echo, arguments: {text: a}}]
  - items: [{call: echo, arguments: {text: b}}]
  - items: [{message: done}]
",
    );
    let bench = bench(model, vec![echo()]);
    let runs = (0..100).map(|_| bench.harness.run(RunRequest::new("demo", "go")));
    let reports = futures::future::join_all(runs).await;
    assert_eq!(
        reports.iter().filter(|r| r.as_ref().is_ok_and(|r| r.output == "done")).count(),
        100
    );
}
