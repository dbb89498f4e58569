//! The tool over files in memory.

use std::collections::BTreeSet;

use cofferdam_core::{CallId, RunId, StepId};
use cofferdam_testkit::{MemoryFiles, ScriptedSandbox};

use super::*;

fn context() -> ToolContext {
    ToolContext::new(RunId::new("run"), StepId { turn: 3, call: 1 }, CallId::new("c"))
}

fn files() -> MemoryFiles {
    MemoryFiles::default()
        .file("src/main.rs", "fn main() {\n    old();\n}\n")
        .executable("run.sh", "#!/bin/sh\necho a\n")
        .file("gone.txt", "bye\n")
        .link("link", "src/main.rs")
}

/// Calls the tool once; returns what it says and what the files are then.
async fn call(files: MemoryFiles, input: ToolInput) -> (ToolOutput, String) {
    let sandbox = ScriptedSandbox::with_files(files, []);
    let output = ApplyPatchTool::new(sandbox.clone()).call(&context(), input).await.unwrap();
    let after = sandbox.memory().render();
    sandbox.finish();
    (output, after)
}

fn text(patch: &str) -> ToolInput {
    ToolInput::Text(format!("*** Begin Patch\n{patch}*** End Patch\n"))
}

const MIXED: &str = "*** Update File: src/main.rs\n@@ fn main() {\n-    old();\n+    new();\n\
    *** Add File: docs/deep/new.md\n+# New\n\
    *** Delete File: gone.txt\n\
    *** Update File: /workspace/run.sh\n*** Move to: bin/run.sh\n@@\n-echo a\n+echo b\n";

