//! Turns [`Node`]s into types, noting every problem on the way instead of stopping at the first.
//!
//! A reader is a function of a node, its path and the [`Problems`]; it returns `None` after it has noted why.
//! [`Fields`] reads a mapping: each field that is asked for becomes known, and closing it reports all others with the
//! known name that is nearest.

pub(crate) mod agent;
pub(crate) mod entry;
pub(crate) mod manifest;
mod root;

use std::{fmt::Display, str::FromStr};

use cofferdam_core::{SecretRef, WorkspacePath};

use crate::{
    AgentFileError, ByteSize, FieldPath, HumanDuration,
    agent_file::MAX_FILE_BYTES,
    node::{self, Node},
    problem::{Problem, Problems},
    suggest::nearest,
};

/// Reads a whole file with the reader of its root.
pub(crate) fn document<T>(
    yaml: &str,
    name: &str,
    read: impl FnOnce(&Node, &FieldPath, &mut Problems) -> Option<T>,
) -> Result<T, AgentFileError> {
    let refuse = |location, message| AgentFileError {
        file: name.to_owned(),
        problems: vec![Problem { path: FieldPath::root(), location, message }],
        further: 0,
    };
    if yaml.len() > MAX_FILE_BYTES {
        let message = format!(
            "the file has {} bytes and {MAX_FILE_BYTES} are the bound; move content to files and name them with \
             `local_file` or `local_dir`",
            yaml.len()
        );
        return Err(refuse(None, message));
    }
    let root = Node::parse(yaml).map_err(|(location, message)| {
        refuse(location, format!("not readable as YAML: {message}"))
    })?;
    let mut problems = Problems::default();
    let value = read(&root, &FieldPath::root(), &mut problems);
    problems.into_result(name, |path, target| node::locate(yaml, &root, path, target))?;
    value.ok_or_else(|| refuse(None, "the file could not be read".to_owned()))
}

/// A mapping whose fields are taken one by one.
pub(crate) struct Fields<'n, 'p> {
    entries: &'n [(String, Node)],
    path: FieldPath,
    problems: &'p mut Problems,
    known: Vec<&'static str>,
}

/// Names that people know from elsewhere, and the name of the same thing here.
const OTHER_NAMES: [(&str, &str); 10] = [
    ("env", "environment"),
    ("src", "source"),
    ("path", "source"),
    ("permissions", "mode"),
    ("prompt", "task"),
    ("system_prompt", "instructions"),
    ("repo", "url"),
    ("branch", "ref"),
    ("memory_limit", "memory"),
    ("text", "content"),
];

impl<'n, 'p> Fields<'n, 'p> {
    /// Opens a mapping; notes a problem if it is none, and one for each key that is there twice.
    pub(crate) fn open(
        node: &'n Node,
        path: &FieldPath,
        problems: &'p mut Problems,
    ) -> Option<Self> {
        let entries = mapping(node, path, problems)?;
        Some(Self { entries, path: path.clone(), problems, known: Vec::new() })
    }

    /// Reads a field that may be absent; an empty value is as good as none.
    pub(crate) fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&'n Node, &FieldPath, &mut Problems) -> Option<T>,
    ) -> Option<T> {
        self.known.push(name);
        let (_, node) = self.entries.iter().find(|(key, _)| key == name)?;
        if *node == Node::Null {
            return None;
        }
        read(node, &self.path.key(name), self.problems)
    }

    /// Reads a field that must be there; `example` completes the advice to add it.
    pub(crate) fn required<T>(
        &mut self,
        name: &'static str,
        example: &str,
        read: impl FnOnce(&'n Node, &FieldPath, &mut Problems) -> Option<T>,
    ) -> Option<T> {
        if !self.has(name) {
            self.known.push(name);
            let path = self.path.key(name);
            self.problems.key(&path, format!("the field is missing; add `{name}: {example}`"));
            return None;
        }
        self.optional(name, read)
    }

    /// Returns whether a field is there and not empty.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, node)| key == name && *node != Node::Null)
    }

    /// Notes a problem of the mapping as a whole.
    pub(crate) fn problem(&mut self, message: impl Into<String>) {
        self.problems.key(&self.path, message);
    }

    /// Notes each field that nobody asked for.
    pub(crate) fn close(self) {
        let Self { entries, path, problems, known } = self;
        for (key, _) in entries {
            if known.contains(&key.as_str()) {
                continue;
            }
            let elsewhere = OTHER_NAMES
                .iter()
                .find(|(name, here)| name == key && known.contains(here))
                .map(|(_, here)| *here);
            let guess = elsewhere.or_else(|| nearest(key, &known));
            let advice = match guess {
                Some(name) => format!("did you mean `{name}`? known fields: "),
                None => "known fields: ".to_owned(),
            };
            let message = format!("unknown field; {advice}{}", known.join(", "));
            problems.key(&path.key(key), message);
        }
    }
}

