//! Runs that die at every record, before it is there and after, and are gone on with: each effect happens once, and the model
//! hears what it would have heard.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod common;

use std::sync::Arc;

use cofferdam_core::{Item, RunId, StepId, ToolOutput, ToolResult};
use cofferdam_harness::{
    GivenDecision, Harness, OnUnknown, ResumeRequest, RunError, RunFailure, RunOptions, RunReport,
    RunRequest, RunState, state::Next,
};
use cofferdam_journal::{
    Decision, Journal, MemoryJournal, PauseReason, Record, RecordBody, RunOutcome,
};
use common::{
    Process,
    crash::{CrashJournal, CrashPoint},
    outline, outputs, records, script,
    world::{Moment, World},
};
use proptest::prelude::*;

/// One run in one world, driven by one process after the other.
struct Play {
    turns: String,
    world: World,
    journal: Arc<MemoryJournal>,
    options: RunOptions,
    with_keeper: bool,
    /// Whether each new process finds a fresh sandbox, with the workspace of the newest checkpoint.
    loses_sandbox: bool,
    decisions: u32,
}

impl Play {
    fn new(turns: &str) -> Self {
        Self {
            turns: turns.to_owned(),
            world: World::default(),
            journal: Arc::new(MemoryJournal::new(Arc::new(cofferdam_testkit::FixedClock::at(
                1_700_000_000_000,
            )))),
            options: RunOptions::default(),
            with_keeper: false,
            loses_sandbox: false,
            decisions: 0,
        }
    }

    fn run() -> RunId {
        RunId::new("r")
    }

    fn harness(&self, journal: Arc<dyn Journal>) -> Harness {
        let mut process = Process::new(script(&self.turns), self.world.tools(), journal);
        process.keeper = self.with_keeper.then(|| self.world.keeper());
        process.harness()
    }

    fn request(&self) -> RunRequest {
        RunRequest { options: self.options, ..RunRequest::new("demo", "go") }
    }

    /// Lets one process drive the run; `None` if it died at its point.
    async fn process(
        &mut self,
        dies: Option<CrashPoint>,
    ) -> Option<Result<RunReport, Box<RunFailure>>> {
        let journal = Arc::new(CrashJournal::new(self.journal.clone(), dies));
        let harness = self.harness(journal.clone());
        let state = harness.state(&Self::run()).await.ok();
        let drive = async {
            let Some(state) = state else {
                return harness.run_as(Self::run(), self.request()).await;
            };
            let mut resume = ResumeRequest::new(self.request());
            if self.loses_sandbox {
                let checkpoint = state.checkpoint().map(|taken| taken.checkpoint.clone());
                self.world.replace_sandbox(checkpoint.as_deref());
                (resume.same_sandbox, resume.checkpoint) = (false, checkpoint);
            }
            if let Some(PauseReason::Decision { step, .. }) = state.pause() {
                // The world knows what the harness cannot: somebody looked.
                let acted = self.world.lock().acted.contains_key(&format!("r/{step}"));
                let decision = if acted { Decision::TellModel } else { Decision::RunAgain };
                let (step, by) = (Some(*step), "somebody".to_owned());
                resume.decision = Some(GivenDecision { step, decision, by, reason: String::new() });
                self.decisions += 1;
            }
            harness.resume(&Self::run(), resume).await
        };
        tokio::select! {
            biased;
            () = journal.crashed() => None,
            result = drive => Some(result),
        }
    }

