//! The tools on real commands in real sandboxes: what prints forever, ignores signals, or leaves a daemon.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use cofferdam_apply_patch::tool::ApplyPatchTool;
use cofferdam_core::{CallId, RunId, StepId, ToolOutput, WorkspacePath};
use cofferdam_sandbox::{
    ExecRequest, Sandbox, SandboxBackend, SandboxError, SandboxExt, SandboxSpec,
};
use cofferdam_sandbox_linux::LinuxBackend;
use cofferdam_shell::{
    ExecCommandTool, GrepFilesTool, ReadFileTool, ShellOptions, Terminal, WriteStdinTool,
};
use cofferdam_tool::{Tool, ToolContext, ToolError, ToolInput};
use serde_json::{Value, json};

/// A sandbox with the command tools.
struct Bench {
    sandbox: Arc<dyn Sandbox>,
    terminal: Arc<Terminal>,
    exec: ExecCommandTool,
    stdin: WriteStdinTool,
}

impl Bench {
    /// Makes a sandbox; `None`, said aloud, on a host that cannot.
    async fn new(test: &str) -> Option<Self> {
        let sandbox = match LinuxBackend::new().create(&SandboxSpec::default()).await {
            Ok(sandbox) => sandbox,
            Err(error @ (SandboxError::HostUnable { .. } | SandboxError::Unenforceable { .. })) => {
                cofferdam_testkit::skip(test, &error.to_string());
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let terminal = Terminal::new(Arc::clone(&sandbox), ShellOptions::default());
        Some(Self {
            exec: ExecCommandTool::new(Arc::clone(&terminal)),
            stdin: WriteStdinTool::new(Arc::clone(&terminal)),
            terminal,
            sandbox,
        })
    }

    async fn exec(&self, arguments: Value) -> ToolOutput {
        self.exec.call(&context(), ToolInput::Json(arguments)).await.unwrap()
    }

    async fn stdin(&self, arguments: Value) -> ToolOutput {
        self.stdin.call(&context(), ToolInput::Json(arguments)).await.unwrap()
    }

    /// Waits until no process of this name is in the sandbox.
    async fn wait_for_end_of(&self, name: &str) {
        let script = format!("cat /proc/[0-9]*/comm 2>/dev/null | grep -cx {name}");
        for _ in 0..200 {
            let output = self.sandbox.run(ExecRequest::shell(script.clone()), 100).await.unwrap();
            if output.stdout.to_text().trim() == "0" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{name} still runs");
    }

    async fn close(self) {
        self.sandbox.close().await.unwrap();
    }
}

fn context() -> ToolContext {
    // Each call has a place of its own, as in a run: its command is named by it.
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    ToolContext::new(RunId::new("r"), StepId { turn: 1, call }, CallId::new("c"))
}

#[tokio::test]
async fn a_command_answers_with_output_and_code() {
    let Some(bench) = Bench::new("a_command_answers_with_output_and_code").await else { return };
    let output = bench.exec(json!({"cmd": "echo out; echo err >&2; pwd; exit 7"})).await;
    assert_eq!(output.structured["exit_code"], 7, "{}", output.to_text());
    for part in ["out\n", "err\n", "/workspace\n"] {
        assert!(output.to_text().contains(part), "{part:?} is not in {}", output.to_text());
    }
    let output = bench.exec(json!({"cmd": "kill -TERM $$"})).await;
    assert_eq!(output.structured["exit_code"], 143, "{}", output.to_text());
    bench.close().await;
}

#[tokio::test]
async fn what_prints_forever_is_bounded_and_can_be_interrupted() {
    let name = "what_prints_forever_is_bounded_and_can_be_interrupted";
    let Some(bench) = Bench::new(name).await else { return };
    let output = bench
        .exec(json!({"cmd": "exec yes", "yield_time_ms": 1000, "max_output_tokens": 100}))
        .await;
    assert!(output.to_text().len() < 1_000, "{}", output.to_text());
    let path = output.structured["output_file"].as_str().unwrap();
    let read = ReadFileTool::new(Arc::clone(&bench.sandbox));
    let input = ToolInput::Json(json!({"file_path": path, "limit": 2}));
    let read = read.call(&context(), input).await.unwrap();
    assert_eq!(read.to_text(), "L1: y\nL2: y\nThe file goes on; read it from offset 3.");
    let path = WorkspacePath::new(path).unwrap();
    let size = bench.sandbox.files().stat(&path).await.unwrap().size;
    assert!(size <= (16 << 20) + 100, "{size}");
    let id = &output.structured["session_id"];
    let output =
        bench.stdin(json!({"session_id": id, "chars": "\u{3}", "yield_time_ms": 20_000, "max_output_tokens": 10})).await;
    assert_eq!(output.structured["exit_code"], 130, "{}", output.to_text());
    bench.close().await;
}

#[tokio::test]
async fn what_ignores_signals_dies_with_its_call() {
    let Some(bench) = Bench::new("what_ignores_signals_dies_with_its_call").await else { return };
    let script =
        "trap '' INT TERM HUP; setsid sleep 1111 & sleep 1111 & while :; do sleep 1111; done";
    let context = context();
    let cancel = context.cancel.clone();
    let call = bench.exec.call(&context, ToolInput::Json(json!({"cmd": script})));
    let (result, ()) = tokio::join!(call, async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cancel.cancel();
    });
    assert!(matches!(result, Err(ToolError::Cancelled)), "{result:?}");
    bench.wait_for_end_of("sleep").await;
    bench.close().await;
}

#[tokio::test]
async fn a_daemon_is_named_and_can_be_ended() {
    let Some(bench) = Bench::new("a_daemon_is_named_and_can_be_ended").await else { return };
    for script in ["sleep 1111 & echo up", "setsid nohup sleep 1111 >/dev/null 2>&1 & echo up"] {
        let output = bench.exec(json!({"cmd": script})).await;
        assert_eq!(output.structured["exit_code"], 0, "{}", output.to_text());
        let id = &output.structured["session_id"];
        assert!(id.is_number(), "{script}: {}", output.to_text());
        let output =
            bench.stdin(json!({"session_id": id, "chars": "\u{3}", "yield_time_ms": 20_000})).await;
        assert_eq!(output.structured["session_id"], Value::Null, "{}", output.to_text());
        bench.wait_for_end_of("sleep").await;
    }
    assert_eq!(bench.terminal.session_count(), 0);
    bench.close().await;
}

#[tokio::test]
async fn a_terminal_echoes_and_is_interrupted() {
    let Some(bench) = Bench::new("a_terminal_echoes_and_is_interrupted").await else { return };
    let output = bench.exec(json!({"cmd": "exec cat", "tty": true, "yield_time_ms": 1000})).await;
    let id = output.structured["session_id"].clone();
    let output =
        bench.stdin(json!({"session_id": id, "chars": "häuser\n", "yield_time_ms": 1000})).await;
    // The terminal shows what was typed, and `cat` repeats it.
    assert!(output.to_text().ends_with("häuser\r\nhäuser\r\n"), "{:?}", output.to_text());
    let output =
        bench.stdin(json!({"session_id": id, "chars": "\u{3}", "yield_time_ms": 20_000})).await;
    assert_eq!(output.structured["exit_code"], 130, "{}", output.to_text());
    bench.close().await;
}

#[tokio::test]
async fn dropping_the_tools_ends_the_sessions() {
    let Some(bench) = Bench::new("dropping_the_tools_ends_the_sessions").await else { return };
    bench.exec(json!({"cmd": "exec sleep 1111", "yield_time_ms": 250})).await;
    let Bench { sandbox, terminal, exec, stdin } = bench;
    assert_eq!(terminal.session_count(), 1);
    drop((exec, stdin));
    drop(terminal);
    let terminal = Terminal::new(Arc::clone(&sandbox), ShellOptions::default());
    let bench = Bench {
        exec: ExecCommandTool::new(Arc::clone(&terminal)),
        stdin: WriteStdinTool::new(Arc::clone(&terminal)),
        terminal,
        sandbox,
    };
    bench.wait_for_end_of("sleep").await;
    bench.close().await;
}

#[tokio::test]
async fn files_are_searched() {
    let Some(bench) = Bench::new("files_are_searched").await else { return };
    bench.exec(json!({"cmd": "mkdir -p a/b .git && echo needle > a/b/x.txt && echo needle > .git/y && ln -s /etc evil"})).await;
    let grep = GrepFilesTool::new(Arc::clone(&bench.sandbox));
    let found = grep.call(&context(), ToolInput::Json(json!({"pattern": "ne+dle"}))).await.unwrap();
    assert_eq!(found.to_text(), "a/b/x.txt");
    bench.close().await;
}

#[tokio::test]
async fn patches_are_applied_whole_or_not_at_all() {
    let Some(bench) = Bench::new("patches_are_applied_whole_or_not_at_all").await else { return };
    let setup = "printf 'one\\n' > a.sh; chmod 750 a.sh; printf 'x\\n' > b; mkdir shut; printf 'y\\n' > shut/c; chmod 555 shut";
    assert_eq!(bench.exec(json!({"cmd": setup})).await.structured["exit_code"], 0);
    let tool = ApplyPatchTool::new(Arc::clone(&bench.sandbox));
    let apply = async |body: &str| {
        let input = ToolInput::Text(format!("*** Begin Patch\n{body}*** End Patch"));
        tool.call(&context(), input).await.unwrap()
    };
    let show = "for f in $(find . -type f | sort); do stat -c '%a %n' $f; cat $f; done";
    let before = bench.exec(json!({"cmd": show})).await;
    let update =
        "*** Update File: a.sh\n@@\n-one\n+two\n*** Add File: new/deep/d\n+d\n*** Delete File: b\n";

    let output = apply(&format!("{update}*** Delete File: shut/c\n")).await;
    assert!(output.is_error, "{}", output.to_text());
    assert!(output.to_text().contains("nothing was changed"), "{}", output.to_text());
    let after = bench.exec(json!({"cmd": format!("ls -A; {show}")})).await;
    assert!(after.to_text().ends_with(before.to_text().split_once("Output:\n").unwrap().1));
    assert!(after.to_text().contains("Output:\na.sh\nb\nshut\n"), "{}", after.to_text());

    let output = apply(update).await;
    assert_eq!(
        output.to_text(),
        "Success. Updated the following files:\nA new/deep/d\nM a.sh\nD b\n"
    );
    let after = bench.exec(json!({"cmd": show})).await;
    let shown = "Output:\n750 ./a.sh\ntwo\n644 ./new/deep/d\nd\n644 ./shut/c\ny\n";
    assert!(after.to_text().ends_with(shown), "{}", after.to_text());
    bench.close().await;
}
