//! Who may go on with a run, and with what: leases, changed agents, forks, budgets, cancelling.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use cofferdam_core::{EffectClass, Effects, RunId, ToolOutput};
use cofferdam_harness::{
    Harness, OnChanged, ResumeRequest, RunError, RunEvent, RunOptions, RunRequest,
};
use cofferdam_journal::{Journal, JournalError, MemoryJournal, RecordBody};
use cofferdam_testkit::{FixedClock, FunctionTool};
use cofferdam_tool::Tool;
use common::{
    Process, Recorder,
    crash::CrashJournal,
    outline, outputs, records, script,
    world::{Moment, World},
};

const TURNS: &str = "
  - items: [{call: send, arguments: {text: a}}, {call: send, arguments: {text: b}}]
  - items: [{message: done}]
";

fn run() -> RunId {
    RunId::new("r")
}

/// A run whose process died after the intent of its first call.
async fn left(world: &World) -> Arc<MemoryJournal> {
    let journal = Arc::new(MemoryJournal::new(Arc::new(FixedClock::at(0))));
    let dying = Arc::new(CrashJournal::new(journal.clone(), Some((4, Moment::After))));
    let harness = Process::new(script(TURNS), world.tools(), dying.clone()).harness();
    tokio::select! {
        biased;
        () = dying.crashed() => {}
        result = harness.run_as(run(), RunRequest::new("demo", "go")) => panic!("{result:?}"),
    }
    journal
}

fn harness(world: &World, journal: &Arc<MemoryJournal>) -> Harness {
    Process::new(script(TURNS), world.tools(), journal.clone()).harness()
}