#[tokio::test]
async fn applies_a_whole_patch() {
    let (output, after) = call(files(), text(MIXED)).await;
    insta::assert_snapshot!(output.to_text(), @r"
    Success. Updated the following files:
    A docs/deep/new.md
    M src/main.rs
    M bin/run.sh
    D gone.txt
    ");
    assert!(!output.is_error);
    insta::assert_json_snapshot!(output.structured, @r#"
    {
      "files": [
        {
          "action": "modified",
          "moved_from": null,
          "path": "src/main.rs"
        },
        {
          "action": "added",
          "moved_from": null,
          "path": "docs/deep/new.md"
        },
        {
          "action": "deleted",
          "moved_from": null,
          "path": "gone.txt"
        },
        {
          "action": "modified",
          "moved_from": "run.sh",
          "path": "bin/run.sh"
        }
      ],
      "status": "completed"
    }
    "#);
    insta::assert_snapshot!(after, @r##"
    755 bin/
    755 bin/run.sh: "#!/bin/sh\necho b\n"
    755 docs/
    755 docs/deep/
    644 docs/deep/new.md: "# New\n"
    lnk link -> src/main.rs
    755 src/
    644 src/main.rs: "fn main() {\n    new();\n}\n"
    "##);
}

#[tokio::test]
async fn every_step_that_fails_is_rolled_back() {
    let before = files().render();
    // Each of these is one step of the patch above, or a part of one.
    let faults = [
        ("make_directory", "docs"),
        ("make_directory", "docs/deep"),
        ("write", "docs/deep/.patch-run-31-1.new"),
        ("write", "src/.patch-run-31-0.old"),
        ("rename", "src/.patch-run-31-0.new"),
        ("rename", "docs/deep/.patch-run-31-1.new"),
        ("rename", "gone.txt"),
        ("write", "bin/.patch-run-31-3.new"),
        ("rename", "bin/.patch-run-31-3.new"),
    ];
    for (operation, path) in faults {
        let files = files();
        files.fail(operation, path, 28);
        let (output, after) = call(files, text(MIXED)).await;
        assert!(output.is_error, "{operation} {path}");
        assert_eq!(output.structured, json!({"status": "failed"}));
        let said = output.to_text();
        assert!(said.contains("nothing was changed: No space left on device"), "{said}");
        assert_eq!(after, before, "{operation} {path}");
    }
}

#[tokio::test]
async fn a_patch_that_does_not_fit_is_explained() {
    let check = async |patch: &str, expect: &str| {
        let (output, after) = call(files(), text(patch)).await;
        assert_eq!(output.to_text(), expect);
        assert!(output.is_error);
        assert_eq!(output.structured, json!({"status": "failed"}));
        assert_eq!(after, files().render());
    };
    check(
        "*** Delete File: gone.txt\n*** Update File: none.rs\n@@\n-a\n+b\n",
        "apply_patch verification failed: none.rs: there is no such file; add it, or correct the path\n\
         Operation 2 failed, so nothing was changed.",
    )
    .await;
    check(
        "*** Add File: gone.txt\n+x\n",
        "apply_patch verification failed: gone.txt: a file is already there; update it, or delete it first\n\
         Operation 1 failed, so nothing was changed.",
    )
    .await;
    check(
        "*** Update File: link\n@@\n-a\n+b\n",
        "apply_patch verification failed: link: it is a symbolic link, and links are not followed; name the file itself\n\
         Operation 1 failed, so nothing was changed.",
    )
    .await;
    check(
        "*** Add File: ../out\n+x\n",
        "apply_patch verification failed: line 2: path \"../out\" has a '..' component; name the file \
         without it",
    )
    .await;
}

#[tokio::test]
async fn the_nearest_lines_are_told() {
    let patch = "*** Update File: src/main.rs\n@@\n fn main() {\n-    odl();\n+    new();\n";
    let (output, _) = call(files(), text(patch)).await;
    insta::assert_snapshot!(output.to_text(), @r#"
    apply_patch verification failed: src/main.rs: hunk 1: its 2 context and removed lines are not in the file after line 0
    expected:
        fn main() {
            odl();
    nearest places:
      line 1: 1 of 2 lines differ
        2: expected "    odl();", found "    old();"
    Operation 1 failed, so nothing was changed.
    "#);
}

#[tokio::test]
async fn json_forms_are_accepted() {
    let update = json!({"type": "update_file", "path": "gone.txt", "diff": "@@\n-bye\n+hi\n"});
    let create = json!({"type": "create_file", "path": "new", "diff": "+a\n+"});
    let delete = json!({"type": "delete_file", "path": "gone.txt"});
    let moved = json!({"type": "update_file", "path": "gone.txt", "diff": "@@\n-bye\n+hi", "move_to": "kept.txt"});
    let envelope = "*** Begin Patch\n*** Delete File: gone.txt\n*** End Patch";
    let cases = [
        (json!({"operations": [update, create]}), "A new\nM gone.txt\n"),
        (json!({"operation": delete}), "D gone.txt\n"),
        (delete.clone(), "D gone.txt\n"),
        (json!([create, moved]), "A new\nM kept.txt\n"),
        (json!({"patch": envelope}), "D gone.txt\n"),
        (json!({"input": envelope}), "D gone.txt\n"),
    ];
    for (value, expect) in cases {
        for input in [ToolInput::Text(format!(" {value}")), ToolInput::Json(value.clone())] {
            let (output, _) = call(files(), input).await;
            let expect = format!("Success. Updated the following files:\n{expect}");
            assert_eq!(output.to_text(), expect, "for {value}");
        }
    }
    let faults = [
        (r#"{"operations": []}"#, "the patch has no operations"),
        (
            "{",
            "the input is neither a patch nor JSON: EOF while parsing an object at line 1 column 1",
        ),
        (r#"[{"type": "rename_file"}]"#, "operation 1: unknown variant `rename_file`"),
        (
            r#"{"type": "create_file", "path": "/etc/x", "diff": ""}"#,
            "operation 1: path \"/etc/x\" is absolute",
        ),
        ("hello", "the first line of the patch must be '*** Begin Patch', got \"hello\""),
    ];
    for (input, expect) in faults {
        let (output, _) = call(files(), ToolInput::Text(input.to_owned())).await;
        let said = output.to_text();
        assert!(said.starts_with(&format!("apply_patch verification failed: {expect}")), "{said}");
    }
}

#[tokio::test]
async fn a_cancelled_patch_changes_nothing() {
    let sandbox = ScriptedSandbox::with_files(files(), []);
    let context = context();
    context.cancel.cancel();
    let tool = ApplyPatchTool::new(sandbox.clone());
    let result = tool.call(&context, text(MIXED)).await;
    assert!(matches!(result, Err(ToolError::Cancelled)), "{result:?}");
    assert_eq!(sandbox.memory().render(), files().render());
    sandbox.finish();
}

#[tokio::test]
async fn a_partial_patch_says_what_stays() {
    let sandbox = ScriptedSandbox::with_files(files(), []);
    let tool = ApplyPatchTool::new(sandbox.clone()).with_options(Options::peer_compatible());
    let patch = text("*** Delete File: gone.txt\n*** Delete File: none\n");
    let output = tool.call(&context(), patch).await.unwrap();
    insta::assert_snapshot!(output.to_text(), @r"
    apply_patch failed: none: there is no such file; add it, or correct the path
    Operation 2 failed; the operations before it stay applied.
    ");
    assert_eq!(sandbox.memory().text("gone.txt"), None);
    sandbox.finish();
}

#[tokio::test]
async fn a_lost_sandbox_ends_the_run() {
    let sandbox = ScriptedSandbox::with_files(files(), []);
    sandbox.memory().lose_after(6);
    let result = ApplyPatchTool::new(sandbox.clone()).call(&context(), text(MIXED)).await;
    assert!(matches!(result, Err(ToolError::SandboxLost(_))), "{result:?}");
    sandbox.finish();
}

/// Carries a patch out in a sandbox that is lost after so many calls, and asks the files when it is there again.
async fn interrupted(calls: u32, input: ToolInput) -> (&'static str, String, ToolOutput) {
    let sandbox = ScriptedSandbox::with_files(files(), []);
    let tool = ApplyPatchTool::new(sandbox.clone());
    let intended = tool.intend(&context(), &input).await.unwrap();
    sandbox.memory().lose_after(calls);
    let called = tool.call(&context(), input.clone()).await;
    sandbox.memory().lose_after(u32::MAX);
    let outcome = tool.probe(&context(), &input, &intended).await.unwrap();
    let (kind, output) = match (outcome, called) {
        (ProbeOutcome::Finished(found), Ok(output)) => {
            assert_eq!(found, output, "what was found out is what was said");
            ("finished", found)
        }
        (ProbeOutcome::Finished(found), Err(_)) => ("finished", found),
        (ProbeOutcome::NotStarted, _) => {
            ("not started", tool.call(&context(), input).await.unwrap())
        }
        (ProbeOutcome::Unknown { why }, _) => ("unknown", ToolOutput::text(why)),
        (other, _) => panic!("{other:?}"),
    };
    let after = sandbox.memory().render();
    sandbox.finish();
    (kind, after, output)
}

#[tokio::test]
async fn wherever_a_patch_is_interrupted_it_is_done_once_and_as_a_whole() {
    let (done, whole) = call(files(), text(MIXED)).await;
    let mut kinds = Vec::new();
    for calls in 0..60 {
        let (kind, after, output) = interrupted(calls, text(MIXED)).await;
        kinds.push(kind);
        assert_eq!(after, whole, "after {calls} calls: {kind}");
        assert_eq!(output, done, "after {calls} calls: {kind}");
    }
    kinds.dedup();
    assert_eq!(kinds, ["not started", "finished"]);

    // A patch of one file changes it in one step: there is nothing between.
    let one = "*** Delete File: gone.txt\n";
    let (done, whole) = call(files(), text(one)).await;
    for calls in 0..10 {
        let (kind, after, output) = interrupted(calls, text(one)).await;
        assert_eq!((after, output), (whole.clone(), done.clone()), "after {calls} calls: {kind}");
        assert_ne!(kind, "unknown");
    }
}

#[tokio::test]
async fn a_patch_that_fails_is_known_to_have_changed_nothing() {
    let input = text("*** Delete File: none\n");
    let (kind, after, output) = interrupted(1, input).await;
    assert_eq!(kind, "not started");
    assert_eq!(after, files().render());
    assert!(output.is_error);
}

#[tokio::test]
async fn what_is_left_to_do_and_is_not_there_is_named() {
    let sandbox = ScriptedSandbox::with_files(files(), []);
    let tool = ApplyPatchTool::new(sandbox.clone());
    let input = text(
        "*** Delete File: gone.txt\n*** Update File: src/main.rs\n@@\n-    old();\n+    new();\n",
    );
    let intended = tool.intend(&context(), &input).await.unwrap();
    // The first change is done, and the content of the second was never staged.
    let gone = cofferdam_core::WorkspacePath::new("gone.txt").unwrap();
    sandbox.files().remove(&gone, false).await.unwrap();
    let before = sandbox.memory().render();
    let outcome = tool.probe(&context(), &input, &intended).await.unwrap();
    let ProbeOutcome::Unknown { why } = outcome else { panic!("{outcome:?}") };
    insta::assert_snapshot!(why, @"the patch was carried out in part, or its files were changed since: patched: gone.txt; as before: src/main.rs; neither: none");
    assert_eq!(sandbox.memory().render(), before, "nothing is done by half");
    sandbox.finish();
}

#[tokio::test]
async fn files_that_others_changed_are_named() {
    let sandbox = ScriptedSandbox::with_files(files(), []);
    let tool = ApplyPatchTool::new(sandbox.clone());
    let input = text(
        "*** Update File: src/main.rs\n@@\n-    old();\n+    new();\n*** Delete File: gone.txt\n",
    );
    let intended = tool.intend(&context(), &input).await.unwrap();
    insta::assert_json_snapshot!(intended["files"], @r#"
    [
      {
        "after": "a849bb7b5a7097ba30a61665166095eef59575eb0cd6540404cde7f493eb92ee",
        "before": "d3e79f1e569bb08f09bd14c8243e81b0d26821c8a5d0c0b5f5066df8eb42e911",
        "path": "src/main.rs"
      },
      {
        "after": null,
        "before": "cb0fa91be247ee0f636bd06a2b417b59968e666f22e96c34d486e7f64c657ade",
        "path": "gone.txt"
      }
    ]
    "#);
    let path = cofferdam_core::WorkspacePath::new("src/main.rs").unwrap();
    sandbox.files().write(&path, "mine".into(), &Default::default()).await.unwrap();
    let outcome = tool.probe(&context(), &input, &intended).await.unwrap();
    let ProbeOutcome::Unknown { why } = outcome else { panic!("{outcome:?}") };
    insta::assert_snapshot!(why, @"the patch was carried out in part, or its files were changed since: patched: none; as before: gone.txt; neither: src/main.rs");
    sandbox.finish();
}

#[test]
fn the_model_is_given_a_grammar_and_the_journal_a_class() {
    let sandbox = ScriptedSandbox::new([]);
    let tool = ApplyPatchTool::new(sandbox.clone());
    let ToolInputSpec::Text { grammar: Some(grammar) } = &tool.spec().input else {
        panic!("{:?}", tool.spec())
    };
    assert_eq!(grammar.syntax, "lark");
    // Every rule that is used is defined, and every rule but the first is used.
    let mut defined = BTreeSet::new();
    let mut used = BTreeSet::from(["start"]);
    for line in grammar.definition.lines() {
        let Some((name, body)) = line.split_once(": ") else { continue };
        defined.insert(name);
        // What is quoted or a pattern stands at the odd places.
        let rules = body.split(['"', '/']).step_by(2);
        let words =
            rules.flat_map(|part| part.split(|c: char| !c.is_ascii_lowercase() && c != '_'));
        used.extend(words.filter(|word| !word.is_empty()));
    }
    assert_eq!(defined, used);
    let effects = tool.effects(&text(MIXED));
    assert_eq!((effects.class, effects.writes, effects.network), (EffectClass::Probe, true, false));
    sandbox.finish();
}
