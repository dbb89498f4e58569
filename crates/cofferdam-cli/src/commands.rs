//! The subcommands, one module each.

pub(crate) mod apply_patch;
mod approve;
pub(crate) mod chaos;
pub(crate) mod doctor;
pub(crate) mod exec;
mod file;
pub(crate) mod manifest;
pub(crate) mod resume;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod sandboxes;
