//! `cofferdam run`: an agent file from the model's first word to the outputs on disk.

use std::{
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use cofferdam::{
    Agent, AgentError, Session,
    agent::AgentBuilder,
    harness::{RunError, RunRequest},
    manifest::{AgentFile, EvaluationSpec},
    models::{self, ModelOptions},
    sandbox::SandboxError,
};
use serde::Serialize;

use super::file::read;
use crate::{
    arguments::RunArguments,
    display::Style,
    evaluation::{Evaluation, evaluate},
    exit::{Exit, Failure},
};

pub(crate) async fn run(arguments: RunArguments) -> Result<Exit, Failure> {
    let source = read(&arguments.file)?;
    let file = AgentFile::parse(&source.text, &source.name).map_err(Failure::usage)?;
    let task = arguments.task.clone().or_else(|| file.task.clone()).ok_or_else(|| {
        Failure::usage(anyhow::anyhow!("{} has no `task`; give one after the file", source.name))
    })?;
    let style = Style::choose(arguments.json);
    let agent = builder(&file, &source.base, &arguments)?.build().map_err(Failure::usage)?;

    let session = agent.open().await.map_err(failure)?;
    tell(style, &filled(&session));
    let request = RunRequest { observer: style.observer(arguments.price), ..session.request(task) };
    let cancel = request.cancel.clone();
    let interrupted = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            cancel.cancel();
        }
    });
    let result = session.run(request).await;
    interrupted.abort();

    // What the agent wrote is kept however the run ended: half a result is better than none.
    let directory = arguments.out.join(run_name(&result));
    let outputs = collect(&session, &file, &directory, style).await;
    session.close().await.map_err(failure)?;

    let missing = outputs?;
    let report = result.map_err(failure)?;
    let evaluations = evaluations(&file, &source.base, &directory)?;
    finish(style, &report.output, &directory, &evaluations, &missing)?;
    Ok(if missing.is_empty() { Exit::Done } else { Exit::OutputMissing })
}

fn builder(
    file: &AgentFile,
    base: &Path,
    arguments: &RunArguments,
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
    Ok(if asks { builder.approver(Arc::new(super::approve::TerminalApprover)) } else { builder })
}

/// Names the directory of the outputs after the run.
fn run_name(result: &Result<cofferdam::harness::RunReport, AgentError>) -> String {
    match result {
        Ok(report) => report.run.to_string(),
        Err(AgentError::Run(failure)) => failure.run.to_string(),
        Err(_) => "failed".into(),
    }
}

/// Copies the declared outputs out; returns those that are missing and not optional.
async fn collect(
    session: &Session,
    file: &AgentFile,
    directory: &Path,
    style: Style,
) -> Result<Vec<String>, Failure> {
    if file.outputs.is_empty() {
        return Ok(Vec::new());
    }
    let collected = session.collect(&file.outputs, directory).await.map_err(failure)?;
    for skipped in &collected.skipped {
        tell(style, &format!("left out {}: {}", skipped.path, skipped.reason));
    }
    Ok(collected.missing.iter().map(ToString::to_string).collect())
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
    let mut write =
        |text: String| out.write_all(text.as_bytes()).context("cannot write to standard output");
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
        AgentError::Workspace(_) | AgentError::Tools(_) => Exit::Usage,
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

fn tell(style: Style, line: &str) {
    if style != Style::Json {
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
}
