//! How long a run of a thousand turns takes to be gone on with, up to the next request of the model, and what folding it costs.
//! Prints one JSON object a case.
#![expect(clippy::print_stdout, reason = "a benchmark prints its cases")]

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use cofferdam_core::{
    CallId, EffectClass, Effects, Item, RunId, StepId, Timestamp, ToolCall, ToolCallKind,
    ToolOutput, Usage,
};
use cofferdam_harness::{
    Harness, HarnessParts, ModelStack, ResumeRequest, RunOptions, RunRequest, RunScope, RunState,
    Stacks, ToolStack,
};
use cofferdam_journal::{
    Journal, JournalWriter, MemoryJournal, Record, RecordBody, Seq, SqliteJournal,
};
use cofferdam_layers::ToolRouter;
use cofferdam_model::{ModelError, ModelResponse};
use cofferdam_testkit::{CountingEntropy, FixedClock};
use cofferdam_tool::ToolSet;
use futures::TryStreamExt;
use serde_json::json;
use tower::{service_fn, util::BoxCloneSyncService};

type Failure = Box<dyn std::error::Error>;

const TURNS: u32 = 1000;

/// A model that says when it is asked, and is done.
#[derive(Debug, Clone, Default)]
struct Asked(Arc<Mutex<Option<Instant>>>);

impl Stacks for Asked {
    fn model_name(&self) -> &str {
        "bench"
    }

    fn model(&self, _: &RunScope) -> ModelStack {
        let asked = Arc::clone(&self.0);
        BoxCloneSyncService::new(service_fn(move |_| {
            if let Ok(mut asked) = asked.lock() {
                *asked = Some(Instant::now());
            }
            async {
                let items = vec![Item::assistant("done")];
                Ok::<_, ModelError>(ModelResponse { items, ..ModelResponse::default() })
            }
        }))
    }

    fn tools(&self, _: &RunScope) -> ToolStack {
        BoxCloneSyncService::new(ToolRouter::new(ToolSet::default()))
    }
}

fn harness(journal: &Arc<dyn Journal>, stacks: Asked) -> Harness {
    Harness::new(HarnessParts {
        tools: ToolSet::default(),
        stacks: Arc::new(stacks),
        journal: Arc::clone(journal),
        clock: Arc::new(FixedClock::at(0)),
        entropy: Arc::new(CountingEntropy::default()),
        owner: "bench".into(),
        keeper: None,
    })
}

/// A turn as coding agents have them: words and a command of half a KiB, four KiB of output.
fn turn(turn: u32) -> Vec<RecordBody> {
    let step = StepId { turn, call: 0 };
    let effects = Effects { class: EffectClass::Probe, writes: true, network: false };
    let call = ToolCall {
        call_id: CallId::new(format!("call_{turn}")),
        name: "exec_command".into(),
        kind: ToolCallKind::Function,
        input: json!({"cmd": "x".repeat(512)}).to_string(),
        extra: serde_json::Map::new(),
    };
    vec![
        RecordBody::ModelRequested { turn, items: u64::from(turn) * 3 },
        RecordBody::ModelResponded {
            turn,
            response_id: None,
            items: vec![Item::assistant("y".repeat(512)), Item::ToolCall(call)],
            usage: Usage { requests: 1, input_tokens: 1000, ..Usage::default() },
            cut: None,
        },
        RecordBody::ToolIntended {
            step,
            tool: "exec_command".into(),
            input_hash: "0".repeat(64),
            effects,
            idempotency_key: format!("r/{step}"),
            probe: serde_json::Value::Null,
            outside: false,
        },
        RecordBody::ToolFinished {
            step,
            output: Some(ToolOutput::text("z\n".repeat(2048))),
            error: None,
        },
        RecordBody::CheckpointTaken {
            checkpoint: format!("c{turn}"),
            at: Seq(u64::from(turn) * 5),
            turn,
            snapshot: Some("0".repeat(64)),
            sandbox: json!({"backend": "linux"}),
            receipt: json!({"files": 10}),
            running: Vec::new(),
        },
    ]
}

async fn fill(journal: &Arc<dyn Journal>) -> Result<RunId, Failure> {
    // Begins as a run does, so that the set-up fits, and goes on with many turns.
    let run = RunId::new("r");
    let request = RunRequest {
        options: RunOptions { max_turns: 0, ..RunOptions::default() },
        ..RunRequest::new("bench", "go")
    };
    let _ = harness(journal, Asked::default()).run_as(run.clone(), request).await;
    let lease = journal.lease(&run, "bench", Duration::from_secs(60)).await?;
    let writer = JournalWriter::new(Arc::clone(journal), Arc::new(FixedClock::at(0)), lease);
    for number in 1..=TURNS {
        writer.append_all(turn(number)).await?;
    }
    writer.release().await?;
    Ok(run)
}

async fn resume(name: &str, journal: Arc<dyn Journal>) -> Result<(), Failure> {
    let run = fill(&journal).await?;
    let asked = Asked::default();
    let harness = harness(&journal, asked.clone());
    let options = RunOptions { max_turns: TURNS + 10, ..RunOptions::default() };
    let request = RunRequest { options, ..RunRequest::new("bench", "go") };
    let began = Instant::now();
    let report = harness.resume(&run, ResumeRequest::new(request)).await?;
    let until = asked.0.lock().map_err(|error| error.to_string())?;
    let ms = until.ok_or("the model was not asked")?.duration_since(began).as_secs_f64() * 1e3;
    println!(
        "{}",
        json!({"case": "resume of 1,000 turns, up to the next request", "journal": name, "ms": ms,
               "items": report.items.len(), "bar_ms": 1000.0})
    );
    Ok(())
}

async fn fold() -> Result<(), Failure> {
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new(Arc::new(FixedClock::at(0))));
    let run = fill(&journal).await?;
    let records: Vec<Record> = journal.read(&run, Seq(1)).try_collect().await?;
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        let mut state = RunState::default();
        for record in &records {
            state.fold(record.seq, Timestamp(0), &record.body);
        }
        best = best.min(began.elapsed());
        assert_eq!(state.turns(), TURNS, "every turn is folded");
    }
    println!(
        "{}",
        json!({"case": "folding 1,000 turns", "records": records.len(), "ms": best.as_secs_f64() * 1e3})
    );
    Ok(())
}

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let directory = tempfile::tempdir()?;
    runtime.block_on(async {
        fold().await?;
        resume("memory", Arc::new(MemoryJournal::new(Arc::new(FixedClock::at(0))))).await?;
        let path: &Path = &directory.path().join("journal.db");
        resume("sqlite", Arc::new(SqliteJournal::open(path, Arc::new(FixedClock::at(0)))?)).await
    })
}
