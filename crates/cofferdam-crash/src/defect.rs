//! [`Defect`]: guarantees that are broken on purpose. A suite that does not notice is worth nothing.

use std::{fmt, str::FromStr};

use anyhow::Context as _;

/// A guarantee that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// The journal acknowledges records before it has written them.
    EarlyJournal,
    /// Tools run before the intent is in the journal.
    LateIntent,
    /// A tool whose effect is not to be repeated says that it may be.
    LyingTool,
    /// The journal does not give back the last answer of the model, so that the model is asked again.
    ForgottenAnswer,
    /// The journal does not give back the last result of a tool.
    ForgottenResult,
    /// A tool is given another key each time.
    NewKeys,
    /// The object store acknowledges objects before it has written them.
    EarlyObjects,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::EarlyJournal,
        Self::LateIntent,
        Self::LyingTool,
        Self::ForgottenAnswer,
        Self::ForgottenResult,
        Self::NewKeys,
        Self::EarlyObjects,
    ];
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::EarlyJournal => "early-journal",
            Self::LateIntent => "late-intent",
            Self::LyingTool => "lying-tool",
            Self::ForgottenAnswer => "forgotten-answer",
            Self::ForgottenResult => "forgotten-result",
            Self::NewKeys => "new-keys",
            Self::EarlyObjects => "early-objects",
        })
    }
}

impl FromStr for Defect {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let found = Self::ALL.into_iter().find(|defect| defect.to_string() == text);
        found.with_context(|| format!("no defect {text:?}"))
    }
}
