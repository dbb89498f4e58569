//! [`WorkspacePath`]: a relative, normalised POSIX path that cannot leave the workspace by its spelling.
//!
//! Links are a matter of the live file system and are confined where a path is opened; this type settles the spelling.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// A normalised path inside a workspace: relative, `/` between components, no `.` or `..`, no NUL.
///
/// The workspace itself is [`WorkspacePath::root`], displayed as `.`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkspacePath(Arc<str>);

/// The longest path accepted, in bytes, as `PATH_MAX` of Linux.
pub const MAX_PATH_BYTES: usize = 4096;

/// The longest component accepted, in bytes, as `NAME_MAX` of Linux.
pub const MAX_COMPONENT_BYTES: usize = 255;

/// Why a text is no path inside a workspace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkspacePathError {
    /// The text is empty.
    #[error("the path is empty; write `.` for the workspace itself")]
    Empty,
    /// The path starts at a file system's root.
    #[error("path {path:?} is absolute; write it relative to the workspace")]
    Absolute {
        /// The path that was given.
        path: String,
    },
    /// The path names a Windows drive or uses backslashes as separators.
    #[error("path {path:?} is a Windows path; write it relative to the workspace with `/`")]
    Windows {
        /// The path that was given.
        path: String,
    },
    /// The path has a `..` component.
    #[error(
        "path {path:?} has a `..` component and may leave the workspace; write the path it leads to"
    )]
    Parent {
        /// The path that was given.
        path: String,
    },
    /// The path has a NUL byte.
    #[error("path {path:?} has a NUL byte, which no file name can hold")]
    Nul {
        /// The path that was given.
        path: String,
    },
    /// The path or a component is longer than a file system takes.
    #[error(
        "path {path:.40?}… is too long; {MAX_PATH_BYTES} bytes in all and {MAX_COMPONENT_BYTES} a component are the bounds"
    )]
    TooLong {
        /// The path that was given.
        path: String,
    },
}

impl WorkspacePath {
    /// Returns the workspace itself.
    #[must_use]
    pub fn root() -> Self {
        Self(Arc::from("."))
    }

    /// Parses and normalises a path: `a//./b/` becomes `a/b`.
    ///
    /// # Errors
    ///
    /// Refuses empty, absolute, Windows and overlong paths, `..` and NUL.
    pub fn new(path: &str) -> Result<Self, WorkspacePathError> {
        let given = || path.to_owned();
        if path.is_empty() {
            return Err(WorkspacePathError::Empty);
        }
        if path.contains('\0') {
            return Err(WorkspacePathError::Nul { path: given() });
        }
        if path.starts_with('/') {
            return Err(WorkspacePathError::Absolute { path: given() });
        }
        let mut components = Vec::new();
        for component in path.split('/') {
            match component {
                "" | "." => {}
                ".." => return Err(WorkspacePathError::Parent { path: given() }),
                long if long.len() > MAX_COMPONENT_BYTES => {
                    return Err(WorkspacePathError::TooLong { path: given() });
                }
                name => components.push(name),
            }
        }
        if path.len() > MAX_PATH_BYTES {
            return Err(WorkspacePathError::TooLong { path: given() });
        }
        // What is kept is looked at, not what was written: `./c:` is kept as `c:`.
        let drive = components.first().map_or(&[][..], |first| first.as_bytes());
        if drive.len() >= 2 && drive[0].is_ascii_alphabetic() && drive[1] == b':'
            || path.contains('\\')
        {
            return Err(WorkspacePathError::Windows { path: given() });
        }
        if components.is_empty() { Ok(Self::root()) } else { Ok(Self(components.join("/").into())) }
    }

