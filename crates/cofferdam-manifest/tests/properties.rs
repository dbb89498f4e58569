//! The reader survives any text, and reads back what the types write.

use cofferdam_manifest::{AgentFile, MAX_PROBLEMS, Manifest};
use proptest::prelude::*;

const FULL: &str = include_str!("data/full.yaml");

/// Reads a text both ways; every refusal has a problem and stays within the bound.
fn survives(text: &str) {
    let errors = [AgentFile::parse(text, "x").err(), Manifest::parse(text, "x").err()];
    for error in errors.into_iter().flatten() {
        assert!(!error.problems.is_empty() && error.problems.len() <= MAX_PROBLEMS);
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn a_file_reads_back_as_written() {
    let agent = AgentFile::parse(FULL, "full.yaml").unwrap();
    let yaml = serde_yaml::to_string(&agent).unwrap();
    assert_eq!(AgentFile::parse(&yaml, "again.yaml").unwrap(), agent);
    let json = serde_json::to_string(&agent).unwrap();
    assert_eq!(AgentFile::parse(&json, "again.json").unwrap(), agent);
}

#[test]
fn hostile_files_are_refused_quickly() {
    let started = std::time::Instant::now();
    let bytes = 1 << 17;
    for unit in [
        "[", "{", "- ", "a: ", "? ", "&a ", "*a ", "!x ", "\"", "'", "|", ">\n", "[[],", "{a: ",
        "x:\n ", "%", "#\n",
    ] {
        survives(&unit.repeat(bytes / unit.len()));
    }
    survives(&format!("a: &a x\nb: [{}]", "*a,".repeat(80_000)));
    survives(&(0..90_000).map(|n| format!("k{n}: 1\n")).collect::<String>());
    let elapsed = started.elapsed();
    assert!(elapsed.as_secs() < 30, "hostile files of 128 KiB took {elapsed:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_text_is_survived(text in "\\PC{0,200}") {
        survives(&text);
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        survives(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn yaml_like_text_is_survived(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "workspace", "entries", "type", "file", "git", ": ", "\n", "\n  ", "\n    ", "- ", "{", "}", "[", "]",
                "\"", "'", "&a", "*a", "!t", "|", "0755", "null", "secret", "../", "\0", "\t", "#", ",",
            ]),
            0..80,
        ),
    ) {
        survives(&words.concat());
    }

    #[test]
    fn mutated_files_are_survived(
        position in 0..FULL.len(),
        length in 0..60usize,
        new in prop::sample::select(vec!["", "\n", ": ", "{", "}", "- ", "\"", "0", "type: git", "x: y\n", "\u{fffd}"]),
    ) {
        let mut bytes = FULL.as_bytes().to_vec();
        let end = (position + length).min(bytes.len());
        bytes.splice(position..end, new.bytes());
        survives(&String::from_utf8_lossy(&bytes));
    }
}
