//! `cofferdam run`: an agent file from the model's first word to the outputs on disk.

use std::{
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use cofferdam::{
    Agent, AgentError, Session, SystemClock, SystemEntropy,
    agent::AgentBuilder,
    core::{Clock as _, RunId},
    harness::{RunError, RunReport, RunRequest, RunState},
    journal::{JournalError, PauseReason},
    manifest::{AgentFile, EvaluationSpec},
    models::{self, ModelOptions},
    sandbox::SandboxError,
    workspace::CollectError,
};
use serde::Serialize;
use tokio::task::JoinHandle;

use super::file::read;
use crate::{
    arguments::RunArguments,
    display::Style,
    evaluation::{Evaluation, evaluate},
    exit::{Exit, Failure},
    job::Job,
    state::State,
};

pub(crate) async fn run(arguments: RunArguments) -> Result<Exit, Failure> {
    let state = if arguments.no_state { None } else { Some(State::open(&arguments.state)?) };
    let run = arguments.run_id.clone();
    let prepared = Prepared::new(arguments, state)?;
    let run = run.unwrap_or_else(|| RunId::generate(SystemClock.now(), &SystemEntropy));
    prepared.play(run).await
}

/// An agent that is set up, and where its outputs go.
pub(crate) struct Prepared {
    pub(crate) agent: Agent,
    arguments: RunArguments,
    file: AgentFile,
    base: PathBuf,
    task: String,
    style: Style,
    state: Option<State>,
}

/// A run that has ended, and the sandbox that it ended in.
pub(crate) struct Played {
    pub(crate) run: RunId,
    pub(crate) session: Session,
    pub(crate) result: Result<RunReport, AgentError>,
}

impl Prepared {
    /// Sets an agent up; touches nothing yet but the files that are named.
    pub(crate) fn new(arguments: RunArguments, state: Option<State>) -> Result<Self, Failure> {
        let source = read(&arguments.file)?;
        let file = AgentFile::parse(&source.text, &source.name).map_err(Failure::usage)?;
        let task = arguments.task.clone().or_else(|| file.task.clone()).ok_or_else(|| {
            Failure::usage(anyhow::anyhow!(
                "{} has no `task`; give one after the file",
                source.name
            ))
        })?;
        let style = Style::choose(arguments.json);
        let builder = builder(&file, &source.base, &arguments, state.is_some())?;
        let builder = match &state {
            Some(state) => builder.state(state.directory().clone()),
            None => builder,
        };
        let agent = builder.build().map_err(Failure::usage)?;
        Ok(Self { agent, arguments, file, base: source.base, task, style, state })
    }

    /// Runs the agent from its beginning.
    async fn play(self, run: RunId) -> Result<Exit, Failure> {
        if let Some(state) = &self.state {
            Job::of_this_process()?.save(state.path(), &run)?;
        }
        let session = match self.agent.open_as(run.clone()).await {
            Ok(session) => session,
            Err(error) => {
                // Nothing is recorded of the run yet.
                if let Some(state) = &self.state {
                    Job::remove(state.path(), &run)?;
                }
                return Err(failure(error));
            }
        };
        self.tell(&filled(&session));
        let mut request = session.request(self.task.clone());
        self.dress(&mut request);
        let watch = cancel_on_interrupt(&request);
        let result = session.run_as(run.clone(), request).await;
        watch.abort();
        self.conclude(Played { run, session, result }).await
    }

    /// Gives a request its observer.
    pub(crate) fn dress(&self, request: &mut RunRequest) {
        request.observer = self.style.observer(self.arguments.price);
    }

    /// Returns what a run that is over reported, from its records.
    pub(crate) fn report(&self, run: &RunId, state: &RunState) -> RunReport {
        RunReport {
            run: run.clone(),
            output: state.last_words().map_or_else(String::new, |words| words.text.clone()),
            turns: state.turns(),
            tool_calls: state.tool_calls(),
            usage: state.usage(),
            items: state.history().to_vec(),
        }
    }

    /// Copies the outputs out, closes the sandbox, and says how the run ended.
    pub(crate) async fn conclude(&self, played: Played) -> Result<Exit, Failure> {
        let Played { run, session, result } = played;
        // A fork that was made because the agent had changed has a name of its own.
        let run = match &result {
            Ok(report) => report.run.clone(),
            Err(AgentError::Run(failure)) => failure.run.clone(),
            Err(_) => run,
        };
        if let Some((reason, is_input_refused)) = paused(&result) {
            session.close().await.map_err(failure)?;
            let waiting = waiting(&run, &reason);
            return Err(Failure::new(
                Exit::Paused,
                if is_input_refused { waiting.context("the input was not taken") } else { waiting },
            ));
        }
        let result = match result {
            Err(error) if is_refused(&error) => {
                // Nothing of the run has changed; its sandbox waits as it did before.
                session.leave();
                return Err(failure(error));
            }
            result => result,
        };
        // What the agent wrote is kept however the run ended: half a result is better than none.
        let directory = self.arguments.out.join(run.as_str());
        set_aside(&directory)?;
        let mut session = session;
        let mut outputs = self.collect(&session, &directory).await;
        for _ in 0..COLLECT_AGAIN {
            // A sandbox may be lost after the run's end too; its workspace is in the last checkpoint.
            if self.state.is_none() || !outputs.as_ref().is_err_and(is_loss) {
                break;
            }
            set_aside(&directory)?;
            session = self.agent.reopen(&run, None).await.map_err(failure)?;
            outputs = self.collect(&session, &directory).await;
        }
        session.close().await.map_err(failure)?;

        let missing = outputs.map_err(failure)?;
        if let (Some(_), Err(AgentError::Run(failure))) = (&self.state, &result)
            && !matches!(failure.error, RunError::Aborted { .. })
        {
            self.tell(&format!("`cofferdam resume {run}` goes on with it"));
        }
        let report = result.map_err(failure)?;
        let evaluations = evaluations(&self.file, &self.base, &directory)?;
        finish(self.style, &report.output, &directory, &evaluations, &missing)?;
        Ok(if missing.is_empty() { Exit::Done } else { Exit::OutputMissing })
    }

    /// Copies the declared outputs out; returns those that are missing and not optional.
    async fn collect(
        &self,
        session: &Session,
        directory: &Path,
    ) -> Result<Vec<String>, AgentError> {
        if self.file.outputs.is_empty() {
            return Ok(Vec::new());
        }
        let collected = session.collect(&self.file.outputs, directory).await?;
        for skipped in &collected.skipped {
            self.tell(&format!("left out {}: {}", skipped.path, skipped.reason));
        }
        Ok(collected.missing.iter().map(ToString::to_string).collect())
    }

    /// Says something to a person.
    pub(crate) fn tell(&self, line: &str) {
        if self.style != Style::Json {
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        }
    }
}

/// How often outputs are copied out again, from a sandbox in the place of one that was lost.
const COLLECT_AGAIN: u32 = 2;

/// Whether the sandbox was lost while its outputs were copied out; whatever else failed would fail again.
fn is_loss(error: &AgentError) -> bool {
    matches!(error, AgentError::Outputs(CollectError::Sandbox { source, .. }) if source.is_loss())
}

/// Whether a run was not driven at all.
fn is_refused(error: &AgentError) -> bool {
    match error {
        AgentError::Run(failure) => matches!(
            failure.error,
            RunError::Changed { .. }
                | RunError::Exists { .. }
                | RunError::Finished { .. }
                | RunError::NoSuchRun { .. }
                | RunError::NotAwaited { .. }
        ),
        AgentError::Answer(_) | AgentError::Journal(JournalError::Leased { .. }) => true,
        _ => false,
    }
}

/// Makes room for the outputs of a run that has been ended before: what is there gets another name.
fn set_aside(directory: &Path) -> Result<(), Failure> {
    if !directory.exists() {
        return Ok(());
    }
    let mut other = directory.to_owned();
    let mut number = 0;
    while other.exists() {
        number += 1;
        other = directory.with_extension(number.to_string());
    }
    std::fs::rename(directory, &other).with_context(|| {
        format!("cannot rename {}, the outputs of an earlier end", directory.display())
    })?;
    Ok(())
}

/// Cancels a run at Ctrl-C, until the task is aborted.
pub(crate) fn cancel_on_interrupt(request: &RunRequest) -> JoinHandle<()> {
    let cancel = request.cancel.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            cancel.cancel();
        }
    })
}

