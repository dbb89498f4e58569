//! What a person or a program sees of a run: one observer for each of terminal, plain lines and JSON.

mod json;
mod lines;
mod terminal;

use std::{io::IsTerminal, sync::Arc};

use cofferdam::harness::RunObserver;

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// A line that changes while the run goes on, and a line for each step.
    Terminal,
    /// A line for each step.
    Lines,
    /// An object for each event on standard output, and nothing else there.
    Json,
}

impl Style {
    /// Chooses by where standard error goes, since that is where progress is shown.
    pub(crate) fn choose(json: bool) -> Self {
        if json {
            Self::Json
        } else if std::io::stderr().is_terminal() {
            Self::Terminal
        } else {
            Self::Lines
        }
    }

    /// Makes the observer.
    pub(crate) fn observer(self) -> Arc<dyn RunObserver> {
        match self {
            Self::Terminal => Arc::new(terminal::TerminalObserver::new()),
            Self::Lines => Arc::new(lines::LineObserver),
            Self::Json => Arc::new(json::JsonObserver),
        }
    }
}
