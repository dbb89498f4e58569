//! What the tools of this crate share: paths as models write them, sandbox failures as tools report them, and specs.

use cofferdam_core::{ToolInputSpec, ToolSpec, WorkspacePath};
use cofferdam_sandbox::SandboxError;
use cofferdam_tool::ToolError;
use serde_json::{Value, json};

/// Reads a path that a model wrote: relative to the workspace, or absolute below its place in the sandbox.
pub(crate) fn workspace_path(path: &str, workspace_root: &str) -> Result<WorkspacePath, ToolError> {
    let root = workspace_root.trim_end_matches('/');
    let relative = match path.strip_prefix(root) {
        Some("") => ".",
        Some(below) if below.starts_with('/') => match below.trim_start_matches('/') {
            "" => ".",
            inside => inside,
        },
        _ => path,
    };
    WorkspacePath::new(relative).map_err(|error| ToolError::InvalidInput {
        reason: format!("{error}; the workspace is {workspace_root}"),
    })
}

/// Says who must act on a failure of the sandbox: the harness if it is lost, else the model.
pub(crate) fn tool_error(tool: &str, error: SandboxError) -> ToolError {
    if error.is_loss() {
        ToolError::SandboxLost(Box::new(error))
    } else {
        ToolError::Failed { message: format!("{tool} failed: {error}") }
    }
}

/// A tool with JSON input. Properties are in the order in which they are to be shown.
pub(crate) fn json_spec(
    name: &str,
    description: &str,
    required: &[&str],
    properties: Value,
) -> ToolSpec {
    ToolSpec {
        name: name.into(),
        description: description.into(),
        input: ToolInputSpec::Json {
            schema: json!({
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": false,
            }),
            // Optional arguments are left out by models, which strict mode does not allow.
            strict: false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::workspace_path;

    fn check(path: &str, expect: &str) {
        let got = match workspace_path(path, "/workspace") {
            Ok(path) => path.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expect, "for {path:?}");
    }

    #[test]
    fn reads_paths_as_models_write_them() {
        check("src/./main.rs", "src/main.rs");
        check("/workspace/src//main.rs", "src/main.rs");
        check("/workspace", ".");
        check("/workspace/", ".");
        check("/workspace//", ".");
        check(
            "/workspaces/a",
            "invalid input: path \"/workspaces/a\" is absolute; write it relative to the workspace; the workspace is \
             /workspace",
        );
        check(
            "../a",
            "invalid input: path \"../a\" has a `..` component and may leave the workspace; write the path it leads to; \
             the workspace is /workspace",
        );
        check(
            "",
            "invalid input: the path is empty; write `.` for the workspace itself; the workspace is /workspace",
        );
    }
}
