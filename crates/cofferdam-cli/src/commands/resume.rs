//! `cofferdam resume`: goes on with a run, set up again as it was started.

use std::io::Read;

use cofferdam::{
    Agent, AgentError, Session,
    checkpoint::CheckpointId,
    core::{RunId, StepId},
    harness::{GivenDecision, GivenInput, OnChanged, ResumeRequest},
    journal::{ApprovalVerdict, Decision, PauseReason, RunOutcome},
    tool::ApprovalState,
};

use anyhow::{Context as _, anyhow};

use super::run::{Played, Prepared, failure};
use crate::{
    arguments::{DecisionChoice, ResumeArguments},
    block_on,
    exit::{Exit, Failure},
    job::Job,
    state::State,
};

/// Goes on with a run. Not async: the working directory of the process becomes that of the run before anything else begins.
pub(crate) fn resume(arguments: ResumeArguments) -> Result<Exit, Failure> {
    let state = State::open(&arguments.state)?;
    let mut started = Job::load(state.path(), &arguments.run)?.take_up()?;
    started.json = arguments.json;
    let input = arguments.input.as_deref().map(|text| input(text, std::io::stdin()));
    let input = input
        .transpose()?
        .map(|text| GivenInput { key: arguments.input_key.clone(), ..GivenInput::text(text) });
    block_on(async move {
        let prepared = Prepared::new(started, Some(state))?;
        go_on(prepared, arguments, input).await
    })
}

/// More than anybody types, and no more than a model reads: 1 MiB.
const MAX_INPUT_BYTES: u64 = 1 << 20;

/// Reads what the model is to be told.
fn input(text: &str, stdin: impl Read) -> Result<String, Failure> {
    let mut read = text.to_owned();
    if text == "-" {
        read.clear();
        stdin
            .take(MAX_INPUT_BYTES + 1)
            .read_to_string(&mut read)
            .context("cannot read the input from standard input as text")
            .map_err(Failure::usage)?;
    }
    if read.trim().is_empty() {
        return Err(Failure::usage(anyhow!(
            "the input is empty; write what the model is to be told"
        )));
    }
    if read.len() as u64 > MAX_INPUT_BYTES {
        return Err(Failure::usage(anyhow!(
            "the input is longer than {MAX_INPUT_BYTES} bytes; write it to a file, and tell the model where that is"
        )));
    }
    Ok(read)
}

async fn go_on(
    prepared: Prepared,
    arguments: ResumeArguments,
    input: Option<GivenInput>,
) -> Result<Exit, Failure> {
    let run = &arguments.run;
    let records = prepared.agent.records(run).await.map_err(failure)?;
    let pause = records.state.pause().cloned();
    let was_given =
        |given: &GivenInput| given.key.as_ref().is_some_and(|key| records.state.has_heard(key));
    let is_over = match records.state.outcome() {
        Some(RunOutcome::Completed) => input.as_ref().is_none_or(was_given),
        Some(RunOutcome::Aborted) => true,
        _ => false,
    };
    check_answers(&arguments, pause.as_ref(), is_over)?;
    let back_to = match &arguments.back_to {
        Some(text) => Some(checkpoint(&prepared.agent, run, text).await?),
        None => None,
    };
    if is_over {
        return conclude_again(prepared, &records.state, run).await;
    }
    let session = prepared.agent.reopen(run, back_to).await.map_err(failure)?;
    let result = answer_and_resume(&prepared, &session, &arguments, input, pause.as_ref()).await;
    prepared.conclude(Played { run: run.clone(), session, result }).await
}

/// Refuses an answer to what was not asked.
fn check_answers(
    arguments: &ResumeArguments,
    pause: Option<&PauseReason>,
    is_over: bool,
) -> Result<(), Failure> {
    let state = match pause {
        _ if is_over => "it has ended".to_owned(),
        Some(reason) => format!("it waits for {reason}"),
        None => "it waits for nothing".to_owned(),
    };
    let answers = arguments.approve || arguments.refuse;
    let wrong = if answers && (is_over || !matches!(pause, Some(PauseReason::Approval { .. }))) {
        "is not asking for an approval"
    } else if arguments.decide.is_some() && is_over {
        "has nothing to decide"
    } else if arguments.back_to.is_some() && is_over {
        "is not taken back by itself; say what it is to do there with `--input`"
    } else {
        return Ok(());
    };
    Err(Failure::usage(anyhow!("run {} {wrong}: {state}", arguments.run)))
}

