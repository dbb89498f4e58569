//! Sandboxes that die: in a call, between calls, while the model answers, in a checkpoint; and what cannot be undone.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod common;

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use cofferdam_core::RunId;
use cofferdam_harness::{
    CheckpointTrigger, Checkpoints, GivenDecision, Harness, ResumeRequest, RunError, RunFailure,
    RunOptions, RunReport, RunRequest,
};
use cofferdam_journal::{Decision, MemoryJournal, PauseReason};
use cofferdam_testkit::FixedClock;
use common::{
    Process, outline, records, script,
    world::{Moment, World},
};

struct Bench {
    world: World,
    journal: Arc<MemoryJournal>,
    harness: Harness,
    request: RunRequest,
}

impl Bench {
    fn new(turns: &str, dies: &[(u32, Moment)]) -> Self {
        let world = World::default();
        world.lock().dies = dies.to_vec();
        let journal = Arc::new(MemoryJournal::new(Arc::new(FixedClock::at(0))));
        let mut process = Process::new(script(turns), world.tools(), journal.clone());
        process.keeper = Some(world.keeper());
        Self { harness: process.harness(), world, journal, request: RunRequest::new("demo", "go") }
    }

    fn options(mut self, options: RunOptions) -> Self {
        self.request.options = options;
        self
    }

    async fn run(&self) -> Result<RunReport, Box<RunFailure>> {
        self.harness.run_as(RunId::new("r"), self.request.clone()).await
    }

    async fn outline(&self) -> String {
        outline(&records(&*self.journal, &RunId::new("r")).await)
    }
}

const WRITES: &str = "
  - items: [{call: write, arguments: {text: a}}]
  - items: [{call: read, arguments: {}}, {call: write, arguments: {text: b}}, {call: write, arguments: {text: c}}]
  - items: [{call: write, arguments: {text: d}}]
  - items: [{message: done}]
";

/// Wherever the sandbox dies, in the end its workspace holds each line once, in order.
async fn check(dies: &[(u32, Moment)], options: RunOptions) -> String {
    let bench = Bench::new(WRITES, dies).options(options);
    let report = bench.run().await.unwrap();
    let journal = bench.outline().await;
    assert_eq!(report.output, "done");
    assert_eq!(bench.world.lines(), ["a", "b", "c", "d"], "{dies:?}:\n{journal}");
    assert_eq!(bench.world.lock().recoveries as usize, dies.len(), "{dies:?}:\n{journal}");
    journal
}

