//! Agent files: a broken one gives errors with lines, and what is read can be written and read again.
#![no_main]

use cofferdam_manifest::AgentFile;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = AgentFile::parse(text, "fuzz.yaml");
});
