//! A world that outlives the harness: a workspace with checkpoints, and something outside of it, both of which count what is
//! done to them. Its tools have one class of effects each.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use cofferdam_core::{EffectClass, Effects, ToolInputSpec, ToolOutput, ToolSpec};
use cofferdam_harness::{
    CheckpointPoint, CheckpointTaken, KeeperError, Recovered, WorkspaceKeeper,
};
use cofferdam_tool::{ProbeOutcome, Tool, ToolContext, ToolError, ToolInput};
use serde_json::{Value, json};

#[derive(Debug, Clone, Default)]
pub(crate) struct Workspace {
    /// What was written, in order.
    pub(crate) lines: Vec<String>,
    /// The calls that wrote, by key: what the sandbox can be asked for.
    pub(crate) calls: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) workspace: Workspace,
    pub(crate) checkpoints: Vec<Workspace>,
    /// Outside of the sandbox: effects by key; the keyed party counts each key once.
    pub(crate) sent: BTreeMap<String, u32>,
    pub(crate) acted: BTreeMap<String, u32>,
    pub(crate) reads: u32,
    /// Calls of `write`, by all processes.
    pub(crate) writes: u32,
    /// The sandbox dies in this call of `write`, counted from 1: before it wrote, or after.
    pub(crate) dies: Vec<(u32, Moment)>,
    /// The sandbox dies in this checkpoint, counted from 1.
    pub(crate) dies_in_checkpoint: Option<usize>,
    pub(crate) lost: Option<String>,
    pub(crate) recoveries: u32,
    pub(crate) finished: u32,
    /// The probe cannot tell.
    pub(crate) is_mute: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Moment {
    Before,
    After,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct World(Arc<Mutex<Inner>>);

impl World {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// All tools, one for each class.
    pub(crate) fn tools(&self) -> Vec<Arc<dyn Tool>> {
        let effects = |class, writes, network| Effects { class, writes, network };
        [
            ("read", Effects::PURE),
            ("write", effects(EffectClass::Probe, true, false)),
            ("send", effects(EffectClass::Keyed, true, true)),
            ("act", effects(EffectClass::Unknown, true, true)),
        ]
        .into_iter()
        .map(|(name, effects)| -> Arc<dyn Tool> {
            let spec = ToolSpec {
                name: name.into(),
                description: format!("{name}, for tests"),
                input: ToolInputSpec::Json { schema: json!({"type": "object"}), strict: false },
            };
            Arc::new(WorldTool { world: self.clone(), spec, effects })
        })
        .collect()
    }

    pub(crate) fn keeper(&self) -> Arc<dyn WorkspaceKeeper> {
        Arc::new(WorldKeeper(self.clone()))
    }

    /// The sandbox dies and a fresh one takes its place, with the workspace of a checkpoint (`c1`, …) or none.
    pub(crate) fn replace_sandbox(&self, checkpoint: Option<&str>) {
        let mut inner = self.lock();
        inner.workspace = match checkpoint {
            Some(name) => {
                let place: usize = name.strip_prefix('c').unwrap().parse().unwrap();
                inner.checkpoints[place - 1].clone()
            }
            None => Workspace::default(),
        };
        inner.lost = None;
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lock().workspace.lines.clone()
    }
}

#[derive(Debug)]
struct WorldTool {
    world: World,
    spec: ToolSpec,
    effects: Effects,
}

#[async_trait]
impl Tool for WorldTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effects(&self, _: &ToolInput) -> Effects {
        self.effects
    }

    fn touches_sandbox(&self, _: &ToolInput) -> bool {
        self.spec.name != "send"
    }

    async fn call(&self, context: &ToolContext, input: ToolInput) -> Result<ToolOutput, ToolError> {
        // Lets what runs at the same time begin.
        tokio::task::yield_now().await;
        let text: String = input.decode_field("text").unwrap_or_default();
        let key = context.idempotency_key.to_string();
        let mut inner = self.world.lock();
        let lost = |reason: &str| ToolError::SandboxLost(reason.to_owned().into());
        match self.spec.name.as_str() {
            "read" => {
                inner.reads += 1;
                return Ok(ToolOutput::text(inner.workspace.lines.join(" ")));
            }
            "write" => {
                if inner.lost.is_some() {
                    return Err(lost("it is gone"));
                }
                inner.writes += 1;
                let nth = inner.writes;
                let dies = inner.dies.iter().find(|(at, _)| *at == nth).map(|(_, moment)| *moment);
                if dies != Some(Moment::Before) {
                    let twice = inner.workspace.calls.insert(key, text.clone());
                    assert_eq!(twice, None, "a call wrote twice in one workspace");
                    inner.workspace.lines.push(text.clone());
                }
                if dies.is_some() {
                    inner.lost = Some("it was killed".into());
                    return Err(lost("the stream broke"));
                }
            }
            "send" => *inner.sent.entry(key).or_default() = 1,
            _ => *inner.acted.entry(key).or_default() += 1,
        }
        Ok(ToolOutput::text(format!("did {text}")))
    }

    async fn intend(&self, context: &ToolContext, _: &ToolInput) -> Result<Value, ToolError> {
        Ok(match self.effects.class {
            EffectClass::Probe => json!({"name": &*context.idempotency_key}),
            _ => Value::Null,
        })
    }

    async fn probe(
        &self,
        _: &ToolContext,
        _: &ToolInput,
        intended: &Value,
    ) -> Result<ProbeOutcome, ToolError> {
        let inner = self.world.lock();
        if let Some(reason) = &inner.lost {
            return Err(ToolError::SandboxLost(reason.clone().into()));
        }
        if inner.is_mute {
            return Ok(ProbeOutcome::Unknown { why: "the sandbox says nothing".into() });
        }
        Ok(match inner.workspace.calls.get(intended["name"].as_str().unwrap()) {
            Some(text) => ProbeOutcome::Finished(ToolOutput::text(format!("did {text}"))),
            None => ProbeOutcome::NotStarted,
        })
    }
}

