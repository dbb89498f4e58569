//! `cofferdam manifest check|show|schema`.

use std::{io::Write as _, path::Path};

use anyhow::Context as _;
use cofferdam::manifest::{json_schema, show as show_agent, show_manifest};

use super::file::{Document, parse, read};
use crate::exit::{Exit, Failure};

pub(crate) fn check(file: &Path) -> Result<Exit, Failure> {
    let source = read(file)?;
    let (kind, warnings) = match parse(&source)? {
        Document::Agent(agent) => ("agent file", agent.warnings()),
        Document::Manifest(manifest) => ("manifest", manifest.warnings()),
    };
    let mut err = std::io::stderr().lock();
    for warning in &warnings {
        let _ = writeln!(err, "{}: warning: {warning}", source.name);
    }
    print(&format!("{}: a good {kind}, {} warnings\n", source.name, warnings.len()))
}

pub(crate) fn show(file: &Path) -> Result<Exit, Failure> {
    let source = read(file)?;
    print(&match parse(&source)? {
        Document::Agent(agent) => show_agent(&agent),
        Document::Manifest(manifest) => show_manifest(&manifest),
    })
}

pub(crate) fn schema() -> Result<Exit, Failure> {
    let text = serde_json::to_string_pretty(&json_schema()).context("cannot write the schema")?;
    print(&format!("{text}\n"))
}

fn print(text: &str) -> Result<Exit, Failure> {
    std::io::stdout().lock().write_all(text.as_bytes()).context(crate::exit::NOT_WRITTEN)?;
    Ok(Exit::Done)
}
