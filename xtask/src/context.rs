//! Where the workspace is and what it holds.

use std::path::PathBuf;

use anyhow::Result;

use crate::metadata::Workspace;

/// What every task gets.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) workspace: Workspace,
    /// For suites that play random rounds.
    pub(crate) rounds: Rounds,
}

/// How many rounds are played, and from which seed; `None` leaves it to the suite.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rounds {
    pub(crate) number: Option<u64>,
    pub(crate) seed: Option<u64>,
}

impl Context {
    /// Asks cargo.
    pub(crate) fn load() -> Result<Self> {
        Ok(Self { workspace: Workspace::load()?, rounds: Rounds::default() })
    }

    /// A path inside the repository.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.workspace.root.join(relative)
    }

    /// A path inside cargo's target directory.
    pub(crate) fn target(&self, relative: &str) -> PathBuf {
        self.workspace.target.join(relative)
    }

    /// The Python that `cargo xtask setup` made, where it made one.
    pub(crate) fn python(&self) -> Option<PathBuf> {
        let python = self.target("setup/venv/bin/python");
        python.exists().then_some(python)
    }
}