#[derive(Debug)]
struct WorldKeeper(World);

#[async_trait]
impl WorkspaceKeeper for WorldKeeper {
    fn sandbox(&self) -> Value {
        json!({"sandbox": self.0.lock().recoveries})
    }

    async fn checkpoint(&self, point: CheckpointPoint) -> Result<CheckpointTaken, KeeperError> {
        let mut inner = self.0.lock();
        if inner.dies_in_checkpoint == Some(inner.checkpoints.len() + 1) {
            inner.dies_in_checkpoint = None;
            inner.lost = Some("it died in a checkpoint".into());
        }
        if let Some(reason) = &inner.lost {
            return Err(KeeperError::Lost { reason: reason.clone() });
        }
        let copy = inner.workspace.clone();
        inner.checkpoints.push(copy);
        let checkpoint = format!("c{}", inner.checkpoints.len());
        Ok(CheckpointTaken {
            snapshot: Some(format!("s{}", inner.checkpoints.len())),
            checkpoint,
            at: point.at,
            turn: point.turn,
            sandbox: Value::Null,
            receipt: json!({"files": inner.workspace.lines.len()}),
            running: Vec::new(),
        })
    }

    async fn is_lost(&self) -> Option<String> {
        self.0.lock().lost.clone()
    }

    async fn recover(
        &self,
        last: Option<&CheckpointTaken>,
        _: u32,
    ) -> Result<Recovered, KeeperError> {
        let checkpoint = last.map(|taken| taken.checkpoint.clone());
        self.0.replace_sandbox(checkpoint.as_deref());
        let mut inner = self.0.lock();
        inner.recoveries += 1;
        Ok(Recovered { sandbox: json!({"sandbox": inner.recoveries}), checkpoint })
    }

    async fn finish(&self) -> Result<(), KeeperError> {
        self.0.lock().finished += 1;
        Ok(())
    }
}
