//! The facade's stacks and the hand-built ones do the same: same answers, same journal, same audit trail.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use cofferdam::{
    DefaultStacks, StackLimits,
    core::{Effects, RunId, ToolOutput},
    harness::{Harness, HarnessParts, RunRequest, Stacks},
    journal::{Journal as _, MemoryJournal, Seq},
    layers::{AuditEvent, AuditSink, RefuseAll},
    model::{Model, ScriptedModel},
    policy::{Rule, RulePolicy},
    tool::{Tool, ToolSet},
};
use cofferdam_examples::custom_stack::HandBuiltStacks;
use cofferdam_testkit::{CountingEntropy, FixedClock, FunctionTool};
use futures::TryStreamExt as _;

const SCRIPT: &str = "
name: t
turns:
  - items: [{call: echo, arguments: {text: a}}, {call: forbidden, arguments: {}}, {call: nope, arguments: {}}]
  - expect: {last_output_contains: [a, 'not here', no tool named]}
    items: [{message: done}]
";

#[derive(Debug, Default)]
struct Sink(Mutex<Vec<String>>);

impl AuditSink for Sink {
    fn record(&self, event: AuditEvent) {
        self.0.lock().unwrap().push(format!("{:?} {:?}", event.call, event.error));
    }
}

/// Runs the script through some stacks; returns what was journaled and audited.
async fn observe(
    make: impl FnOnce(Arc<dyn Model>, ToolSet, Arc<RulePolicy>, Arc<Sink>) -> Arc<dyn Stacks>,
) -> (Vec<String>, Vec<String>) {
    let echo: Arc<dyn Tool> =
        Arc::new(FunctionTool::new("echo", Effects::PURE, |_, input| async move {
            Ok(ToolOutput::text(input.decode_field::<String>("text")?))
        }));
    let forbidden: Arc<dyn Tool> =
        Arc::new(FunctionTool::new("forbidden", Effects::PURE, |_, _| async {
            Ok(ToolOutput::default())
        }));
    let tools = ToolSet::new([echo, forbidden]).unwrap();
    let sink = Arc::new(Sink::default());
    let policy = Arc::new(RulePolicy::new([Rule::deny("forbidden", "not here")]));
    let model = Arc::new(ScriptedModel::from_yaml(SCRIPT).unwrap());
    let clock = Arc::new(FixedClock::at(1));
    let journal = Arc::new(MemoryJournal::new(clock.clone()));
    let harness = Harness::new(HarnessParts {
        tools: tools.clone(),
        stacks: make(model, tools, policy, sink.clone()),
        journal: journal.clone(),
        clock,
        entropy: Arc::new(CountingEntropy::default()),
        owner: "test".into(),
        keeper: None,
    });
    let report = harness.run_as(RunId::new("r"), RunRequest::new("a", "go")).await.unwrap();
    assert_eq!(report.output, "done");
    let records: Vec<_> = journal.read(&RunId::new("r"), Seq(1)).try_collect().await.unwrap();
    let records = records.iter().map(|record| serde_json::to_string(record).unwrap()).collect();
    let audit = sink.0.lock().unwrap().clone();
    (records, audit)
}

#[tokio::test]
async fn the_facade_knows_no_trick_that_its_users_do_not() {
    let facade = observe(|model, tools, policy, audit| {
        Arc::new(DefaultStacks {
            model,
            tools,
            policy,
            approver: Arc::new(RefuseAll),
            audit,
            entropy: Arc::new(CountingEntropy::default()),
            limits: StackLimits::default(),
        })
    })
    .await;
    let by_hand = observe(|model, tools, policy, audit| {
        Arc::new(HandBuiltStacks { model, tools, policy, audit })
    })
    .await;
    assert_eq!(facade, by_hand);
    assert!(facade.0.len() > 8, "the script reaches every kind of record: {:#?}", facade.0);
    assert!(facade.1.iter().any(|line| line.contains("denied: not here")), "{:#?}", facade.1);
}
