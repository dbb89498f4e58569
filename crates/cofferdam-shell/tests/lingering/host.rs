//! What tests of commands that outlive their tools are made of: a sandbox that lingers, and the tools of one process.

use std::{sync::Arc, time::Duration};

use cofferdam_core::{CallId, RunId, StepId};
use cofferdam_sandbox::{Sandbox, SandboxBackend, SandboxError, SandboxSpec};
use cofferdam_sandbox_linux::LinuxBackend;
use cofferdam_shell::{ExecCommandTool, NativeShellTool, ShellOptions, Terminal, WriteStdinTool};
use cofferdam_tool::ToolContext;

/// A backend, and where it writes down its sandboxes.
pub(crate) struct Host {
    pub(crate) backend: LinuxBackend,
    _directory: tempfile::TempDir,
}

/// A sandbox that lingers, or nothing and a word about it.
pub(crate) async fn sandbox(test: &str) -> Option<(Host, Arc<dyn Sandbox>)> {
    let directory = tempfile::tempdir().unwrap();
    let backend = LinuxBackend::new().with_state_directory(directory.path().join("state"));
    let spec = SandboxSpec { linger: Duration::from_secs(60), ..SandboxSpec::default() };
    match backend.create(&spec).await {
        Ok(sandbox) => Some((Host { backend, _directory: directory }, sandbox)),
        Err(error @ (SandboxError::HostUnable { .. } | SandboxError::Unenforceable { .. })) => {
            cofferdam_testkit::skip(test, &error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The tools of one process.
pub(crate) struct Tools {
    pub(crate) terminal: Arc<Terminal>,
    pub(crate) exec: ExecCommandTool,
    pub(crate) shell: NativeShellTool,
    pub(crate) stdin: WriteStdinTool,
}

pub(crate) fn tools(sandbox: &Arc<dyn Sandbox>) -> Tools {
    let terminal = Terminal::new(Arc::clone(sandbox), ShellOptions::default());
    Tools {
        exec: ExecCommandTool::new(Arc::clone(&terminal)),
        shell: NativeShellTool::new(Arc::clone(&terminal)),
        stdin: WriteStdinTool::new(Arc::clone(&terminal)),
        terminal,
    }
}

pub(crate) fn context(call: u32) -> ToolContext {
    ToolContext::new(RunId::new("r"), StepId { turn: 1, call }, CallId::new("c"))
}

/// Waits until a command has ended and the sandbox knows how.
pub(crate) async fn ended(sandbox: &Arc<dyn Sandbox>, name: &str) {
    loop {
        let list = sandbox.sessions().unwrap().list().await.unwrap();
        if list.iter().any(|command| command.id == name && command.status.is_some()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
