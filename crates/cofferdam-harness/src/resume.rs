//! Going on with a run: [`Harness::resume`], [`Harness::answer`], [`Harness::fork`] and [`Harness::state`].

use std::sync::Arc;

use cofferdam_core::{Item, RunId, StepId};
use cofferdam_journal::{
    ApprovalVerdict, Decision, Fork, JournalWriter, PauseReason, RecordBody, RunOutcome, Seq,
    content_hash,
};
use cofferdam_tool::ApprovalState;
use futures::TryStreamExt;
use serde_json::Value;

use crate::{
    GivenDecision, Harness, Hold, OnChanged, OnUnknown, ResumeRequest, RunError, RunEvent,
    RunFailure, RunReport, RunRequest, RunState,
    recall::Recall,
    run::Run,
    setup::Setup,
    state::{CallState, Next, Restored, workspace_notice},
    tap::SharedState,
};

impl Harness {
    /// Reads what the records of a run say. Takes no lease: a run that is driven goes on meanwhile.
    ///
    /// # Errors
    ///
    /// [`RunError::NoSuchRun`], [`RunError::Journal`].
    pub async fn state(&self, run: &RunId) -> Result<RunState, RunError> {
        self.state_until(run, Seq(u64::MAX)).await
    }

    /// Goes on with a run that another process left, or that was paused, failed or cancelled, and drives it to its end.
    ///
    /// What the journal has is not done again: answers of the model, results of calls. A call with an intent and no result is
    /// settled by its class, by its tool, or by [`ResumeRequest::decision`].
    ///
    /// # Errors
    ///
    /// [`RunFailure`] with one of
    ///
    /// - [`RunError::NoSuchRun`], [`RunError::Finished`]: there is nothing to go on with;
    /// - [`RunError::Changed`]: the agent is not what it was, and [`OnChanged::Refuse`] was said;
    /// - [`RunError::Paused`]: what the run waits for is not there yet; nothing was written then;
    /// - [`RunError::InputRefused`]: the same, of a request with input, which was not taken;
    /// - [`RunError::NotAwaited`]: it does not wait for the decision that was given;
    /// - [`RunError::Journal`]: somebody else drives the run;
    /// - whatever ends a fresh run.
    ///
    /// # Cancel safety
    ///
    /// As [`Harness::run`]: a run whose future is dropped can be resumed.
    pub async fn resume(
        &self,
        run: &RunId,
        resume: ResumeRequest,
    ) -> Result<RunReport, Box<RunFailure>> {
        let failed = |error| Box::new(RunFailure::before(run.clone(), error));
        // Looked at first, so that a wrong name makes no run.
        self.state_until(run, Seq(1)).await.map_err(failed)?;
        let shared = SharedState::default();
        let writer = self.open(run, &resume.request, &shared).await;
        let writer = writer.map_err(RunError::Journal).map_err(failed)?;
        self.go_on(run, writer, shared, resume).await
    }

    /// As [`Harness::resume`], with a run that this process holds already. Nobody can have driven it since.
    ///
    /// # Errors
    ///
    /// As [`Harness::resume`]. The run is not held any more then.
    ///
    /// # Cancel safety
    ///
    /// As [`Harness::resume`].
    pub async fn resume_held(
        &self,
        hold: Hold,
        resume: ResumeRequest,
    ) -> Result<RunReport, Box<RunFailure>> {
        let run = hold.run().clone();
        let shared = SharedState::default();
        let writer = self.open_held(&hold, &resume.request, &shared).await;
        let failed = |error| Box::new(RunFailure::before(run.clone(), error));
        let writer = writer.map_err(RunError::Journal).map_err(failed)?;
        drop(hold);
        self.go_on(&run, writer, shared, resume).await
    }

