//! Lines for each step, and below them one line that changes while something goes on.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use cofferdam::{
    core::Usage,
    harness::{RunDelta, RunEvent, RunObserver},
};
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    Price,
    lines::{render, shorten, summary},
};

/// Draws on standard error.
#[derive(Debug)]
pub(super) struct TerminalObserver {
    bar: ProgressBar,
    price: Option<Price>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    turn: u32,
    usage: Usage,
    doing: String,
}

impl TerminalObserver {
    pub(super) fn new(price: Option<Price>) -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar, price, state: Mutex::default() }
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let cost = Price::show(self.price, state.usage);
        self.bar.set_message(format!("turn {}, {cost}: {}", state.turn, state.doing));
    }
}

#[async_trait]
impl RunObserver for TerminalObserver {
    async fn event(&self, event: RunEvent) {
        for line in render(&event, self.price) {
            self.bar.println(line);
        }
        match event {
            RunEvent::TurnStarted { turn } => self.update(|state| {
                state.turn = turn;
                state.doing = "the model answers".into();
            }),
            RunEvent::ModelAnswered { usage, .. } => self.update(|state| state.usage += usage),
            RunEvent::ToolStarted { tool, input, .. } => {
                self.update(|state| state.doing = shorten(&summary(&tool, &input)));
            }
            RunEvent::RunFinished { .. } => self.bar.finish_and_clear(),
            _ => {}
        }
    }

    fn delta(&self, delta: RunDelta) {
        if let RunDelta::Text { delta, .. } | RunDelta::ToolOutput { delta, .. } = delta
            && let Some(line) = delta.lines().rfind(|line| !line.trim().is_empty())
        {
            self.update(|state| state.doing = shorten(line));
        }
    }
}
