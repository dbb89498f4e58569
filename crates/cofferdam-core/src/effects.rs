//! What a tool call does to the world, known before it runs: the ground for policy, for parallelism and for resuming.

use serde::{Deserialize, Serialize};

/// Facts on one tool call, from its tool and its input.
///
/// The default assumes the worst: an unknown effect that writes and uses the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effects {
    /// What repeating the call would do.
    pub class: EffectClass,
    /// Whether it may change the workspace or anything else.
    pub writes: bool,
    /// Whether it may reach beyond the sandbox and the control plane.
    pub network: bool,
}

/// What repeating a call would do; decides how a call of unknown outcome is resolved after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EffectClass {
    /// It changes nothing: run it again.
    Pure,
    /// Running it twice is as running it once: run it again.
    Idempotent,
    /// The other party tells repeats apart by a key: send it again with the same key.
    Keyed,
    /// What happened can be asked of the sandbox: ask.
    Probe,
    /// Nothing is known: a person or a policy decides.
    Unknown,
}

impl Effects {
    /// A call that changes nothing.
    pub const PURE: Self = Self { class: EffectClass::Pure, writes: false, network: false };

    /// Returns true if calls like this may run at the same time as others like it.
    #[must_use]
    pub fn allows_parallel(self) -> bool {
        !self.writes
    }
}

impl Default for Effects {
    fn default() -> Self {
        Self { class: EffectClass::Unknown, writes: true, network: true }
    }
}

/// The place of a step in a run; never the model's own call id, which changes when a model is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StepId {
    /// The model turn, from 1.
    pub turn: u32,
    /// The tool call in that turn's response, from 0.
    pub call: u32,
}

impl std::fmt::Display for StepId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.turn, self.call)
    }
}
