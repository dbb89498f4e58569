//! What the example programs share; the programs are in `examples/`, each about one thing:
//!
//! - `model_call`: one request to a model, with streaming.
//! - `sandbox_only`: one command in a sealed sandbox, and no agent at all.
//! - `one_tool`: an agent with one tool of your own.
//! - `custom_backend`: a backend from outside: it wraps another and counts.
//! - `custom_stack`: the facade's default layers built by hand from the crates.
#![forbid(unsafe_code)]

pub mod custom_stack;
