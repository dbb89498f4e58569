//! The Linux backend on the host that runs the tests: surroundings, limits, life and death.
//!
//! All of it runs as whoever runs the tests. Run by root, [`ordinary_user`] runs all of it once more as an ordinary user.
#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]
#![expect(
    clippy::disallowed_methods,
    reason = "the controls, the users and the parents that die are processes; they tell each other by variables"
)]

mod as_ordinary_user;
mod attempts;
mod confined;
mod container;
mod host;
mod images;
mod lifecycle;
mod limits;
mod linger;
mod network;
mod no_user_namespaces;
mod ordinary_user;
mod profiles;
mod surroundings;
mod targets;
mod workspace;
