//! The published schema is fresh, and knows the same fields as the reader of files.

#![expect(clippy::unwrap_used, reason = "helpers of tests stop at the first surprise")]

use std::collections::BTreeSet;

use cofferdam_manifest::{AgentFile, json_schema};
use jsonschema::Validator;
use serde_json::Value;

#[test]
fn the_published_schema_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/agent.schema.json");
    let published: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(
        published == json_schema(),
        "docs/reference/agent.schema.json is stale; refresh it with \
         `cargo run -- manifest schema > docs/reference/agent.schema.json`"
    );
}

/// Gives the reader an unknown field and returns the fields that it says it knows.
fn fields_of_reader(yaml: &str) -> BTreeSet<String> {
    let error = AgentFile::parse(yaml, "x").unwrap_err();
    let message = error
        .problems
        .iter()
        .find(|problem| problem.path.to_string().ends_with("zzz"))
        .map(|problem| problem.message.clone())
        .unwrap();
    message.split_once("known fields: ").unwrap().1.split(", ").map(str::to_owned).collect()
}

/// Returns the fields of an object of the schema.
fn fields_of_schema(object: &Value) -> BTreeSet<String> {
    assert_eq!(object["additionalProperties"], false, "the object is open: {object}");
    object["properties"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn reader_and_schema_know_the_same_fields() {
    let schema = json_schema();
    let check = |yaml: &str, object: &Value| {
        assert_eq!(fields_of_reader(yaml), fields_of_schema(object), "for {yaml}");
    };
    check("zzz: 1", &schema);
    for (field, name) in [
        ("model", "ModelSpec"),
        ("limits", "RunLimits"),
        ("workspace", "Manifest"),
        ("workspace: {limits", "WorkspaceLimits"),
        ("policy: [", "PolicyRuleSpec"),
        ("outputs: [", "OutputSpec"),
        ("evaluations: [", "EvaluationSpec"),
    ] {
        let yaml = match field.split_once(": ") {
            None => format!("{field}: {{zzz: 1}}"),
            Some((_, "[")) => format!("{field}{{zzz: 1}}]"),
            Some(_) => format!("{field}: {{zzz: 1}}}}"),
        };
        check(&yaml, &schema["$defs"][name]);
    }
    let forms = schema["$defs"]["RootSource"]["oneOf"].as_array().unwrap();
    let known: BTreeSet<String> = forms.iter().skip(1).flat_map(fields_of_schema).collect();
    assert_eq!(fields_of_reader("workspace: {root: {zzz: 1}}"), known);
    let kinds = schema["$defs"]["Entry"]["oneOf"].as_array().unwrap();
    assert_eq!(kinds.len(), 5);
    for kind in kinds {
        let name = kind["properties"]["type"]["const"].as_str().unwrap();
        check(&format!("workspace: {{entries: {{e: {{type: {name}, zzz: 1}}}}}}"), kind);
    }
}

fn accepts(schema: &Validator, yaml: &str) -> bool {
    schema.is_valid(&serde_yaml::from_str(yaml).unwrap())
}

#[test]
fn the_schema_accepts_good_files_and_what_the_types_write() {
    let schema = jsonschema::validator_for(&json_schema()).unwrap();
    let example =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/clinical-records/agent.yaml");
    let example = std::fs::read_to_string(example).unwrap();
    for file in [include_str!("data/full.yaml"), &example] {
        let value = serde_yaml::from_str(file).unwrap();
        let errors: Vec<String> = schema.iter_errors(&value).map(|e| e.to_string()).collect();
        assert_eq!(errors, Vec::<String>::new());
        let agent = AgentFile::parse(file, "x").unwrap();
        assert!(schema.is_valid(&serde_json::to_value(&agent).unwrap()));
    }
}

#[test]
fn every_form_of_a_root_is_read_as_it_is_written() {
    let schema = jsonschema::validator_for(&json_schema()).unwrap();
    for root in [
        "host_system",
        "{directory: a}",
        "{archive: a.tar.zst}",
        "{layout: a}",
        "{layout: a, name: 'debian:bookworm'}",
        "{saved: a.tar, name: 'debian:bookworm'}",
        "{image: 'registry.example/debian:bookworm'}",
    ] {
        let yaml = format!(
            "version: 1\nname: a\nmodel: {{default: 'chat:m'}}\nworkspace: {{root: {root}}}"
        );
        assert!(accepts(&schema, &yaml), "{root}");
        let agent = AgentFile::parse(&yaml, "x").unwrap();
        let written = serde_json::to_value(&agent).unwrap();
        assert!(schema.is_valid(&written), "{written}");
        let expect: Value = serde_yaml::from_str(root).unwrap();
        let found = written["workspace"].get("root").cloned();
        assert_eq!(found.unwrap_or("host_system".into()), expect);
    }
}

#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    let schema = jsonschema::validator_for(&json_schema()).unwrap();
    let check = |line: &str| {
        let yaml = format!("version: 1\nname: a\nmodel: {{default: 'chat:m'}}\n{line}");
        assert!(AgentFile::parse(&yaml, "x").is_err(), "the reader takes {line}");
        assert!(!accepts(&schema, &yaml), "the schema takes {line}");
    };
    check("taks: x");
    check("tools: [shel]");
    check("limits: {max_turns: 0}");
    check("limits: {wall_time: 10}");
    check("outputs: [{path: ../x}]");
    check("outputs: [{path: /x}]");
    check("outputs: [{path: 'C:/x'}]");
    check("outputs: [{path: a/../b}]");
    check("workspace: {environment: {A: 1}}");
    check("workspace: {environment: {A: {secret: 'env:A'}}}");
    check("workspace: {environment: {2A: x}}");
    check("workspace: {network: full}");
    check("workspace: {root: ubuntu}");
    check("workspace: {root: {image: a, directory: b}}");
    check("workspace: {root: {archive: a, name: b}}");
    check("workspace: {root: {saved: ''}}");
    check("workspace: {limits: {cpu: 0}}");
    check("workspace: {limits: {cpu_weight: 0}}");
    check("workspace: {limits: {idle_time: 10}}");
    check("workspace: {entries: {/a: {type: dir}}}");
    check("workspace: {entries: {a: {type: dir, content: x}}}");
    check("workspace: {entries: {a: {type: dir, mode: 755}}}");
    check("workspace: {entries: {a: {type: dir, mode: '4755'}}}");
    check("workspace: {entries: {a: {type: file}}}");
    check("workspace: {entries: {a: {type: file, content: x, content_base64: eA==}}}");
    check("workspace: {entries: {a: {type: local_dir}}}");
    check("workspace: {entries: {a: {type: git, url: 'https://h/r', token: x}}}");
    check("evaluations: [{name: e, output: o, expected: t, key: []}]");
}
