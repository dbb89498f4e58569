//! Checks that the types cannot express, the same for files and for manifests made in code.

use std::collections::BTreeSet;

use cofferdam_core::WorkspacePath;

use crate::{
    AgentFile, EntrySource, FieldPath, GitSource, Manifest, host_path::contains, problem::Problems,
};

/// Entries that a manifest may have.
const MAX_ENTRIES: usize = 10_000;
/// Bytes that the inline files of a manifest may have together.
const MAX_INLINE_BYTES: usize = 8 << 20;

/// Checks a manifest whose fields stand below `path`.
pub(crate) fn manifest(manifest: &Manifest, path: &FieldPath, problems: &mut Problems) {
    let entries = path.key("entries");
    if manifest.entries.len() > MAX_ENTRIES {
        problems.key(
            &entries,
            format!(
                "there are {} entries and {MAX_ENTRIES} are the bound; use `local_dir` for many files",
                manifest.entries.len()
            ),
        );
        return;
    }
    let mut inline_bytes = 0;
    for (place, entry) in &manifest.entries {
        let field = entries.key(place.as_str());
        if entry.source.is_file() {
            if place.is_root() {
                problems.key(&field, "the workspace itself cannot be a file; give the file a name");
            }
            for (inner, _) in manifest.entries.range(place.clone()..) {
                if inner != place && place.contains(inner) {
                    problems.key(
                        &entries.key(inner.as_str()),
                        format!(
                            "{place} is a file, so nothing can be inside of it; choose another path"
                        ),
                    );
                }
            }
        }
        match &entry.source {
            EntrySource::File(file) => inline_bytes += file.content.len(),
            EntrySource::LocalFile(file) => local_source(&file.source, &field, problems),
            EntrySource::LocalDir(dir) => {
                local_source(&dir.source, &field, problems);
                ignore_patterns(&dir.ignore, &field, problems);
            }
            EntrySource::Git(git) => {
                git_source(git, &field, problems);
                ignore_patterns(&git.ignore, &field, problems);
            }
            EntrySource::Dir => {}
        }
    }
    if inline_bytes > MAX_INLINE_BYTES {
        problems.key(
            &entries,
            format!(
                "the inline files have {inline_bytes} bytes together and {MAX_INLINE_BYTES} are the bound; use \
                 `local_file` or `local_dir`"
            ),
        );
    }
    environment(manifest, &path.key("environment"), problems);
}

fn local_source(source: &str, field: &FieldPath, problems: &mut Problems) {
    if source.trim().is_empty() || source.contains('\0') {
        problems.value(
            &field.key("source"),
            "the path is empty or has a NUL byte; write a path of the host",
        );
    }
}

fn ignore_patterns(patterns: &[String], field: &FieldPath, problems: &mut Problems) {
    for (index, pattern) in patterns.iter().enumerate() {
        if pattern.contains(['\n', '\r', '\0']) {
            let field = field.key("ignore").index(index);
            problems.value(&field, "a pattern is one line; write several as several elements");
        }
    }
}

fn environment(manifest: &Manifest, path: &FieldPath, problems: &mut Problems) {
    for (name, value) in &manifest.environment {
        let field = path.key(name);
        let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !valid {
            problems.key(
                &field,
                "a variable's name has letters, digits and `_`, and starts with no digit; rename it",
            );
        }
        if value.contains('\0') {
            problems
                .value(&field, "the value has a NUL byte, which no variable can hold; remove it");
        }
    }
}

