//! Processes that are killed while they drive a run.
