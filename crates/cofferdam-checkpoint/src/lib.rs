//! Checkpoints of runs: a journal position, a snapshot of the workspace and the handle of a sandbox.
#![forbid(unsafe_code)]