/// Reads the entries of a mapping with free keys.
pub(crate) fn mapping<'n>(
    node: &'n Node,
    path: &FieldPath,
    problems: &mut Problems,
) -> Option<&'n [(String, Node)]> {
    let Node::Map(entries) = node else {
        problems.value(path, format!("this is {}, expected a mapping of fields", node.kind()));
        return None;
    };
    let mut seen = std::collections::BTreeSet::new();
    for (key, _) in entries {
        if !seen.insert(key) {
            problems.duplicate(&path.key(key), "the key is there twice; remove one of them");
        }
    }
    Some(entries)
}

/// Reads text.
pub(crate) fn text(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<String> {
    match node {
        Node::Text(text) => Some(text.clone()),
        Node::Integer(_) | Node::Float(_) | Node::Bool(_) => {
            problems.value(
                path,
                format!("this is {}, expected text; put quotes around it", node.kind()),
            );
            None
        }
        _ => {
            problems.value(path, format!("this is {}, expected text", node.kind()));
            None
        }
    }
}

/// Reads text that is not blank.
pub(crate) fn words(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<String> {
    let text = text(node, path, problems)?;
    if text.trim().is_empty() {
        problems.value(path, "the text is empty; write something or remove the field");
        return None;
    }
    Some(text)
}

/// Reads text that a type parses.
pub(crate) fn parsed<T>(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<T>
where
    T: FromStr<Err: Display>,
{
    let text = text(node, path, problems)?;
    text.parse().map_err(|error: T::Err| problems.value(path, error.to_string())).ok()
}

/// Reads a size: text with a unit, or a number of bytes.
pub(crate) fn size(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<ByteSize> {
    match node {
        Node::Integer(_) => {
            let bytes = whole(node, path, problems, 0..=u64::MAX)?;
            Some(ByteSize::from_bytes(bytes))
        }
        _ => parsed(node, path, problems),
    }
}

/// Reads a size of at least one byte.
pub(crate) fn positive_size(
    node: &Node,
    path: &FieldPath,
    problems: &mut Problems,
) -> Option<ByteSize> {
    let size = size(node, path, problems)?;
    if size.bytes() == 0 {
        problems.value(
            path,
            "the limit is 0, which allows nothing; write a larger one or remove the field",
        );
        return None;
    }
    Some(size)
}

/// Reads a span of time that is not 0.
pub(crate) fn positive_duration(
    node: &Node,
    path: &FieldPath,
    problems: &mut Problems,
) -> Option<HumanDuration> {
    if let Node::Integer(number) = node {
        problems.value(path, format!("the duration has no unit; write \"{number}s\" for seconds"));
        return None;
    }
    let time: HumanDuration = parsed(node, path, problems)?;
    if time.as_duration().is_zero() {
        problems.value(
            path,
            "the time is 0, which allows nothing; write a longer one or remove the field",
        );
        return None;
    }
    Some(time)
}

/// Reads a whole number of a range.
pub(crate) fn whole<T>(
    node: &Node,
    path: &FieldPath,
    problems: &mut Problems,
    range: std::ops::RangeInclusive<T>,
) -> Option<T>
where
    T: TryFrom<i128> + PartialOrd + Display,
{
    let Node::Integer(number) = node else {
        problems.value(path, format!("this is {}, expected a whole number", node.kind()));
        return None;
    };
    let fitting = T::try_from(*number).ok().filter(|number| range.contains(number));
    if fitting.is_none() {
        let (low, high) = range.into_inner();
        problems
            .value(path, format!("{number} is out of range; write a number from {low} to {high}"));
    }
    fitting
}

/// Reads a number of a range, with or without a fraction.
pub(crate) fn number(
    node: &Node,
    path: &FieldPath,
    problems: &mut Problems,
    range: std::ops::RangeInclusive<f64>,
) -> Option<f64> {
    let value = match node {
        Node::Float(value) => *value,
        // Whole numbers beyond 2^53 lose digits here; every range asked for is far smaller.
        #[expect(clippy::cast_precision_loss, reason = "the ranges end far below 2^53")]
        Node::Integer(value) => *value as f64,
        _ => {
            problems.value(path, format!("this is {}, expected a number", node.kind()));
            return None;
        }
    };
    if !range.contains(&value) {
        let (low, high) = range.into_inner();
        problems
            .value(path, format!("{value} is out of range; write a number from {low} to {high}"));
        return None;
    }
    Some(value)
}

/// Reads `true` or `false`.
pub(crate) fn flag(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<bool> {
    if let Node::Bool(value) = node {
        return Some(*value);
    }
    problems.value(path, format!("this is {}, expected `true` or `false`", node.kind()));
    None
}

/// Reads one of some words.
pub(crate) fn choice<T: Copy>(
    node: &Node,
    path: &FieldPath,
    problems: &mut Problems,
    choices: &[(&'static str, T)],
) -> Option<T> {
    let text = text(node, path, problems)?;
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
        return Some(*value);
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let guess =
        nearest(&text, &names).map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
    problems.value(path, format!("{text:?} is not known here; {guess}known: {}", names.join(", ")));
    None
}

/// Reads a list; elements with problems are left out.
pub(crate) fn list<T>(
    node: &Node,
    path: &FieldPath,
    problems: &mut Problems,
    read: impl Fn(&Node, &FieldPath, &mut Problems) -> Option<T>,
) -> Option<Vec<T>> {
    let Node::List(elements) = node else {
        problems.value(path, format!("this is {}, expected a list", node.kind()));
        return None;
    };
    let read_one = |(index, element)| read(element, &path.index(index), problems);
    Some(elements.iter().enumerate().filter_map(read_one).collect())
}

/// Reads a path inside the workspace.
pub(crate) fn workspace_path(
    node: &Node,
    path: &FieldPath,
    problems: &mut Problems,
) -> Option<WorkspacePath> {
    parsed(node, path, problems)
}

/// Reads a path of the host.
pub(crate) fn host_path(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<String> {
    let text = words(node, path, problems)?;
    if text.contains('\0') {
        problems.value(path, "the path has a NUL byte, which no file name can hold");
        return None;
    }
    Some(text)
}

/// Reads `{secret: "env:NAME"}`. What stands in its place is never repeated in a message: it may be the secret itself.
pub(crate) fn secret(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<SecretRef> {
    if !matches!(node, Node::Map(_)) {
        problems.value(
            path,
            "a secret is named here, never written; write it as `{secret: \"env:NAME\"}`",
        );
        return None;
    }
    let mut fields = Fields::open(node, path, problems)?;
    let reference = fields.required("secret", "\"env:NAME\"", secret_reference);
    fields.close();
    reference
}

fn secret_reference(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<SecretRef> {
    let text = text(node, path, problems)?;
    let reference = text
        .parse::<SecretRef>()
        .ok()
        .filter(|reference| matches!(reference.provider(), "env" | "file"));
    if reference.is_none() {
        problems.value(
            path,
            "this is no secret reference; write \"env:NAME\" or \"file:PATH\", and never the secret itself",
        );
    }
    reference
}
