//! Pulling images: from a real registry on loopback, and from a stand-in that does what real ones seldom do.
#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod kit;
mod real;
mod standin;
