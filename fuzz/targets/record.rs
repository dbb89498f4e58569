//! Records of journals: what can be read keeps its meaning when it is written again, and chains are checked.
#![no_main]

use cofferdam_core::RunId;
use cofferdam_journal::{Record, verify_chain};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut records = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(record) = serde_json::from_slice::<Record>(line) {
            let written =
                serde_json::to_vec(&record).expect("a record that was read can be written");
            let again: Record =
                serde_json::from_slice(&written).expect("what was written can be read");
            // Numbers that are not numbers are unequal to themselves; what was written is compared instead.
            assert_eq!(
                written,
                serde_json::to_vec(&again).expect("a record that was read can be written")
            );
            records.push(record);
        }
    }
    let _ = verify_chain(&RunId::new("fuzz"), None, &records);
});