/// Returns what a run waits for, if it was paused, and whether it took no input for that.
fn paused(result: &Result<RunReport, AgentError>) -> Option<(PauseReason, bool)> {
    match result {
        Err(AgentError::Run(failure)) => match &failure.error {
            RunError::Paused { reason } => Some((reason.clone(), false)),
            RunError::InputRefused { waits_for } => Some((waits_for.clone(), true)),
            _ => None,
        },
        _ => None,
    }
}

/// Says what a paused run waits for, and the command that goes on with it.
fn waiting(run: &RunId, reason: &PauseReason) -> anyhow::Error {
    let how = match reason {
        PauseReason::Approval { .. } => "--approve` or `--refuse",
        PauseReason::Decision { .. } => "--decide run-again`, `tell-model` or `abort",
        PauseReason::Workspace { .. } => "--decide accept-workspace` or `abort",
        _ => "",
    };
    let how = if how.is_empty() { String::new() } else { format!(" with `{how}`") };
    anyhow::anyhow!("run {run} waits for {reason}; go on with `cofferdam resume {run}`{how}")
}

fn builder(
    file: &AgentFile,
    base: &Path,
    arguments: &RunArguments,
    is_kept: bool,
) -> Result<AgentBuilder, Failure> {
    let choice = match &arguments.model {
        Some(text) => text.parse().map_err(Failure::usage)?,
        None => models::choose(&file.model),
    };
    // A script that the file names lies beside the file; one that the caller names lies where the caller stands.
    let scripts = if arguments.model.is_some() { Path::new(".") } else { base };
    let options = ModelOptions {
        base_url: arguments.base_url.clone().or_else(|| file.model.base_url.clone()),
        api_key: file.model.api_key.clone(),
    };
    let model = models::open(&choice, &options, scripts).map_err(Failure::usage)?;
    let builder = Agent::from_file(file, base)
        .shared_model(model)
        .backend(arguments.place.backend()?)
        .strict(arguments.place.strict);
    let builder = match arguments.place.root() {
        Some(root) => builder.root(root),
        None => builder,
    };
    let asks = std::io::stdin().is_terminal() && !arguments.json;
    Ok(match (asks, is_kept) {
        (true, _) => builder.approver(Arc::new(super::approve::TerminalApprover)),
        // Somebody may answer later: the run waits in its journal.
        (false, true) => builder.approver(Arc::new(super::approve::LaterApprover)),
        (false, false) => builder,
    })
}

