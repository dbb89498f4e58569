//! Reads `root`: where the programs of a sandbox come from.

use super::{Fields, host_path, words};
use crate::{FieldPath, RootSource, node::Node, problem::Problems};

/// The longest name of an image, in bytes; those of registries are shorter.
const MAX_IMAGE_NAME: usize = 512;

const FORMS: &str = "write `host_system`, `{directory: path/of/root}`, `{archive: root.tar}`, `{layout: directory}`, \
                     `{saved: image.tar}` or `{image: name}`";

pub(super) fn root(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<RootSource> {
    match node {
        Node::Map(_) => from_fields(node, path, problems),
        Node::Text(text) if text == "host_system" => Some(RootSource::HostSystem),
        _ => {
            problems.value(path, FORMS);
            None
        }
    }
}

fn from_fields(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<RootSource> {
    let mut fields = Fields::open(node, path, problems)?;
    let forms = ["directory", "archive", "layout", "saved", "image"];
    let given: Vec<&str> = forms.into_iter().filter(|form| fields.has(form)).collect();
    let has_name = fields.has("name");
    let directory = fields.optional("directory", host_path);
    let archive = fields.optional("archive", host_path);
    let layout = fields.optional("layout", host_path);
    let saved = fields.optional("saved", host_path);
    let image = fields.optional("image", image_name);
    let name = fields.optional("name", image_name);
    fields.close();
    if has_name && !given.iter().any(|form| matches!(*form, "layout" | "saved")) {
        problems.key(
            &path.key("name"),
            "only a `layout` or a `saved` file holds images by name; remove it",
        );
        return None;
    }
    match given.as_slice() {
        ["directory"] => directory.map(RootSource::Directory),
        ["archive"] => archive.map(RootSource::Archive),
        ["layout"] => layout.map(|path| RootSource::Layout { path, name }),
        ["saved"] => saved.map(|path| RootSource::Saved { path, name }),
        ["image"] => image.map(RootSource::Image),
        _ => {
            problems.value(path, FORMS);
            None
        }
    }
}

fn image_name(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<String> {
    let name = words(node, path, problems)?;
    if name.len() > MAX_IMAGE_NAME || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        problems.value(
            path,
            format!(
                "this is no name of an image: it has spaces, or more than {MAX_IMAGE_NAME} bytes"
            ),
        );
        return None;
    }
    Some(name)
}
