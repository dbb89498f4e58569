//! What the harness tests share: a harness around a script and some tools, with fixed time and ids.
#![expect(dead_code, reason = "each test program uses a part")]

pub(crate) mod crash;
pub(crate) mod world;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use cofferdam_core::{Item, RunId};
use cofferdam_harness::{
    Harness, HarnessParts, ModelStack, RunEvent, RunObserver, RunScope, Stacks, ToolStack,
    WorkspaceKeeper,
};
use cofferdam_journal::{Journal, MemoryJournal, Record, Seq};
use cofferdam_layers::{
    Approval, Approver, JournalLayer, ModelService, PolicyLayer, RefuseAll, ToolRouter,
};
use cofferdam_model::{Model, ScriptedModel};
use cofferdam_policy::RulePolicy;
use cofferdam_testkit::{CountingEntropy, FixedClock};
use cofferdam_tool::{Tool, ToolRequest, ToolSet};
use futures::TryStreamExt;
use tower::{ServiceBuilder, util::BoxCloneSyncService};

/// The smallest honest stacks: policy and journal around the tools.
#[derive(Debug)]
pub(crate) struct PlainStacks {
    pub(crate) model: Arc<dyn Model>,
    pub(crate) tools: ToolSet,
    pub(crate) policy: RulePolicy,
    pub(crate) approver: Arc<dyn Approver>,
}

impl Stacks for PlainStacks {
    fn model_name(&self) -> &str {
        self.model.name()
    }

    fn model(&self, _: &RunScope) -> ModelStack {
        BoxCloneSyncService::new(ModelService::new(Arc::clone(&self.model)))
    }

    fn tools(&self, scope: &RunScope) -> ToolStack {
        let policy = PolicyLayer::new(Arc::new(self.policy.clone()), Arc::clone(&self.approver));
        let stack = ServiceBuilder::new()
            .layer(policy.recorded(Arc::clone(&scope.journal)))
            .layer(JournalLayer::new(Arc::clone(&scope.journal)))
            .service(ToolRouter::new(self.tools.clone()));
        BoxCloneSyncService::new(stack)
    }
}

/// A harness and the journal that it writes to.
pub(crate) struct Bench {
    pub(crate) harness: Harness,
    pub(crate) journal: Arc<MemoryJournal>,
}

pub(crate) fn bench(model: Arc<dyn Model>, tools: Vec<Arc<dyn Tool>>) -> Bench {
    let clock = Arc::new(FixedClock::at(1_700_000_000_000));
    let journal = Arc::new(MemoryJournal::new(clock.clone()));
    let harness = Process { clock, ..Process::new(model, tools, journal.clone()) }.harness();
    Bench { harness, journal }
}

/// What one process that drives runs is made of.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) model: Arc<dyn Model>,
    pub(crate) tools: Vec<Arc<dyn Tool>>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) clock: Arc<FixedClock>,
    pub(crate) keeper: Option<Arc<dyn WorkspaceKeeper>>,
    pub(crate) policy: RulePolicy,
    pub(crate) approver: Arc<dyn Approver>,
}

impl Process {
    pub(crate) fn new(
        model: Arc<dyn Model>,
        tools: Vec<Arc<dyn Tool>>,
        journal: Arc<dyn Journal>,
    ) -> Self {
        Self {
            model,
            tools,
            journal,
            clock: Arc::new(FixedClock::at(1_700_000_000_000)),
            keeper: None,
            policy: RulePolicy::default(),
            approver: Arc::new(RefuseAll),
        }
    }

    pub(crate) fn harness(self) -> Harness {
        let tools = ToolSet::new(self.tools).unwrap();
        Harness::new(HarnessParts {
            tools: tools.clone(),
            stacks: Arc::new(PlainStacks {
                model: self.model,
                tools,
                policy: self.policy,
                approver: self.approver,
            }),
            journal: self.journal,
            clock: self.clock,
            entropy: Arc::new(CountingEntropy::default()),
            owner: "test".into(),
            keeper: self.keeper,
        })
    }
}

pub(crate) fn script(turns: &str) -> Arc<ScriptedModel> {
    Arc::new(ScriptedModel::from_yaml(&format!("name: t\nturns:\n{turns}")).unwrap())
}

pub(crate) async fn records(journal: &dyn Journal, run: &RunId) -> Vec<Record> {
    let records: Vec<_> = journal.read(run, Seq(1)).try_collect().await.unwrap();
    cofferdam_journal::verify_chain(run, None, &records).unwrap();
    records
}

/// A journal as text: the kind of each record, its step, and what else tells them apart.
pub(crate) fn outline(records: &[Record]) -> String {
    let lines: Vec<_> = records
        .iter()
        .map(|record| {
            let value = serde_json::to_value(&record.body).unwrap();
            let mut line = value["kind"].as_str().unwrap().to_owned();
            if let Some(step) = value.get("step").filter(|step| step.is_object()) {
                line.push_str(&format!(" {}.{}", step["turn"], step["call"]));
            }
            for field in [
                "turn",
                "how",
                "verdict",
                "decision",
                "checkpoint",
                "at",
                "to",
                "attempt",
                "reason",
                "outcome",
            ] {
                if let Some(value) = value.get(field).filter(|value| !value.is_null()) {
                    line.push_str(&format!(" {field}={value}"));
                }
            }
            line
        })
        .collect();
    lines.join("\n")
}

/// What the model is told of its calls, one line each.
pub(crate) fn outputs(items: &[Arc<Item>]) -> Vec<String> {
    items
        .iter()
        .filter_map(|item| match &**item {
            Item::ToolResult(result) => Some(format!(
                "{}{}",
                if result.output.is_error { "error: " } else { "" },
                result.output.to_text()
            )),
            _ => None,
        })
        .collect()
}

impl Bench {
    pub(crate) async fn records(&self, run: &RunId) -> Vec<Record> {
        records(&*self.journal, run).await
    }
}

/// Keeps all events.
#[derive(Debug, Default)]
pub(crate) struct Recorder(pub(crate) Mutex<Vec<RunEvent>>);

#[async_trait]
impl RunObserver for Recorder {
    async fn event(&self, event: RunEvent) {
        self.0.lock().unwrap().push(event);
    }
}

/// Counts how often it is asked, and says the same each time.
#[derive(Debug)]
pub(crate) struct Somebody {
    answer: Approval,
    pub(crate) asked: AtomicU32,
}

impl Somebody {
    pub(crate) fn new(answer: Approval) -> Self {
        Self { answer, asked: AtomicU32::new(0) }
    }
}

#[async_trait]
impl Approver for Somebody {
    fn name(&self) -> &str {
        "somebody"
    }

    async fn approve(&self, _: &ToolRequest, _: &[String]) -> Approval {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.answer.clone()
    }
}
