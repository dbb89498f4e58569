//! Input from outside: a run that has ended or stands still is told something more, once, and goes on with it; and a run that
//! one process holds, between looking for its sandbox and driving it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod common;

use std::{sync::Arc, time::Duration};

use cofferdam_core::{Item, Role, RunId, StepId};
use cofferdam_harness::{
    GivenInput, Harness, Hold, OnChanged, ResumeRequest, RunError, RunFailure, RunReport,
    RunRequest,
};
use cofferdam_journal::{
    ApprovalVerdict, Journal, JournalError, MemoryJournal, PauseReason, RunOutcome,
};
use cofferdam_layers::Approval;
use cofferdam_policy::{Rule, RulePolicy};
use cofferdam_testkit::FixedClock;
use common::{
    Process, Somebody,
    crash::{CrashJournal, CrashPoint},
    outline, records, script,
    world::{Moment, World},
};

const TURNS: &str = "
  - items: [{message: one}]
  - items: [{call: write, arguments: {text: a}}]
  - items: [{message: two}]
  - items: [{message: three}]
";

/// A call that somebody must allow, and two answers.
const ASKS: &str = "
  - items: [{call: act, arguments: {text: a}}]
  - items: [{message: one}]
  - items: [{message: two}]
";

/// A run that one process after the other drives.
struct Bench {
    world: World,
    journal: Arc<MemoryJournal>,
    turns: &'static str,
}

impl Bench {
    fn new(turns: &'static str) -> Self {
        let journal = Arc::new(MemoryJournal::new(Arc::new(FixedClock::at(0))));
        Self { world: World::default(), journal, turns }
    }

    fn run() -> RunId {
        RunId::new("r")
    }

    fn harness(&self, journal: Arc<dyn Journal>) -> Harness {
        let mut process = Process::new(script(self.turns), self.world.tools(), journal);
        process.approver = Arc::new(Somebody::new(Approval::Later));
        process.policy = RulePolicy::new([Rule::ask("act", "it acts")]);
        process.harness()
    }

    async fn begin(&self) -> Result<RunReport, Box<RunFailure>> {
        let harness = self.harness(self.journal.clone());
        harness.run_as(Self::run(), RunRequest::new("demo", "go")).await
    }

    async fn resume(&self, resume: ResumeRequest) -> Result<RunReport, Box<RunFailure>> {
        self.harness(self.journal.clone()).resume(&Self::run(), resume).await
    }

    /// As `resume`, by a process that may die; `None` if it did.
    async fn process(
        &self,
        resume: ResumeRequest,
        dies: Option<CrashPoint>,
    ) -> Option<Result<RunReport, Box<RunFailure>>> {
        let journal = Arc::new(CrashJournal::new(self.journal.clone(), dies));
        let (harness, run) = (self.harness(journal.clone()), Self::run());
        tokio::select! {
            biased;
            () = journal.crashed() => None,
            result = harness.resume(&run, resume) => Some(result),
        }
    }

    async fn answer(&self) {
        let harness = self.harness(self.journal.clone());
        let step = StepId { turn: 1, call: 0 };
        harness.answer(&Self::run(), step, ApprovalVerdict::Approved, "owner", "").await.unwrap();
    }

    async fn outline(&self) -> String {
        outline(&records(&*self.journal, &Self::run()).await)
    }
}

fn request() -> ResumeRequest {
    ResumeRequest::new(RunRequest::new("demo", ""))
}

fn more(text: &str, key: Option<&str>) -> ResumeRequest {
    let key = key.map(str::to_owned);
    ResumeRequest { input: Some(GivenInput { key, ..GivenInput::text(text) }), ..request() }
}

/// What users said, in order.
fn said(items: &[Arc<Item>]) -> Vec<String> {
    let users = items.iter().filter_map(|item| match &**item {
        Item::Message(message) if message.role == Role::User => {
            Some(message.to_text().into_owned())
        }
        _ => None,
    });
    users.collect()
}

