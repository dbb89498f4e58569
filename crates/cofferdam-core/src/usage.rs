//! Token counts of model calls.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Tokens that model calls used; counts that a server does not report are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Model requests that were answered.
    pub requests: u64,
    /// Tokens read, those from a cache included.
    pub input_tokens: u64,
    /// Tokens read that came from a cache.
    pub cached_input_tokens: u64,
    /// Tokens written, those of reasoning included.
    pub output_tokens: u64,
    /// Tokens written as reasoning.
    pub reasoning_tokens: u64,
}

impl Usage {
    /// Returns input and output tokens together.
    #[must_use]
    pub fn total_tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.cached_input_tokens =
            self.cached_input_tokens.saturating_add(other.cached_input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.reasoning_tokens = self.reasoning_tokens.saturating_add(other.reasoning_tokens);
    }
}
