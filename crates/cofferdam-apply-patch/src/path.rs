//! Paths that a patch may name: relative, normalised and inside the workspace.
//!
//! A [`PatchPath`] can only be made by the checked constructors here, so nothing after the parser has to ask again
//! whether a path escapes. The check is lexical; links are the matter of the target that carries a plan out.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Longest path that a patch may name, in bytes.
pub const MAX_PATH_BYTES: usize = 4096;

/// A normalised path inside the workspace, with the spelling that the patch used.
///
/// Two paths are equal when their normalised forms are; the spelling is only for messages.
#[derive(Debug, Clone)]
pub struct PatchPath {
    normal: Arc<str>,
    given: Arc<str>,
}

impl PatchPath {
    /// Checks and normalises a relative path: `./a//b` becomes `a/b`.
    ///
    /// # Errors
    /// [`PathError`] when the path is empty, absolute, has a `..` component, a NUL or a drive, names a directory by a
    /// final slash, or is longer than [`MAX_PATH_BYTES`].
    pub fn new(given: &str) -> Result<Self, PathError> {
        PathRules::default().check(given)
    }

    /// Returns the normalised path, with `/` between components.
    pub fn as_str(&self) -> &str {
        &self.normal
    }

    /// Returns the spelling that the patch used.
    pub fn given(&self) -> &str {
        &self.given
    }

    /// Returns the last component.
    pub fn file_name(&self) -> &str {
        self.normal.rsplit('/').next().unwrap_or(&self.normal)
    }

    /// Returns the components before the last one, outermost first.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        let parent = self.normal.rfind('/').map_or("", |slash| &self.normal[..slash]);
        parent.split('/').filter(|component| !component.is_empty())
    }

    /// Returns the path of `name` in the same directory. `name` is one component.
    pub(crate) fn sibling(&self, name: &str) -> Self {
        let normal = match self.normal.rfind('/') {
            Some(slash) => format!("{}/{name}", &self.normal[..slash]),
            None => name.to_owned(),
        };
        let normal: Arc<str> = normal.into();
        Self { given: Arc::clone(&normal), normal }
    }
}

impl fmt::Display for PatchPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.given)
    }
}

impl PartialEq for PatchPath {
    fn eq(&self, other: &Self) -> bool {
        self.normal == other.normal
    }
}

impl Eq for PatchPath {}

impl Hash for PatchPath {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.normal.hash(state);
    }
}

impl PartialOrd for PatchPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PatchPath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.normal.cmp(&other.normal)
    }
}

/// How the paths of a patch are read.
///
/// The default accepts relative paths only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathRules {
    root: Option<String>,
}

impl PathRules {
    /// Also accepts an absolute path that lies inside `root`, and reads it as relative to `root`.
    ///
    /// The comparison is by component and lexical: `root` is the spelling that the model was told. A root of `/` or an
    /// empty one maps nothing, because every absolute path would lie inside it.
    pub fn inside_root(root: &str) -> Self {
        let root = root.trim_end_matches('/');
        Self { root: (!root.is_empty()).then(|| root.to_owned()) }
    }

    /// Checks one path under these rules.
    ///
    /// # Errors
    /// As [`PatchPath::new`], but an absolute path inside the root is accepted.
    pub fn check(&self, given: &str) -> Result<PatchPath, PathError> {
        let refuse = |reason| PathError { path: given.chars().take(200).collect(), reason };
        if given.len() > MAX_PATH_BYTES {
            return Err(refuse(PathReason::TooLong));
        }
        if given.contains('\0') {
            return Err(refuse(PathReason::Nul));
        }
        let mut chars = given.chars();
        let has_drive = chars.next().is_some_and(|first| first.is_ascii_alphabetic())
            && chars.next() == Some(':');
        if given.starts_with('\\') || has_drive {
            return Err(refuse(PathReason::Drive));
        }
        if given.split(['/', '\\']).any(|component| component == "..") {
            return Err(refuse(PathReason::Parent));
        }
        let relative = if given.starts_with('/') {
            self.root
                .as_deref()
                .and_then(|root| given.strip_prefix(root))
                .filter(|rest| rest.starts_with('/'))
                .ok_or_else(|| refuse(PathReason::Absolute))?
        } else {
            given
        };
        if relative.ends_with('/') && relative.contains(|c| c != '/' && c != '.') {
            return Err(refuse(PathReason::Directory));
        }
        let mut normal = String::with_capacity(relative.len());
        for component in relative.split('/').filter(|component| !matches!(*component, "" | ".")) {
            if !normal.is_empty() {
                normal.push('/');
            }
            normal.push_str(component);
        }
        if normal.is_empty() {
            return Err(refuse(PathReason::Empty));
        }
        let normal: Arc<str> = normal.into();
        let given = if *normal == *given { Arc::clone(&normal) } else { given.into() };
        Ok(PatchPath { normal, given })
    }
}

