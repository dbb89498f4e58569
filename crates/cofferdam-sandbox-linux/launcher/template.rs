//! Templates: for each root, a mount namespace in which it is already the root, read-only.
//!
//! A sandbox is cloned from inside its template, so that it starts with a copy of these mounts and of nothing else: the
//! forty steps that make a root are done once, not for each sandbox, and there is no host tree to get rid of.

use std::os::fd::{AsFd, OwnedFd};

use crate::{
    home::{self, Home},
    plan::Root,
    report::Step,
    root,
    step::{Failure, Steps},
    sys,
};

/// The templates that are kept; making one takes about a millisecond, keeping one some hundred kilobytes.
const MAX_KEPT: usize = 8;

/// The templates made so far, the one used last at the end.
#[derive(Debug, Default)]
pub(crate) struct Templates(Vec<Template>);

#[derive(Debug)]
struct Template {
    root: Root,
    mounts: OwnedFd,
}

impl Templates {
    /// Moves this process into the template of a root, which is made if there is none. The caller returns it home, also
    /// after a failure.
    pub(crate) fn enter(&mut self, root: &Root, home: &Home, steps: &Steps) -> Result<(), Failure> {
        let found = self.0.iter().position(|template| template.root == *root);
        // A test that wants a step to fail wants it to be taken.
        let template = match found.filter(|_| !steps.has_fault()) {
            Some(at) => self.0.remove(at),
            None => {
                let mounts = build(root, steps)?;
                steps.run(Step::EnterRoot, b"", || home.return_here())?;
                Template { root: root.clone(), mounts }
            }
        };
        let entered = steps.run(Step::EnterRoot, b"", || {
            sys::enter_namespace(template.mounts.as_fd(), sys::CLONE_NEWNS)
        });
        if self.0.len() == MAX_KEPT {
            self.0.remove(0);
        }
        self.0.push(template);
        entered
    }
}

fn build(root: &Root, steps: &Steps) -> Result<OwnedFd, Failure> {
    let mounts = steps.run(Step::CreateNamespaces, b"of the root", || {
        sys::unshare_namespaces(sys::CLONE_NEWNS)?;
        home::current_mounts()
    })?;
    root::build(root, steps)?;
    Ok(mounts)
}
