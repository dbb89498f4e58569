//! Scripts of scripted models.
#![no_main]

use cofferdam_model::ScriptedModel;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = ScriptedModel::from_yaml(text);
});
