//! Sealed Linux sandboxes from namespaces, Landlock, seccomp and cgroups; no daemon, root or rootless.
#![cfg(target_os = "linux")]

mod backend;
mod cgroups;
mod encode;
mod filter;
mod identity;
mod launch;
mod layout;
mod programs;
mod sandbox;
mod setup;
mod walls;

// The contract with the launcher, which is a program of its own and compiles the same files.
#[path = "../launcher/plan.rs"]
mod plan;
#[path = "../launcher/report.rs"]
mod report;

#[cfg(test)]
#[path = "../launcher/decode.rs"]
mod decode;
#[cfg(test)]
#[path = "../launcher/numbers.rs"]
mod numbers;

pub use backend::LinuxBackend;
