//! The subcommands, one module each.

pub(crate) mod apply_patch;
mod approve;
pub(crate) mod doctor;
pub(crate) mod exec;
mod file;
pub(crate) mod manifest;
pub(crate) mod run;