fn error(result: Result<RunReport, Box<RunFailure>>) -> RunError {
    result.unwrap_err().error
}

#[tokio::test]
async fn a_run_that_the_model_had_finished_goes_on() {
    let bench = Bench::new(TURNS);
    assert_eq!(bench.begin().await.unwrap().output, "one");
    let report = bench.resume(more("and more", None)).await.unwrap();
    assert_eq!((report.output.as_str(), report.turns), ("two", 3));
    assert_eq!(said(&report.items), ["go", "and more"]);
    assert_eq!(bench.world.lock().workspace.lines, ["a"]);
    // The same words at another stop of the run are new, and it is still over without any.
    let report = bench.resume(more("and more", None)).await.unwrap();
    assert_eq!(report.output, "three");
    assert_eq!(said(&report.items), ["go", "and more", "and more"]);
    let over = error(bench.resume(request()).await);
    assert!(matches!(over, RunError::Finished { outcome: RunOutcome::Completed, .. }), "{over}");
    insta::assert_snapshot!(bench.outline().await, @r#"
    run_started
    model_requested turn=1
    model_responded turn=1
    run_finished outcome={"outcome":"completed"}
    run_resumed
    input_given
    model_requested turn=2
    model_responded turn=2
    tool_intended 2.0
    tool_finished 2.0
    model_requested turn=3
    model_responded turn=3
    run_finished outcome={"outcome":"completed"}
    run_resumed
    input_given
    model_requested turn=4
    model_responded turn=4
    run_finished outcome={"outcome":"completed"}
    "#);
}

#[tokio::test]
async fn a_key_is_taken_once_for_ever() {
    let bench = Bench::new(TURNS);
    bench.begin().await.unwrap();
    assert_eq!(bench.resume(more("a", Some("mail-17"))).await.unwrap().output, "two");
    let before = bench.outline().await;
    let again = error(bench.resume(more("in other words", Some("mail-17"))).await);
    assert!(matches!(again, RunError::Finished { .. }), "{again}");
    assert_eq!(bench.outline().await, before);
    let state = bench.harness(bench.journal.clone()).state(&Bench::run()).await.unwrap();
    assert!(state.has_heard("mail-17") && !state.has_heard("mail-18"));
    let report = bench.resume(more("b", Some("mail-18"))).await.unwrap();
    assert_eq!(said(&report.items), ["go", "a", "b"]);
}

/// Whoever gave the input and saw the process die gives it again.
#[tokio::test]
async fn input_is_given_once_wherever_its_process_dies() {
    // The take-over, request, answer, intent, result, request, answer, end.
    const APPENDS: u32 = 8;
    for key in [None, Some("mail-17")] {
        for nth in 1..=APPENDS {
            for moment in [Moment::Before, Moment::After] {
                let bench = Bench::new(TURNS);
                bench.begin().await.unwrap();
                let died = bench.process(more("and more", key), Some((nth, moment))).await;
                assert!(died.is_none(), "{nth} {moment:?}: {died:?}");
                let again = bench.resume(more("and more", key)).await;
                let is_over = nth == APPENDS && moment == Moment::After;
                let heard = match again {
                    Ok(report) => said(&report.items),
                    Err(failure) => {
                        assert!(matches!(failure.error, RunError::Finished { .. }), "{failure:?}");
                        assert!(is_over, "{nth} {moment:?}");
                        let harness = bench.harness(bench.journal.clone());
                        said(harness.state(&Bench::run()).await.unwrap().history())
                    }
                };
                // After the run's end the words alone cannot tell a repeat; a key can.
                let times = if is_over && key.is_none() { 2 } else { 1 };
                assert_eq!(heard.len(), 1 + times, "{nth} {moment:?} {key:?}: {heard:?}");
                assert_eq!(bench.world.lock().workspace.lines, ["a"]);
            }
        }
        let bench = Bench::new(TURNS);
        bench.begin().await.unwrap();
        let lived = bench.process(more("and more", key), Some((APPENDS + 1, Moment::Before))).await;
        assert!(matches!(lived, Some(Ok(_))), "{lived:?}");
    }
}

#[tokio::test]
async fn a_run_that_waits_for_an_approval_takes_no_input() {
    let bench = Bench::new(ASKS);
    let waits = error(bench.begin().await);
    assert!(matches!(waits, RunError::Paused { reason: PauseReason::Approval { .. } }), "{waits}");
    let before = bench.outline().await;
    let refused = error(bench.resume(more("hurry", None)).await);
    let RunError::InputRefused { waits_for: PauseReason::Approval { steps } } = &refused else {
        panic!("{refused}");
    };
    assert_eq!(steps, &[StepId { turn: 1, call: 0 }]);
    insta::assert_snapshot!(refused, @"the run takes no input while it waits for approval of step 1.0; do that first, or together with it");
    assert_eq!(bench.outline().await, before, "nothing was written");
    // With the answer there it does, and the model reads it after the results.
    bench.answer().await;
    let report = bench.resume(more("thanks", None)).await.unwrap();
    assert_eq!(
        (report.output.as_str(), said(&report.items)),
        ("one", vec!["go".into(), "thanks".into()])
    );
    assert!(matches!(&*report.items[2], Item::ToolResult(_)), "{:?}", report.items);
}

#[tokio::test]
async fn a_run_whose_agent_has_changed_goes_on_as_a_fork_with_the_input() {
    let bench = Bench::new(TURNS);
    bench.begin().await.unwrap();
    let mut resume = more("and more", None);
    resume.request.instructions = Some("be brief".into());
    let changed = error(bench.resume(resume.clone()).await);
    assert!(matches!(changed, RunError::Changed { .. }), "{changed}");
    resume.on_changed = OnChanged::Fork;
    let report = bench.resume(resume).await.unwrap();
    assert_ne!(report.run, Bench::run());
    assert_eq!(said(&report.items), ["go", "and more"]);
}

#[tokio::test]
async fn nobody_comes_between_a_hold_and_its_resume() {
    let bench = Bench::new(ASKS);
    bench.begin().await.unwrap_err();
    let run = Bench::run();
    let hold = async || {
        let clock = Arc::new(FixedClock::at(0));
        Hold::take(bench.journal.clone(), clock, &run, "first", Duration::from_secs(30)).await
    };
    let held = hold().await.unwrap();
    let driven = error(bench.resume(request()).await);
    assert!(matches!(driven, RunError::Journal(JournalError::Leased { .. })), "{driven}");
    let second = hold().await.unwrap_err();
    assert!(matches!(second, JournalError::Leased { .. }), "{second}");

    // The answer goes through the hold, and so does the run.
    let harness = bench.harness(bench.journal.clone());
    let step = StepId { turn: 1, call: 0 };
    harness.answer_held(&held, step, ApprovalVerdict::Approved, "owner", "").await.unwrap();
    let again = harness.answer_held(&held, step, ApprovalVerdict::Refused, "owner", "").await;
    assert!(matches!(again, Err(RunError::NotAwaited { .. })), "{again:?}");
    let driven = error(bench.resume(request()).await);
    assert!(matches!(driven, RunError::Journal(JournalError::Leased { .. })), "{driven}");
    let report = harness.resume_held(held, request()).await.unwrap();
    assert_eq!(report.output, "one");

    // A hold that is given back, or that a refused request used up, leaves the run to anybody.
    hold().await.unwrap().release().await.unwrap();
    let over = error(harness.resume_held(hold().await.unwrap(), request()).await);
    assert!(matches!(over, RunError::Finished { .. }), "{over}");
    assert_eq!(bench.resume(more("and more", None)).await.unwrap().output, "two");
}
