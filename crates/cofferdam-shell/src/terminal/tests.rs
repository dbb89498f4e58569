//! The tools against scripted commands, on paused time.

use std::{sync::Arc, time::Duration};

use cofferdam_core::{CallId, RunId, StepId, ToolOutput};
use cofferdam_sandbox::{ExitStatus, Signal, exec::ExceededLimit};
use cofferdam_testkit::{MemoryFiles, ScriptedCommand, ScriptedSandbox};
use cofferdam_tool::{Tool, ToolContext, ToolError, ToolInput, ToolProgress};
use serde_json::{Value, json};

use super::*;

/// One sandbox with its two tools.
struct Bench {
    sandbox: Arc<ScriptedSandbox>,
    terminal: Arc<Terminal>,
    exec: ExecCommandTool,
    stdin: WriteStdinTool,
}

impl Bench {
    fn new(script: impl IntoIterator<Item = ScriptedCommand>) -> Self {
        Self::with(ScriptedSandbox::new(script), ShellOptions::default())
    }

    fn with(sandbox: Arc<ScriptedSandbox>, options: ShellOptions) -> Self {
        let terminal = Terminal::new(sandbox.clone(), options);
        Self {
            exec: ExecCommandTool::new(Arc::clone(&terminal)),
            stdin: WriteStdinTool::new(Arc::clone(&terminal)),
            terminal,
            sandbox,
        }
    }

    async fn exec(&self, arguments: Value) -> ToolOutput {
        self.exec.call(&context(), ToolInput::Json(arguments)).await.unwrap()
    }

    async fn stdin(&self, arguments: Value) -> ToolOutput {
        self.stdin.call(&context(), ToolInput::Json(arguments)).await.unwrap()
    }

