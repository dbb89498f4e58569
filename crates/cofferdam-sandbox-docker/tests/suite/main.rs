//! The backend on a real engine that the tests start themselves.
#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod conformance;
mod endpoints;
mod engine;
mod images;
mod isolation;
mod lifecycle;
