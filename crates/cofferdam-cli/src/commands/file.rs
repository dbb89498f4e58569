//! Reading an agent file or a manifest from disk.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use cofferdam::manifest::{AgentFile, Manifest};

use crate::exit::Failure;

/// The text of a file, its name for messages, and the directory where its relative paths begin.
pub(super) struct Source {
    pub(super) text: String,
    pub(super) name: String,
    pub(super) base: PathBuf,
}

pub(super) fn read(file: &Path) -> Result<Source, Failure> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read {}", file.display()))
        .map_err(Failure::usage)?;
    let base =
        file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(Source { text, name: file.display().to_string(), base: base.to_owned() })
}

/// What a file turned out to be.
pub(super) enum Document {
    Agent(Box<AgentFile>),
    Manifest(Box<Manifest>),
}

/// Parses a file as an agent file if it has a `model`, as a manifest otherwise.
pub(super) fn parse(source: &Source) -> Result<Document, Failure> {
    let is_agent =
        source.text.lines().any(|line| line.starts_with("model:") || line.starts_with("name:"));
    if is_agent || source.text.trim_start().starts_with('{') {
        let agent = AgentFile::parse(&source.text, &source.name).map_err(Failure::usage)?;
        return Ok(Document::Agent(Box::new(agent)));
    }
    let manifest = Manifest::parse(&source.text, &source.name).map_err(Failure::usage)?;
    Ok(Document::Manifest(Box::new(manifest)))
}