    /// Lets tasks do what is ready, without time going by.
    async fn settle(&self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
}

fn context() -> ToolContext {
    ToolContext::new(RunId::new("r"), StepId { turn: 1, call: 0 }, CallId::new("c"))
}

fn bash(script: &str) -> ScriptedCommand {
    ScriptedCommand::new(["bash", "-lc", script])
}

fn session_id(output: &ToolOutput) -> u64 {
    output.structured["session_id"].as_u64().unwrap()
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test(start_paused = true)]
async fn a_short_command_is_answered_at_its_end() {
    let bench =
        Bench::new([bash("make").after(millis(1234)).stdout("ok\n").stderr("warning\n").exit(3)]);
    let output = bench.exec(json!({"cmd": "make"})).await;
    insta::assert_snapshot!(output.to_text(), @r"
    Chunk ID: e220a8
    Wall time: 1.2340 seconds
    Process exited with code 3
    Original token count: 3
    Output:
    ok
    warning
    ");
    assert_eq!(
        output.structured,
        json!({
            "chunk_id": "e220a8", "wall_time_seconds": 1.234, "exit_code": 3, "session_id": null,
            "original_token_count": 3, "output_file": null,
        })
    );
    assert!(!output.is_error);
    assert_eq!(bench.terminal.session_count(), 0);
    bench.sandbox.finish();
    assert!(bench.sandbox.killed().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_command_that_outlives_its_yield_becomes_a_session() {
    let bench = Bench::new([bash("serve")
        .stdout("listening\n")
        .after(millis(12_000))
        .stdout("request\n")
        .after(millis(60_000))
        .exit(0)]);
    let output = bench.exec(json!({"cmd": "serve"})).await;
    insta::assert_snapshot!(output.to_text(), @r"
    Chunk ID: 6e789e
    Wall time: 10.0000 seconds
    Process running with session ID 40535
    Original token count: 3
    Output:
    listening
    ");
    let id = session_id(&output);
    let output = bench.stdin(json!({"session_id": id})).await;
    insta::assert_snapshot!(output.to_text(), @r"
    Chunk ID: 06c45d
    Wall time: 5.0000 seconds
    Process running with session ID 40535
    Original token count: 2
    Output:
    request
    ");
    let output = bench.stdin(json!({"session_id": id, "yield_time_ms": 999_999})).await;
    insta::assert_snapshot!(output.to_text(), @r"
    Chunk ID: f88bb8
    Wall time: 57.0000 seconds
    Process exited with code 0
    Original token count: 0
    Output:
    ");
    let output = bench.stdin(json!({"session_id": id})).await;
    assert!(output.is_error);
    let expect = format!("write_stdin failed: PTY session not found: {id}; it has ended, or ");
    assert!(output.to_text().starts_with(&expect), "{}", output.to_text());
    bench.sandbox.finish();
}

#[tokio::test(start_paused = true)]
async fn yield_times_are_clamped() {
    let check = async |arguments: Value, seconds: f64| {
        let bench = Bench::new([bash("sleep")]);
        let output = bench.exec(arguments).await;
        assert_eq!(output.structured["wall_time_seconds"], json!(seconds));
        bench.sandbox.finish();
    };
    check(json!({"cmd": "sleep", "yield_time_ms": 0}), 0.25).await;
    check(json!({"cmd": "sleep", "yield_time_ms": 1000}), 1.0).await;
    check(json!({"cmd": "sleep", "yield_time_ms": 40_000}), 30.0).await;
}

#[tokio::test(start_paused = true)]
async fn a_terminal_takes_input_and_ctrl_c() {
    let bench = Bench::new([bash("python3")
        .directory("src")
        .terminal()
        .stdout(">>> ")
        .expect_stdin("1+1\n")
        .stdout("1+1\r\n2\r\n>>> ")
        .expect_stdin("\u{3}")
        .ends(ExitStatus::Signal(2))]);
    let output = bench
        .exec(json!({"cmd": "python3", "tty": true, "workdir": "/workspace/src", "yield_time_ms": 250}))
        .await;
    let id = session_id(&output);
    let output = bench.stdin(json!({"session_id": id, "chars": "1+1\n"})).await;
    insta::assert_snapshot!(output.to_text(), @r"
    Chunk ID: 06c45d
    Wall time: 0.2500 seconds
    Process running with session ID 40535
    Original token count: 3
    Output:
    1+1
    2
    >>>
    ");
    let output = bench.stdin(json!({"session_id": id, "chars": "\u{3}"})).await;
    insta::assert_snapshot!(output.to_text(), @r"
    Chunk ID: f88bb8
    Wall time: 0.0000 seconds
    Process exited with code 130
    It was ended by signal 2
    Original token count: 0
    Output:
    ");
    bench.sandbox.finish();
}

#[tokio::test(start_paused = true)]
async fn without_a_terminal_there_is_no_input_but_an_interrupt() {
    let bench = Bench::new([bash("cat").expect_signal(Signal::INT).ends(ExitStatus::Signal(2))]);
    let id = session_id(&bench.exec(json!({"cmd": "cat"})).await);
    let output = bench.stdin(json!({"session_id": id, "chars": "hello"})).await;
    assert!(output.is_error);
    insta::assert_snapshot!(
        output.to_text(),
        @"write_stdin failed: stdin is closed for this session; rerun exec_command with tty=true to keep stdin open"
    );
    let output = bench.stdin(json!({"session_id": id, "chars": "\u{3}"})).await;
    assert_eq!(output.structured["exit_code"], 130);
    bench.sandbox.finish();
}

#[tokio::test(start_paused = true)]
async fn a_command_that_prints_forever_costs_bounded_memory() {
    let options = ShellOptions {
        max_call_bytes: 4_000,
        max_session_bytes: 400,
        default_output_tokens: 20,
        ..ShellOptions::default()
    };
    let flood = |mut command: ScriptedCommand| {
        for _ in 0..5_000 {
            command = command.stdout("yyyyyyyyy\n");
        }
        command
    };
    let command = flood(flood(bash("yes")).after(millis(1000)));
    let bench = Bench::with(ScriptedSandbox::new([command]), options);
    let output = bench.exec(json!({"cmd": "yes", "yield_time_ms": 500})).await;
    insta::assert_snapshot!(output.to_text(), @r"
    Chunk ID: 6e789e
    Wall time: 0.5000 seconds
    Process running with session ID 40535
    Original token count: 12500
    Full output saved to: .cofferdam/output/000001.txt
    Output:
    Total output lines: 5000

    yyyyyyyyy
    yyy…12494 tokens truncated…yy
    yyyyyyyyy
    ");
    let saved = bench.sandbox.memory().text(".cofferdam/output/000001.txt").unwrap();
    assert!(saved.contains("\n…46000 bytes omitted…\n"), "{}", saved.len());
    // Nobody waits now: the rest is kept in the small buffer.
    tokio::time::sleep(millis(2000)).await;
    let output = bench.stdin(json!({"session_id": session_id(&output)})).await;
    assert_eq!(output.structured["original_token_count"], 12_500);
    let saved = bench.sandbox.memory().text(".cofferdam/output/000002.txt").unwrap();
    assert!(saved.contains("\n…49600 bytes omitted…\n"));
    assert_eq!(bench.sandbox.memory().text(".cofferdam/output/.gitignore").as_deref(), Some("*\n"));
    bench.sandbox.finish();
}

#[tokio::test(start_paused = true)]
async fn limits_are_told_in_words() {
    let check = async |status, code: i32, words: &str| {
        let bench = Bench::new([bash("x").ends(status)]);
        let output = bench.exec(json!({"cmd": "x"})).await;
        assert_eq!(output.structured["exit_code"], code);
        assert!(output.to_text().contains(words), "{}", output.to_text());
        bench.sandbox.finish();
    };
    check(ExitStatus::Limit(ExceededLimit::Memory), 137, "memory limit was exceeded").await;
    check(ExitStatus::Limit(ExceededLimit::Output), 137, "limit of output").await;
    check(ExitStatus::Signal(15), 143, "ended by signal 15").await;
}

#[tokio::test(start_paused = true)]
async fn background_processes_stay_in_a_session_that_can_be_ended() {
    let command = bash("server & echo started").stdout("started\n").exit(0).after(millis(3000));
    let bench = Bench::new([command.stdout("request\n").lingers()]);
    let output = bench.exec(json!({"cmd": "server & echo started"})).await;
    insta::assert_snapshot!(output.to_text(), @r#"
    Chunk ID: 6e789e
    Wall time: 0.0500 seconds
    Process exited with code 0
    Background processes still running with session ID 40535; write_stdin with chars "\u0003" ends them
    Original token count: 2
    Output:
    started
    "#);
    assert!(bench.sandbox.killed().is_empty());
    let output = bench.stdin(json!({"session_id": session_id(&output), "chars": "\u{3}"})).await;
    assert_eq!(output.structured["exit_code"], 0);
    assert_eq!(output.structured["session_id"], Value::Null);
    assert_eq!(bench.sandbox.killed(), [1]);
    bench.sandbox.finish();
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_or_dropped_call_kills_the_command() {
    let bench = Bench::new([bash("a"), bash("b"), bash("c")]);
    let cancelled = context();
    let cancel = cancelled.cancel.clone();
    let call = bench.exec.call(&cancelled, ToolInput::Json(json!({"cmd": "a"})));
    let (result, ()) = tokio::join!(call, async {
        tokio::time::sleep(millis(100)).await;
        cancel.cancel();
    });
    assert!(matches!(result, Err(ToolError::Cancelled)), "{result:?}");
    bench.settle().await;
    assert_eq!(bench.sandbox.killed(), [1]);

    let alive = context();
    let call = bench.exec.call(&alive, ToolInput::Json(json!({"cmd": "b"})));
    tokio::time::timeout(millis(100), call).await.unwrap_err();
    bench.settle().await;
    assert_eq!(bench.sandbox.killed(), [1, 2]);

    // A session belongs to no call: a cancelled poll leaves it alone, and the end of the tools ends it.
    let id = session_id(&bench.exec(json!({"cmd": "c"})).await);
    let result = bench.stdin.call(&cancelled, ToolInput::Json(json!({"session_id": id}))).await;
    assert!(matches!(result, Err(ToolError::Cancelled)), "{result:?}");
    bench.settle().await;
    assert_eq!(bench.sandbox.killed(), [1, 2]);
    let Bench { sandbox, terminal, exec, stdin } = bench;
    drop((terminal, exec, stdin));
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(sandbox.killed(), [1, 2, 3]);
    sandbox.finish();
}

#[tokio::test(start_paused = true)]
async fn sessions_are_bounded_and_the_least_needed_goes() {
    let options =
        ShellOptions { max_sessions: 3, protected_sessions: 1, ..ShellOptions::default() };
    let script = (1..=6).map(|n| match n {
        2 => bash("x").after(millis(1000)).exit(0),
        _ => bash("x"),
    });
    let bench = Bench::with(ScriptedSandbox::new(script), options);
    let start = async || session_id(&bench.exec(json!({"cmd": "x", "yield_time_ms": 250})).await);
    let (one, _two, _three) = (start().await, start().await, start().await);
    tokio::time::sleep(millis(2000)).await;
    // The second has ended, so it goes although the first is older.
    start().await;
    bench.settle().await;
    assert!(bench.sandbox.killed().is_empty());
    // The first was used last, so the third goes.
    bench.stdin(json!({"session_id": one})).await;
    start().await;
    bench.settle().await;
    assert_eq!(bench.sandbox.killed(), [3]);
    start().await;
    bench.settle().await;
    assert_eq!(bench.sandbox.killed(), [3, 4]);
    assert_eq!(bench.terminal.session_count(), 3);
    bench.sandbox.finish();
}

#[tokio::test(start_paused = true)]
async fn the_first_shell_that_is_there_runs_the_command() {
    let quiet: Vec<(String, String)> = ShellOptions::default().environment.into_iter().collect();
    let quiet = || quiet.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let without_term = quiet().filter(|(name, _)| *name != "TERM");
    let bench = Bench::new([
        bash("a").environment(quiet()).not_started(2),
        ScriptedCommand::new(["sh", "-lc", "a"]).exit(0),
        ScriptedCommand::new(["zsh", "-c", "b"]).not_started(2),
        bash("c").not_started(11),
        bash("d").terminal().environment(without_term).exit(0),
    ]);
    assert_eq!(bench.exec(json!({"cmd": "a"})).await.structured["exit_code"], 0);
    let fails = async |arguments| {
        bench.exec.call(&context(), ToolInput::Json(arguments)).await.unwrap_err().to_string()
    };
    insta::assert_snapshot!(
        fails(json!({"cmd": "b", "shell": "zsh", "login": false})).await,
        @r#"exec_command failed: cannot start "zsh" in the sandbox: No such file or directory (os error 2)"#
    );
    insta::assert_snapshot!(
        fails(json!({"cmd": "c"})).await,
        @r#"exec_command failed: cannot start "bash" in the sandbox: Resource temporarily unavailable (os error 11)"#
    );
    assert_eq!(bench.exec(json!({"cmd": "d", "tty": true})).await.structured["exit_code"], 0);
    insta::assert_snapshot!(fails(json!({"cmd": " "})).await, @"invalid input: `cmd` is empty");
    insta::assert_snapshot!(fails(json!({})).await, @"invalid input: missing field `cmd`");
    insta::assert_snapshot!(
        fails(json!({"cmd": "x", "workdir": "/tmp"})).await,
        @r#"invalid input: path "/tmp" is absolute; write it relative to the workspace; the workspace is /workspace"#
    );
    bench.sandbox.finish();
}

#[tokio::test(start_paused = true)]
async fn a_lost_sandbox_is_for_the_harness() {
    let bench = Bench::new([bash("x").stdout("a").lost(), bash("y").after(millis(11_000)).lost()]);
    let input = ToolInput::Json(json!({"cmd": "x"}));
    let result = bench.exec.call(&context(), input).await;
    assert!(matches!(result, Err(ToolError::SandboxLost(_))), "{result:?}");
    let id = session_id(&bench.exec(json!({"cmd": "y"})).await);
    let result = bench.stdin.call(&context(), ToolInput::Json(json!({"session_id": id}))).await;
    assert!(matches!(result, Err(ToolError::SandboxLost(_))), "{result:?}");
    assert_eq!(bench.terminal.session_count(), 0);
    bench.sandbox.finish();
}

#[tokio::test(start_paused = true)]
async fn characters_are_not_broken_between_polls() {
    let euro = "€".as_bytes();
    let bench = Bench::new([bash("x")
        .stdout(euro[..1].to_vec())
        .after(millis(11_000))
        .stdout(euro[1..].to_vec())
        .exit(0)]);
    let first = bench.exec(json!({"cmd": "x"})).await;
    assert!(first.to_text().ends_with("Output:\n"), "{}", first.to_text());
    let second = bench.stdin(json!({"session_id": session_id(&first)})).await;
    assert!(second.to_text().ends_with("Output:\n€"), "{}", second.to_text());
    bench.sandbox.finish();
}

#[tokio::test(start_paused = true)]
async fn output_is_shown_as_it_comes() {
    #[derive(Debug, Default)]
    struct Display(std::sync::Mutex<Vec<String>>);
    impl ToolProgress for Display {
        fn output(&self, step: StepId, bytes: &[u8]) {
            self.0.lock().unwrap().push(format!("{step} {}", String::from_utf8_lossy(bytes)));
        }
    }
    let display = Arc::new(Display::default());
    let bench = Bench::new([bash("x").stdout("one").stderr("two").exit(0)]);
    let context = ToolContext { progress: Some(display.clone()), ..context() };
    bench.exec.call(&context, ToolInput::Json(json!({"cmd": "x"}))).await.unwrap();
    assert_eq!(*display.0.lock().unwrap(), ["1.0 one", "1.0 two"]);
    bench.sandbox.finish();
}

#[tokio::test(start_paused = true)]
async fn output_files_are_bounded_and_numbered_across_runs() {
    let options = ShellOptions {
        max_output_files: 3,
        max_output_file_bytes: 40,
        default_output_tokens: 1,
        ..ShellOptions::default()
    };
    let files = MemoryFiles::default()
        .file(".cofferdam/output/000007.txt", "from before")
        .file(".cofferdam/output/9.txt", "odd name")
        .file(".cofferdam/output/notes.txt", "not ours")
        .file(".cofferdam/output/99999999999999999999.txt", "too great");
    let outputs = ["first output", "second output", "third output, which is long"];
    let script = outputs.map(|text| bash("x").stdout(text).exit(0));
    let bench = Bench::with(ScriptedSandbox::with_files(files, script), options.clone());
    for _ in outputs {
        bench.exec(json!({"cmd": "x"})).await;
    }
    insta::assert_snapshot!(bench.sandbox.memory().render(), @r#"
    755 .cofferdam/
    755 .cofferdam/output/
    644 .cofferdam/output/000011.txt: "second output"
    644 .cofferdam/output/000012.txt: "third output, which is long"
    644 .cofferdam/output/9.txt: "odd name"
    644 .cofferdam/output/99999999999999999999.txt: "too great"
    644 .cofferdam/output/notes.txt: "not ours"
    "#);
    bench.sandbox.finish();

    let bench = Bench::with(ScriptedSandbox::new([bash("x").stdout("abcdefgh").exit(0)]), options);
    bench.sandbox.memory().fail("write", ".cofferdam/output/000001.txt", 28);
    let output = bench.exec(json!({"cmd": "x"})).await;
    insta::assert_snapshot!(output.to_text(), @r#"
    Chunk ID: e220a8
    Wall time: 0.0000 seconds
    Process exited with code 0
    Original token count: 2
    Full output could not be saved: cannot write ".cofferdam/output/000001.txt" in the workspace: No space left on device (os error 28)
    Output:
    abcd
    "#);
    bench.sandbox.finish();
}

#[tokio::test(start_paused = true)]
async fn the_native_shell_runs_each_command_to_its_end() {
    let sandbox = ScriptedSandbox::new([
        bash("ls").stdout("a\n").stderr("warning\n").exit(2),
        bash("sleep").stdout("begun").after(millis(60_000)).exit(0),
        bash("server &").exit(0).lingers(),
    ]);
    let tool = NativeShellTool::new(Terminal::new(sandbox.clone(), ShellOptions::default()));
    let commands = ["ls", "sleep", "server &"];
    let input = ToolInput::Json(
        json!({"commands": commands, "timeout_ms": 1500, "max_output_length": null}),
    );
    let output = tool.call(&context(), input).await.unwrap();
    assert_eq!(
        output.structured,
        json!({"output": [
            {"stdout": "a\n", "stderr": "warning\n", "outcome": {"type": "exit", "exit_code": 2}},
            {"stdout": "begun", "stderr": "", "outcome": {"type": "timeout"}},
            {"stdout": "", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}},
        ]})
    );
    insta::assert_snapshot!(output.to_text(), @r"
    $ ls
    Process exited with code 2
    Output:
    a

    Error output:
    warning

    $ sleep
    Process killed after 1.5 seconds
    Output:
    begun
    $ server &
    Process exited with code 0
    Output:
    ");
    assert_eq!(sandbox.killed(), [2, 3]);
    sandbox.finish();
}

#[tokio::test(start_paused = true)]
async fn the_native_shell_is_bounded() {
    let sandbox = ScriptedSandbox::new([
        bash("many").stdout("0123456789".repeat(20)).exit(0),
        bash("few").stdout("ok").exit(0),
    ]);
    let tool = NativeShellTool::new(Terminal::new(sandbox.clone(), ShellOptions::default()));
    let input = ToolInput::Json(json!({"commands": ["many", "few"], "max_output_length": 100}));
    let output = tool.call(&context(), input).await.unwrap();
    assert_eq!(output.structured["max_output_length"], 100);
    insta::assert_snapshot!(output.structured["output"][0]["stdout"].as_str().unwrap(), @r"
    Total output lines: 1

    0…50 tokens truncated…9
    Full output saved to: .cofferdam/output/000001.txt
    ");
    assert_eq!(output.structured["output"][1]["stdout"], "ok");
    for commands in [json!([]), json!(vec!["x"; 33])] {
        let input = ToolInput::Json(json!({"commands": commands}));
        let error = tool.call(&context(), input).await.unwrap_err();
        assert!(
            error.to_string().starts_with("invalid input: `commands` must be 1 to 32"),
            "{error}"
        );
    }
    sandbox.finish();
}

#[test]
fn tools_are_told_of_in_the_peers_words() {
    let sandbox = ScriptedSandbox::new([]);
    let tools =
        crate::ShellTools::new(sandbox.clone(), ShellOptions::default()).with_native_shell();
    let files = crate::FileTools::new(sandbox.clone() as Arc<dyn Sandbox>);
    let shapes: Vec<String> = tools
        .into_iter()
        .chain(files)
        .map(|tool| {
            let spec = serde_json::to_value(tool.spec()).unwrap();
            let schema = &spec["input"]["schema"];
            let names = schema["properties"].as_object().unwrap().keys().cloned();
            let names: Vec<String> = names.collect();
            format!("{} {} required {}", tool.spec().name, names.join(" "), schema["required"])
        })
        .collect();
    insta::assert_snapshot!(shapes.join("\n"), @r#"
    exec_command cmd login max_output_tokens shell tty workdir yield_time_ms required ["cmd"]
    write_stdin chars max_output_tokens session_id yield_time_ms required ["session_id"]
    shell commands max_output_length timeout_ms required ["commands"]
    read_file file_path limit offset required ["file_path"]
    list_dir depth dir_path limit offset required []
    grep_files include limit path pattern required ["pattern"]
    "#);
    sandbox.finish();
}
