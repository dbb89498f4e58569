//! Pure decisions on tool calls: allow, deny or ask, each with its reasons.
//!
//! A [`Policy`] decides; it asks nobody and enforces nothing. Asking a person and refusing the call are a layer's work,
//! and confining what an allowed command does is the sandbox's.
//!
//! - [`decision`]: [`Decision`] and [`Verdict`].
//! - [`policy`]: [`Policy`] and the facts that it decides on.
//! - [`rules`]: [`RulePolicy`], a list of rules of which the strictest that matches wins.
//!
//! # Why do rules not match the text of commands?
//!
//! A shell command can hide any other (`sh -c`, `eval`, a script it wrote a minute ago), so a rule on its text promises
//! what it cannot keep. Rules here match what is known for certain: the tool, and whether the call writes or may reach
//! the network.
//!
//! ```
//! use cofferdam_core::Effects;
//! use cofferdam_policy::{Policy, PolicyRequest, Rule, RulePolicy, Verdict};
//!
//! let policy = RulePolicy::new([Rule::deny("mcp__*", "no remote tools in this project")]);
//! let request = |tool| PolicyRequest { tool, effects: Effects::PURE };
//! assert_eq!(policy.decide(&request("mcp__mail")).verdict, Verdict::Deny);
//! assert_eq!(policy.decide(&request("exec_command")).verdict, Verdict::Allow);
//! ```
#![forbid(unsafe_code)]

pub mod decision;
pub mod policy;
pub mod rules;

pub use decision::{Decision, Verdict};
pub use policy::{Policy, PolicyRequest};
pub use rules::{Rule, RulePolicy};