    /// Lets processes die at their points, then one that does not, until the run is done.
    async fn finish(&mut self, dies: &[CrashPoint]) -> Vec<Arc<Item>> {
        let mut dies = dies.iter().copied();
        for _ in 0..30 {
            match self.process(dies.next()).await {
                Some(Ok(report)) => {
                    assert_eq!(report.output, "done");
                    return report.items;
                }
                Some(Err(failure)) if matches!(failure.error, RunError::Finished { .. }) => {
                    let harness = self.harness(self.journal.clone());
                    let state = harness.state(&Self::run()).await.unwrap();
                    assert!(matches!(state.next(), Next::Finished(RunOutcome::Completed)));
                    return state.history().to_vec();
                }
                Some(Err(failure)) => {
                    let waits = matches!(
                        &failure.error,
                        RunError::Paused { reason: PauseReason::Decision { .. } }
                    );
                    assert!(waits, "{failure:?}");
                }
                None => {}
            }
        }
        panic!("the run does not end: {}", outline(&records(&*self.journal, &Self::run()).await));
    }
}

const PURE: &str = "
  - items: [{call: read, arguments: {}}]
  - items: [{message: done}]
";
const KEYED: &str = "
  - items: [{call: send, arguments: {text: a}}]
  - items: [{call: send, arguments: {text: b}}, {call: send, arguments: {text: c}}]
  - items: [{message: done}]
";
const PROBE: &str = "
  - items: [{call: write, arguments: {text: a}}]
  - items: [{call: write, arguments: {text: b}}, {call: write, arguments: {text: c}}]
  - items: [{call: read, arguments: {}}]
  - items: [{message: done}]
";
const UNKNOWN: &str = "
  - items: [{call: act, arguments: {text: a}}]
  - items: [{call: act, arguments: {text: b}}, {call: read, arguments: {}}]
  - items: [{message: done}]
";
const PARALLEL: &str = "
  - items:
      - {call: read, arguments: {}}
      - {call: nope, arguments: {}}
      - {call: read, arguments: {}}
      - {call: write, arguments: {text: a}}
      - {call: read, arguments: {}}
      - {call: send, arguments: {text: b}}
      - {call: read, arguments: {}}
  - items: [{message: hm}, {call: write, arguments: {text: c}}]
  - items: [{message: done}]
";

/// What is there in the end, for comparison: what was told, and what was done.
fn ends(play: &Play, items: &[Arc<Item>]) -> String {
    let inner = play.world.lock();
    format!(
        "{:?} | {:?} | sent {:?} | acted {:?}",
        outputs(items),
        inner.workspace.lines,
        // A turn that was taken back is asked for again under a new number, and the keys of its calls are others.
        inner.sent.values(),
        inner.acted.values(),
    )
}

async fn reference(play: &mut Play) -> (String, u32) {
    let items = play.finish(&[]).await;
    let appends = records(&*play.journal, &Play::run()).await.len();
    (ends(play, &items), appends.try_into().unwrap())
}

