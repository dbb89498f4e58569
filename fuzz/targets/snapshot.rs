//! The objects of a snapshot store: nodes, heads and segments of the index.
#![no_main]

use cofferdam_snapshot::fuzzing::{head, node, segment};

libfuzzer_sys::fuzz_target!(|parts: (&[u8], &[u8])| {
    let (first, second) = parts;
    node(first, second);
    head(first);
    segment(first);
});
