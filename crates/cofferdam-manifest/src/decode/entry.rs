//! Reads the entries of a manifest.

use std::collections::{BTreeMap, btree_map};

use base64::{Engine, engine::general_purpose::STANDARD};
use cofferdam_core::WorkspacePath;

use super::{
    Fields, choice, flag, host_path, list, mapping, parsed, positive_size, secret, text, whole,
    words, workspace_path,
};
use crate::{
    Entry, EntryOptions, EntrySource, FieldPath, GitSource, InlineFile, LocalDir, LocalFile, Mode,
    Owner, node::Node, problem::Problems,
};

#[derive(Clone, Copy)]
enum Kind {
    File,
    Dir,
    LocalFile,
    LocalDir,
    Git,
}

const KINDS: [(&str, Kind); 5] = [
    ("file", Kind::File),
    ("dir", Kind::Dir),
    ("local_file", Kind::LocalFile),
    ("local_dir", Kind::LocalDir),
    ("git", Kind::Git),
];

const OWNERS: [(&str, Owner); 2] =
    [("agent", Owner::Agent), ("control_plane", Owner::ControlPlane)];

/// Reads the mapping from paths to entries; entries with problems are left out.
pub(super) fn entries(
    node: &Node,
    path: &FieldPath,
    problems: &mut Problems,
) -> Option<BTreeMap<WorkspacePath, Entry>> {
    let mut entries = BTreeMap::new();
    for (key, node) in mapping(node, path, problems)? {
        let path = path.key(key);
        // A key that is there twice is reported as such.
        let repeated = entries.keys().any(|known: &WorkspacePath| known.as_str() == key);
        if let Some(entry) = entry(node, &path, problems)
            && !repeated
        {
            insert(&mut entries, key, entry, &path, problems);
        }
    }
    Some(entries)
}

/// Adds an entry, unless its path is no path of a workspace or another entry has it.
pub(crate) fn insert(
    entries: &mut BTreeMap<WorkspacePath, Entry>,
    key: &str,
    entry: Entry,
    path: &FieldPath,
    problems: &mut Problems,
) {
    match WorkspacePath::new(key) {
        Ok(place) => match entries.entry(place) {
            btree_map::Entry::Vacant(vacant) => {
                vacant.insert(entry);
            }
            btree_map::Entry::Occupied(other) => problems.duplicate(
                path,
                format!("another entry has the path {} already; remove one of them", other.key()),
            ),
        },
        Err(error) => problems.key(path, error.to_string()),
    }
}

fn entry(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<Entry> {
    let mut fields = Fields::open(node, path, problems)?;
    let kind = fields
        .required("type", "file", |node, path, problems| choice(node, path, problems, &KINDS))?;
    let options = EntryOptions {
        description: fields.optional("description", words),
        mode: fields.optional("mode", mode),
        owner: fields
            .optional("owner", |node, path, problems| choice(node, path, problems, &OWNERS))
            .unwrap_or_default(),
        ephemeral: fields.optional("ephemeral", flag).unwrap_or_default(),
    };
    let source = match kind {
        Kind::File => inline_file(&mut fields).map(EntrySource::File),
        Kind::Dir => Some(EntrySource::Dir),
        Kind::LocalFile => local_file(&mut fields).map(EntrySource::LocalFile),
        Kind::LocalDir => local_dir(&mut fields).map(EntrySource::LocalDir),
        Kind::Git => git(&mut fields).map(EntrySource::Git),
    };
    fields.close();
    Some(Entry { source: source?, options })
}

fn inline_file(fields: &mut Fields<'_, '_>) -> Option<InlineFile> {
    let plain = fields.optional("content", text).map(String::into_bytes);
    let encoded = fields.optional("content_base64", base64);
    match (fields.has("content"), fields.has("content_base64")) {
        (true, true) => {
            fields.problem("the file has both `content` and `content_base64`; remove one of them");
            None
        }
        (false, false) => {
            fields.problem("the file has no content; add `content: text` (or `content: \"\"`)");
            None
        }
        _ => plain.or(encoded).map(|content| InlineFile { content }),
    }
}

fn base64(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<Vec<u8>> {
    // Folded text has line ends in it.
    let text: String =
        text(node, path, problems)?.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD
        .decode(text)
        .map_err(|_| {
            problems.value(path, "the text is no standard base64 with padding; encode it anew")
        })
        .ok()
}

fn local_file(fields: &mut Fields<'_, '_>) -> Option<LocalFile> {
    let source = fields.required("source", "path/of/file", host_path);
    let max_bytes = fields.optional("max_bytes", positive_size);
    Some(LocalFile { source: source?, max_bytes })
}

fn local_dir(fields: &mut Fields<'_, '_>) -> Option<LocalDir> {
    let source = fields.required("source", "path/of/directory", host_path);
    let ignore = fields.optional("ignore", patterns);
    let gitignore = fields.optional("gitignore", flag);
    let max_files = fields.optional("max_files", count);
    let max_bytes = fields.optional("max_bytes", positive_size);
    Some(LocalDir {
        source: source?,
        ignore: ignore.unwrap_or_default(),
        gitignore: gitignore.unwrap_or_default(),
        max_files,
        max_bytes,
    })
}

fn git(fields: &mut Fields<'_, '_>) -> Option<GitSource> {
    let url = fields.required("url", "https://host/repository.git", words);
    let reference = fields.optional("ref", words);
    let subpath = fields.optional("subpath", workspace_path);
    let keep_git = fields.optional("keep_git", flag);
    let ignore = fields.optional("ignore", patterns);
    let token = fields.optional("token", secret);
    let max_files = fields.optional("max_files", count);
    let max_bytes = fields.optional("max_bytes", positive_size);
    Some(GitSource {
        url: url?,
        reference,
        subpath,
        keep_git: keep_git.unwrap_or_default(),
        ignore: ignore.unwrap_or_default(),
        token,
        max_files,
        max_bytes,
    })
}

fn patterns(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<Vec<String>> {
    list(node, path, problems, words)
}

fn count(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<u64> {
    whole(node, path, problems, 1..=u64::MAX)
}

fn mode(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<Mode> {
    if let Node::Integer(_) = node {
        problems.value(
            path,
            "this is a number, and YAML does not agree on octal; write the octal digits in quotes, such as \"0755\"",
        );
        return None;
    }
    parsed(node, path, problems)
}