/// Cuts a script at each of its records, before and after, and compares with the run that was not cut.
async fn check_every_cut(set: impl Fn() -> Play) {
    let (expect, appends) = reference(&mut set()).await;
    for nth in 1..=appends {
        for moment in [Moment::Before, Moment::After] {
            let mut play = set();
            let items = play.finish(&[(nth, moment)]).await;
            let journal = outline(&records(&*play.journal, &Play::run()).await);
            assert_eq!(ends(&play, &items), expect, "cut {moment:?} {nth}:\n{journal}");
            assert_eq!(play.decisions, 0, "cut {moment:?} {nth}:\n{journal}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_can_be_repeated_or_asked_for_is_done_once_wherever_a_process_dies() {
    for turns in [PURE, KEYED, PROBE, PARALLEL] {
        check_every_cut(|| Play::new(turns)).await;
        check_every_cut(|| Play { with_keeper: true, ..Play::new(turns) }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_fresh_sandbox_with_the_newest_checkpoint_does_as_well() {
    for turns in [PURE, KEYED, PROBE, PARALLEL] {
        check_every_cut(|| Play { with_keeper: true, loses_sandbox: true, ..Play::new(turns) })
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_can_know_is_decided_by_somebody_and_happens_once() {
    let (_, appends) = reference(&mut Play::new(UNKNOWN)).await;
    let mut asked = 0;
    for nth in 1..=appends {
        for moment in [Moment::Before, Moment::After] {
            let mut play = Play::new(UNKNOWN);
            play.finish(&[(nth, moment)]).await;
            let acted = play.world.lock().acted.clone();
            assert_eq!(acted.values().sum::<u32>(), 2, "cut {moment:?} {nth}: {acted:?}");
            assert!(acted.values().all(|count| *count == 1), "cut {moment:?} {nth}: {acted:?}");
            asked += play.decisions;
        }
    }
    assert_eq!(asked, 4, "after each intent, and before each result");
}

async fn unknown(on_unknown: OnUnknown) -> (Result<RunReport, Box<RunFailure>>, String) {
    let mut play = Play::new(UNKNOWN);
    play.options.on_unknown = on_unknown;
    // The result of the first call is the fifth record.
    assert!(play.process(Some((5, Moment::Before))).await.is_none());
    let result = play.process(None).await.unwrap();
    (result, outline(&records(&*play.journal, &Play::run()).await))
}

#[tokio::test(start_paused = true)]
async fn a_policy_may_decide_what_nobody_can_know() {
    let (told, journal) = unknown(OnUnknown::TellModel).await;
    insta::assert_snapshot!(outputs(&told.unwrap().items)[0], @"error: The outcome of this call is unknown: the run was interrupted while it ran, and its tool cannot tell. It may have had its effect, in whole or in part, or not at all. Look at what is there before you make it again.");
    insta::assert_snapshot!(journal, @r#"
    run_started
    model_requested turn=1
    model_responded turn=1
    tool_intended 1.0
    run_resumed
    tool_resolved 1.0 how="told"
    model_requested turn=2
    model_responded turn=2
    tool_intended 2.0
    tool_finished 2.0
    tool_intended 2.1
    tool_finished 2.1
    model_requested turn=3
    model_responded turn=3
    run_finished outcome={"outcome":"completed"}
    "#);
    let (paused, journal) = unknown(OnUnknown::Pause).await;
    insta::assert_snapshot!(paused.unwrap_err().error, @"the run waits for a decision on step 1.0 (act), whose outcome is unknown: the run was interrupted while it ran, and its tool cannot tell");
    insta::assert_snapshot!(journal.lines().last().unwrap(), @r#"run_paused reason={"step":{"call":0,"turn":1},"tool":"act","wait_for":"decision","why":"the run was interrupted while it ran, and its tool cannot tell"}"#);
    let (ended, _) = unknown(OnUnknown::Abort).await;
    insta::assert_snapshot!(ended.unwrap_err().error, @"the outcome of step 1.0 (act) is unknown: the run was interrupted while it ran, and its tool cannot tell");
}

/// Several deaths, in any order of tools, with and without a sandbox that survives them.
fn any_play() -> impl Strategy<Value = (String, bool, bool, Vec<CrashPoint>)> {
    let call = prop_oneof![
        Just("{call: read, arguments: {}}".to_owned()),
        "[a-z]".prop_map(|text| format!("{{call: write, arguments: {{text: {text}}}}}")),
        "[a-z]".prop_map(|text| format!("{{call: send, arguments: {{text: {text}}}}}")),
        Just("{call: nope, arguments: {}}".to_owned()),
    ];
    let turn = prop::collection::vec(call, 1..4)
        .prop_map(|calls| format!("  - items: [{}]\n", calls.join(", ")));
    let turns = prop::collection::vec(turn, 1..4)
        .prop_map(|turns| format!("{}  - items: [{{message: done}}]\n", turns.concat()));
    let moment = prop_oneof![Just(Moment::Before), Just(Moment::After)];
    let deaths = prop::collection::vec((1..12_u32, moment), 1..5);
    (turns, any::<bool>(), any::<bool>(), deaths)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn however_often_processes_die_the_end_is_the_same((turns, with_keeper, loses, deaths) in any_play()) {
        let loses_sandbox = with_keeper && loses;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let set = || Play { with_keeper, loses_sandbox, ..Play::new(&turns) };
            let (expect, _) = reference(&mut set()).await;
            let mut play = set();
            let items = play.finish(&deaths).await;
            let journal = records(&*play.journal, &Play::run()).await;
            assert_eq!(ends(&play, &items), expect, "{deaths:?}:\n{}", outline(&journal));

            // Folding is the same wherever it is cut, and says what a reading of the records from scratch says.
            let whole = RunState::from_records(&journal);
            for cut in 0..=journal.len() {
                let mut state = RunState::from_records(&journal[..cut]);
                assert_eq!(state.history(), conversation(&journal[..cut]), "{}", outline(&journal[..cut]));
                for record in &journal[cut..] {
                    state.fold(record.seq, record.time, &record.body);
                }
                assert_eq!(state, whole);
            }
        });
    }
}

/// The conversation that records tell of, by its definition: drop what was rewound, then take each answer whose calls all have
/// results, and the last one.
fn conversation(records: &[Record]) -> Vec<Arc<Item>> {
    let mut valid: Vec<&Record> = Vec::new();
    for record in records {
        if let RecordBody::RunRewound { to, .. } = &record.body {
            let turn = valid.iter().find_map(|earlier| match &earlier.body {
                RecordBody::ModelResponded { turn, .. } if earlier.seq == *to => Some(*turn),
                _ => None,
            });
            let wrote = |step: StepId| {
                valid.iter().any(|earlier| match &earlier.body {
                    RecordBody::ToolIntended { step: of, effects, outside, .. } => {
                        *of == step && effects.writes && !outside
                    }
                    _ => false,
                })
            };
            // Results of the answer's own calls stand, unless they changed the workspace.
            let stands: Vec<_> = valid
                .iter()
                .filter(|earlier| match &earlier.body {
                    RecordBody::ToolFinished { step, .. }
                    | RecordBody::ToolRefused { step, .. }
                    | RecordBody::ToolResolved { step, output: Some(_), .. } => {
                        Some(step.turn) == turn && !wrote(*step)
                    }
                    _ => false,
                })
                .copied()
                .collect();
            valid.retain(|earlier| earlier.seq <= *to);
            valid.extend(stands);
        }
        valid.push(record);
    }
    let result = |step: StepId| {
        valid.iter().find_map(|record| match &record.body {
            RecordBody::ToolFinished { step: of, output, error } if *of == step => {
                Some(output.clone().unwrap_or_else(|| ToolOutput::error(error.clone().unwrap())))
            }
            RecordBody::ToolRefused { step: of, reasons, .. } if *of == step => {
                Some(ToolOutput::error(reasons.join("; ")))
            }
            RecordBody::ToolResolved { step: of, output: Some(output), .. } if *of == step => {
                Some(output.clone())
            }
            _ => None,
        })
    };
    let mut items: Vec<Item> = Vec::new();
    for record in &valid {
        match &record.body {
            RecordBody::RunStarted { input, .. } => items.extend(input.iter().cloned()),
            RecordBody::ModelResponded { turn, items: answer, .. } => {
                items.extend(answer.iter().cloned());
                let calls = answer.iter().filter_map(|item| match item {
                    Item::ToolCall(call) => Some(call),
                    _ => None,
                });
                let results: Option<Vec<Item>> = (0..)
                    .zip(calls)
                    .map(|(place, call)| {
                        let output = result(StepId { turn: *turn, call: place })?;
                        Some(Item::ToolResult(ToolResult {
                            call_id: call.call_id.clone(),
                            name: call.name.clone(),
                            kind: call.kind.clone(),
                            output,
                        }))
                    })
                    .collect();
                items.extend(results.unwrap_or_default());
            }
            _ => {}
        }
    }
    items.into_iter().map(Arc::new).collect()
}
