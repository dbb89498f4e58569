//! The objects of a snapshot store: nodes, heads, segments of the index and moves.
#![no_main]

use cofferdam_snapshot::fuzzing::{head, moved, node, segment};

libfuzzer_sys::fuzz_target!(|parts: (&[u8], &[u8])| {
    let (first, second) = parts;
    node(first, second);
    head(first);
    segment(first);
    moved(first);
});
