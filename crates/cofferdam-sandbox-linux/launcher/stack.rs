//! Images of several layers: an overlay file system stacks them, and the root gets its trees.
//!
//! All of it is made at the staging directory before the root is, and taken off again: what stays are the trees.

use std::{
    ffi::CString,
    fs,
    os::fd::{AsFd, OwnedFd},
};

use crate::{
    plan::{HostTree, Root},
    report::Step,
    root::path,
    step::{Failure, Steps},
    sys::mount,
};

/// Returns true if a tree comes from the stack, and not from the host.
pub(crate) fn has(tree: &HostTree) -> bool {
    !tree.source.to_bytes().starts_with(b"/")
}

/// Stacks the layers of the root, if there are any, and clones the trees that come from the stack.
pub(crate) fn open_trees<'a>(
    root: &'a Root,
    steps: &Steps,
) -> Result<Vec<(&'a HostTree, OwnedFd)>, Failure> {
    if root.layers.is_empty() {
        return Ok(Vec::new());
    }
    // First, since the staging directory may hide them.
    let layers = root
        .layers
        .iter()
        .map(|layer| steps.run(Step::StackLayers, layer.to_bytes(), || mount::open_tree(layer)));
    let layers = layers.collect::<Result<Vec<_>, _>>()?;
    steps.run(Step::StackLayers, root.staging.to_bytes(), || {
        let flags = mount::MS_NOSUID | mount::MS_NODEV;
        mount::mount_at(c"tmpfs", &root.staging, Some(c"tmpfs"), flags, Some(c"mode=0700"))?;
        std::env::set_current_dir(path(&root.staging))
    })?;
    steps.run(Step::StackLayers, b"", || mount_overlay(&layers))?;
    let trees = root.trees.iter().filter(|tree| has(tree)).map(|tree| {
        let opened =
            steps.run(Step::OpenTree, tree.source.to_bytes(), || mount::open_tree(&tree.source))?;
        Ok((tree, opened))
    });
    let trees = trees.collect::<Result<Vec<_>, _>>()?;
    steps.run(Step::StackLayers, root.staging.to_bytes(), || {
        std::env::set_current_dir("/")?;
        mount::detach(&root.staging)
    })?;
    Ok(trees)
}

/// Attaches the layers below the working directory, stacks them, the first one uppermost, and goes to the stack.
fn mount_overlay(layers: &[OwnedFd]) -> std::io::Result<()> {
    let mut names = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        // Short, since all names together have to fit into a page.
        let name = number.to_string();
        fs::create_dir(&name)?;
        mount::attach_tree(layer.as_fd(), &CString::new(name.as_str())?)?;
        names.push(name);
    }
    fs::create_dir("stack")?;
    let data = CString::new(format!("lowerdir={},userxattr", names.join(":")))?;
    let flags = mount::MS_RDONLY | mount::MS_NOSUID | mount::MS_NODEV;
    mount::mount_at(c"overlay", c"stack", Some(c"overlay"), flags, Some(&data))?;
    std::env::set_current_dir("stack")
}