/// Finds the checkpoint that somebody means: by the record that it is of, as `runs show` names it, or by its whole name.
async fn checkpoint(agent: &Agent, run: &RunId, text: &str) -> Result<CheckpointId, Failure> {
    let all = agent.checkpoints(run).await.map_err(failure)?;
    let is_meant = |id: &&CheckpointId| {
        let at = id.at().to_string();
        text == at || text == id.to_string() || text == format!("{run}.{at}")
    };
    let mut meant = all.iter().filter(is_meant);
    match (meant.next(), meant.next()) {
        (Some(id), None) => Ok(id.clone()),
        (None, _) => {
            let records: Vec<_> = all.iter().rev().take(20).map(|id| id.at().to_string()).collect();
            Err(Failure::usage(anyhow!(
                "run {run} has no checkpoint {text}; its newest are those of the records {}",
                records.join(", ")
            )))
        }
        _ => Err(Failure::usage(anyhow!(
            "run {run} has several checkpoints of this record; name one whole, as `cofferdam runs tail {run} --json` shows it"
        ))),
    }
}

async fn answer_and_resume(
    prepared: &Prepared,
    session: &Session,
    arguments: &ResumeArguments,
    input: Option<GivenInput>,
    pause: Option<&PauseReason>,
) -> Result<cofferdam::harness::RunReport, AgentError> {
    let run = &arguments.run;
    if arguments.approve || arguments.refuse {
        let verdict =
            if arguments.approve { ApprovalVerdict::Approved } else { ApprovalVerdict::Refused };
        let steps: &[StepId] = match pause {
            Some(PauseReason::Approval { steps }) => steps,
            _ => &[],
        };
        for step in steps {
            // Whoever saw the process die does not know whether the answer was taken.
            let is_given = match prepared.agent.records(run).await?.state.approval(*step) {
                ApprovalState::Approved => arguments.approve,
                ApprovalState::Refused { .. } => arguments.refuse,
                _ => false,
            };
            if is_given {
                continue;
            }
            session.answer(*step, verdict.clone(), user(), arguments.reason.as_str()).await?;
        }
    }
    let mut request: ResumeRequest = session.resume_request();
    request.decision = arguments.decide.map(|choice| GivenDecision {
        step: match pause {
            Some(PauseReason::Decision { step, .. }) => Some(*step),
            _ => None,
        },
        decision: decision(choice),
        by: user(),
        reason: arguments.reason.clone(),
    });
    request.input = input;
    if arguments.fork {
        request.on_changed = OnChanged::Fork;
    }
    prepared.dress(&mut request.request);
    let watch = super::run::cancel_on_interrupt(&request.request);
    let result = session.resume(request).await;
    watch.abort();
    result
}

/// A run that is over is not resumed; its outputs are copied out again, for a process that died before it had done so.
async fn conclude_again(
    prepared: Prepared,
    state: &cofferdam::harness::RunState,
    run: &RunId,
) -> Result<Exit, Failure> {
    if matches!(state.outcome(), Some(RunOutcome::Aborted)) {
        return Err(Failure::usage(anyhow!("run {run} was ended by a decision")));
    }
    prepared.tell(&format!("run {run} had ended; its outputs are copied out again"));
    let session = prepared.agent.reopen(run, None).await.map_err(failure)?;
    let report = prepared.report(run, state);
    prepared.conclude(Played { run: run.clone(), session, result: Ok(report) }).await
}

fn decision(choice: DecisionChoice) -> Decision {
    match choice {
        DecisionChoice::RunAgain => Decision::RunAgain,
        DecisionChoice::TellModel => Decision::TellModel,
        DecisionChoice::AcceptWorkspace => Decision::AcceptWorkspace,
        DecisionChoice::Abort => Decision::Abort,
    }
}

/// Who decides, for the record.
#[expect(clippy::disallowed_methods, reason = "the login name is what records show of a person")]
fn user() -> String {
    let name = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    name.unwrap_or_else(|_| format!("user {}", rustix::process::getuid().as_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, stdin: &[u8], expect: &str) {
        let got = match input(text, stdin) {
            Ok(text) => text,
            Err(failure) => format!("{:?}: {:#}", failure.exit, failure.error),
        };
        assert!(got.starts_with(expect), "{text:?} {got:?}");
    }

    #[test]
    fn input_is_words_or_standard_input() {
        check("and the dates", b"not read", "and the dates");
        check("--verbose, please", b"", "--verbose, please");
        check("-", b"from a pipe\n", "from a pipe\n");
        check("-", &vec![b'x'; 1 << 20], "xxx");
        check(" ", b"", "Usage: the input is empty");
        check("-", b"\n", "Usage: the input is empty");
        check("-", b"\xff", "Usage: cannot read the input from standard input as text");
        check("-", &vec![b'x'; (1 << 20) + 1], "Usage: the input is longer than 1048576 bytes");
    }
}
