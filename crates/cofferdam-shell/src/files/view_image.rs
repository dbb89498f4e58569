//! [`ViewImageTool`]: an image of the workspace, shown to the model.

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use cofferdam_core::{Content, Effects, ToolOutput, ToolSpec, WorkspacePath};
use cofferdam_tool::{Tool, ToolContext, ToolError, ToolInput};
use serde::Deserialize;
use serde_json::json;

use super::WorkspaceView;
use crate::call::{json_spec, tool_error};

const NAME: &str = "view_image";
const MAX_IMAGE_BYTES: u64 = 10 << 20;

/// The tool `view_image`: a PNG, JPEG, GIF, WebP, BMP or TIFF image of at most 10 MiB. The kind is told by the content,
/// not by the name.
#[derive(Debug)]
pub struct ViewImageTool {
    spec: ToolSpec,
    workspace: WorkspaceView,
}

#[derive(Debug, Deserialize)]
struct Arguments {
    path: String,
}

impl ViewImageTool {
    /// Makes the tool.
    pub fn new(workspace: impl Into<WorkspaceView>) -> Self {
        let spec = json_spec(
            NAME,
            "Shows an image of the workspace (PNG, JPEG, GIF, WebP, BMP or TIFF, at most 10 MiB).",
            &["path"],
            json!({"path": {"type": "string", "description": "Path of the image file."}}),
        );
        Self { spec, workspace: workspace.into() }
    }

    async fn image(&self, path: &WorkspacePath) -> Result<ToolOutput, ToolError> {
        // One byte more than allowed tells an image that is too large, also if it grows meanwhile.
        let bytes = self
            .workspace
            .files()
            .read(path, 0, MAX_IMAGE_BYTES + 1)
            .await
            .map_err(|error| tool_error(NAME, error))?;
        let failed =
            |reason: &str| Ok(ToolOutput::error(format!("{NAME} failed: image `{path}` {reason}")));
        if bytes.len() as u64 > MAX_IMAGE_BYTES {
            return failed("exceeded the allowed size of 10MB");
        }
        match media_type(&bytes) {
            Some(media_type) => Ok(ToolOutput {
                content: vec![Content::Image {
                    media_type: media_type.into(),
                    data_base64: STANDARD.encode(&bytes),
                }],
                structured: json!({"path": path.as_str(), "media_type": media_type, "bytes": bytes.len()}),
                ..ToolOutput::default()
            }),
            None if looks_like_svg(&bytes) => {
                failed("is SVG, which is text; read it with read_file or convert it to PNG")
            }
            None => failed("is not a PNG, JPEG, GIF, WebP, BMP or TIFF image"),
        }
    }
}

/// Tells the media type by the first bytes.
fn media_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        // The four bytes after the file's size are reserved and zero; `BM` alone begins many texts.
        [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => Some("image/bmp"),
        [b'I', b'I', 0x2a, 0, ..] | [b'M', b'M', 0, 0x2a, ..] => Some("image/tiff"),
        _ => None,
    }
}

fn looks_like_svg(bytes: &[u8]) -> bool {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(2048)]).to_ascii_lowercase();
    start.contains("<svg")
}

#[async_trait]
impl Tool for ViewImageTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effects(&self, _: &ToolInput) -> Effects {
        Effects::PURE
    }

    async fn call(&self, context: &ToolContext, input: ToolInput) -> Result<ToolOutput, ToolError> {
        let Arguments { path } = input.decode()?;
        let path = self.workspace.path(&path)?;
        context.cancel.run_until_cancelled(self.image(&path)).await.ok_or(ToolError::Cancelled)?
    }
}