    async fn go_on(
        &self,
        run: &RunId,
        writer: Arc<JournalWriter>,
        shared: SharedState,
        resume: ResumeRequest,
    ) -> Result<RunReport, Box<RunFailure>> {
        let failed = |error| Box::new(RunFailure::before(run.clone(), error));
        let prepared = self.take_over(run, &writer, &shared, &resume).await;
        match prepared {
            Ok(None) => {
                let ResumeRequest { request, .. } = resume;
                Run::new(self.parts(), writer, shared, request, None).drive().await
            }
            Ok(Some((input, fork))) => {
                writer.release().await.map_err(RunError::Journal).map_err(failed)?;
                let id = RunId::generate(self.parts().clock.now(), &*self.parts().entropy);
                self.begin(id, RunRequest { input, ..resume.request }, Some(fork)).await
            }
            Err(error) => {
                // What was wrong with the request tells more than a lease that could not be given back.
                let _ = writer.release().await;
                let (turns, usage) = shared.with(|state| (state.turns(), state.usage()));
                Err(Box::new(RunFailure { run: run.clone(), turns, usage, error }))
            }
        }
    }

    /// Answers a call that waits for approval. The run is not driven by this: resume it.
    ///
    /// # Errors
    ///
    /// [`RunError::NoSuchRun`]; [`RunError::NotAwaited`] if the call was not asked about, or was answered;
    /// [`RunError::Journal`] if somebody drives the run at this moment.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the answer is recorded or not.
    pub async fn answer(
        &self,
        run: &RunId,
        step: StepId,
        verdict: ApprovalVerdict,
        by: impl Into<String>,
        reason: impl Into<String>,
    ) -> Result<(), RunError> {
        self.state_until(run, Seq(1)).await?;
        let shared = SharedState::default();
        let writer = self.open(run, &RunRequest::new("", ""), &shared).await?;
        let answer = Answer { step, verdict, by: by.into(), reason: reason.into() };
        let answered = self.record_answer(run, &writer, answer).await;
        let released = writer.release().await;
        answered.and(released.map_err(RunError::Journal))
    }

    /// As [`Harness::answer`], for a run that this process holds, and goes on to hold.
    ///
    /// # Errors
    ///
    /// As [`Harness::answer`].
    ///
    /// # Cancel safety
    ///
    /// As [`Harness::answer`].
    pub async fn answer_held(
        &self,
        hold: &Hold,
        step: StepId,
        verdict: ApprovalVerdict,
        by: impl Into<String>,
        reason: impl Into<String>,
    ) -> Result<(), RunError> {
        let shared = SharedState::default();
        let writer = self.open_held(hold, &RunRequest::new("", ""), &shared).await?;
        let answer = Answer { step, verdict, by: by.into(), reason: reason.into() };
        self.record_answer(hold.run(), &writer, answer).await
    }

    async fn record_answer(
        &self,
        run: &RunId,
        writer: &JournalWriter,
        answer: Answer,
    ) -> Result<(), RunError> {
        let Answer { step, verdict, by, reason } = answer;
        match self.state(run).await?.approval(step) {
            ApprovalState::Asked => {}
            ApprovalState::Unasked => {
                let reason = format!("nobody was asked about step {step}");
                return Err(RunError::NotAwaited { reason });
            }
            given => {
                let reason = format!("step {step} was answered already: {given:?}");
                return Err(RunError::NotAwaited { reason });
            }
        }
        writer.append(RecordBody::ApprovalGiven { step, verdict, by, reason }).await?;
        Ok(())
    }

    /// Begins a new run that goes on from a place in another, which is left as it is: `at` its end, or an earlier record, such
    /// as that of a checkpoint. The conversation is that of the other run, then `request.input`. Calls that have no result
    /// there are answered with what is known, and are not run.
    ///
    /// `checkpoint` names what the workspace was restored from, for the record.
    ///
    /// # Errors
    ///
    /// [`RunError::NoSuchRun`], and whatever ends a fresh run.
    ///
    /// # Cancel safety
    ///
    /// As [`Harness::run`].
    pub async fn fork(
        &self,
        parent: &RunId,
        at: Option<Seq>,
        checkpoint: Option<String>,
        request: RunRequest,
    ) -> Result<RunReport, Box<RunFailure>> {
        let failed = |error| Box::new(RunFailure::before(parent.clone(), error));
        let state = self.state_until(parent, at.unwrap_or(Seq(u64::MAX))).await.map_err(failed)?;
        let mut input = state.conversation();
        input.extend(request.input);
        let fork = Fork { run: parent.clone(), seq: state.seq(), checkpoint };
        let id = RunId::generate(self.parts().clock.now(), &*self.parts().entropy);
        self.begin(id, RunRequest { input, ..request }, Some(fork)).await
    }

