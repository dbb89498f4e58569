//! Generates synthetic clinical records from a seed.
fn main() {}