/// A path that a patch may not name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path {path:?} {reason}")]
pub struct PathError {
    /// The path as given, cut to 200 characters.
    pub path: String,
    /// Why it is refused.
    pub reason: PathReason,
}

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathReason {
    /// The path is empty, or only dots and slashes.
    Empty,
    /// The path is absolute and not inside the root.
    Absolute,
    /// The path has a `..` component.
    Parent,
    /// The path has a NUL character.
    Nul,
    /// The path starts with a drive or a backslash.
    Drive,
    /// The path ends in a slash.
    Directory,
    /// The path is longer than [`MAX_PATH_BYTES`].
    TooLong,
}

impl fmt::Display for PathReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Empty => "is empty; name a file",
            Self::Absolute => {
                "is absolute and outside the workspace; give it relative to the workspace"
            }
            Self::Parent => "has a '..' component; name the file without it",
            Self::Nul => "has a NUL character",
            Self::Drive => {
                "starts with a drive or a backslash; give it relative to the workspace, with '/'"
            }
            Self::Directory => "ends in a slash; name a file",
            Self::TooLong => "is longer than 4096 bytes",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_what_stays_inside() {
        for (given, normal) in [
            ("a", "a"),
            ("./a//b", "a/b"),
            ("a/./b", "a/b"),
            ("a/..b/c..", "a/..b/c.."),
            ("with space/ü", "with space/ü"),
            (".gitignore", ".gitignore"),
        ] {
            let path = PatchPath::new(given).unwrap();
            assert_eq!((path.as_str(), path.given()), (normal, given));
        }
    }

    #[test]
    fn refuses_what_could_leave() {
        for (given, reason) in [
            ("", PathReason::Empty),
            (".", PathReason::Empty),
            ("./", PathReason::Empty),
            ("/etc/passwd", PathReason::Absolute),
            ("..", PathReason::Parent),
            ("a/../b", PathReason::Parent),
            ("a\\..\\b", PathReason::Parent),
            ("a\0b", PathReason::Nul),
            ("C:\\x", PathReason::Drive),
            ("c:/x", PathReason::Drive),
            ("\\\\host\\share", PathReason::Drive),
            ("a/b/", PathReason::Directory),
            (&"x".repeat(MAX_PATH_BYTES + 1), PathReason::TooLong),
        ] {
            assert_eq!(PatchPath::new(given).unwrap_err().reason, reason, "{given:?}");
        }
    }

    #[test]
    fn maps_an_absolute_path_inside_the_root() {
        let rules = PathRules::inside_root("/work/space/");
        assert_eq!(rules.check("/work/space/a/b").unwrap().as_str(), "a/b");
        assert_eq!(rules.check("a").unwrap().as_str(), "a");
        for outside in ["/work/spaces/a", "/work", "/work/space", "/"] {
            assert_eq!(rules.check(outside).unwrap_err().reason, PathReason::Absolute, "{outside}");
        }
        assert_eq!(rules.check("/work/space/../x").unwrap_err().reason, PathReason::Parent);
        assert_eq!(rules.check("/work/space/").unwrap_err().reason, PathReason::Empty);
        assert_eq!(
            PathRules::inside_root("/").check("/etc/passwd").unwrap_err().reason,
            PathReason::Absolute
        );
    }

    #[test]
    fn names_parents_and_siblings() {
        let path = PatchPath::new("a/b/c.txt").unwrap();
        assert_eq!(path.parents().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(path.file_name(), "c.txt");
        assert_eq!(path.sibling(".t").as_str(), "a/b/.t");
        let top = PatchPath::new("c").unwrap();
        assert_eq!(top.parents().count(), 0);
        assert_eq!(top.sibling(".t").as_str(), ".t");
    }
}
