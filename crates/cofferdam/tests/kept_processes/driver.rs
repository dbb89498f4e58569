//! [`Driver`]: a process that drives a run until it is killed, and the runs that it can drive.

use std::{
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
};

use async_trait::async_trait;
use cofferdam::{
    Agent, AgentBuilder,
    core::Item,
    model::{Model, ModelError, ModelEvent, ModelRequest, ScriptedModel},
};
use futures::{StreamExt as _, stream::BoxStream};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::common::{agent, agent_with, kill, script};

/// A run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scenario {
    /// One command waits for a file, and its process dies meanwhile.
    Waiting,
    /// A program on a terminal is talked to before its process dies and after.
    Terminal,
}

impl Scenario {
    const ALL: [(&str, Self); 2] = [("waiting", Self::Waiting), ("terminal", Self::Terminal)];

    /// Returns the agent of the run, the same in each process.
    pub(crate) fn agent(self, state: &Path) -> Agent {
        self.builder(state).build().expect("an agent")
    }

    pub(crate) fn builder(self, state: &Path) -> AgentBuilder {
        let wait = format!(
            ": {}; echo effect >> effects; while ! test -e go; do sleep 0.05; done",
            token(state)
        );
        match self {
            Self::Waiting => {
                let wait = format!("{wait}; echo really; exit 3 => really");
                agent(state, script(&["echo one > a", &wait, "cat a effects"]))
            }
            Self::Terminal => agent_with(state, Arc::new(Talker(talk(&wait)))),
        }
    }

    fn name(self) -> &'static str {
        let named = Self::ALL.iter().find(|(_, scenario)| *scenario == self);
        named.map(|(name, _)| *name).expect("each has a name")
    }
}

/// The text by which the command that waits is found on the host.
pub(crate) fn token(state: &Path) -> String {
    state.file_name().expect("a name").to_string_lossy().into_owned()
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

/// Is the process that is killed.
pub(crate) fn drive(scenario: &str, state: &str) -> ExitCode {
    let (_, scenario) =
        Scenario::ALL.into_iter().find(|(name, _)| *name == scenario).expect("a scenario");
    let ended = runtime().block_on(scenario.agent(Path::new(state)).run("go"));
    panic!("the run has ended before its process: {ended:?}");
}

/// A process that drives a run; killed at the end of a test that fails.
pub(crate) struct Driver(Child);

impl Driver {
    pub(crate) fn start(scenario: Scenario, state: &Path) -> Self {
        let program = std::env::current_exe().expect("this program");
        let child = Command::new(program)
            .args(["drive", scenario.name()])
            .arg(state)
            .stdout(Stdio::null())
            .spawn()
            .expect("started");
        Self(child)
    }

    /// Kills it, and waits until nothing of it is left.
    pub(crate) fn kill(mut self) {
        kill(self.0.id());
        self.0.wait().expect("ended");
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It has ended already where the test went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Stands in a script for the id of the session, which no script can know.
const SESSION: u32 = 424_242;

/// A program that counts what it is told, and remembers.
const PROGRAM: &str =
    "stty -echo; n=0; echo ready; while read line; do n=$((n+1)); echo \"$n $line\"; done; exit 7";

/// A program on a terminal is told `a`; a command waits; the program is told `b` and to end.
fn talk(wait: &str) -> ScriptedModel {
    let told = |chars: &str| {
        ("write_stdin", json!({ "session_id": SESSION, "chars": chars, "yield_time_ms": 1000 }))
    };
    let begin = json!({ "cmd": PROGRAM, "tty": true, "yield_time_ms": 1000 });
    let wait = json!({ "cmd": wait, "yield_time_ms": 30_000 });
    let turns =
        [("exec_command", begin), told("a\n"), ("exec_command", wait), told("b\n"), told("\u{4}")];
    let mut yaml = "name: talk\nturns:\n".to_owned();
    for (tool, arguments) in turns {
        yaml += &format!("- items: [{{call: {tool}, arguments: {arguments}}}]\n");
    }
    yaml += "- items: [{message: all is done}]\n";
    ScriptedModel::from_yaml(&yaml).expect("a script")
}

/// A scripted model that names the session that it was told of.
#[derive(Debug)]
struct Talker(ScriptedModel);

#[async_trait]
impl Model for Talker {
    fn name(&self) -> &str {
        self.0.name()
    }

    async fn stream(
        &self,
        request: ModelRequest,
    ) -> Result<BoxStream<'static, Result<ModelEvent, ModelError>>, ModelError> {
        let mut sessions = request.input.iter().filter_map(|item| match &**item {
            Item::ToolResult(result) => {
                result.output.structured.get("session_id").and_then(Value::as_u64)
            }
            _ => None,
        });
        let session = sessions.next_back().unwrap_or_default().to_string();
        let events = self.0.stream(request).await?;
        Ok(Box::pin(events.map(move |event| {
            event.map(|event| match event {
                ModelEvent::Completed(mut response) => {
                    for item in &mut response.items {
                        if let Item::ToolCall(call) = item {
                            call.input = call.input.replace(&SESSION.to_string(), &session);
                        }
                    }
                    ModelEvent::Completed(response)
                }
                event => event,
            })
        })))
    }
}
