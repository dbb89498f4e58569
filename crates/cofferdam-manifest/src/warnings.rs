//! [`Warning`]: what is allowed and deserves a second look.

use std::fmt;

use cofferdam_core::NetworkAccess;

use crate::{EntrySource, FieldPath, Manifest};

/// Something that is allowed and deserves a second look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where in the structure.
    pub path: FieldPath,
    /// What it is and what to do; lower case, without a final stop. Never repeats a value.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Looks through a manifest whose fields stand below `path`.
pub(crate) fn manifest(manifest: &Manifest, path: &FieldPath) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for (name, value) in &manifest.environment {
        if let Some(kind) = secret_in(value) {
            warnings.push(looks_secret(path.key("environment").key(name), kind));
        }
    }
    for (place, entry) in &manifest.entries {
        if let EntrySource::File(file) = &entry.source
            && let Some(kind) = secret_in(&String::from_utf8_lossy(&file.content))
        {
            warnings.push(looks_secret(path.key("entries").key(place.as_str()), kind));
        }
    }
    if manifest.network == NetworkAccess::Host {
        warnings.push(Warning {
            path: path.key("network"),
            message: "the sandbox reaches whatever this host reaches, and can send the workspace anywhere; use `none` \
                      unless the task needs the network"
                .to_owned(),
        });
    }
    warnings
}

fn looks_secret(path: FieldPath, kind: &str) -> Warning {
    let message = format!(
        "this looks like {kind}, and the agent's commands will be able to read it; keep secrets in the control plane"
    );
    Warning { path, message }
}

/// Prefixes of well-known tokens, the least number of token characters that follow, and what they are.
const TOKENS: [(&str, usize, &str); 12] = [
    ("sk-", 20, "an API key"),
    ("AKIA", 16, "an AWS access key"),
    ("ASIA", 16, "an AWS access key"),
    ("AIza", 35, "a Google API key"),
    ("ghp_", 36, "a GitHub token"),
    ("gho_", 36, "a GitHub token"),
    ("ghs_", 36, "a GitHub token"),
    ("github_pat_", 22, "a GitHub token"),
    ("glpat-", 20, "a GitLab token"),
    ("xoxb-", 20, "a Slack token"),
    ("xoxp-", 20, "a Slack token"),
    ("hf_", 30, "a Hugging Face token"),
];

fn secret_in(text: &str) -> Option<&'static str> {
    if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----") {
        return Some("a private key");
    }
    let is_token = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    text.split(|c: char| !is_token(c)).find_map(|word| {
        TOKENS
            .iter()
            .find(|(prefix, length, _)| {
                word.strip_prefix(prefix).is_some_and(|rest| rest.len() >= *length)
            })
            .map(|(_, _, kind)| *kind)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_look_of_secrets() {
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(secret_in(text), expect, "for {text:?}");
        };
        check(&format!("key=sk-{}", "a1".repeat(12)), Some("an API key"));
        check(&format!("AKIA{}", "Z".repeat(16)), Some("an AWS access key"));
        check(&format!("\"ghp_{}\"", "x".repeat(36)), Some("a GitHub token"));
        check("-----BEGIN OPENSSH PRIVATE KEY-----\n", Some("a private key"));
        check("sk-short", None);
        check("task-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", None);
        check("plain words", None);
    }
}
