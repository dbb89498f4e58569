//! V4A patches, as a model writes them.
#![no_main]

use cofferdam_apply_patch::parse;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = parse(text);
});
