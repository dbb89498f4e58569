//! What people read when a file is wrong: whole messages, since each is meant to be enough for the repair.

use cofferdam_manifest::{AgentFile, Entry, Manifest, Mode};

/// Parses a file that starts with the least that an agent file needs (three lines) and goes on with `rest`.
fn agent(rest: &str) -> String {
    let yaml = format!("version: 1\nname: a\nmodel: {{default: \"chat:m\"}}\n{rest}");
    AgentFile::parse(&yaml, "agent.yaml").map_or_else(|error| error.to_string(), |_| "good".into())
}

/// Parses a manifest that stands alone and has these entries (from line 3, two levels in).
fn entries(lines: &str) -> String {
    let yaml = format!("version: 1\nentries:\n{lines}");
    Manifest::parse(&yaml, "manifest.yaml")
        .map_or_else(|error| error.to_string(), |_| "good".into())
}

#[test]
fn malformed_yaml() {
    insta::assert_snapshot!(agent("task: [a, b\nlimits: {}\n"), @r#"agent.yaml:5:7: not readable as YAML: did not find expected ',' or ']', while parsing a flow sequence at line 4 column 7"#);
    insta::assert_snapshot!(agent("task: a: b\n"), @r#"agent.yaml:4:8: not readable as YAML: mapping values are not allowed in this context"#);
    insta::assert_snapshot!(agent("\ttask: a\n"), @r#"agent.yaml:4:1: not readable as YAML: found character that cannot start any token, while scanning for the next token"#);
    insta::assert_snapshot!(agent("task: \"a\n"), @r#"agent.yaml:5:1: not readable as YAML: found unexpected end of stream, while scanning a quoted scalar at line 4 column 7"#);
    insta::assert_snapshot!(agent("task: !!binary x\n"), @r#"good"#);
    insta::assert_snapshot!(agent("--- \nname: b\n"), @r#"agent.yaml: not readable as YAML: the file holds more than one document; keep one and remove the `---`"#);
    insta::assert_snapshot!(agent("1: x\n"), @r#"agent.yaml:4:1: not readable as YAML: invalid type: integer `1`, expected a text key; put quotes around a number, a boolean or null"#);
}

#[test]
fn unknown_fields_are_named_with_the_one_that_was_meant() {
    insta::assert_snapshot!(agent("intructions: be good\n"), @r#"agent.yaml:4:1: intructions: unknown field; did you mean `instructions`? known fields: version, name, description, instructions, task, model, tools, policy, limits, workspace, outputs, evaluations"#);
    insta::assert_snapshot!(agent("workspace:\n  env: {A: b}\n"), @r#"agent.yaml:5:3: workspace.env: unknown field; did you mean `environment`? known fields: entries, environment, limits, network, root, read_only"#);
    insta::assert_snapshot!(agent("zebra: 1\n"), @r#"agent.yaml:4:1: zebra: unknown field; known fields: version, name, description, instructions, task, model, tools, policy, limits, workspace, outputs, evaluations"#);
    insta::assert_snapshot!(entries("  a: {type: local_dir, src: x}\n"), @r#"
    manifest.yaml:3:3: entries.a.source: the field is missing; add `source: path/of/directory`
    manifest.yaml:3:24: entries.a.src: unknown field; did you mean `source`? known fields: type, description, mode, owner, ephemeral, source, ignore, gitignore, max_files, max_bytes
    "#);
    insta::assert_snapshot!(entries("  a: {type: dirr}\n"), @r#"manifest.yaml:3:13: entries.a.type: "dirr" is not known here; did you mean `dir`? known: file, dir, local_file, local_dir, git"#);
    insta::assert_snapshot!(agent("<<: {task: x}\n"), @r#"agent.yaml:4:1: ["<<"]: unknown field; known fields: version, name, description, instructions, task, model, tools, policy, limits, workspace, outputs, evaluations"#);
}

#[test]
fn paths_that_leave_the_workspace_are_refused_with_entry_and_line() {
    insta::assert_snapshot!(entries(
        "  ok: {type: dir}\n  ../up: {type: dir}\n  /etc/passwd: {type: file, content: x}\n  C:\\x: {type: dir}\n  \"a\\0b\": {type: dir}\n  a/../../b: {type: dir}\n"
    ), @r#"
    manifest.yaml:4:3: entries["../up"]: path "../up" has a `..` component and may leave the workspace; write the path it leads to
    manifest.yaml:5:3: entries["/etc/passwd"]: path "/etc/passwd" is absolute; write it relative to the workspace
    manifest.yaml:6:3: entries["C:\\x"]: path "C:\\x" is a Windows path; write it relative to the workspace with `/`
    manifest.yaml:7:3: entries["a\0b"]: path "a\0b" has a NUL byte, which no file name can hold
    manifest.yaml:8:3: entries["a/../../b"]: path "a/../../b" has a `..` component and may leave the workspace; write the path it leads to
    "#);
    insta::assert_snapshot!(agent("outputs: [{path: /etc/shadow}, {path: ../x}]\n"), @r#"
    agent.yaml:4:18: outputs[0].path: path "/etc/shadow" is absolute; write it relative to the workspace
    agent.yaml:4:39: outputs[1].path: path "../x" has a `..` component and may leave the workspace; write the path it leads to
    "#);
    insta::assert_snapshot!(
        entries("  g: {type: git, url: \"https://h/r\", subpath: ../../etc}\n"), @r#"manifest.yaml:3:47: entries.g.subpath: path "../../etc" has a `..` component and may leave the workspace; write the path it leads to"#
    );
}

#[test]
fn secrets_never_enter_a_sandbox_or_a_message() {
    insta::assert_snapshot!(
        agent("workspace:\n  environment:\n    TOKEN: {secret: \"env:TOKEN\"}\n"), @r#"agent.yaml:6:5: workspace.environment.TOKEN: this would place a secret's value in the sandbox, where every command of the agent can read it; secrets stay in the control plane: remove the variable, and name the secret where the control plane uses it (`model.api_key`, `token` of a git entry)"#
    );
    let mistakes = [
        "model: {default: \"chat:m\", api_key: sk-canary}\n",
        "model: {default: \"chat:m\", api_key: {secret: sk-canary}}\n",
        "model: {default: \"chat:m\", api_key: {secret: \"vault:sk-canary\"}}\n",
        "model: {default: \"chat:m\", base_url: \"https://user:sk-canary@h/\"}\n",
        "workspace: {entries: {g: {type: git, url: \"https://sk-canary@h/r\"}}}\n",
        "workspace: {entries: {g: {type: git, url: \"https://h/r\", token: sk-canary}}}\n",
    ];
    let messages = mistakes.map(|line| {
        let yaml = format!("version: 1\nname: a\n{line}");
        AgentFile::parse(&yaml, "agent.yaml").unwrap_err().to_string()
    });
    let messages = messages.join("\n");
    assert!(!messages.contains("canary"), "a message repeats a secret: {messages}");
    insta::assert_snapshot!(messages, @r#"
    agent.yaml:3:37: model.api_key: a secret is named here, never written; write it as `{secret: "env:NAME"}`
    agent.yaml:3:46: model.api_key.secret: this is no secret reference; write "env:NAME" or "file:PATH", and never the secret itself
    agent.yaml:3:46: model.api_key.secret: this is no secret reference; write "env:NAME" or "file:PATH", and never the secret itself
    agent.yaml:3:38: model.base_url: the address holds a user or a password; remove it and name the secret as `{secret: "env:NAME"}`
    agent.yaml:1:1: model: the field is missing; add `model: {default: "openai:NAME"}`
    agent.yaml:3:43: workspace.entries.g.url: the address holds a user or a password; remove it and name the secret as `{secret: "env:NAME"}`
    agent.yaml:1:1: model: the field is missing; add `model: {default: "openai:NAME"}`
    agent.yaml:3:65: workspace.entries.g.token: a secret is named here, never written; write it as `{secret: "env:NAME"}`
    "#);
}

#[test]
fn wrong_values_say_what_is_right() {
    insta::assert_snapshot!(entries(
        "  a: {type: dir, mode: 755}\n  b: {type: dir, mode: \"4755\"}\n  c: {type: file, content: 1}\n  d: {type: file}\n  e: {type: file, content: a, content_base64: YQ==}\n  f: {type: file, content_base64: \"%\"}\n  g: {type: dir, owner: root}\n  h: {type: dir, ephemeral: yes}\n  i: text\n  j: {mode: \"0755\"}\n"
    ), @r#"
    manifest.yaml:3:24: entries.a.mode: this is a number, and YAML does not agree on octal; write the octal digits in quotes, such as "0755"
    manifest.yaml:4:24: entries.b.mode: mode 4755 sets a set-user-id or set-group-id bit; write it as "0755"
    manifest.yaml:5:28: entries.c.content: this is a number, expected text; put quotes around it
    manifest.yaml:6:3: entries.d: the file has no content; add `content: text` (or `content: ""`)
    manifest.yaml:7:3: entries.e: the file has both `content` and `content_base64`; remove one of them
    manifest.yaml:8:35: entries.f.content_base64: the text is no standard base64 with padding; encode it anew
    manifest.yaml:9:25: entries.g.owner: "root" is not known here; known: agent, control_plane
    manifest.yaml:10:29: entries.h.ephemeral: this is text, expected `true` or `false`
    manifest.yaml:11:6: entries.i: this is text, expected a mapping of fields
    manifest.yaml:12:3: entries.j.type: the field is missing; add `type: file`
    "#);
    insta::assert_snapshot!(agent(
        "limits: {max_turns: 0, wall_time: 30, tool_time: 0s}\nworkspace:\n  limits: {memory: 0, cpu: 0, disk: lots, processes: -1, cpu_weight: 20000, idle_time: 0s}\n  network: full\n  root: ubuntu\n  environment: {A: 1, 2B: x}\n  entries: [a]\n"
    ), @r#"
    agent.yaml:4:21: limits.max_turns: 0 is out of range; write a number from 1 to 4294967295
    agent.yaml:4:35: limits.wall_time: the duration has no unit; write "30s" for seconds
    agent.yaml:4:50: limits.tool_time: the time is 0, which allows nothing; write a longer one or remove the field
    agent.yaml:6:20: workspace.limits.memory: the limit is 0, which allows nothing; write a larger one or remove the field
    agent.yaml:6:28: workspace.limits.cpu: 0 is out of range; write a number from 0.001 to 1024
    agent.yaml:6:37: workspace.limits.disk: "lots" is no size; write a whole number and a unit, such as "512MiB" or "2GB"
    agent.yaml:6:54: workspace.limits.processes: -1 is out of range; write a number from 1 to 4294967295
    agent.yaml:6:70: workspace.limits.cpu_weight: 20000 is out of range; write a number from 1 to 10000
    agent.yaml:6:88: workspace.limits.idle_time: the time is 0, which allows nothing; write a longer one or remove the field
    agent.yaml:7:12: workspace.network: "full" is not known here; known: none, host
    agent.yaml:8:9: workspace.root: write `host_system`, `{directory: path/of/root}`, `{archive: root.tar}`, `{layout: directory}`, `{saved: image.tar}` or `{image: name}`
    agent.yaml:9:20: workspace.environment.A: this is a number, expected text; put quotes around it
    agent.yaml:9:23: workspace.environment.2B: a variable's name has letters, digits and `_`, and starts with no digit; rename it
    agent.yaml:10:12: workspace.entries: this is a list, expected a mapping of fields
    "#);
    insta::assert_snapshot!(agent("tools: [shell, pathc]\npolicy: [{tool: x, decision: maybe}, {}]\n"), @r#"
    agent.yaml:4:16: tools[1]: "pathc" is not known here; known: shell, apply_patch, files, view_image
    agent.yaml:5:30: policy[0].decision: "maybe" is not known here; known: allow, deny, ask
    agent.yaml:5:38: policy[1].tool: the field is missing; add `tool: "*"`
    agent.yaml:5:38: policy[1].decision: the field is missing; add `decision: ask`
    "#);
    insta::assert_snapshot!(agent("model2: x\nname: b\n"), @r#"
    agent.yaml:4:1: model2: unknown field; did you mean `model`? known fields: version, name, description, instructions, task, model, tools, policy, limits, workspace, outputs, evaluations
    agent.yaml:5:1: name: the key is there twice; remove one of them
    "#);
    let check = |yaml: &str| AgentFile::parse(yaml, "a.yaml").unwrap_err().to_string();
    insta::assert_snapshot!(check(""), @r#"a.yaml:1:1: the file is empty; an agent file needs `version`, `name` and `model`"#);
    insta::assert_snapshot!(check("just text"), @r#"a.yaml:1:1: this is text, expected a mapping of fields"#);
    insta::assert_snapshot!(check("version: 2\nname: -x\n"), @r#"
    a.yaml:1:1: model: the field is missing; add `model: {default: "openai:NAME"}`
    a.yaml:1:10: version: this version is not known here; write `version: 1`
    a.yaml:2:7: name: a name has 1 to 64 letters, digits, `-`, `_` and `.`, and starts with a letter or digit
    "#);
    insta::assert_snapshot!(check(&"#".repeat((1 << 20) + 1)), @r#"a.yaml: the file has 1048577 bytes and 1048576 are the bound; move content to files and name them with `local_file` or `local_dir`"#);
}

#[test]
fn a_root_is_one_thing() {
    let roots = [
        "{}",
        "{image: a, directory: b}",
        "{image: debian bookworm}",
        "{image: 1}",
        "{directory: a, name: b}",
        "{saved: a, tag: b}",
        "{layout: \"\"}",
        "[saved]",
    ];
    let said = roots.map(|root| agent(&format!("workspace: {{root: {root}}}\n")));
    insta::assert_snapshot!(said.join("\n"), @"
    agent.yaml:4:19: workspace.root: write `host_system`, `{directory: path/of/root}`, `{archive: root.tar}`, `{layout: directory}`, `{saved: image.tar}` or `{image: name}`
    agent.yaml:4:19: workspace.root: write `host_system`, `{directory: path/of/root}`, `{archive: root.tar}`, `{layout: directory}`, `{saved: image.tar}` or `{image: name}`
    agent.yaml:4:27: workspace.root.image: this is no name of an image: it has spaces, or more than 512 bytes
    agent.yaml:4:27: workspace.root.image: this is a number, expected text; put quotes around it
    agent.yaml:4:34: workspace.root.name: only a `layout` or a `saved` file holds images by name; remove it
    agent.yaml:4:30: workspace.root.tag: unknown field; known fields: directory, archive, layout, saved, image, name
    agent.yaml:4:28: workspace.root.layout: the text is empty; write something or remove the field
    agent.yaml:4:19: workspace.root: write `host_system`, `{directory: path/of/root}`, `{archive: root.tar}`, `{layout: directory}`, `{saved: image.tar}` or `{image: name}`
    ");
}

#[test]
fn entries_that_collide_are_refused() {
    insta::assert_snapshot!(entries(
        "  a: {type: file, content: x}\n  a/b: {type: dir}\n  a/b/c: {type: dir}\n  a.b: {type: dir}\n"
    ), @r#"
    manifest.yaml:4:3: entries["a/b"]: a is a file, so nothing can be inside of it; choose another path
    manifest.yaml:5:3: entries["a/b/c"]: a is a file, so nothing can be inside of it; choose another path
    "#);
    insta::assert_snapshot!(entries("  d: {type: dir}\n  ./d/: {type: dir}\n"), @r#"manifest.yaml:4:3: entries["./d/"]: another entry has the path d already; remove one of them"#);
    insta::assert_snapshot!(entries("  d: {type: dir}\n  d: {type: dir, mode: \"0700\"}\n"), @r#"manifest.yaml:4:3: entries.d: the key is there twice; remove one of them"#);
    insta::assert_snapshot!(entries("  .: {type: file, content: x}\n"), @r#"manifest.yaml:3:3: entries["."]: the workspace itself cannot be a file; give the file a name"#);
    assert_eq!(
        entries("  d: {type: local_dir, source: d}\n  d/x: {type: file, content: x}\n"),
        "good"
    );
}

#[test]
fn git_sources_are_addresses_and_names() {
    let check = |fields: &str| entries(&format!("  g: {{type: git, {fields}}}\n"));
    assert_eq!(check("url: \"https://h/r.git\", ref: release/1.0"), "good");
    assert_eq!(check("url: \"file:///srv/r.git\""), "good");
    insta::assert_snapshot!(check("url: \"http://h/r\", token: {secret: \"env:T\"}"), @r#"manifest.yaml:3:44: entries.g.token: a token goes over `https` only; change the address or remove the token"#);
    insta::assert_snapshot!(check("url: \"ext::sh -c id\""), @r#"manifest.yaml:3:23: entries.g.url: the address is not of http or https; write it as `https://host/path`"#);
    insta::assert_snapshot!(check("url: \"git@h:r.git\""), @r#"manifest.yaml:3:23: entries.g.url: the address is not of http or https; write it as `https://host/path`"#);
    insta::assert_snapshot!(check("url: \"https:///r\""), @r#"manifest.yaml:3:23: entries.g.url: the address names no host; write it as `https://host/path`"#);
    insta::assert_snapshot!(check("url: \"https://h/r\", ref: --upload-pack=id"), @r#"manifest.yaml:3:43: entries.g.ref: "--upload-pack=id" is no name that git allows; write a branch, a tag or a full commit id"#);
    insta::assert_snapshot!(check("url: \"https://h/r\", ref: \"a b\""), @r#"manifest.yaml:3:43: entries.g.ref: "a b" is no name that git allows; write a branch, a tag or a full commit id"#);
    insta::assert_snapshot!(check("url: \"https://h/r\", subpath: a, keep_git: true"), @r#"manifest.yaml:3:60: entries.g.keep_git: the `.git` directory belongs to the whole repository; remove `subpath` or `keep_git`"#);
}

#[test]
fn outputs_and_evaluations_agree() {
    insta::assert_snapshot!(agent(
        "workspace:\n  entries:\n    all: {type: local_dir, source: .}\noutputs: [{path: out}, {path: ./out}]\nevaluations:\n  - {name: e, output: out/a, expected: truth.jsonl, key: [id]}\n  - {name: e, output: b, expected: ../truth.jsonl, key: []}\n"
    ), @r#"
    agent.yaml:7:31: outputs[1].path: out is an output already; remove one of them
    agent.yaml:9:40: evaluations[0].expected: the agent would see the truth, since entry all copies .; move the truth to another directory
    agent.yaml:10:12: evaluations[1].name: "e" is an evaluation already; rename one of them
    agent.yaml:10:23: evaluations[1].output: b is in no output; add `- path: b` to `outputs`
    agent.yaml:10:57: evaluations[1].key: no field tells which lines belong together; name at least one
    "#);
}

#[test]
fn ephemeral_entries_hold_no_outputs() {
    insta::assert_snapshot!(agent("outputs: [{path: c/x}]\nworkspace: {entries: {c: {type: dir, ephemeral: true}}}\n"), @r#"agent.yaml:4:18: outputs[0].path: entry c is ephemeral, so nothing in it is copied out; remove `ephemeral` or the output"#);
}

#[test]
fn many_problems_are_counted() {
    let lines: String = (0..50).map(|n| format!("x{n}: 1\n")).collect();
    let message = agent(&lines);
    assert_eq!(message.lines().count(), 21);
    assert_eq!(message.lines().last(), Some("agent.yaml: and 30 more problems"));
}

#[test]
fn manifests_made_in_code_are_checked_alike() {
    let error = Manifest::builder()
        .entry("../up", Entry::dir())
        .entry("f", Entry::file("x").mode(Mode::FILE))
        .entry("f/g", Entry::git("ssh://h/r"))
        .environment("A=B", "x\0")
        .build()
        .unwrap_err();
    insta::assert_snapshot!(error, @r#"
    manifest: entries["../up"]: path "../up" has a `..` component and may leave the workspace; write the path it leads to
    manifest: entries["f/g"]: f is a file, so nothing can be inside of it; choose another path
    manifest: entries["f/g"].url: the address is not of http or https; write it as `https://host/path`
    manifest: environment["A=B"]: a variable's name has letters, digits and `_`, and starts with no digit; rename it
    manifest: environment["A=B"]: the value has a NUL byte, which no variable can hold; remove it
    "#);
    let mut manifest = Manifest::builder().build().unwrap();
    manifest.environment.insert("1".into(), String::new());
    assert_eq!(manifest.validate().unwrap_err().problems.len(), 1);
}
