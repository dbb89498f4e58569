//! [`show`]: an agent file for a reviewer: the tree that the workspace will be, and everything that the file opens.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Write},
};

use cofferdam_core::{NetworkAccess, WorkspacePath};

use crate::{
    AgentFile, ByteSize, Entry, EntrySource, HumanDuration, Manifest, ModelChoice, Owner,
    RootSource, host_path::leaves_base,
};

/// Renders an agent file: what it is, the tree of its workspace, and everything that it opens.
#[must_use]
pub fn show(agent: &AgentFile) -> String {
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = write_agent(&mut out, agent);
    out
}

/// Renders a manifest that stands alone: the tree of its workspace, and everything that it opens.
#[must_use]
pub fn show_manifest(manifest: &Manifest) -> String {
    let mut out = String::new();
    let _ = write_workspace(&mut out, manifest)
        .and_then(|()| out.write_str("\nOpens\n"))
        .and_then(|()| write_openings(&mut out, manifest));
    out
}

fn write_agent(out: &mut String, agent: &AgentFile) -> fmt::Result {
    write!(out, "Agent {}", agent.name)?;
    write_description(out, agent.description.as_deref())?;
    writeln!(out, "\n  model     {}", one_line(&agent.model.default))?;
    if let Some(live) = &agent.model.live {
        writeln!(out, "  live      {}", one_line(live))?;
    }
    let tools: Vec<&str> = match &agent.tools {
        None => vec!["all"],
        Some(tools) if tools.is_empty() => vec!["none"],
        Some(tools) => tools.iter().map(|tool| tool.as_str()).collect(),
    };
    writeln!(out, "  tools     {}", tools.join(", "))?;
    for rule in &agent.policy {
        write!(out, "  policy    {} {}", rule.decision.as_str(), one_line(&rule.tool))?;
        write_description(out, rule.reason.as_deref())?;
        out.push('\n');
    }
    let limits = &agent.limits;
    let given = [
        limits.max_turns.map(|turns| format!("{turns} turns")),
        limits.max_tokens.map(|tokens| format!("{tokens} tokens")),
        limits.wall_time.map(|time| format!("{time} in all")),
        limits.tool_time.map(|time| format!("{time} a tool call")),
    ];
    let given: Vec<String> = given.into_iter().flatten().collect();
    if !given.is_empty() {
        writeln!(out, "  limits    {}", given.join(", "))?;
    }
    out.push('\n');
    write_workspace(out, &agent.workspace)?;
    out.push_str("\nOpens\n");
    write_openings(out, &agent.workspace)?;
    for model in std::iter::once(&agent.model.default).chain(&agent.model.live) {
        match model {
            ModelChoice::Scripted { file } => {
                writeln!(out, "  reads        {} (answers of the scripted model)", host(file))?;
            }
            _ => {
                let server =
                    agent.model.base_url.as_deref().unwrap_or("the provider's own address");
                writeln!(out, "  asks         {} at {}", one_line(model), one_line(server))?;
            }
        }
    }
    if let Some(key) = &agent.model.api_key {
        writeln!(out, "  secret       {} (control plane only: key of the model)", one_line(key))?;
    }
    for output in &agent.outputs {
        let optional = if output.optional { " (if it is there)" } else { "" };
        write!(out, "  copies out   {}{optional}", one_line(&output.path))?;
        write_description(out, output.description.as_deref())?;
        out.push('\n');
    }
    for evaluation in &agent.evaluations {
        writeln!(
            out,
            "  reads        {} (truth of evaluation {}, compared with {}; the agent never sees it)",
            host(&evaluation.expected),
            one_line(&evaluation.name),
            one_line(&evaluation.output),
        )?;
    }
    Ok(())
}

