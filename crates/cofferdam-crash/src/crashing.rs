//! Decorators of the seams: each call passes a point before it and one after it, at which its process may be made to die.
//!
//! - `journal`: [`CrashingJournal`]
//! - `object_store`: [`CrashingObjectStore`]
//! - `model`: [`CrashingModel`]
//! - `tool`: [`CrashingTool`]
//! - `backend`, `sandbox`, `files`, `sessions`, `tree`: [`CrashingBackend`], the sandboxes that it makes, and what they have

mod backend;
mod files;
mod journal;
mod model;
mod object_store;
mod sandbox;
mod sessions;
mod tool;
mod tree;

pub use backend::CrashingBackend;
pub use journal::CrashingJournal;
pub use model::CrashingModel;
pub use object_store::CrashingObjectStore;
pub use tool::CrashingTool;
