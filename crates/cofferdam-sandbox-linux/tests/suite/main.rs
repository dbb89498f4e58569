//! The Linux backend on the host that runs the tests: isolation, limits, life and death.
//!
//! All of it runs as whoever runs the tests. Run by root, [`ordinary_user`] runs all of it once more as an ordinary user.

mod host;
mod isolation;
mod lifecycle;
mod limits;
mod ordinary_user;
