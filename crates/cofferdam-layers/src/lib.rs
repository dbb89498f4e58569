//! Tower layers for model and tool calls: audit, policy, budget, journal, retry, rate, deadline
