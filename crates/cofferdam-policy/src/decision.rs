//! What a policy answers.

use serde::{Deserialize, Serialize};

/// A verdict with the reasons for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What is to happen.
    pub verdict: Verdict,
    /// Why, for the model, for people and for the audit trail; the rule that decided comes first.
    pub reasons: Vec<String>,
}

/// What is to happen with a call; later variants are stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It runs.
    Allow,
    /// It runs if somebody says so.
    Ask,
    /// It does not run.
    Deny,
}

impl Decision {
    /// Allows without a reason.
    #[must_use]
    pub fn allow() -> Self {
        Self { verdict: Verdict::Allow, reasons: Vec::new() }
    }

    /// Denies for a reason.
    pub fn deny(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::Deny, reasons: vec![reason.into()] }
    }

    /// Asks, for a reason.
    pub fn ask(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ask, reasons: vec![reason.into()] }
    }
}