fn write_workspace(out: &mut String, manifest: &Manifest) -> fmt::Result {
    out.push_str("Workspace\n");
    let mut root = Branch::default();
    for (path, entry) in &manifest.entries {
        let mut branch = &mut root;
        for name in path.components() {
            branch = branch.children.entry(name).or_default();
        }
        branch.entry = Some(entry);
    }
    out.push_str("  ./");
    if let Some(entry) = root.entry {
        write_entry(out, entry)?;
    }
    out.push('\n');
    write_children(out, &root, "  ")?;
    let limits = manifest.sandbox_limits();
    let mut cpu = limits.cpu_millis.map_or_else(
        || "no cpu quota".to_owned(),
        |millis| format!("{} processors", f64::from(millis) / 1000.0),
    );
    if let Some(weight) = limits.cpu_weight {
        write!(cpu, " with weight {weight}")?;
    }
    let idle = limits.idle_time.map_or_else(String::new, |time| {
        format!(", idle time {}", HumanDuration::from_duration(time))
    });
    let size = ByteSize::from_bytes;
    writeln!(
        out,
        "  limits: memory {}, {} processes, {cpu}, disk {} in {} files, {} open files, output {}, time {}{idle}",
        size(limits.memory_bytes),
        limits.processes,
        size(limits.disk_bytes),
        limits.disk_inodes,
        limits.open_files,
        size(limits.output_bytes),
        HumanDuration::from_duration(limits.wall_time),
    )?;
    let read_only: Vec<String> = manifest.read_only_paths().iter().map(one_line).collect();
    if !read_only.is_empty() {
        writeln!(out, "  read-only for commands: {}", read_only.join(", "))?;
    }
    Ok(())
}

#[derive(Default)]
struct Branch<'m> {
    entry: Option<&'m Entry>,
    children: BTreeMap<&'m str, Self>,
}

fn write_children(out: &mut String, branch: &Branch<'_>, indent: &str) -> fmt::Result {
    let last = branch.children.len().saturating_sub(1);
    for (position, (name, child)) in branch.children.iter().enumerate() {
        let (knot, rail) =
            if position == last { ("└── ", "    ") } else { ("├── ", "│   ") };
        let is_file = child.entry.is_some_and(|entry| entry.source.is_file());
        let slash = if is_file { "" } else { "/" };
        write!(out, "{indent}{knot}{}{slash}", one_line(name))?;
        if let Some(entry) = child.entry {
            write_entry(out, entry)?;
        }
        out.push('\n');
        write_children(out, child, &format!("{indent}{rail}"))?;
    }
    Ok(())
}

fn write_entry(out: &mut String, entry: &Entry) -> fmt::Result {
    write!(out, "  [{}", entry.source.kind())?;
    match &entry.source {
        EntrySource::File(file) => write!(out, ", {} bytes", file.content.len())?,
        EntrySource::Dir => {}
        EntrySource::LocalFile(file) => {
            write!(out, " {}, at most {}", one_line(&file.source), bytes_cap(file.max_bytes))?;
        }
        EntrySource::LocalDir(dir) => {
            write!(out, " {}", one_line(&dir.source))?;
            write_caps(out, dir.max_files, dir.max_bytes)?;
            write_ignored(out, &dir.ignore)?;
            if dir.gitignore {
                out.push_str(", without what .gitignore names");
            }
        }
        EntrySource::Git(git) => {
            write!(out, " {}", one_line(&git.url))?;
            if let Some(reference) = &git.reference {
                write!(out, " at {}", one_line(reference))?;
            }
            if let Some(subpath) = &git.subpath {
                write!(out, ", only {}", one_line(subpath))?;
            }
            write_caps(out, git.max_files, git.max_bytes)?;
            write_ignored(out, &git.ignore)?;
            if git.keep_git {
                out.push_str(", with .git");
            }
        }
    }
    if let Some(mode) = entry.options.mode {
        write!(out, ", mode {mode}")?;
    }
    if entry.options.owner == Owner::ControlPlane {
        out.push_str(", read-only");
    }
    if entry.options.ephemeral {
        out.push_str(", ephemeral");
    }
    out.push(']');
    write_description(out, entry.options.description.as_deref())
}

