//! [`Name`] and [`TreePath`]: names as Linux has them, which are bytes and not always text.

use std::{collections::BTreeSet, fmt};

/// A name in a directory: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

/// Bytes that are no name or path in a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is no {what}: {reason}", shown(.bytes))]
pub struct PathError {
    /// What it should have been.
    what: &'static str,
    /// What was given.
    bytes: Vec<u8>,
    /// What is wrong with it.
    reason: &'static str,
}

impl Name {
    /// The most bytes of a name, as `NAME_MAX` of Linux.
    pub const MAX_BYTES: usize = 255;

    /// Checks a name.
    ///
    /// # Errors
    ///
    /// If no file of a Linux directory can have it.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        match check_name(&bytes) {
            None => Ok(Self(bytes)),
            Some(reason) => Err(PathError { what: "name", bytes: bytes.into_vec(), reason }),
        }
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn check_name(name: &[u8]) -> Option<&'static str> {
    match name {
        b"" => Some("it is empty"),
        b"." | b".." => Some("it is not a file's own name"),
        long if long.len() > Name::MAX_BYTES => Some("it is longer than 255 bytes"),
        name if name.contains(&b'/') => Some("it has a `/`"),
        name if name.contains(&0) => Some("it has a NUL byte"),
        _ => None,
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&shown(&self.0), f)
    }
}

/// A path in a tree: names with `/` between them; empty for the tree's root, which is shown as `.`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// The most bytes of a path, as `PATH_MAX` of Linux.
    pub const MAX_BYTES: usize = 4096;

    /// Returns the root of a tree.
    #[must_use]
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Checks a path; the root is given as `` or `.`.
    ///
    /// # Errors
    ///
    /// If a component is no [`Name`], or the whole is too long.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        if bytes.is_empty() || bytes == b"." {
            return Ok(Self::root());
        }
        let reason = if bytes.len() > Self::MAX_BYTES {
            Some("it is longer than 4096 bytes")
        } else {
            bytes.split(|byte| *byte == b'/').find_map(check_name)
        };
        match reason {
            None => Ok(Self(bytes)),
            Some(reason) => Err(PathError { what: "path in a tree", bytes, reason }),
        }
    }

    /// Returns the path of `name` in this directory. It may be longer than [`Self::MAX_BYTES`]: trees can be deeper than
    /// one call of the kernel reaches.
    #[must_use]
    pub fn join(&self, name: &Name) -> Self {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.0.len());
        bytes.extend_from_slice(&self.0);
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(&name.0);
        Self(bytes)
    }

    /// Returns the bytes; none for the root.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns true if a set has paths below this one.
    pub(crate) fn is_above_one_of(&self, paths: &BTreeSet<Self>) -> bool {
        let mut first = self.0.clone();
        if !self.is_root() {
            first.push(b'/');
        }
        let first = Self(first);
        paths.range(&first..).next().is_some_and(|path| path.0.starts_with(&first.0))
    }

    /// Returns true for the root of the tree.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the directory that holds it; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Some(Self(self.0[..end].to_vec()))
    }

    /// Returns its last name; `None` for the root.
    #[must_use]
    pub fn name(&self) -> Option<&[u8]> {
        if self.is_root() { None } else { self.0.rsplit(|byte| *byte == b'/').next() }
    }

    /// Returns its names in order; none for the root.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() { f.write_str(".") } else { f.write_str(&shown(&self.0)) }
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

/// Returns bytes as they may be shown: control characters escaped, no more than 300 characters.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown: String = text
        .chars()
        .take(300)
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect();
    if text.chars().nth(300).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_checked() {
        let check = |path: &[u8], expect: &str| {
            let got = TreePath::new(path)
                .map_or_else(|error| error.reason.to_owned(), |path| path.to_string());
            assert_eq!(got, expect, "{path:?}");
        };
        check(b"", ".");
        check(b".", ".");
        check(b"a/b", "a/b");
        check(b"a/\xff", "a/\u{fffd}");
        check(b"a\nb", "a\\nb");
        check(b"/a", "it is empty");
        check(b"a//b", "it is empty");
        check(b"a/", "it is empty");
        check(b"a/../b", "it is not a file's own name");
        check(b"a/.", "it is not a file's own name");
        check(b"a\0", "it has a NUL byte");
        check(&[b'x'; 256], "it is longer than 255 bytes");
        check(&b"x/".repeat(3000), "it is longer than 4096 bytes");
        assert!(Name::new(*b"a/b").is_err());
    }

    #[test]
    fn paths_are_walked() {
        let path = TreePath::new(*b"a/b/c").unwrap();
        assert_eq!(path.parent().unwrap().to_string(), "a/b");
        assert_eq!(path.name(), Some(&b"c"[..]));
        assert_eq!(TreePath::new(*b"a").unwrap().parent(), Some(TreePath::root()));
        assert_eq!(TreePath::root().parent(), None);
        assert_eq!(TreePath::root().join(&Name::new(*b"x").unwrap()).to_string(), "x");
        assert_eq!(path.names().count(), 3);
        assert_eq!(TreePath::root().names().count(), 0);
    }
}
