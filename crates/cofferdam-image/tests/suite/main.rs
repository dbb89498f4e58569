//! Images to root file systems, on the file system of the machine that runs the tests.
#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod cache;
mod hostile;
mod kit;
mod sources;
mod stacking;
