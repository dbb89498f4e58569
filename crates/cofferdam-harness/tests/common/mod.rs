//! What the harness tests share: a harness around a script and some tools, with fixed time and ids.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use cofferdam_harness::{
    Harness, HarnessParts, ModelStack, RunEvent, RunObserver, RunScope, Stacks, ToolStack,
};
use cofferdam_journal::{Journal, MemoryJournal, Record, Seq};
use cofferdam_layers::{JournalLayer, ModelService, ToolRouter};
use cofferdam_model::Model;
use cofferdam_testkit::{CountingEntropy, FixedClock};
use cofferdam_tool::{Tool, ToolSet};
use futures::TryStreamExt;
use tower::{ServiceBuilder, util::BoxCloneSyncService};

/// The smallest honest stacks: nothing but the journal around the tools.
#[derive(Debug)]
pub(crate) struct PlainStacks {
    pub(crate) model: Arc<dyn Model>,
    pub(crate) tools: ToolSet,
}

impl Stacks for PlainStacks {
    fn model_name(&self) -> &str {
        self.model.name()
    }

    fn model(&self, _: &RunScope) -> ModelStack {
        BoxCloneSyncService::new(ModelService::new(Arc::clone(&self.model)))
    }

    fn tools(&self, scope: &RunScope) -> ToolStack {
        let stack = ServiceBuilder::new()
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
    let tools = ToolSet::new(tools).unwrap();
    let harness = Harness::new(HarnessParts {
        tools: tools.clone(),
        stacks: Arc::new(PlainStacks { model, tools }),
        journal: journal.clone(),
        clock,
        entropy: Arc::new(CountingEntropy::default()),
        owner: "test".into(),
        keeper: None,
    });
    Bench { harness, journal }
}

impl Bench {
    pub(crate) async fn records(&self, run: &cofferdam_core::RunId) -> Vec<Record> {
        let records: Vec<_> = self.journal.read(run, Seq(1)).try_collect().await.unwrap();
        cofferdam_journal::verify_chain(run, None, &records).unwrap();
        records
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
