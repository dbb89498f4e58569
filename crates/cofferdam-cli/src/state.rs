//! Where runs are recorded: the directory that the caller named, else the one of the user.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use cofferdam::{StateDirectory, journal::Journal};

use crate::{
    arguments::StateArguments,
    exit::{Exit, Failure},
    keep,
};

/// The directory that names another place than the user's own.
const VARIABLE: &str = "COFFERDAM_STATE";

/// An open state directory.
#[derive(Debug, Clone)]
pub(crate) struct State {
    path: PathBuf,
    directory: StateDirectory,
}

impl State {
    /// Opens the directory, or makes it.
    pub(crate) fn open(arguments: &StateArguments) -> Result<Self, Failure> {
        let path = match &arguments.state {
            Some(path) => path.clone(),
            None => default_path(variable)?,
        };
        // Resuming changes the working directory.
        let path = std::path::absolute(&path).map_err(|error| Failure::new(Exit::Usage, error))?;
        let directory =
            StateDirectory::open(&path).map_err(|error| Failure::new(Exit::Failed, error))?;
        let text = |name: &str| variable(name).map(|value| value.display().to_string());
        let directory = directory.automatic_clean_up(keep::automatic(text)?);
        Ok(Self { path, directory })
    }

    /// Opens the directory if there is one; nothing is made.
    pub(crate) fn find(arguments: &StateArguments) -> Result<Option<Self>, Failure> {
        let path = match &arguments.state {
            Some(path) => path.clone(),
            None => match default_path(variable) {
                Ok(path) => path,
                // Who keeps nothing has said nowhere where.
                Err(_) => return Ok(None),
            },
        };
        if path.join("journal.sqlite").exists() {
            Self::open(arguments).map(Some)
        } else {
            Ok(None)
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn directory(&self) -> &StateDirectory {
        &self.directory
    }

    pub(crate) fn journal(&self) -> &Arc<dyn Journal> {
        self.directory.journal()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "where the user keeps state is said by the environment"
)]
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn default_path(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf, Failure> {
    if let Some(path) = variable(VARIABLE) {
        return Ok(path);
    }
    // The XDG base directory specification has relative ones ignored.
    let state = variable("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let state = state.or_else(|| variable("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("cofferdam")).ok_or_else(|| {
        Failure::usage(anyhow::anyhow!(
            "nobody says where runs are recorded: name a directory with `--state` or {VARIABLE}, or run with `--no-state`"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(variables: &[(&str, &str)], expect: Option<&str>) {
        let got = default_path(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        });
        assert_eq!(got.ok(), expect.map(PathBuf::from), "{variables:?}");
    }

    #[test]
    fn the_directory_is_the_users() {
        check(&[("HOME", "/h")], Some("/h/.local/state/cofferdam"));
        check(&[("HOME", "/h"), ("XDG_STATE_HOME", "/x")], Some("/x/cofferdam"));
        check(&[("HOME", "/h"), ("XDG_STATE_HOME", "x")], Some("/h/.local/state/cofferdam"));
        check(&[("HOME", "/h"), ("COFFERDAM_STATE", "here")], Some("here"));
        check(&[], None);
    }
}
