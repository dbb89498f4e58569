//! Tower layers for model and tool calls, and the leaf services that they end in.
//!
//! People write `Model` and `Tool`, which are easy traits; [`ModelService`] and [`ToolRouter`] turn them into services,
//! and everything that surrounds a call is a layer. The harness takes only closed stacks, so it knows no layer.
//!
//! The default order, outermost first, and why:
//!
//! | Model call | |
//! |---|---|
//! | [`AuditLayer`] | sees every outcome, also what inner layers refused |
//! | [`DeadlineLayer`] (total) | bounds all attempts and their pauses together |
//! | [`ModelRetryLayer`] | asks `ModelError::retry`, never the message |
//! | [`BudgetLayer`] | inside retry: each attempt costs |
//! | concurrency limit | inside retry: a pause between attempts holds no place |
//! | [`DeadlineLayer`] (attempt) | bounds one attempt, and not the wait for a place |
//!
//! | Tool call | |
//! |---|---|
//! | [`AuditLayer`] | also sees what was denied |
//! | [`PolicyLayer`] | allow, deny, or ask an [`Approver`]; a denied call never starts |
//! | [`BudgetLayer`] | a denied call costs nothing |
//! | [`JournalLayer`] | the intent is durable before the effect, the result before the model hears of it |
//! | concurrency limit | |
//! | [`DeadlineLayer`] | bounds the tool, and not the wait for a place or a person |
//!
//! Each layer is a folder or file with its service; where a failure is added, it is a variant of the closed error of the
//! seam, so nothing above needs to downcast.
#![forbid(unsafe_code)]

pub mod audit;
pub mod budget;
pub mod deadline;
pub mod journal;
pub mod policy;
pub mod retry;
pub mod service;

pub use audit::{AuditEvent, AuditLayer, AuditSink, Audited, CallKind};
pub use budget::{Budget, BudgetLayer, Budgeted};
pub use deadline::{DeadlineLayer, Timed};
pub use journal::JournalLayer;
pub use policy::{Approval, Approver, PolicyLayer, RefuseAll};
pub use retry::{ModelRetryLayer, RetryPolicy};
pub use service::{BoxFuture, ModelService, ToolRouter};
