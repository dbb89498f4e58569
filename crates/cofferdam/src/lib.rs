//! Agents with sealed sandboxes: the thin facade over the cofferdam crates
