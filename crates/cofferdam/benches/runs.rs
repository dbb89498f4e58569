//! What a run costs besides the model's and the tools' own time: processor time a turn, memory an idle run, and many
//! sealed runs at once. Prints one JSON object a case.
//!
//! The model is a mock server on loopback, on a thread of its own whose time is not counted.
#![expect(clippy::print_stdout, reason = "a benchmark prints its cases")]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use cofferdam::{
    Agent, DefaultStacks, StackLimits, SystemClock, SystemEntropy,
    core::{Effects, ToolOutput},
    harness::{Harness, HarnessParts, RunOptions, RunRequest},
    journal::MemoryJournal,
    layers::{AuditEvent, AuditSink, RefuseAll},
    manifest::ToolName,
    model::Model,
    model_openai::{Endpoint, ResponsesModel},
    policy::RulePolicy,
    tool::{Tool, ToolSet},
};
use cofferdam_testkit::{
    FunctionTool,
    mock_server::{MockItem, MockModelServer, MockScript, MockTurn},
};
use futures::future::join_all;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

type Failure = Box<dyn std::error::Error>;

#[derive(Debug)]
struct Silent;

impl AuditSink for Silent {
    fn record(&self, _: AuditEvent) {}
}

fn main() -> Result<(), Failure> {
    let url = serve();
    turns(&url)?;
    idle(&url)?;
    concurrent(&url)
}

/// Serves the scripts on a thread of their own; returns the address.
fn serve() -> String {
    let call = |tool: &str, arguments| MockTurn::new([MockItem::function_call(tool, arguments)]);
    let last = || MockTurn::new([MockItem::message("done")]);
    let repeat = |count, turn: &MockTurn| vec![turn.clone(); count];
    let mut fifty = repeat(TURNS, &call("no_op", json!({})));
    fifty.push(last());
    let mut four = repeat(4, &call("exec_command", json!({"cmd": "true"})));
    four.push(last());
    let script = MockScript::new(fifty)
        .named("sealed", four)
        .named("idle", [call("wait", json!({})), last()]);
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
            return;
        };
        runtime.block_on(async {
            if let Ok(mut server) = MockModelServer::start(script).await {
                let _ = sender.send(server.base_url());
                server.serve().await;
            }
        });
    });
    receiver.recv().unwrap_or_default()
}

const TURNS: usize = 50;

fn model(url: &str) -> Result<Arc<dyn Model>, Failure> {
    Ok(Arc::new(ResponsesModel::builder("mock").build(&Endpoint::new(url)?)?))
}

fn harness(url: &str, tool: Arc<dyn Tool>) -> Result<Harness, Failure> {
    let tools = ToolSet::new([tool])?;
    let stacks = DefaultStacks {
        model: model(url)?,
        tools: tools.clone(),
        policy: Arc::new(RulePolicy::default()),
        approver: Arc::new(RefuseAll),
        audit: Arc::new(Silent),
        entropy: Arc::new(SystemEntropy),
        limits: StackLimits::default(),
    };
    Ok(Harness::new(HarnessParts {
        tools,
        stacks: Arc::new(stacks),
        journal: Arc::new(MemoryJournal::new(Arc::new(SystemClock))),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        owner: "bench".into(),
        keeper: None,
    }))
}

/// Processor time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Processor time from one call of the tool to the next, in a run of fifty.
fn turns(url: &str) -> Result<(), Failure> {
    let marks: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let tool = {
        let marks = Arc::clone(&marks);
        FunctionTool::new("no_op", Effects::PURE, move |_, _| {
            if let Ok(mut marks) = marks.lock() {
                marks.push(cpu());
            }
            async { Ok(ToolOutput::text("ok")) }
        })
    };
    let harness = harness(url, Arc::new(tool))?;
    // One thread, so that its time is the run's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut all, mut first, mut last) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..6 {
        if let Ok(mut marks) = marks.lock() {
            marks.clear();
        }
        let request = RunRequest {
            options: RunOptions { max_turns: 60, ..RunOptions::default() },
            ..RunRequest::new("bench", "go")
        };
        runtime.block_on(harness.run(request))?;
        let Ok(marks) = marks.lock() else { continue };
        let spans: Vec<f64> = marks
            .windows(2)
            .map(|pair| (pair[1].saturating_sub(pair[0])).as_secs_f64() * 1e3)
            .collect();
        // The first run warms caches and the connection.
        if round > 0 {
            first.extend_from_slice(&spans[..10]);
            last.extend_from_slice(&spans[spans.len() - 10..]);
            all.extend(spans);
        }
    }
    report("cpu a turn, 50 turns, no-op tool", &mut all, json!({"bar_ms": 1.0}));
    let first = median(&mut first);
    let ratio = median(&mut last.clone()) / first;
    report(
        "cpu a turn, turns 41 to 50",
        &mut last,
        json!({"floor": "turns 1 to 10", "ratio": ratio, "bar": 2.0}),
    );
    Ok(())
}

/// Memory of runs that wait for a tool.
fn idle(url: &str) -> Result<(), Failure> {
    const RUNS: usize = 200;
    let tool = FunctionTool::new("wait", Effects::PURE, |context, _| async move {
        context.cancel.cancelled().await;
        Ok(ToolOutput::text("woken"))
    });
    let harness = harness(&format!("{}/idle/v1", url.trim_end_matches("/v1")), Arc::new(tool))?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let start = |count| -> Result<Vec<_>, Failure> {
        let runs = (0..count).map(|_| {
            let request = RunRequest::new("bench", "go");
            let (cancel, harness) = (request.cancel.clone(), harness.clone());
            (cancel, runtime.spawn(async move { harness.run(request).await.is_ok() }))
        });
        let runs = runs.collect();
        std::thread::sleep(Duration::from_millis(1500));
        Ok(runs)
    };
    let mut runs = start(1)?;
    let before = resident_bytes()?;
    runs.extend(start(RUNS)?);
    let each = (resident_bytes()?.saturating_sub(before)) as f64 / RUNS as f64;
    for (cancel, _) in &runs {
        cancel.cancel();
    }
    println!(
        "{}",
        json!({"case": "MiB of an idle run beyond the first (in place of ms)", "median_ms": each / f64::from(1 << 20),
               "n": RUNS, "bar_ms": 1.0})
    );
    Ok(())
}

fn resident_bytes() -> Result<u64, Failure> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split(' ').nth(1).unwrap_or_default().parse()?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// A hundred runs at once, each of five turns in a sandbox of its own.
fn concurrent(url: &str) -> Result<(), Failure> {
    let url = format!("{}/sealed/v1", url.trim_end_matches("/v1"));
    let agent =
        Agent::builder("bench").shared_model(model(&url)?).tools([ToolName::Shell]).build()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for count in [1, 10, 100] {
        let mut times = Vec::new();
        for _ in 0..3 {
            let start = Instant::now();
            let reports = runtime.block_on(join_all((0..count).map(|_| agent.run("go"))));
            times.push(start.elapsed().as_secs_f64() * 1e3);
            for report in reports {
                report?;
            }
        }
        let case = format!("{count} sealed runs of five turns at once");
        let per_second = f64::from(count) / (median(&mut times.clone()) / 1e3);
        report(&case, &mut times, json!({"runs_per_second": per_second}));
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn report(case: &str, values: &mut [f64], more: serde_json::Value) {
    let median_ms = median(values);
    let mut line =
        json!({"case": case, "median_ms": median_ms, "min_ms": values.first(), "n": values.len()});
    if let (Some(line), serde_json::Value::Object(more)) = (line.as_object_mut(), more) {
        line.extend(more);
    }
    println!("{line}");
}
