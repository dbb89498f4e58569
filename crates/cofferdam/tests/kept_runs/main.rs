//! Runs that survive the death of their sandbox and of their process, with real sandboxes and a scripted model.

mod host;
mod losses;
mod processes;
mod secrets;
