//! Every file shown in the reference page is a good one.

use cofferdam_manifest::{AgentFile, Manifest};

#[test]
fn files_in_the_reference_are_good() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/agent-file.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut agents = 0;
    for block in page.split("\n```yaml").skip(1) {
        let (kind, block) = block.split_once('\n').unwrap();
        let yaml = block.split("\n```").next().unwrap();
        match kind.trim() {
            "" => {
                AgentFile::parse(yaml, "agent.yaml").unwrap();
                agents += 1;
            }
            "manifest" => {
                Manifest::parse(yaml, "manifest.yaml").unwrap();
            }
            other => panic!("unknown kind of example: {other}"),
        }
    }
    assert!(agents >= 3, "only {agents} examples were found");
}

#[test]
fn the_example_is_good() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/clinical-records/agent.yaml");
    let agent = AgentFile::parse(&std::fs::read_to_string(file).unwrap(), "agent.yaml").unwrap();
    assert_eq!(agent.warnings(), []);
}
