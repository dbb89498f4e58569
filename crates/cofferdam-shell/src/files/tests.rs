//! The tools against files in memory.

use std::sync::Arc;

use cofferdam_core::{CallId, Content, Effects, RunId, StepId};
use cofferdam_testkit::{MemoryFiles, ScriptedSandbox};
use cofferdam_tool::{Tool, ToolContext, ToolInput};
use serde_json::{Value, json};

use super::*;

async fn call(tool: &dyn Tool, arguments: Value) -> String {
    let context = ToolContext::new(RunId::new("r"), StepId { turn: 1, call: 0 }, CallId::new("c"));
    let input = ToolInput::Json(arguments);
    assert_eq!(tool.effects(&input), Effects::PURE);
    match tool.call(&context, input).await {
        Ok(output) if output.is_error => format!("told: {}", output.to_text()),
        Ok(output) => match &output.content[..] {
            [Content::Image { media_type, data_base64 }] => format!("{media_type} {data_base64}"),
            _ => output.to_text().into_owned(),
        },
        Err(error) => format!("error: {error}"),
    }
}

/// Makes a tool over some files and calls it with each of the arguments.
async fn check<T: Tool>(
    files: MemoryFiles,
    make: impl Fn(Arc<dyn Sandbox>) -> T,
    cases: &[(Value, &str)],
) {
    let sandbox = ScriptedSandbox::with_files(files, []);
    let tool = make(sandbox.clone());
    for (arguments, expect) in cases {
        assert_eq!(call(&tool, arguments.clone()).await, *expect, "for {arguments}");
    }
    sandbox.finish();
}

#[tokio::test]
async fn reads_numbered_lines() {
    let files = MemoryFiles::default()
        .file("a.txt", "one\r\ntwo\nthree")
        .file("empty", "")
        .file("latin", b"caf\xe9\n".to_vec())
        .file("binary", b"\x7fELF\0\0".to_vec())
        .directory("src")
        .link("link", "a.txt");
    let cases = [
        (json!({"file_path": "a.txt"}), "L1: one\nL2: two\nL3: three"),
        (json!({"path": "/workspace/a.txt", "offset": 3}), "L3: three"),
        (
            json!({"file_path": "a.txt", "offset": 2, "limit": 1}),
            "L2: two\nThe file goes on; read it from offset 3.",
        ),
        (json!({"file_path": "link", "limit": 3}), "L1: one\nL2: two\nL3: three"),
        (json!({"file_path": "latin"}), "L1: caf\u{fffd}"),
        (json!({"file_path": "empty"}), "The file is empty."),
        (
            json!({"file_path": "a.txt", "offset": 4}),
            "error: invalid input: offset exceeds file length; the file has 3 lines",
        ),
        (
            json!({"file_path": "a.txt", "offset": 0}),
            "error: invalid input: offset must be a 1-indexed line number",
        ),
        (
            json!({"file_path": "a.txt", "limit": 0}),
            "error: invalid input: limit must be greater than zero",
        ),
        (
            json!({"file_path": "binary"}),
            "error: read_file failed: binary is a binary file; use view_image or exec_command",
        ),
        (
            json!({"file_path": "src"}),
            "error: read_file failed: cannot read \"src\" in the workspace: Is a directory (os error 21)",
        ),
        (
            json!({"file_path": "none"}),
            "error: read_file failed: cannot read \"none\" in the workspace: No such file or directory (os error 2)",
        ),
        (json!({}), "error: invalid input: missing field `file_path`"),
    ];
    check(files, ReadFileTool::new, &cases).await;
}

#[tokio::test]
async fn reading_is_bounded() {
    let long_line = "ü".repeat(400);
    let many = "x".repeat(99) + "\n";
    // The pieces in which a file is read end within lines.
    let big = many.repeat(30_000);
    let files = MemoryFiles::default().file("long", long_line.clone()).file("big", big);
    let sandbox = ScriptedSandbox::with_files(files, []);
    let tool = ReadFileTool::new(sandbox.clone() as Arc<dyn Sandbox>);
    let text = call(&tool, json!({"file_path": "long"})).await;
    assert_eq!(text, format!("L1: {}", "ü".repeat(250)));
    let text = call(&tool, json!({"file_path": "big", "limit": 100_000})).await;
    assert!(text.len() < 41_000, "{}", text.len());
    assert!(text.ends_with("The file goes on; read it from offset 379."), "{}", &text[39_000..]);
    let text = call(&tool, json!({"file_path": "big", "offset": 29_999})).await;
    assert_eq!(text, format!("L29999: {0}\nL30000: {0}", "x".repeat(99)));
    let text = call(&tool, json!({"file_path": "big", "offset": 30_001})).await;
    assert_eq!(text, "error: invalid input: offset exceeds file length; the file has 30000 lines");
    sandbox.finish();
}

