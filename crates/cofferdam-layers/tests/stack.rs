//! The default order as behaviour: what each layer sees, and what it costs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use cofferdam_core::{
    CallId, EffectClass, Effects, RunId, StepId, ToolCall, ToolCallKind, ToolOutput, Usage,
};
use cofferdam_journal::{Journal, JournalWriter, MemoryJournal, RecordBody, Seq};
use cofferdam_layers::{
    Approval, Approver, AuditEvent, AuditLayer, AuditSink, Budget, BudgetLayer, DeadlineLayer,
    JournalLayer, ModelRetryLayer, PolicyLayer, RefuseAll, RetryPolicy, ToolRouter,
};
use cofferdam_model::{ModelCall, ModelError, ModelResponse};
use cofferdam_policy::{Rule, RulePolicy};
use cofferdam_testkit::{CountingEntropy, FixedClock, FunctionTool};
use cofferdam_tool::{Tool, ToolContext, ToolError, ToolRequest, ToolSet};
use tower::{ServiceBuilder, ServiceExt, service_fn};

const WRITES: Effects = Effects { class: EffectClass::Unknown, writes: true, network: false };

#[derive(Debug, Default)]
struct Sink(Mutex<Vec<String>>);

impl AuditSink for Sink {
    fn record(&self, event: AuditEvent) {
        let outcome = event.error.unwrap_or_else(|| "ok".into());
        self.0.lock().unwrap().push(format!("{:?}: {outcome}", event.call));
    }
}

/// A model that fails in the given ways, one a call, and then answers with ten tokens.
async fn ask(
    failures: Vec<ModelError>,
    budget: u64,
) -> (Result<ModelResponse, ModelError>, u32, Duration) {
    let failures = Arc::new(Mutex::new(failures.into_iter()));
    let attempts = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&attempts);
    let provider = service_fn(move |call: ModelCall| {
        let failure = failures.lock().unwrap().next();
        let seen = Arc::clone(&seen);
        async move {
            assert_eq!(call.attempt, seen.fetch_add(1, Ordering::SeqCst) + 1);
            match failure {
                // Stands for a server that hangs.
                Some(ModelError::Timeout { .. }) => std::future::pending().await,
                Some(error) => Err(error),
                None => Ok(ModelResponse {
                    usage: Usage { output_tokens: 10, ..Usage::default() },
                    ..ModelResponse::default()
                }),
            }
        }
    });
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new("whole call", Duration::from_secs(300)))
        .layer(ModelRetryLayer::new(RetryPolicy::default(), Arc::new(CountingEntropy::default())))
        .layer(BudgetLayer::new(Budget::new("tokens", budget)))
        .concurrency_limit(1)
        .layer(DeadlineLayer::new("one attempt", Duration::from_secs(60)))
        .service(provider);
    let start = tokio::time::Instant::now();
    let result = stack.oneshot(ModelCall { turn: 1, attempt: 1, ..ModelCall::default() }).await;
    (result, attempts.load(Ordering::SeqCst), start.elapsed())
}

fn busy(seconds: Option<u64>) -> ModelError {
    ModelError::RateLimited { model: "m".into(), retry_after: seconds.map(Duration::from_secs) }
}

fn hang() -> ModelError {
    ModelError::Timeout { model: "m".into(), what: "test", limit: Duration::ZERO }
}