#[tokio::test(start_paused = true)]
async fn two_cannot_go_on_with_one_run() {
    let world = World::default();
    let journal = left(&world).await;
    let lease = journal.lease(&run(), "another", Duration::from_secs(30)).await.unwrap();
    let resume = || ResumeRequest::new(RunRequest::new("demo", "go"));
    let harness = harness(&world, &journal);
    let failure = harness.resume(&run(), resume()).await.unwrap_err();
    let RunError::Journal(JournalError::Leased { owner, .. }) = &failure.error else {
        panic!("{failure:?}");
    };
    assert_eq!(owner, "another");
    journal.release(&lease).await.unwrap();
    let run_id = run();
    let both = futures::join!(harness.resume(&run_id, resume()), harness.resume(&run_id, resume()));
    assert!(both.0.is_ok() && both.1.is_err(), "{both:?}");
    assert_eq!(world.lock().sent.len(), 2);
    assert!(world.lock().sent.values().all(|count| *count == 1));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_lost_its_lease_stops_at_once_and_writes_nothing() {
    let clock = Arc::new(FixedClock::at(0));
    let journal = Arc::new(MemoryJournal::new(clock.clone()));
    let dropped = Arc::new(AtomicU32::new(0));
    let endless = {
        struct Guard(Arc<AtomicU32>);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let dropped = Arc::clone(&dropped);
        let effects = Effects { class: EffectClass::Unknown, writes: true, network: true };
        FunctionTool::new("endless", effects, move |_, _| {
            let guard = Guard(Arc::clone(&dropped));
            async move {
                let _guard = guard;
                std::future::pending::<()>().await;
                Ok(ToolOutput::default())
            }
        })
    };
    let endless: Arc<dyn Tool> = Arc::new(endless);
    let model = script("  - items: [{call: endless, arguments: {}}]\n");
    let harness = Process::new(model, vec![endless], journal.clone()).harness();
    let driven = tokio::spawn(async move {
        harness.run_as(run(), RunRequest::new("demo", "go")).await.unwrap_err()
    });
    while records(&*journal, &run()).await.len() < 4 {
        tokio::task::yield_now().await;
    }
    // The machine slept for a minute, and another process took over.
    clock.advance(60_000);
    let lease = journal.lease(&run(), "another", Duration::from_secs(600)).await.unwrap();
    let before = outline(&records(&*journal, &run()).await);
    let failure = driven.await.unwrap();
    assert!(matches!(failure.error, RunError::Journal(JournalError::Fenced { .. })), "{failure:?}");
    assert_eq!(dropped.load(Ordering::SeqCst), 1, "the tool was dropped");
    assert_eq!(outline(&records(&*journal, &run()).await), before);
    journal.release(&lease).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn another_agent_is_refused_or_goes_on_as_a_fork() {
    let world = World::default();
    let journal = left(&world).await;
    let mut request = RunRequest::new("demo", "go");
    request.instructions = Some("Be brief.".into());
    request.setup.insert("policy".into(), "deny all".into());
    let tools = world.tools().into_iter().filter(|tool| tool.spec().name != "read").collect();
    let harness = Process::new(script(TURNS), tools, journal.clone()).harness();
    let before = outline(&records(&*journal, &run()).await);
    let failure = harness.resume(&run(), ResumeRequest::new(request.clone())).await.unwrap_err();
    insta::assert_snapshot!(failure.error, @"the agent is not what the run began with (instructions, policy, tool:read); restore it, or go on as a fork");
    let RunError::Changed { differences } = &failure.error else { panic!("{failure:?}") };
    assert_eq!(
        (differences[0].old_text.as_deref(), differences[0].new_text.as_deref()),
        (Some(""), Some("Be brief."))
    );
    assert_eq!(outline(&records(&*journal, &run()).await), before);

    let fork = ResumeRequest { on_changed: OnChanged::Fork, ..ResumeRequest::new(request) };
    let report = harness.resume(&run(), fork).await.unwrap();
    assert_ne!(report.run, run());
    insta::assert_snapshot!(outputs(&report.items).join("\n"), @r"
    error: The outcome of this call is unknown: the work went on elsewhere while it ran. It may have had its effect, in whole or in part, or not at all. Look at what is there before you make it again.
    error: This call was not run: the work went on elsewhere. Make it again if it is still needed.
    ");
    let forked = records(&*journal, &report.run).await;
    let RecordBody::RunStarted { parent: Some(parent), .. } = &forked[0].body else {
        panic!("{:?}", forked[0]);
    };
    assert_eq!((parent.run.as_str(), parent.seq.0), ("r", 4));
    assert!(world.lock().sent.is_empty(), "a fork repeats nothing of its parent");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_over_can_be_forked_and_not_resumed() {
    let world = World::default();
    let journal = Arc::new(MemoryJournal::new(Arc::new(FixedClock::at(0))));
    let harness = harness(&world, &journal);
    let request = RunRequest::new("demo", "go");
    harness.run_as(run(), request.clone()).await.unwrap();
    let resume = ResumeRequest::new(request.clone());
    let failure = harness.resume(&run(), resume.clone()).await.unwrap_err();
    insta::assert_snapshot!(failure.error, @"run r is over (Completed) and cannot be resumed; fork it, or start another");
    let failure = harness.run_as(run(), request.clone()).await.unwrap_err();
    insta::assert_snapshot!(failure.error, @"there is a run r already; resume it, or choose another name");
    let failure = harness.resume(&RunId::new("x"), resume).await.unwrap_err();
    insta::assert_snapshot!(failure.error, @"there is no run x in this journal");
    // From after the first turn: the model is asked for the second again.
    let at = harness.state(&run()).await.unwrap().seq();
    let end_of_first_turn = cofferdam_journal::Seq(at.0 - 3);
    let mut from_there = request;
    from_there.input.clear();
    let report = harness.fork(&run(), Some(end_of_first_turn), None, from_there).await.unwrap();
    assert_eq!((report.output.as_str(), report.turns), ("done", 1));
    assert_eq!(outputs(&report.items), ["did a", "did b"]);
    assert_eq!(world.lock().sent.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_spent_counts_after_a_restart() {
    let world = World::default();
    let journal = left(&world).await;
    let harness = harness(&world, &journal);
    let check = async |options: RunOptions, expect: &str| {
        let request = RunRequest { options, ..RunRequest::new("demo", "go") };
        let failure = harness.resume(&run(), ResumeRequest::new(request)).await.unwrap_err();
        assert_eq!(failure.error.to_string(), expect);
        assert_eq!((failure.turns, failure.usage.requests), (1, 1));
    };
    let options = RunOptions::default();
    check(
        RunOptions { max_turns: 1, ..options },
        "the model was not done after 1 turns; raise `limits.max_turns` or ask for less",
    )
    .await;
    // A run that failed by a bound goes on when the bound is raised.
    let resume = ResumeRequest::new(RunRequest::new("demo", "go"));
    let report = harness.resume(&run(), resume).await.unwrap();
    assert_eq!((report.turns, report.usage.requests, report.tool_calls), (2, 2, 2));
    assert_eq!(world.lock().sent.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_can_be_resumed_from_wherever_it_was() {
    let (world, journal) =
        (World::default(), Arc::new(MemoryJournal::new(Arc::new(FixedClock::at(0)))));
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let slow = {
        let gate = Arc::clone(&gate);
        FunctionTool::new("slow", Effects::PURE, move |_, _| {
            let gate = Arc::clone(&gate);
            async move {
                let _ = gate.acquire().await.unwrap();
                Ok(ToolOutput::text("at last"))
            }
        })
    };
    let slow: Arc<dyn Tool> = Arc::new(slow);
    let mut tools = world.tools();
    tools.push(slow);
    let model = script(
        "
  - items: [{call: send, arguments: {text: a}}, {call: slow, arguments: {}}]
  - items: [{message: done}]
",
    );
    let harness = Process::new(model, tools, journal.clone()).harness();
    let request = RunRequest::new("demo", "go");
    let cancel = request.cancel.clone();
    let run_id = run();
    let (result, ()) = tokio::join!(harness.run_as(run_id.clone(), request), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        cancel.cancel();
    });
    assert!(matches!(result.unwrap_err().error, RunError::Cancelled));
    gate.add_permits(1);
    let recorder = Arc::new(Recorder::default());
    let request = RunRequest { observer: recorder.clone(), ..RunRequest::new("demo", "go") };
    let report = harness.resume(&run_id, ResumeRequest::new(request)).await.unwrap();
    assert_eq!(outputs(&report.items), ["did a", "at last"]);
    let events = recorder.0.lock().unwrap();
    assert!(matches!(events.first(), Some(RunEvent::RunResumed { turns: 1, .. })), "{events:?}");
    assert!(matches!(events.last(), Some(RunEvent::RunFinished { error: None, .. })));
}
