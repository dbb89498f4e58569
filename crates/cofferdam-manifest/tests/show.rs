//! What a reviewer sees of a file.

use cofferdam_manifest::{AgentFile, Entry, Manifest, show, show_manifest};

#[test]
fn shows_the_tree_and_every_opening() {
    let agent = AgentFile::parse(include_str!("data/full.yaml"), "agent.yaml").unwrap();
    insta::assert_snapshot!(show(&agent), @r#"
    Agent clinical-records - Finds the patients that a study may invite.
      model     scripted:script.jsonl
      live      openai:gpt-5
      tools     shell, apply_patch
      policy    deny view_* - no images in this study
      policy    allow *
      limits    40 turns, 200000 tokens, 30m in all, 1m30s a tool call

    Workspace
      ./
      ├── bin/
      │   ├── blob  [file, 4 bytes, ephemeral]
      │   └── check  [file, 17 bytes, mode 0755]
      ├── out/  [dir, mode 0700]
      ├── protocol.md  [local_file ../shared/protocol.md, at most 1MiB, mode 0444]
      ├── records/  [local_dir ./records, at most 5000 files and 64MiB, without *.tmp /drafts/, without what .gitignore names, read-only] - One note a file.
      └── tools/  [git https://git.example.com/tools.git at v1.2, only checks, at most 100000 files and 1GiB]
      limits: memory 1GiB, 64 processes, 1.5 processors with weight 50, disk 512MiB in 20000 files, 256 open files, output 16MiB, time 1h, idle time 10m
      read-only for commands: protocol.md, records

    Opens
      reads        ../shared/protocol.md [outside the file's directory: needs a grant] (copied to protocol.md)
      reads        ./records and all in it (copied to records)
      clones       https://git.example.com/tools.git (copied to tools)
      secret       file:/run/secrets/git (control plane only: git)
      programs     /srv/roots/study [outside the file's directory: needs a grant], read-only
      network      none
      environment  STUDY, TZ
      reads        script.jsonl (answers of the scripted model)
      asks         openai:gpt-5 at https://models.example.com/v1
      secret       env:MODEL_KEY (control plane only: key of the model)
      copies out   out - What the study gets.
      copies out   notes.md (if it is there)
      reads        truth/patients.jsonl (truth of evaluation patients, compared with out/patients.jsonl; the agent never sees it)
    "#);
}

#[test]
fn shows_a_sealed_manifest() {
    let manifest = Manifest::parse("version: 1\n", "m.yaml").unwrap();
    insta::assert_snapshot!(show_manifest(&manifest), @r#"
    Workspace
      ./
      limits: memory 2GiB, 256 processes, no cpu quota, disk 1GiB in 200000 files, 1024 open files, output 1GiB, time 1d

    Opens
      programs     the host's system directories, read-only
      network      none
    "#);
}

#[test]
fn shows_where_programs_come_from() {
    let roots = [
        "{directory: root}",
        "{archive: /srv/root.tar}",
        "{layout: images, name: a:1}",
        "{saved: image.tar}",
        "{image: debian:bookworm}",
    ];
    let shown = roots.map(|root| {
        let manifest = Manifest::parse(&format!("version: 1\nroot: {root}\n"), "m.yaml").unwrap();
        let shown = show_manifest(&manifest);
        shown.lines().find(|line| line.contains("programs")).unwrap().trim().to_owned()
    });
    insta::assert_snapshot!(shown.join("\n"), @"
    programs     root, read-only
    programs     the tar file /srv/root.tar [outside the file's directory: needs a grant], read-only
    programs     the image a:1 in images, read-only
    programs     the image image.tar, read-only
    programs     the image debian:bookworm, read-only
    ");
}

#[test]
fn text_of_the_file_cannot_paint_over_the_terminal() {
    let manifest = Manifest::builder()
        .entry("a", Entry::dir().describe("x\u{1b}[2K\nsecond\u{202e}line"))
        .entry("b\u{7}", Entry::local_dir("s\r\nOpens"))
        .build()
        .unwrap();
    let shown = show_manifest(&manifest);
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}'), "{shown:?}");
    assert_eq!(shown.matches("\nOpens").count(), 1);
}

#[test]
fn warns_of_secrets_and_of_the_network() {
    let key = format!("sk-{}", "a".repeat(24));
    let yaml = format!(
        "version: 1\nname: a\nmodel: {{default: 'chat:m'}}\nworkspace:\n  network: host\n  environment: {{K: {key}}}\n  entries:\n    k.pem: {{type: file, content: '-----BEGIN EC PRIVATE KEY-----'}}\n"
    );
    let agent = AgentFile::parse(&yaml, "a.yaml").unwrap();
    let warnings: Vec<String> = agent.warnings().iter().map(ToString::to_string).collect();
    let warnings = warnings.join("\n");
    assert!(!warnings.contains(&key));
    insta::assert_snapshot!(warnings, @r#"
    workspace.environment.K: this looks like an API key, and the agent's commands will be able to read it; keep secrets in the control plane
    workspace.entries["k.pem"]: this looks like a private key, and the agent's commands will be able to read it; keep secrets in the control plane
    workspace.network: the sandbox reaches whatever this host reaches, and can send the workspace anywhere; use `none` unless the task needs the network
    "#);
}
