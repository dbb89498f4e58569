//! What a person or a program sees of a run: one observer for each of terminal, plain lines and JSON.

mod json;
mod lines;
mod price;
pub(crate) mod record;
mod terminal;

use std::{io::IsTerminal, sync::Arc};

use cofferdam::harness::RunObserver;

pub(crate) use price::Price;

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

    /// Makes the observer; with a price it shows what the run costs.
    pub(crate) fn observer(self, price: Option<Price>) -> Arc<dyn RunObserver> {
        match self {
            Self::Terminal => Arc::new(terminal::TerminalObserver::new(price)),
            Self::Lines => Arc::new(lines::LineObserver(price)),
            Self::Json => Arc::new(json::JsonObserver),
        }
    }
}
