//! What the tests are made of: agents, scripts, and what they aim at on the host.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use cofferdam::{
    Agent, AgentBuilder, StateDirectory,
    core::{RunId, WorkspacePath},
    journal::{Record, Seq},
    manifest::{Entry, Manifest},
    model::{Model, ScriptedModel},
    sandbox::Sandbox,
    sandbox_linux::LinuxBackend,
};
use futures::TryStreamExt;

/// Returns a script with one command per turn, and last words. What comes after `=>` is what the next turn expects of the
/// command's output.
pub(crate) fn script(commands: &[&str]) -> ScriptedModel {
    let mut yaml = "name: test\nturns:\n".to_owned();
    let mut expect = String::new();
    for line in commands {
        let (command, output) = line.split_once(" => ").unwrap_or((line, ""));
        let arguments = serde_json::json!({ "cmd": command, "yield_time_ms": 30_000 });
        yaml += &format!("- {{{expect}items: [{{call: exec_command, arguments: {arguments}}}]}}\n");
        expect = match output {
            "" => String::new(),
            output => format!("expect: {{last_output_contains: [{output:?}]}}, "),
        };
    }
    yaml += &format!("- {{{expect}items: [{{message: all is done}}]}}\n");
    ScriptedModel::from_yaml(&yaml).expect("a script")
}

/// Returns an agent that keeps its runs.
pub(crate) fn agent(state: &Path, model: ScriptedModel) -> AgentBuilder {
    agent_with(state, Arc::new(model))
}

/// As [`agent`], with any model.
pub(crate) fn agent_with(state: &Path, model: Arc<dyn Model>) -> AgentBuilder {
    let workspace = Manifest::builder()
        .entry("notes/today.txt", Entry::file("buy milk\n"))
        .build()
        .expect("a manifest");
    let sandboxes = LinuxBackend::default().with_state_directory(state.join("sandboxes"));
    Agent::builder("kept")
        .shared_model(model)
        .backend(Arc::new(sandboxes))
        .workspace(workspace, ".")
        .state(StateDirectory::open(state).expect("a state directory"))
}

/// Reads the records of a run.
pub(crate) async fn records(state: &Path, run: &RunId) -> Vec<Record> {
    let state = StateDirectory::open(state).expect("a state directory");
    state.journal().read(run, Seq(1)).try_collect().await.expect("records")
}

/// Names the kinds of records, in order.
pub(crate) fn kinds(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|record| {
            let value = serde_json::to_value(&record.body).expect("JSON");
            value["kind"].as_str().unwrap_or("unknown").to_owned()
        })
        .collect()
}

/// Counts the records of a kind.
pub(crate) fn count(records: &[Record], kind: &str) -> usize {
    kinds(records).iter().filter(|found| *found == kind).count()
}

/// Reads a text of the workspace.
pub(crate) async fn text(sandbox: &dyn Sandbox, path: &str) -> String {
    let path = WorkspacePath::new(path).expect("a path");
    let bytes = sandbox.files().read(&path, 0, 1 << 20).await.expect("a file");
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Writes a text into the workspace.
pub(crate) async fn write(sandbox: &dyn Sandbox, path: &str, content: &str) {
    let path = WorkspacePath::new(path).expect("a path");
    let content = content.to_owned().into();
    sandbox.files().write(&path, content, &Default::default()).await.expect("written");
}

/// Waits until something is there; real processes do not follow a paused clock.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Returns the process of the host in which a command with this text in its arguments runs inside a sandbox.
pub(crate) fn process_with(text: &str) -> Option<u32> {
    let processes = fs::read_dir("/proc").expect("processes");
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| namespace_pid(*pid).is_some())
        .find(|pid| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&arguments).contains(text)
        })
}

/// Kills the first process of the sandbox in which a process runs, and so the sandbox.
pub(crate) fn kill_sandbox_of(pid: u32) {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted = namespace(pid).expect("a namespace");
    let processes = fs::read_dir("/proc").expect("processes");
    let first = processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| namespace_pid(*pid) == Some(1) && namespace(*pid).as_ref() == Some(&wanted))
        .expect("the first process of the sandbox");
    kill(first);
}

pub(crate) fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
}

/// Returns the pid of a process in its own namespace, if that is not the host's.
fn namespace_pid(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    let pids: Vec<u32> = line.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    pids.last().copied().filter(|_| pids.len() > 1)
}