fn git_source(git: &GitSource, field: &FieldPath, problems: &mut Problems) {
    if let Err(message) = git_url(&git.url) {
        problems.value(&field.key("url"), message);
    }
    if let Some(reference) = &git.reference
        && !is_git_reference(reference)
    {
        problems.value(
            &field.key("ref"),
            format!("{reference:?} is no name that git allows; write a branch, a tag or a full commit id"),
        );
    }
    if git.token.is_some() && !git.url.starts_with("https://") {
        problems.value(
            &field.key("token"),
            "a token goes over `https` only; change the address or remove the token",
        );
    }
    if git.keep_git && git.subpath.as_ref().is_some_and(|path| !path.is_root()) {
        problems.value(
            &field.key("keep_git"),
            "the `.git` directory belongs to the whole repository; remove `subpath` or `keep_git`",
        );
    }
}

fn git_url(url: &str) -> Result<(), String> {
    if let Some(path) = url.strip_prefix("file://") {
        let plain = path.starts_with('/') && !path.contains(char::is_control);
        return if plain { Ok(()) } else { Err("write the address as `file:///path`".to_owned()) };
    }
    http_url(url)
}

/// Checks an `http` or `https` address; a message about it does not repeat it, since it may hold a password.
pub(crate) fn http_url(url: &str) -> Result<(), String> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))
        .ok_or("the address is not of http or https; write it as `https://host/path`")?;
    if url.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err("the address has a space or a control character; remove it".to_owned());
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(
            "the address holds a user or a password; remove it and name the secret as `{secret: \"env:NAME\"}`"
                .to_owned(),
        );
    }
    if authority.is_empty() || authority.starts_with(':') {
        return Err("the address names no host; write it as `https://host/path`".to_owned());
    }
    Ok(())
}

/// The rules of `git check-ref-format`, and no leading `-`, which git would take for an option.
fn is_git_reference(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.starts_with(['-', '/', '.'])
        && !name.ends_with(['/', '.'])
        && !name.ends_with(".lock")
        && name != "@"
        && !["..", "//", "@{", "/."].iter().any(|bad| name.contains(bad))
        && !name.contains(|c: char| c.is_control() || " ~^:?*[\\".contains(c))
}

/// Checks what the parts of an agent file say of each other.
pub(crate) fn agent_file(agent: &AgentFile, problems: &mut Problems) {
    let root = FieldPath::root();
    let ephemeral = agent.workspace.ephemeral_paths();
    let mut paths: BTreeSet<&WorkspacePath> = BTreeSet::new();
    for (index, output) in agent.outputs.iter().enumerate() {
        if !paths.insert(&output.path) {
            let field = root.key("outputs").index(index).key("path");
            problems
                .value(&field, format!("{} is an output already; remove one of them", output.path));
        }
        if let Some(entry) = ephemeral.iter().find(|entry| entry.contains(&output.path)) {
            let field = root.key("outputs").index(index).key("path");
            problems.value(
                &field,
                format!("entry {entry} is ephemeral, so nothing in it is copied out; remove `ephemeral` or the output"),
            );
        }
    }
    let mut names = BTreeSet::new();
    for (index, evaluation) in agent.evaluations.iter().enumerate() {
        let field = root.key("evaluations").index(index);
        if !names.insert(&evaluation.name) {
            problems.value(
                &field.key("name"),
                format!("{:?} is an evaluation already; rename one of them", evaluation.name),
            );
        }
        if !agent.outputs.iter().any(|output| output.path.contains(&evaluation.output)) {
            problems.value(
                &field.key("output"),
                format!("{0} is in no output; add `- path: {0}` to `outputs`", evaluation.output),
            );
        }
        if evaluation.key.is_empty() {
            problems.value(
                &field.key("key"),
                "no field tells which lines belong together; name at least one",
            );
        }
        for (place, entry) in &agent.workspace.entries {
            let source = match &entry.source {
                EntrySource::LocalFile(file) => &file.source,
                EntrySource::LocalDir(dir) => &dir.source,
                _ => continue,
            };
            if contains(source, &evaluation.expected) {
                problems.value(
                    &field.key("expected"),
                    format!(
                        "the agent would see the truth, since entry {place} copies {source}; move the truth to \
                         another directory"
                    ),
                );
            }
        }
    }
}