#[tokio::test]
async fn lists_directories() {
    let files = MemoryFiles::default()
        .file("a/x.rs", "")
        .file("a/deep/y.rs", "")
        .file("a-b", "")
        .link("link", "a")
        .special("socket")
        .file("evil\nname", "");
    let all = "Absolute path: /workspace\na/\n  deep/\n  x.rs\na-b\nevil\\nname\nlink@\nsocket?";
    let cases = [
        (json!({}), all),
        (json!({"dir_path": ".", "depth": 2}), all),
        (json!({"path": "a", "depth": 9}), "Absolute path: /workspace/a\ndeep/\n  y.rs\nx.rs"),
        (
            json!({"depth": 1, "offset": 2, "limit": 2}),
            "Absolute path: /workspace\na-b\nevil\\nname\nMore than 2 entries found; list from offset 4",
        ),
        (
            json!({"offset": 9}),
            "error: invalid input: offset exceeds directory entry count, which is 7",
        ),
        (json!({"depth": 0}), "error: invalid input: depth must be greater than zero"),
        (json!({"limit": 0}), "error: invalid input: limit must be greater than zero"),
        (json!({"offset": 0}), "error: invalid input: offset must be a 1-indexed entry number"),
        (
            json!({"dir_path": "a-b"}),
            "error: list_dir failed: cannot list \"a-b\" in the workspace: Not a directory (os error 20)",
        ),
    ];
    check(files, ListDirTool::new, &cases).await;
}

#[tokio::test]
async fn finds_files_by_content() {
    let files = MemoryFiles::default()
        .file("old.rs", "fn main() {}\n")
        .file("src/lib.rs", "// TODO one\r\nfn lib() {}\r\n")
        .file("src/app.ts", "// TODO two")
        .file("src/data.bin", b"TODO\0".to_vec())
        .file(".git/TODO", "TODO")
        .file("large.txt", vec![b'T'; (4 << 20) + 1])
        .link("link.rs", "src/lib.rs")
        .file("new.rs", "fn main() { TODO }");
    let large = "\n1 large files were not searched";
    let expect = |text: &str| format!("{text}{large}");
    let todo = expect("new.rs\nsrc/app.ts\nsrc/lib.rs");
    let first = expect("new.rs\n2 more files match");
    let none = expect("No matches found.");
    let at_line_end = expect("src/lib.rs");
    let whole_lines = expect("src/app.ts\nsrc/lib.rs");
    let cases = [
        (json!({"pattern": "TODO"}), &*todo),
        (json!({"pattern": "TODO", "include": "*.rs"}), "new.rs\nsrc/lib.rs"),
        (json!({"pattern": "TODO", "include": "*.{ts,tsx}"}), "src/app.ts"),
        (json!({"pattern": "TODO", "include": "src/*.rs"}), "src/lib.rs"),
        (json!({"pattern": "TODO", "path": "src/lib.rs"}), "src/lib.rs"),
        (json!({"pattern": "TODO", "limit": 1}), &*first),
        (json!({"pattern": r"^// TODO \w+$", "include": ""}), &*whole_lines),
        (json!({"pattern": "one$"}), &*at_line_end),
        (json!({"pattern": "absent"}), &*none),
        (
            json!({"pattern": "(a", "path": "src"}),
            "error: invalid input: pattern: regex parse error:\n    (a\n    ^\nerror: unclosed group",
        ),
        (json!({"pattern": " "}), "error: invalid input: pattern must not be empty"),
        (
            json!({"pattern": "a", "include": "[", "path": "src"}),
            "error: invalid input: include: error parsing glob '[': unclosed character class; missing ']'",
        ),
        (
            json!({"pattern": "a", "path": "none"}),
            "error: grep_files failed: cannot stat \"none\" in the workspace: No such file or directory (os error 2)",
        ),
    ];
    check(files, GrepFilesTool::new, &cases).await;
}

#[tokio::test]
async fn shows_images_by_their_content() {
    let heads: [(&str, &[u8], &str); 9] = [
        ("png", b"\x89PNG\r\n\x1a\n...", "image/png iVBORw0KGgouLi4="),
        ("jpg", b"\xff\xd8\xff\xe0", "image/jpeg /9j/4A=="),
        ("gif", b"GIF89a", "image/gif R0lGODlh"),
        ("webp", b"RIFF\x01\x02\x03\x04WEBP", "image/webp UklGRgECAwRXRUJQ"),
        ("bmp", b"BM\x01\0\0\0\0\0\0\0", "image/bmp Qk0BAAAAAAAAAA=="),
        ("tiff", b"II*\0", "image/tiff SUkqAA=="),
        (
            "svg.png",
            b"<?xml version=\"1.0\"?><SVG/>",
            "told: view_image failed: image `svg.png` is SVG, which is text; read it with read_file or convert it to PNG",
        ),
        (
            "text",
            b"BM is how this begins",
            "told: view_image failed: image `text` is not a PNG, JPEG, GIF, WebP, BMP or TIFF image",
        ),
        (
            "empty",
            b"",
            "told: view_image failed: image `empty` is not a PNG, JPEG, GIF, WebP, BMP or TIFF image",
        ),
    ];
    let mut files = MemoryFiles::default().file("big", vec![0x89; (10 << 20) + 1]);
    for (name, head, _) in heads {
        files = files.file(name, head.to_vec());
    }
    let mut cases: Vec<(Value, &str)> =
        heads.iter().map(|(name, _, expect)| (json!({"path": name}), *expect)).collect();
    cases.push((
        json!({"path": "big"}),
        "told: view_image failed: image `big` exceeded the allowed size of 10MB",
    ));
    cases.push((
        json!({"path": "none"}),
        "error: view_image failed: cannot read \"none\" in the workspace: No such file or directory (os error 2)",
    ));
    check(files, ViewImageTool::new, &cases).await;
}
