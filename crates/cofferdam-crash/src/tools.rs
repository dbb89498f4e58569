//! [`LedgerTool`]: tools whose effect is a line in the ledger, one for each class of effects.

use std::io;

use async_trait::async_trait;
use cofferdam_core::{EffectClass, Effects, ToolInputSpec, ToolOutput, ToolSpec};
use cofferdam_tool::{ProbeOutcome, Tool, ToolContext, ToolError, ToolInput};
use serde_json::{Value, json};

use crate::ledger::{Deed, Ledger};

/// A tool that does one thing to the ledger.
#[derive(Debug)]
pub struct LedgerTool {
    spec: ToolSpec,
    class: EffectClass,
    does: Does,
    ledger: Ledger,
}

/// What a tool does to the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// It reads.
    Read,
    /// It writes each time that it is called.
    Write,
    /// It writes once for each key.
    WriteOnce,
    /// It fails.
    Fail,
}

/// The names of the tools.
pub mod names {
    /// Changes nothing.
    pub const LOOK: &str = "look";
    /// May be done again.
    pub const SET: &str = "set";
    /// Is done once for each key, by the other party.
    pub const PAY: &str = "pay";
    /// As [`PAY`], and only if a person approves.
    pub const TRANSFER: &str = "transfer";
    /// Is done each time; the other party can be asked.
    pub const BOOK: &str = "book";
    /// Is done each time, and nobody can be asked.
    pub const SEND: &str = "send";
    /// The product's own: changes the workspace, all of it or nothing, unless its process dies.
    pub const APPLY_PATCH: &str = "apply_patch";
    /// Fails, and changes nothing.
    pub const BREAK: &str = "break";
}

impl LedgerTool {
    /// Makes the tools.
    #[must_use]
    pub fn all(ledger: &Ledger) -> Vec<Self> {
        [
            (names::LOOK, EffectClass::Pure, Does::Read),
            (names::SET, EffectClass::Idempotent, Does::Write),
            (names::PAY, EffectClass::Keyed, Does::WriteOnce),
            (names::TRANSFER, EffectClass::Keyed, Does::WriteOnce),
            (names::BOOK, EffectClass::Probe, Does::Write),
            (names::SEND, EffectClass::Unknown, Does::Write),
            (names::BREAK, EffectClass::Idempotent, Does::Fail),
        ]
        .map(|(name, class, does)| Self {
            spec: ToolSpec {
                name: name.to_owned(),
                description: format!("{name}, in the ledger of the crash suite"),
                input: ToolInputSpec::Json {
                    schema: json!({
                        "type": "object",
                        "properties": {"what": {"type": "string"}},
                        "required": ["what"],
                    }),
                    strict: false,
                },
            },
            class,
            does,
            ledger: ledger.clone(),
        })
        .into()
    }

    /// Says of itself what is not true: that it may be called again.
    #[must_use]
    pub fn lying(self) -> Self {
        Self { class: EffectClass::Idempotent, ..self }
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    fn output(&self, what: &str) -> ToolOutput {
        ToolOutput::text(format!("{}: {what}", self.spec.name))
    }
}

fn broken(error: io::Error) -> ToolError {
    ToolError::Layer(Box::new(error))
}

#[async_trait]
impl Tool for LedgerTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effects(&self, _: &ToolInput) -> Effects {
        let outside = matches!(self.does, Does::Write | Does::WriteOnce);
        Effects { class: self.class, writes: outside, network: outside }
    }

    fn touches_sandbox(&self, _: &ToolInput) -> bool {
        false
    }

    async fn call(&self, context: &ToolContext, input: ToolInput) -> Result<ToolOutput, ToolError> {
        let what: String = input.decode_field("what")?;
        let (step, tool) = (context.step.to_string(), self.spec.name.clone());
        let key = context.idempotency_key.to_string();
        match self.does {
            Does::Read => self.ledger.read().map(drop),
            Does::Write => self.ledger.write(Deed::Effect { step, tool, key, what: what.clone() }),
            Does::Fail => {
                return Err(ToolError::Failed { message: format!("cannot break {what}") });
            }
            Does::WriteOnce => self.ledger.write_once(&step, &tool, &key, &what).map(drop),
        }
        .map_err(broken)?;
        Ok(self.output(&what))
    }

    async fn probe(
        &self,
        context: &ToolContext,
        _: &ToolInput,
        _: &Value,
    ) -> Result<ProbeOutcome, ToolError> {
        if self.class != EffectClass::Probe {
            return Ok(ProbeOutcome::Unknown { why: "the ledger is not to be asked".to_owned() });
        }
        Ok(match self.ledger.find(&context.idempotency_key).map_err(broken)? {
            Some(what) => ProbeOutcome::Finished(self.output(&what)),
            None => ProbeOutcome::NotStarted,
        })
    }
}
