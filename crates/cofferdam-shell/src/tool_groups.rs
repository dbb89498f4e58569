//! [`ShellTools`] and [`FileTools`]: the tools that belong together, to be added to a tool set at once.

use std::{sync::Arc, vec};

use cofferdam_sandbox::Sandbox;
use cofferdam_tool::Tool;

use crate::{
    ExecCommandTool, GrepFilesTool, ListDirTool, NativeShellTool, ReadFileTool, ShellOptions,
    Terminal, WorkspaceView, WriteStdinTool,
};

/// `exec_command` and `write_stdin` over one sandbox; iterating gives the tools.
#[derive(Debug)]
pub struct ShellTools {
    terminal: Arc<Terminal>,
    has_native_shell: bool,
}

impl ShellTools {
    /// Makes the tools of a sandbox; nothing is started.
    pub fn new(sandbox: Arc<dyn Sandbox>, options: ShellOptions) -> Self {
        Self { terminal: Terminal::new(sandbox, options), has_native_shell: false }
    }

    /// Adds `shell`, for models that are offered their provider's built-in shell.
    #[must_use]
    pub fn with_native_shell(mut self) -> Self {
        self.has_native_shell = true;
        self
    }

    /// Returns what the tools share.
    #[must_use]
    pub fn terminal(&self) -> Arc<Terminal> {
        Arc::clone(&self.terminal)
    }
}

impl IntoIterator for ShellTools {
    type Item = Arc<dyn Tool>;
    type IntoIter = vec::IntoIter<Arc<dyn Tool>>;

    fn into_iter(self) -> Self::IntoIter {
        let mut tools: Vec<Arc<dyn Tool>> = vec![
            Arc::new(ExecCommandTool::new(Arc::clone(&self.terminal))),
            Arc::new(WriteStdinTool::new(Arc::clone(&self.terminal))),
        ];
        if self.has_native_shell {
            tools.push(Arc::new(NativeShellTool::new(self.terminal)));
        }
        tools.into_iter()
    }
}

/// `read_file`, `list_dir` and `grep_files` over one workspace; iterating gives the tools.
#[derive(Debug)]
pub struct FileTools(WorkspaceView);

impl FileTools {
    /// Makes the tools of a workspace.
    pub fn new(workspace: impl Into<WorkspaceView>) -> Self {
        Self(workspace.into())
    }
}

impl IntoIterator for FileTools {
    type Item = Arc<dyn Tool>;
    type IntoIter = vec::IntoIter<Arc<dyn Tool>>;

    fn into_iter(self) -> Self::IntoIter {
        let tools: Vec<Arc<dyn Tool>> = vec![
            Arc::new(ReadFileTool::new(self.0.clone())),
            Arc::new(ListDirTool::new(self.0.clone())),
            Arc::new(GrepFilesTool::new(self.0)),
        ];
        tools.into_iter()
    }
}
