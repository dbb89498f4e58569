//! The escape suite: attacks on a sandbox, from inside and through its interface, on every backend and on peers.
//!
//! A small static program ([`PROGRAM`]) is put into a sandbox and tries to get out, one attack after another; other attacks
//! go through the interface that a harness uses (`Files`, `Tree`, `exec`). Each has one of three outcomes: *denied*, *open*,
//! or *broken* (the probe died or could not be set up), so that a broken probe never passes as a denial. The same attacks run
//! without any sandbox as a *control*: what does not work there proves nothing on this host, and is told apart.
//!
//! - [`report`]: outcomes, columns and the sum of a run.
//! - [`host`]: what the attacks aim at: canaries on the host.
//! - [`columns`]: what is attacked: the controls, the backends, and peers that are installed.
//! - [`runner`], [`docker`]: how they are run.
//! - [`worker`]: a backend under attack, in a process of its own that a careless host started.
//! - [`harness`]: attacks through the interface.
//! - [`plain_backend`]: a backend without walls, on which most attacks must work.
//! - [`table`]: the table in `SECURITY.md`.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

pub mod columns;
pub mod docker;
pub mod harness;
pub mod host;
pub mod plain_backend;
pub mod report;
pub mod runner;
pub mod table;
pub mod worker;

/// The probe program: static, so that it runs in any root file system.
pub const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cofferdam-probe"));

/// What the probe program is called wherever it is put; it finds its own processes by this name.
pub const PROGRAM_NAME: &str = "cofferdam-probe";
