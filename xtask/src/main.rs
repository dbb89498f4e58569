//! The one front door for tasks.
fn main() {}