    /// Folds a run's records up to one.
    async fn state_until(&self, run: &RunId, last: Seq) -> Result<RunState, RunError> {
        self.read(run, last, |_| {}).await
    }

    /// As [`Harness::state_until`], and shows each record.
    async fn read(
        &self,
        run: &RunId,
        last: Seq,
        mut each: impl FnMut(&RecordBody) + Send,
    ) -> Result<RunState, RunError> {
        let mut state = RunState::default();
        let mut records = self.parts().journal.read(run, Seq(1));
        while let Some(record) = records.try_next().await? {
            if record.seq > last {
                break;
            }
            each(&record.body);
            state.fold(record.seq, record.time, &record.body);
        }
        match state.begun() {
            Some(_) => Ok(state),
            None => Err(RunError::NoSuchRun { run: run.clone() }),
        }
    }

    /// Reads a run that is leased, checks that it can go on as asked, and records that it does. Returns what a fork begins with, if
    /// it is to be one.
    async fn take_over(
        &self,
        run: &RunId,
        writer: &Arc<JournalWriter>,
        shared: &SharedState,
        resume: &ResumeRequest,
    ) -> Result<Option<(Vec<Item>, Fork)>, RunError> {
        let mut recall = Recall::new(&self.parts().tools);
        let mut state = self.read(run, Seq(u64::MAX), |body| recall.fold(body)).await?;
        let input = new_input(&state, resume);
        match state.next() {
            Next::Finished(RunOutcome::Completed) if input.is_some() => {}
            Next::Finished(outcome) => {
                return Err(RunError::Finished { run: run.clone(), outcome });
            }
            _ => {}
        }
        let begun = state.begun().ok_or_else(|| RunError::NoSuchRun { run: run.clone() })?;
        let agent = begun.agent.clone();
        let model = self.parts().stacks.model_name().to_owned();
        let differences =
            Setup::of(&resume.request, &model, &self.parts().tools).differences(begun);
        if !differences.is_empty() {
            return match resume.on_changed {
                OnChanged::Refuse => Err(RunError::Changed { differences }),
                OnChanged::Fork => {
                    let (mut items, fork) = fork_of(run, state, resume)?;
                    if let Some(RecordBody::InputGiven { items: more, .. }) = input {
                        items.extend(more);
                    }
                    Ok(Some((items, fork)))
                }
            };
        }
        if let Some(still) = still_waits(&state, resume) {
            return Err(match input {
                Some(_) => RunError::InputRefused { waits_for: still.clone() },
                None => RunError::Paused { reason: still.clone() },
            });
        }
        let records = state.seq();
        let owner = self.parts().owner.clone();
        let mut entries = vec![RecordBody::RunResumed { owner, records }];
        if !resume.same_sandbox {
            recall.lose();
            let sandbox = self.parts().keeper.as_ref().map_or(Value::Null, |k| k.sandbox());
            entries.push(RecordBody::SandboxReplaced {
                state: sandbox,
                checkpoint: resume.checkpoint.clone(),
                attempt: 0,
            });
        }
        if let Some(given) = &resume.decision {
            check_decision(&state, resume, given)?;
            entries.push(RecordBody::DecisionGiven {
                step: given.step,
                decision: given.decision.clone(),
                by: given.by.clone(),
                reason: given.reason.clone(),
            });
            if given.decision == Decision::AcceptWorkspace {
                let items = vec![workspace_notice()];
                entries.push(RecordBody::InputGiven { items, key: None });
            }
        }
        entries.extend(input);
        let turns = state.turns();
        shared.with(|shared| std::mem::swap(shared, &mut state));
        writer.append_all(entries).await?;
        let event = RunEvent::RunResumed { run: run.clone(), agent, model, turns, records };
        resume.request.observer.event(event).await;
        Ok(None)
    }
}

