//! Reading tools: [`ReadFileTool`], [`ListDirTool`], [`GrepFilesTool`] and [`ViewImageTool`].
//!
//! All go through [`cofferdam_sandbox::Files`], so that no program has to be in the sandbox and no link leads out. They
//! change nothing.

use std::sync::Arc;

use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{Files, Sandbox};
use cofferdam_tool::ToolError;

use crate::call::workspace_path;

mod grep_files;
mod list_dir;
mod read_file;
mod view_image;

pub use grep_files::GrepFilesTool;
pub use list_dir::ListDirTool;
pub use read_file::ReadFileTool;
pub use view_image::ViewImageTool;

/// A sandbox, and where its workspace is inside it.
#[derive(Debug, Clone)]
pub struct WorkspaceView {
    sandbox: Arc<dyn Sandbox>,
    root: Arc<str>,
}

impl WorkspaceView {
    /// Looks at a workspace that is at `root` inside the sandbox, so that absolute paths below it are understood.
    pub fn new(sandbox: Arc<dyn Sandbox>, root: &str) -> Self {
        Self { sandbox, root: root.into() }
    }

    fn files(&self) -> &dyn Files {
        self.sandbox.files()
    }

    fn path(&self, path: &str) -> Result<WorkspacePath, ToolError> {
        workspace_path(path, &self.root)
    }

    /// The path as programs in the sandbox see it.
    fn absolute(&self, path: &WorkspacePath) -> String {
        let root = self.root.trim_end_matches('/');
        if path.is_root() { root.to_owned() } else { format!("{root}/{path}") }
    }
}

impl From<Arc<dyn Sandbox>> for WorkspaceView {
    /// Looks at a workspace at `/workspace`.
    fn from(sandbox: Arc<dyn Sandbox>) -> Self {
        Self::new(sandbox, "/workspace")
    }
}

/// Returns a name on one line: a name can hold line ends, which would pass for further entries.
fn one_line(name: &str) -> String {
    name.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = (!c.is_control()).then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// Whether content is not for reading as text, as `grep` decides it.
fn is_binary(content: &[u8]) -> bool {
    content.iter().take(8 * 1024).any(|byte| *byte == 0)
}

fn invalid(reason: impl Into<String>) -> ToolError {
    ToolError::InvalidInput { reason: reason.into() }
}

#[cfg(test)]
mod tests;
