//! Decorators of the seams: each call passes a point before it and one after it, at which its process may be made to die.
//!
//! - `journal`: [`CrashingJournal`]
//! - `object_store`: [`CrashingObjectStore`]
//! - `model`: [`CrashingModel`]
//! - `tool`: [`CrashingTool`]
//! - `backend`, `sandbox`, `tree`: [`CrashingBackend`], the sandboxes that it makes, and their trees

mod backend;
mod journal;
mod model;
mod object_store;
mod sandbox;
mod tool;
mod tree;

pub use backend::CrashingBackend;
pub use journal::CrashingJournal;
pub use model::CrashingModel;
pub use object_store::CrashingObjectStore;
pub use tool::CrashingTool;
