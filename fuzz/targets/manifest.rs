//! Manifests of workspaces.
#![no_main]

use cofferdam_manifest::Manifest;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = Manifest::parse(text, "fuzz.yaml");
});