fn write_caps(out: &mut String, files: Option<u64>, bytes: Option<ByteSize>) -> fmt::Result {
    let files = files.unwrap_or(Entry::DEFAULT_MAX_FILES);
    write!(out, ", at most {files} files and {}", bytes_cap(bytes))
}

fn write_ignored(out: &mut String, patterns: &[String]) -> fmt::Result {
    if patterns.is_empty() {
        return Ok(());
    }
    let patterns: Vec<String> = patterns.iter().map(one_line).collect();
    write!(out, ", without {}", patterns.join(" "))
}

fn bytes_cap(bytes: Option<ByteSize>) -> ByteSize {
    bytes.unwrap_or(Entry::DEFAULT_MAX_BYTES)
}

fn write_openings(out: &mut String, manifest: &Manifest) -> fmt::Result {
    for (path, entry) in &manifest.entries {
        let to = place(path);
        match &entry.source {
            EntrySource::LocalFile(file) => {
                writeln!(out, "  reads        {} (copied to {to})", host(&file.source))?;
            }
            EntrySource::LocalDir(dir) => {
                writeln!(
                    out,
                    "  reads        {} and all in it (copied to {to})",
                    host(&dir.source)
                )?;
            }
            EntrySource::Git(git) => {
                let grant = if git.url.starts_with("file://") { ", needs a grant" } else { "" };
                writeln!(out, "  clones       {} (copied to {to}{grant})", one_line(&git.url))?;
                if let Some(token) = &git.token {
                    writeln!(out, "  secret       {} (control plane only: git)", one_line(token))?;
                }
            }
            EntrySource::File(_) | EntrySource::Dir => {}
        }
    }
    match &manifest.root {
        RootSource::HostSystem => {
            out.push_str("  programs     the host's system directories, read-only\n");
        }
        RootSource::Directory(path) => {
            writeln!(out, "  programs     {}, read-only", host(path))?;
        }
        RootSource::Archive(path) => {
            writeln!(out, "  programs     the tar file {}, read-only", host(path))?;
        }
        RootSource::Layout { path, name } | RootSource::Saved { path, name } => {
            let name = name.as_deref().map(|name| format!("{} in ", one_line(name)));
            let name = name.unwrap_or_default();
            writeln!(out, "  programs     the image {name}{}, read-only", host(path))?;
        }
        RootSource::Image(name) => {
            writeln!(out, "  programs     the image {}, read-only", one_line(name))?;
        }
    }
    let network = match manifest.network {
        NetworkAccess::Host => "the host's network",
        _ => "none",
    };
    writeln!(out, "  network      {network}")?;
    let names: Vec<String> = manifest.environment.keys().map(one_line).collect();
    if !names.is_empty() {
        writeln!(out, "  environment  {}", names.join(", "))?;
    }
    Ok(())
}

fn place(path: &WorkspacePath) -> String {
    if path.is_root() { "the workspace".to_owned() } else { one_line(path) }
}

/// A path of the host, marked if it is not beneath the directory of the file.
fn host(path: &str) -> String {
    let shown = one_line(path);
    if leaves_base(path) {
        format!("{shown} [outside the file's directory: needs a grant]")
    } else {
        shown
    }
}

fn write_description(out: &mut String, description: Option<&str>) -> fmt::Result {
    match description.map(str::trim) {
        Some(description) if !description.is_empty() => {
            write!(out, " - {}", one_line(description))
        }
        _ => Ok(()),
    }
}

/// Text of the file on one line: line ends become spaces, and other control characters are written out, so that no text
/// can paint over the terminal of the reviewer. Bidirectional controls count among them.
fn one_line(text: impl Display) -> String {
    let mut line = String::new();
    for character in text.to_string().trim_end().chars() {
        match character {
            '\n' | '\r' | '\t' => line.push(' '),
            c if c.is_control() || is_bidi_control(c) => line.extend(c.escape_unicode()),
            c => line.push(c),
        }
    }
    line
}

fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
