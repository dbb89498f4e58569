//! [`Reference`]: the name of an image, as people write it and as programs store it.

use std::{fmt, str::FromStr};

use crate::Digest;

/// The full name of an image: registry, repository, and a tag or a digest.
///
/// What is left out is that of Docker's registry: `debian` is `docker.io/library/debian:latest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// The host of the registry, with a port if one was given, such as `docker.io` or `127.0.0.1:5000`.
    pub registry: String,
    /// The repository in it, such as `library/debian`.
    pub repository: String,
    /// The tag; `latest` if neither tag nor digest was given.
    pub tag: Option<String>,
    /// The digest of the index or manifest.
    pub digest: Option<Digest>,
}

/// A text is no name of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no name of an image: write `name:tag`, `registry/name:tag` or `registry/name@sha256:…`"
)]
pub struct InvalidReference {
    /// The text, cut to 100 characters.
    pub text: String,
}

const HUB: &str = "docker.io";

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        parse(text).ok_or_else(|| InvalidReference { text: text.chars().take(100).collect() })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// Only characters that mean themselves in an address.
fn parse(text: &str) -> Option<Reference> {
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest.parse().ok()?)),
        None => (text, None),
    };
    let (registry, path) = match name.split_once('/') {
        // The first part is a registry if it could be a host and not a user.
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => (HUB, name),
    };
    let (path, tag) = match path.rsplit_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (path, None),
    };
    let is_word = |text: &str, upper: bool| {
        let mut bytes = text.bytes();
        bytes.next().is_some_and(|c| c.is_ascii_alphanumeric() || (upper && c == b'_'))
            && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
            && (upper || !text.bytes().any(|c| c.is_ascii_uppercase()))
    };
    let is_host = |text: &str| match text.split_once(':') {
        Some((host, port)) => is_word(host, false) && port.parse::<u16>().is_ok(),
        None => is_word(text, false),
    };
    let good = is_host(registry)
        && path.len() <= 255
        && path.split('/').all(|part| is_word(part, false))
        && tag.is_none_or(|tag| tag.len() <= 128 && is_word(tag, true));
    if !good {
        return None;
    }
    let repository = match (registry, path.contains('/')) {
        (HUB, false) => format!("library/{path}"),
        _ => path.to_owned(),
    };
    let tag = match (tag, digest) {
        (None, None) => Some("latest".to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Some(Reference { registry: registry.to_owned(), repository, tag, digest })
}

/// Returns true if two names mean the same image: `debian`, `debian:latest` and `docker.io/library/debian:latest` do.
pub(crate) fn same(one: &str, other: &str) -> bool {
    one == other || parse(one).is_some_and(|one| parse(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_in_full() {
        let digest = Digest::of(b"").to_string();
        let (short, long) = (format!("a@{digest}"), format!("docker.io/library/a@{digest}"));
        let cases = [
            ("debian", "docker.io/library/debian:latest", true),
            ("debian:bookworm", "docker.io/debian:bookworm", true),
            ("docker.io/library/debian:bookworm", "debian:bookworm", true),
            ("me/tool:1", "docker.io/me/tool:1", true),
            ("localhost/tool", "localhost/tool:latest", true),
            ("127.0.0.1:5000/tool", "127.0.0.1:5000/tool:latest", true),
            ("127.0.0.1:5000/tool", "tool", false),
            ("debian:bookworm", "debian:trixie", false),
            ("localhost/tool", "tool", false),
            ("no name", "no name", true),
            (&short, &long, true),
        ];
        for (one, other, expect) in cases {
            assert_eq!(same(one, other), expect, "{one} and {other}");
        }
    }

    #[test]
    fn what_would_mean_something_else_in_an_address_is_refused() {
        for text in [
            "",
            "/",
            "a/",
            "a//b",
            "a/../b",
            "a:",
            "a?b",
            "a#b",
            "a%2f",
            "A",
            "a b",
            "a:b/c:d",
            "a@sha256:0",
            "user@host/a",
            "host:port/a",
            "host:99999/a",
            "[::1]:5000/a",
            "a:..\\",
            "../a",
            "a\n",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
        let full: Reference = "127.0.0.1:5000/a/b_c.d-e:V1.0".parse().expect("a name");
        assert_eq!(full.to_string(), "127.0.0.1:5000/a/b_c.d-e:V1.0");
    }
}
