//! The harness without the facade: a hand-built stack of layers around a scripted model and no sandbox at all.
//!
//! ```sh
//! cargo run -p cofferdam-examples --example custom_stack
//! ```
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::sync::Arc;

use cofferdam::{
    SystemClock, SystemEntropy,
    harness::{Harness, HarnessParts, RunRequest},
    journal::{Journal as _, MemoryJournal, Seq},
    layers::{AuditEvent, AuditSink},
    model::ScriptedModel,
    policy::RulePolicy,
    tool::ToolSet,
};
use cofferdam_examples::custom_stack::HandBuiltStacks;
use futures::TryStreamExt as _;

#[derive(Debug)]
struct Print;

impl AuditSink for Print {
    fn record(&self, event: AuditEvent) {
        println!("audit: {event:?}");
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let tools = ToolSet::default();
    let stacks = HandBuiltStacks {
        model: Arc::new(ScriptedModel::from_yaml(
            "name: demo\nturns: [{items: [{message: hello}]}]",
        )?),
        tools: tools.clone(),
        policy: Arc::new(RulePolicy::default()),
        audit: Arc::new(Print),
    };
    let journal = Arc::new(MemoryJournal::new(Arc::new(SystemClock)));
    let harness = Harness::new(HarnessParts {
        tools,
        stacks: Arc::new(stacks),
        journal: journal.clone(),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        owner: "example".into(),
        keeper: None,
    });
    let report = harness.run(RunRequest::new("demo", "greet me")).await?;
    println!("{}", report.output);
    for record in journal.read(&report.run, Seq(1)).try_collect::<Vec<_>>().await? {
        println!("{} {}", record.hash, serde_json::to_string(&record.body)?);
    }
    Ok(())
}