#[tokio::test(start_paused = true)]
async fn model_calls_are_tried_again_as_the_error_says() {
    let check = async |failures: Vec<ModelError>, expect: &str, attempts: u32, at_least: u64| {
        let (result, tried, took) = ask(failures, 1000).await;
        let got = result.map_or_else(|error| error.to_string(), |_| "ok".into());
        assert_eq!((got.as_str(), tried), (expect, attempts));
        assert!(took >= Duration::from_secs(at_least), "{took:?}");
    };
    check(vec![], "ok", 1, 0).await;
    check(vec![busy(None), busy(Some(7))], "ok", 3, 7).await;
    check(vec![busy(Some(121))], "m limits the rate of requests; it asks to wait 121s", 1, 0).await;
    check(vec![hang()], "ok", 2, 60).await;
    check(
        vec![hang(), hang(), hang(), hang()],
        "the model did not answer within 60s (one attempt)",
        4,
        240,
    )
    .await;
    check(
        vec![ModelError::Unauthenticated { model: "m".into(), message: "no".into() }],
        "m refused the credentials: no",
        1,
        0,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_total_deadline_bounds_attempts_and_pauses_together() {
    let (result, tried, took) =
        ask(vec![busy(Some(119)), busy(Some(119)), busy(Some(119))], 1000).await;
    assert_eq!(
        result.unwrap_err().to_string(),
        "the model did not answer within 300s (whole call)"
    );
    assert_eq!((tried, took.as_secs()), (3, 300));
}

#[tokio::test(start_paused = true)]
async fn a_used_up_budget_refuses_and_is_not_retried() {
    let (result, tried, _) = ask(vec![], 0).await;
    assert_eq!(result.unwrap_err().to_string(), "the budget of tokens is used up (0 of 0)");
    assert_eq!(tried, 0);
}

struct Tools {
    journal: Arc<MemoryJournal>,
    sink: Arc<Sink>,
    started: Arc<AtomicU32>,
}

#[derive(Debug)]
struct Ask(Approval);

#[async_trait]
impl Approver for Ask {
    async fn approve(&self, _: &ToolRequest, _: &[String]) -> Approval {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        self.0.clone()
    }
}

async fn call(
    rules: Vec<Rule>,
    approver: Arc<dyn Approver>,
    slow: bool,
    calls: u32,
) -> (Vec<String>, Tools) {
    let started = Arc::new(AtomicU32::new(0));
    let tool: Arc<dyn Tool> = {
        let started = Arc::clone(&started);
        Arc::new(FunctionTool::new("act", WRITES, move |_, _| {
            let started = Arc::clone(&started);
            async move {
                started.fetch_add(1, Ordering::SeqCst);
                if slow {
                    std::future::pending::<()>().await;
                }
                Ok(ToolOutput::text("done"))
            }
        }))
    };
    let set = ToolSet::new([tool]).unwrap();
    let clock = Arc::new(FixedClock::default());
    let journal = Arc::new(MemoryJournal::new(clock.clone()));
    let run = RunId::new("r");
    let lease = journal.lease(&run, "t", Duration::from_secs(1)).await.unwrap();
    let writer = Arc::new(JournalWriter::new(journal.clone(), clock, lease));
    let sink = Arc::new(Sink::default());
    let stack = ServiceBuilder::new()
        .layer(AuditLayer::new(sink.clone()))
        .layer(PolicyLayer::new(Arc::new(RulePolicy::new(rules)), approver))
        .layer(BudgetLayer::new(Budget::new("tool calls", 2)))
        .layer(JournalLayer::new(writer))
        .concurrency_limit(1)
        .layer(DeadlineLayer::new("tool", Duration::from_secs(30)))
        .service(ToolRouter::new(set.clone()));
    let mut results = Vec::new();
    for place in 0..calls {
        let step = StepId { turn: 1, call: place };
        let context = ToolContext::new(run.clone(), step, CallId::new("c"));
        let model_call = ToolCall {
            call_id: CallId::new("c"),
            name: "act".into(),
            kind: ToolCallKind::Function,
            input: "{}".into(),
            extra: serde_json::Map::new(),
        };
        let request = set.prepare(model_call, context).unwrap();
        let result = stack.clone().oneshot(request).await;
        results.push(
            result.map_or_else(|error: ToolError| error.to_string(), |o| o.to_text().into_owned()),
        );
    }
    (results, Tools { journal, sink, started })
}

async fn kinds(journal: &MemoryJournal) -> Vec<String> {
    use futures::TryStreamExt;
    let records: Vec<_> = journal.read(&RunId::new("r"), Seq(1)).try_collect().await.unwrap();
    records
        .iter()
        .map(|record| match &record.body {
            RecordBody::ToolIntended { idempotency_key, .. } => {
                format!("intended {idempotency_key}")
            }
            RecordBody::ToolFinished { error, .. } => {
                format!("finished {}", error.as_deref().unwrap_or("ok"))
            }
            other => format!("{other:?}"),
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_denied_call_leaves_no_intent_and_is_audited() {
    let (results, tools) =
        call(vec![Rule::deny("a*", "not today")], Arc::new(RefuseAll), false, 1).await;
    assert_eq!(results, ["the call was denied: not today"]);
    assert_eq!(tools.started.load(Ordering::SeqCst), 0);
    assert_eq!(kinds(&tools.journal).await, Vec::<String>::new());
    assert_eq!(
        *tools.sink.0.lock().unwrap(),
        [
            "Tool { step: StepId { turn: 1, call: 0 }, tool: \"act\" }: the call was denied: not today"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_approval_may_take_longer_than_the_tool() {
    let rules = || vec![Rule::ask("act", "it acts")];
    let (results, tools) = call(rules(), Arc::new(Ask(Approval::Approved)), false, 1).await;
    assert_eq!(results, ["done"]);
    assert_eq!(kinds(&tools.journal).await, ["intended r/1.0", "finished ok"]);
    let refused = Approval::Refused { reason: "too late".into() };
    let (results, _) = call(rules(), Arc::new(Ask(refused)), false, 1).await;
    assert_eq!(results, ["the call was denied: too late"]);
    let (results, _) = call(rules(), Arc::new(RefuseAll), false, 1).await;
    assert_eq!(results, ["the call was denied: nobody is there to approve it (it acts)"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_tool_is_ended_and_recorded() {
    let (results, tools) = call(vec![], Arc::new(RefuseAll), true, 1).await;
    let expect =
        "the call took longer than 30s and was ended; ask for less at a time or in the background";
    assert_eq!(results, [expect]);
    assert_eq!(
        kinds(&tools.journal).await,
        ["intended r/1.0".to_owned(), format!("finished {expect}")]
    );
}

#[tokio::test(start_paused = true)]
async fn the_budget_of_calls_holds() {
    let (results, tools) = call(vec![], Arc::new(RefuseAll), false, 3).await;
    assert_eq!(results, ["done", "done", "the budget of tool calls is used up (2 of 2)"]);
    assert_eq!(tools.started.load(Ordering::SeqCst), 2);
}
