//! A run in a sandbox, through the facade: as a program runs and resumes one that is kept.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::Result;
use cofferdam::{
    Agent, Session, StateDirectory,
    manifest::{Entry, Manifest, ToolName},
    snapshot::DurableLocal,
};
use cofferdam_sandbox::{SandboxBackend, SandboxSpec};
use cofferdam_sandbox_linux::LinuxBackend;

use super::{Drive, Parts, is_new, run, workspace};
use crate::{
    crashing::{CrashingBackend, CrashingObjectStore},
    ending::State,
    faulty, scenario, script,
};

pub(super) async fn drive(drive: &Drive, parts: &Parts) -> Result<State> {
    let agent = agent(drive, parts)?;
    let run = scenario::run();
    let (session, begin) = if is_new(&*parts.journal).await? {
        let session = agent.open_as(run).await?;
        let begin = run::Begin::Run(session.request(script::TASK));
        (session, begin)
    } else {
        let session = agent.reopen(&run, None).await?;
        let begin = run::Begin::Resume(session.resume_request(), session.take_hold().await);
        (session, begin)
    };
    let state = run::go_on(drive, parts, session.harness(), begin).await?;
    finish(session, state).await
}

/// Looks at the workspace of a run that is done, and closes its sandbox. A run that waits leaves its own.
async fn finish(session: Session, state: State) -> Result<State> {
    let State::Finished(mut end) = state else {
        session.leave();
        return Ok(state);
    };
    end.workspace = workspace::read(&**session.sandbox()).await?;
    session.close().await?;
    Ok(State::Finished(end))
}

fn backend(place: &Path) -> LinuxBackend {
    LinuxBackend::new().with_state_directory(place.join("sandboxes"))
}

/// Removes the sandboxes that wait for a process that will not come, and returns how many there were.
pub(super) async fn sweep(place: &Path) -> Result<usize> {
    let backend = backend(place);
    let left = backend.list().await?;
    for sandbox in &left {
        backend.remove(&sandbox.id).await?;
    }
    Ok(left.len())
}

/// Makes a sandbox and closes it.
pub(super) async fn try_sandbox(place: &Path, linger: Duration) -> Result<()> {
    let spec = SandboxSpec { linger, ..SandboxSpec::default() };
    Ok(backend(place).create(&spec).await?.close().await?)
}

fn agent(drive: &Drive, parts: &Parts) -> Result<Agent> {
    let objects = drive.place.join("objects");
    fs::create_dir_all(&objects)?;
    let objects = faulty::objects(Arc::new(DurableLocal::open(&objects)?), drive.defect);
    let objects = Arc::new(CrashingObjectStore::new(objects, Arc::clone(&parts.points)));
    let backend = CrashingBackend::new(
        Arc::new(backend(&drive.place)),
        drive.world.linger(),
        Arc::clone(&parts.points),
    );
    let manifest = Manifest::builder()
        .entry("lines", Entry::file("zero\n"))
        .entry("ledgers/old", Entry::file("closed\n"))
        .build()?;
    let mut agent = Agent::builder(script::AGENT)
        .shared_model(Arc::clone(&parts.model))
        .backend(Arc::new(backend))
        .workspace(manifest, &drive.place)
        .tools([ToolName::Shell, ToolName::ApplyPatch])
        .policy(run::policy())
        .approver(Arc::new(run::Person))
        .audit(Arc::new(run::NoAudit))
        .state(StateDirectory::with(
            Arc::clone(&parts.journal),
            objects,
            drive.place.join("workspaces"),
        )?);
    for tool in &parts.tools {
        agent = agent.tool(tool.clone());
    }
    Ok(agent.build()?)
}
