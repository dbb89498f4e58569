//! The form of `layers.toml`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// All of `layers.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rules {
    /// The place of each crate of the workspace.
    pub(crate) crates: BTreeMap<String, Place>,
    /// What must not be reached, directly or through others.
    #[serde(default)]
    pub(crate) forbid: Vec<Forbid>,
    /// Words that only some crates may write.
    #[serde(default)]
    pub(crate) source: Vec<SourceRule>,
}

/// Where a crate stands, and the crates of ours that it may name in `[dependencies]` or `[build-dependencies]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    pub(crate) level: u8,
    pub(crate) role: String,
    /// Crates of a lower level.
    #[serde(default)]
    pub(crate) uses: Vec<String>,
    /// Crates of the same level: exceptions, to be read as such.
    #[serde(default)]
    pub(crate) sideways: Vec<String>,
    /// Only `[dev-dependencies]` may name it.
    #[serde(default)]
    pub(crate) dev_only: bool,
}

/// An absence over the whole tree of normal and build dependencies.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Forbid {
    /// The crates the rule is for; without it every crate of the workspace that `except` does not name.
    #[serde(default)]
    pub(crate) from: Vec<String>,
    #[serde(default)]
    pub(crate) except: Vec<String>,
    pub(crate) to: Vec<String>,
    /// Leaves out the crate's own optional dependencies: the rule is for the crate with its features off.
    #[serde(default)]
    pub(crate) features_off: bool,
    pub(crate) reason: String,
}

/// Words in the code, outside comments, strings and tests, that only the named crates may contain.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourceRule {
    pub(crate) words: Vec<String>,
    pub(crate) only: Vec<String>,
    pub(crate) reason: String,
}

impl Rules {
    pub(crate) fn load(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("could not read {}", file.display()))?;
        Self::parse(&text).with_context(|| format!("could not parse {}", file.display()))
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::Rules;

    #[test]
    fn a_misspelt_key_is_an_error() {
        let error = Rules::parse("[crates.a]\nlevel = 0\nrole = 'r'\nusess = []\n").unwrap_err();
        assert!(format!("{error:#}").contains("unknown field `usess`"), "{error:#}");
    }

    #[test]
    fn the_file_of_this_repository_parses() {
        let rules = Rules::parse(include_str!("../../../layers.toml")).unwrap();
        assert_eq!(rules.crates["cofferdam-core"].level, 0);
    }
}