/// Somebody's answer to a call that waits for approval.
struct Answer {
    step: StepId,
    verdict: ApprovalVerdict,
    by: String,
    reason: String,
}

/// The input of a request as a record, unless the run was given it before.
fn new_input(state: &RunState, resume: &ResumeRequest) -> Option<RecordBody> {
    let given = resume.input.as_ref()?;
    let key = given.key.clone().unwrap_or_else(|| {
        // Items are made of strings, numbers and JSON values, none of which can fail to serialise.
        let items = serde_json::to_string(&given.items).unwrap_or_default();
        content_hash(format!("{}\n{items}", state.stopped()).as_bytes())
    });
    (!state.has_heard(&key))
        .then(|| RecordBody::InputGiven { items: given.items.clone(), key: Some(key) })
}

/// What a paused run still waits for, if this request does not bring it.
fn still_waits<'a>(state: &'a RunState, resume: &ResumeRequest) -> Option<&'a PauseReason> {
    let pause = state.pause()?;
    let waits = match pause {
        PauseReason::Approval { steps } => {
            steps.iter().any(|step| state.approval(*step) == ApprovalState::Asked)
        }
        // In a fresh sandbox, or by another policy, it may settle itself.
        PauseReason::Decision { .. } => {
            resume.decision.is_none()
                && resume.same_sandbox
                && resume.request.options.on_unknown == OnUnknown::Pause
        }
        PauseReason::Workspace { .. } => resume.decision.is_none() && resume.same_sandbox,
        _ => false,
    };
    waits.then_some(pause)
}

/// Refuses a decision on what needs none.
fn check_decision(
    state: &RunState,
    resume: &ResumeRequest,
    given: &GivenDecision,
) -> Result<(), RunError> {
    let fits = match (given.step, &given.decision) {
        (_, Decision::Unknown(_)) => false,
        (Some(_), Decision::AcceptWorkspace) => false,
        (Some(step), _) => state
            .open_turn()
            .and_then(|open| open.call(step))
            .is_some_and(|call| matches!(call.state, CallState::Intended(_))),
        (None, Decision::AcceptWorkspace) => {
            matches!(state.next(), Next::DecideWorkspace { .. }) || !resume.same_sandbox
        }
        (None, Decision::Abort) => true,
        (None, _) => false,
    };
    if fits {
        return Ok(());
    }
    let about = match given.step {
        Some(step) => format!("step {step}"),
        None => "the workspace".to_owned(),
    };
    let reason = format!("there is nothing to decide on {about} with {:?}", given.decision);
    Err(RunError::NotAwaited { reason })
}

/// What a fork begins with: the conversation, as far as the workspace has it.
fn fork_of(
    run: &RunId,
    mut state: RunState,
    resume: &ResumeRequest,
) -> Result<(Vec<Item>, Fork), RunError> {
    let seq = state.seq();
    if !resume.same_sandbox {
        let at = state.checkpoint_at(resume.checkpoint.as_deref()).unwrap_or(Seq(1));
        match state.restored_to(at) {
            Restored::Holds => {}
            Restored::Rewind { to } => state.rewind(seq, to),
            Restored::Undecided { why } => {
                let checkpoint = resume.checkpoint.clone();
                let accepted = resume
                    .decision
                    .as_ref()
                    .is_some_and(|given| given.decision == Decision::AcceptWorkspace);
                if !accepted {
                    let reason = PauseReason::Workspace { checkpoint, why };
                    return Err(RunError::Paused { reason });
                }
                let mut items = state.conversation();
                items.push(workspace_notice());
                let fork = Fork { run: run.clone(), seq, checkpoint: resume.checkpoint.clone() };
                return Ok((items, fork));
            }
        }
    }
    let fork = Fork { run: run.clone(), seq, checkpoint: resume.checkpoint.clone() };
    Ok((state.conversation(), fork))
}