#[derive(Debug, Serialize)]
struct NamedEvaluation {
    name: String,
    precision: f64,
    recall: f64,
    #[serde(flatten)]
    evaluation: Evaluation,
}

fn evaluations(
    file: &AgentFile,
    base: &Path,
    directory: &Path,
) -> Result<Vec<NamedEvaluation>, Failure> {
    file.evaluations.iter().map(|spec| compare(spec, base, directory)).collect()
}

fn compare(
    spec: &EvaluationSpec,
    base: &Path,
    directory: &Path,
) -> Result<NamedEvaluation, Failure> {
    let text = |path: PathBuf| {
        std::fs::read_to_string(&path)
            .with_context(|| format!("evaluation {:?} cannot read {}", spec.name, path.display()))
    };
    let expected = text(base.join(&spec.expected))?;
    let found = text(directory.join(spec.output.as_str()))?;
    let evaluation = evaluate(&expected, &found, &spec.key, &spec.compare);
    Ok(NamedEvaluation {
        name: spec.name.clone(),
        precision: evaluation.precision(),
        recall: evaluation.recall(),
        evaluation,
    })
}

fn finish(
    style: Style,
    output: &str,
    directory: &Path,
    evaluations: &[NamedEvaluation],
    missing: &[String],
) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let mut write = |text: String| out.write_all(text.as_bytes()).context(crate::exit::NOT_WRITTEN);
    if style == Style::Json {
        let summary = serde_json::json!({
            "type": "result",
            "output": output,
            "directory": directory,
            "evaluations": evaluations,
            "missing_outputs": missing,
        });
        write(format!("{summary}\n"))?;
        return Ok(());
    }
    write(format!("\n{output}\n\n"))?;
    if directory.exists() {
        write(format!("outputs: {}\n", directory.display()))?;
    }
    for path in missing {
        write(format!("missing output: {path}\n"))?;
    }
    for NamedEvaluation { name, precision, recall, evaluation } in evaluations {
        write(format!(
            "evaluation {name}: precision {precision:.3}, recall {recall:.3} ({} found, {} in the truth, {} in both)\n",
            evaluation.found, evaluation.expected, evaluation.matched
        ))?;
        for (field, agreed) in &evaluation.agreement {
            write(format!("  {field} agrees in {agreed} of {}\n", evaluation.matched))?;
        }
    }
    Ok(())
}

/// Sorts a failure by what the caller can do next.
pub(super) fn failure(error: AgentError) -> Failure {
    let exit = match &error {
        AgentError::Run(run) if matches!(run.error, RunError::Cancelled) => Exit::Cancelled,
        AgentError::Sandbox(
            SandboxError::HostUnable { .. } | SandboxError::Unenforceable { .. },
        ) => Exit::HostUnable,
        error if is_refused(error) => Exit::Usage,
        AgentError::Workspace(_) | AgentError::Tools(_) | AgentError::NoSuchRun { .. } => {
            Exit::Usage
        }
        _ => Exit::Failed,
    };
    Failure::new(exit, error)
}

/// Says in one line what the workspace was filled with.
fn filled(session: &Session) -> String {
    let entries = &session.materialized().entries;
    let (files, bytes) =
        entries.iter().fold((0, 0), |(f, b), entry| (f + entry.files, b + entry.bytes));
    format!(
        "sandbox {}: {files} files, {:.1} MB in the workspace",
        session.sandbox().id(),
        bytes as f64 / 1e6
    )
}
