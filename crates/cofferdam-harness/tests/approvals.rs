//! Calls that somebody must allow: asked once, answered in the journal, also while no process lives.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod common;

use std::sync::{Arc, atomic::Ordering};

use cofferdam_core::{RunId, StepId};
use cofferdam_harness::{Harness, ResumeRequest, RunError, RunRequest};
use cofferdam_journal::{ApprovalVerdict, Journal, MemoryJournal, PauseReason};
use cofferdam_layers::Approval;
use cofferdam_policy::{Rule, RulePolicy};
use cofferdam_testkit::FixedClock;
use common::{
    Process, Somebody,
    crash::{CrashJournal, CrashPoint},
    outline, outputs, records, script,
    world::{Moment, World},
};

const TURNS: &str = "
  - items: [{call: read, arguments: {}}, {call: act, arguments: {text: a}}, {call: read, arguments: {}}]
  - items: [{message: done}]
";

struct Bench {
    world: World,
    journal: Arc<MemoryJournal>,
    somebody: Arc<Somebody>,
}

impl Bench {
    fn new(answer: Approval) -> Self {
        Self {
            world: World::default(),
            journal: Arc::new(MemoryJournal::new(Arc::new(FixedClock::at(0)))),
            somebody: Arc::new(Somebody::new(answer)),
        }
    }

    fn harness(&self, journal: Arc<dyn Journal>) -> Harness {
        let mut process = Process::new(script(TURNS), self.world.tools(), journal);
        process.policy = RulePolicy::new([Rule::ask("act", "it acts")]);
        process.approver = self.somebody.clone();
        process.harness()
    }

    /// A process that may die.
    async fn process(&self, dies: Option<CrashPoint>) -> String {
        let journal = Arc::new(CrashJournal::new(self.journal.clone(), dies));
        let harness = self.harness(journal.clone());
        let (run, request) = (RunId::new("r"), RunRequest::new("demo", "go"));
        let drive = async {
            match harness.state(&run).await {
                Ok(_) => harness.resume(&run, ResumeRequest::new(request)).await,
                Err(_) => harness.run_as(run, request).await,
            }
        };
        tokio::select! {
            biased;
            () = journal.crashed() => "died".into(),
            result = drive => match result {
                Ok(report) => outputs(&report.items).join(", "),
                Err(failure) => failure.error.to_string(),
            },
        }
    }

    async fn answer(&self, verdict: ApprovalVerdict) -> Result<(), RunError> {
        let step = StepId { turn: 1, call: 1 };
        let harness = self.harness(self.journal.clone());
        harness.answer(&RunId::new("r"), step, verdict, "owner", "not on a Friday").await
    }

    async fn outline(&self) -> String {
        outline(&records(&*self.journal, &RunId::new("r")).await)
    }

    fn asked(&self) -> u32 {
        self.somebody.asked.load(Ordering::SeqCst)
    }

    fn acted(&self) -> u32 {
        self.world.lock().acted.values().sum()
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_pauses_the_run_and_lets_it_go_on() {
    let bench = Bench::new(Approval::Later);
    assert_eq!(bench.process(None).await, "the run waits for approval of step 1.1");
    // Nothing of it lives, and nothing changes until somebody answers.
    let waiting = bench.outline().await;
    assert_eq!(bench.process(None).await, "the run waits for approval of step 1.1");
    assert_eq!(bench.outline().await, waiting);
    bench.answer(ApprovalVerdict::Approved).await.unwrap();
    assert_eq!(bench.process(None).await, ", did a, ");
    assert_eq!((bench.asked(), bench.acted()), (1, 1));
    insta::assert_snapshot!(bench.outline().await, @r#"
    run_started
    model_requested turn=1
    model_responded turn=1
    tool_intended 1.0
    tool_finished 1.0
    approval_asked 1.1
    run_paused reason={"steps":[{"call":1,"turn":1}],"wait_for":"approval"}
    approval_given 1.1 verdict="approved" reason="not on a Friday"
    run_resumed
    tool_intended 1.1
    tool_finished 1.1
    tool_intended 1.2
    tool_finished 1.2
    model_requested turn=2
    model_responded turn=2
    run_finished outcome={"outcome":"completed"}
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_to_the_model() {
    let bench = Bench::new(Approval::Later);
    bench.process(None).await;
    bench.answer(ApprovalVerdict::Refused).await.unwrap();
    assert_eq!(bench.process(None).await, ", error: the call was denied: not on a Friday, ");
    assert_eq!((bench.asked(), bench.acted()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn only_what_was_asked_can_be_answered_and_only_once() {
    let bench = Bench::new(Approval::Later);
    let error = bench.answer(ApprovalVerdict::Approved).await.unwrap_err();
    assert!(matches!(error, RunError::NoSuchRun { .. }), "{error}");
    bench.process(None).await;
    let harness = bench.harness(bench.journal.clone());
    let (run, other) = (RunId::new("r"), StepId { turn: 1, call: 0 });
    let error = harness.answer(&run, other, ApprovalVerdict::Approved, "o", "").await.unwrap_err();
    insta::assert_snapshot!(error, @"the run does not wait for this: nobody was asked about step 1.0");
    bench.answer(ApprovalVerdict::Refused).await.unwrap();
    let error = bench.answer(ApprovalVerdict::Approved).await.unwrap_err();
    insta::assert_snapshot!(error, @r#"the run does not wait for this: step 1.1 was answered already: Refused { reason: "not on a Friday" }"#);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_twice_wherever_a_process_dies() {
    let bench = Bench::new(Approval::Approved);
    bench.process(None).await;
    let appends: u32 = records(&*bench.journal, &RunId::new("r")).await.len().try_into().unwrap();
    for nth in 1..=appends {
        for moment in [Moment::Before, Moment::After] {
            let bench = Bench::new(Approval::Approved);
            assert_eq!(bench.process(Some((nth, moment))).await, "died");
            for _ in 0..3 {
                let harness = bench.harness(bench.journal.clone());
                if let Ok(state) = harness.state(&RunId::new("r")).await
                    && let Some(PauseReason::Approval { .. }) = state.pause()
                {
                    bench.answer(ApprovalVerdict::Approved).await.unwrap();
                }
                bench.process(None).await;
            }
            let journal = bench.outline().await;
            assert!(bench.asked() <= 1, "cut {moment:?} {nth}:\n{journal}");
            assert!(bench.acted() <= 1, "cut {moment:?} {nth}:\n{journal}");
            assert_eq!(journal.matches("approval_asked").count(), 1, "{journal}");
            let decided = journal.ends_with("completed\"}") || journal.contains("\"decision\"");
            assert!(decided, "cut {moment:?} {nth}:\n{journal}");
        }
    }
}