    /// Returns the path as text; `.` for the workspace itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns true for the workspace itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        &*self.0 == "."
    }

    /// Returns the components in order; none for the workspace itself.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|component| *component != ".")
    }

    /// Returns the directory that holds this path; `None` for the workspace itself.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        Some(self.0.rsplit_once('/').map_or_else(Self::root, |(parent, _)| Self(parent.into())))
    }

    /// Returns the last component; `None` for the workspace itself.
    #[must_use]
    pub fn file_name(&self) -> Option<&str> {
        if self.is_root() { None } else { self.0.rsplit('/').next() }
    }

    /// Returns the path of `relative` below this one.
    ///
    /// # Errors
    ///
    /// As [`WorkspacePath::new`] for `relative` and for the joined length.
    pub fn join(&self, relative: &str) -> Result<Self, WorkspacePathError> {
        let relative = Self::new(relative)?;
        match (self.is_root(), relative.is_root()) {
            (true, _) => Ok(relative),
            (_, true) => Ok(self.clone()),
            _ => Self::new(&format!("{self}/{relative}")),
        }
    }

    /// Returns true if `other` is this path or below it.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.is_root()
            || other
                .0
                .strip_prefix(&*self.0)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for WorkspacePath {
    type Err = WorkspacePathError;

    fn from_str(path: &str) -> Result<Self, Self::Err> {
        Self::new(path)
    }
}

impl TryFrom<String> for WorkspacePath {
    type Error = WorkspacePathError;

    fn try_from(path: String) -> Result<Self, Self::Error> {
        Self::new(&path)
    }
}

impl From<WorkspacePath> for String {
    fn from(path: WorkspacePath) -> Self {
        path.as_str().to_owned()
    }
}

impl fmt::Display for WorkspacePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WorkspacePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(path: &str, expect: &str) {
        let got = match WorkspacePath::new(path) {
            Ok(path) => path.to_string(),
            Err(error) => {
                format!("{error:?}").split([' ', '(']).next().unwrap_or_default().to_owned()
            }
        };
        assert_eq!(got, expect, "for {path:?}");
    }

    #[test]
    fn normalises_or_refuses() {
        check("a", "a");
        check("a//b/./c/", "a/b/c");
        check("./", ".");
        check(".", ".");
        check("a b/ü/...", "a b/ü/...");
        check("", "Empty");
        check("/", "Absolute");
        check("/etc/passwd", "Absolute");
        check("..", "Parent");
        check("a/../b", "Parent");
        check("a\0b", "Nul");
        check("C:", "Windows");
        check("c:/x", "Windows");
        // What is kept would be read as a drive the next time.
        check("./c:/", "Windows");
        check("a/c:", "a/c:");
        check("a\\b", "Windows");
        check("\\\\host\\share", "Windows");
        check(&"x".repeat(256), "TooLong");
        check(&"x/".repeat(3000), "TooLong");
    }

    #[test]
    fn walks_up_and_down() {
        let path = WorkspacePath::new("a/b/c").unwrap();
        assert_eq!(path.parent().unwrap().as_str(), "a/b");
        assert_eq!(path.file_name(), Some("c"));
        assert_eq!(WorkspacePath::new("a").unwrap().parent(), Some(WorkspacePath::root()));
        assert_eq!(WorkspacePath::root().parent(), None);
        assert_eq!(WorkspacePath::root().join("x/y").unwrap().as_str(), "x/y");
        assert!(WorkspacePath::new("a/b").unwrap().contains(&path));
        assert!(!WorkspacePath::new("a/bc").unwrap().contains(&path));
        assert!(WorkspacePath::root().contains(&path));
    }

    proptest! {
        #[test]
        fn accepted_paths_are_normal_and_stay_inside(text in "[a-z./\\\\:\0]{0,24}") {
            if let Ok(path) = WorkspacePath::new(&text) {
                prop_assert!(!path.as_str().starts_with('/'));
                prop_assert!(path.components().all(|c| !c.is_empty() && c != ".."));
                prop_assert_eq!(WorkspacePath::new(path.as_str()), Ok(path.clone()));
            }
        }
    }
}