#[tokio::test(start_paused = true)]
async fn wherever_a_sandbox_dies_its_workspace_is_whole_in_the_end() {
    use Moment::{After, Before};
    let options = RunOptions::default();
    for nth in 1..=4 {
        for moment in [Before, After] {
            check(&[(nth, moment)], options).await;
        }
    }
    // The call that is made again dies too, or the next one.
    for (first, second) in [(2, 3), (3, 4), (3, 5), (4, 5)] {
        check(&[(first, After), (second, Before)], options).await;
    }
    let every_third = Checkpoints::EveryTurns(NonZeroU32::new(3).unwrap());
    for checkpoints in [Checkpoints::Off, Checkpoints::OnDemand, every_third] {
        for nth in 1..=4 {
            check(&[(nth, After)], RunOptions { checkpoints, ..options }).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_was_half_done_is_done_again_and_its_answer_is_kept() {
    let journal = check(&[(3, Moment::Before)], RunOptions::default()).await;
    insta::assert_snapshot!(journal, @r#"
    run_started
    sandbox_started
    model_requested turn=1
    model_responded turn=1
    checkpoint_taken turn=0 checkpoint="c1" at=2
    tool_intended 1.0
    tool_finished 1.0
    model_requested turn=2
    model_responded turn=2
    checkpoint_taken turn=1 checkpoint="c2" at=7
    tool_intended 2.0
    tool_finished 2.0
    tool_intended 2.1
    tool_finished 2.1
    tool_intended 2.2
    sandbox_lost reason="it was killed"
    sandbox_replaced checkpoint="c2" attempt=1
    run_rewound checkpoint="c2" to=9 reason="the workspace was restored to this place"
    tool_resolved 2.2 how="run_again"
    tool_intended 2.1
    tool_finished 2.1
    tool_intended 2.2
    tool_finished 2.2
    model_requested turn=3
    model_responded turn=3
    checkpoint_taken turn=2 checkpoint="c3" at=23
    tool_intended 3.0
    tool_finished 3.0
    model_requested turn=4
    model_responded turn=4
    checkpoint_taken turn=3 checkpoint="c4" at=28
    run_finished outcome={"outcome":"completed"}
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_loss_in_a_checkpoint_goes_back_to_the_one_before() {
    let bench = Bench::new(WRITES, &[]);
    // The third one: after the second turn.
    bench.world.lock().dies_in_checkpoint = Some(3);
    let report = bench.run().await.unwrap();
    assert_eq!(report.output, "done");
    assert_eq!(bench.world.lines(), ["a", "b", "c", "d"], "{}", bench.outline().await);
    assert_eq!(bench.world.lock().finished, 1);
}

#[tokio::test(start_paused = true)]
async fn what_reached_beyond_the_sandbox_is_not_undone_in_silence() {
    let turns = "
  - items: [{call: write, arguments: {text: a}}, {call: act, arguments: {text: b}}, {call: write, arguments: {text: c}}]
  - items: [{message: done}]
";
    let bench = Bench::new(turns, &[(2, Moment::Before)]);
    let failure = bench.run().await.unwrap_err();
    insta::assert_snapshot!(failure.error, @"the run waits for a decision on the workspace, which is that of checkpoint c1: step 1.1 (act) was begun since, and may have touched more than the sandbox");

    // Nothing was decided: it goes on waiting, and writes nothing.
    let before = bench.outline().await;
    let resume = ResumeRequest::new(bench.request.clone());
    let again = bench.harness.resume(&RunId::new("r"), resume).await;
    assert!(matches!(again.unwrap_err().error, RunError::Paused { .. }));
    assert_eq!(bench.outline().await, before);

    let decision = GivenDecision {
        step: None,
        decision: Decision::AcceptWorkspace,
        by: "somebody".into(),
        reason: String::new(),
    };
    let resume =
        ResumeRequest { decision: Some(decision), ..ResumeRequest::new(bench.request.clone()) };
    let report = bench.harness.resume(&RunId::new("r"), resume).await.unwrap();
    assert_eq!(
        bench.world.lines(),
        ["c"],
        "the lost line is not made again behind the model's back"
    );
    assert_eq!(bench.world.lock().acted.len(), 1);
    let told = serde_json::to_string(&report.items).unwrap();
    assert!(told.contains("The workspace was lost and restored to an earlier state"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn what_left_the_sandbox_alone_is_not_done_again_for_it() {
    let turns = "
  - items: [{call: write, arguments: {text: a}}, {call: send, arguments: {text: b}}, {call: write, arguments: {text: c}}]
  - items: [{message: done}]
";
    let bench = Bench::new(turns, &[(2, Moment::After)]);
    bench.run().await.unwrap();
    assert_eq!(bench.world.lines(), ["a", "c"]);
    insta::assert_snapshot!(bench.outline().await, @r#"
    run_started
    sandbox_started
    model_requested turn=1
    model_responded turn=1
    checkpoint_taken turn=0 checkpoint="c1" at=2
    tool_intended 1.0
    tool_finished 1.0
    tool_intended 1.1
    tool_finished 1.1
    tool_intended 1.2
    sandbox_lost reason="it was killed"
    sandbox_replaced checkpoint="c1" attempt=1
    run_rewound checkpoint="c1" to=4 reason="the workspace was restored to this place"
    tool_resolved 1.2 how="run_again"
    tool_intended 1.0
    tool_finished 1.0
    tool_intended 1.2
    tool_finished 1.2
    model_requested turn=2
    model_responded turn=2
    checkpoint_taken turn=1 checkpoint="c2" at=18
    run_finished outcome={"outcome":"completed"}
    "#);
}

/// Without checkpoints between, what the model has read is taken back with the workspace, unless it went outside.
#[tokio::test(start_paused = true)]
async fn a_turn_that_was_read_is_taken_back_with_its_workspace() {
    let options = RunOptions { checkpoints: Checkpoints::Off, ..RunOptions::default() };
    let journal = check(&[(4, Moment::Before)], options).await;
    insta::assert_snapshot!(journal, @r#"
    run_started
    sandbox_started
    model_requested turn=1
    model_responded turn=1
    tool_intended 1.0
    tool_finished 1.0
    model_requested turn=2
    model_responded turn=2
    tool_intended 2.0
    tool_finished 2.0
    tool_intended 2.1
    tool_finished 2.1
    tool_intended 2.2
    tool_finished 2.2
    model_requested turn=3
    model_responded turn=3
    tool_intended 3.0
    sandbox_lost reason="it was killed"
    sandbox_replaced attempt=1
    run_rewound to=4 reason="the workspace was restored to this place"
    tool_intended 1.0
    tool_finished 1.0
    model_requested turn=4
    model_responded turn=4
    tool_intended 4.0
    tool_finished 4.0
    tool_intended 4.1
    tool_finished 4.1
    tool_intended 4.2
    tool_finished 4.2
    model_requested turn=5
    model_responded turn=5
    tool_intended 5.0
    tool_finished 5.0
    model_requested turn=6
    model_responded turn=6
    run_finished outcome={"outcome":"completed"}
    "#);

    let turns = "
  - items: [{call: write, arguments: {text: a}}]
  - items: [{call: send, arguments: {text: b}}]
  - items: [{call: write, arguments: {text: c}}]
  - items: [{message: done}]
";
    let bench = Bench::new(turns, &[(2, Moment::Before)]).options(options);
    let failure = bench.run().await.unwrap_err();
    insta::assert_snapshot!(failure.error, @"the run waits for a decision on the workspace, which is that of the run's start: step 2.0 (send) was begun since, and may have touched more than the sandbox");
}

#[tokio::test(start_paused = true)]
async fn sandboxes_that_keep_dying_pause_the_run_and_it_can_be_resumed() {
    let dies: Vec<_> = (1..=4).map(|nth| (nth, Moment::Before)).collect();
    let bench = Bench::new(WRITES, &dies);
    let began = tokio::time::Instant::now();
    let failure = bench.run().await.unwrap_err();
    let RunError::Paused { reason: PauseReason::Losses { losses: 4, last } } = &failure.error
    else {
        panic!("{failure:?}");
    };
    assert_eq!(last, "it was killed");
    assert_eq!(
        began.elapsed(),
        Duration::from_millis(200 + 400 + 800),
        "it waits longer each time"
    );
    let resume = ResumeRequest::new(bench.request.clone());
    let report = bench.harness.resume(&RunId::new("r"), resume).await.unwrap();
    assert_eq!(report.output, "done");
    assert_eq!(bench.world.lines(), ["a", "b", "c", "d"]);
}

#[tokio::test(start_paused = true)]
async fn checkpoints_come_when_they_are_asked_for() {
    let check = async |checkpoints, asked: bool, expect: &[&str]| {
        let options = RunOptions { checkpoints, ..RunOptions::default() };
        let mut bench = Bench::new(WRITES, &[]).options(options);
        let trigger = CheckpointTrigger::default();
        bench.request.checkpoint = trigger.clone();
        if asked {
            trigger.ask();
        }
        bench.run().await.unwrap();
        let journal = bench.outline().await;
        let taken: Vec<_> =
            journal.lines().filter(|line| line.starts_with("checkpoint_taken")).collect();
        assert_eq!(taken, expect, "{checkpoints:?}");
    };
    check(Checkpoints::Off, true, &[]).await;
    check(Checkpoints::OnDemand, false, &[]).await;
    check(Checkpoints::OnDemand, true, &["checkpoint_taken turn=0 checkpoint=\"c1\" at=2"]).await;
    let two = Checkpoints::EveryTurns(NonZeroU32::new(2).unwrap());
    check(
        two,
        false,
        &[
            "checkpoint_taken turn=0 checkpoint=\"c1\" at=2",
            "checkpoint_taken turn=2 checkpoint=\"c2\" at=15",
        ],
    )
    .await;
    check(
        Checkpoints::EveryWrite,
        false,
        &[
            "checkpoint_taken turn=0 checkpoint=\"c1\" at=2",
            "checkpoint_taken turn=1 checkpoint=\"c2\" at=7",
            "checkpoint_taken turn=2 checkpoint=\"c3\" at=16",
            "checkpoint_taken turn=3 checkpoint=\"c4\" at=21",
        ],
    )
    .await;
}
