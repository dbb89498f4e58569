//! What the spelling of a host path tells, without a look at the host.

use std::path::{Component, Path, PathBuf};

/// Removes `.` and resolves `..` by spelling; a `..` that leads above the start is kept.
pub(crate) fn normalise(path: &str) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if normal.file_name().is_some() => {
                normal.pop();
            }
            Component::ParentDir if normal.has_root() => {}
            other => normal.push(other),
        }
    }
    normal
}

/// Returns whether a path leaves the directory that it is relative to.
pub(crate) fn leaves_base(path: &str) -> bool {
    let path = normalise(path);
    path.is_absolute() || path.starts_with("..")
}

/// Returns whether a directory (or file) holds a path, as far as spelling tells; both start at the same directory.
pub(crate) fn contains(outer: &str, inner: &str) -> bool {
    let (outer, inner) = (normalise(outer), normalise(inner));
    let ups = |path: &Path| path.components().take_while(|c| *c == Component::ParentDir).count();
    if outer.components().all(|component| component == Component::ParentDir) {
        // The directory itself or one above it.
        return inner.is_relative() && ups(&inner) <= ups(&outer);
    }
    inner.starts_with(outer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contains_by_spelling() {
        let check = |outer: &str, inner: &str, expect: bool| {
            assert_eq!(contains(outer, inner), expect, "for {outer:?} and {inner:?}");
        };
        check(".", "truth", true);
        check(".", "../truth", false);
        check("..", "truth", true);
        check("..", "../truth", true);
        check("a", "./a/b", true);
        check("a", "a", true);
        check("a", "ab", false);
        check("../a", "../a/b", true);
        check("/", "/a", true);
        check(".", "/a", false);
    }

    #[test]
    fn normalises_by_spelling() {
        let check = |path: &str, expect: &str, leaves: bool| {
            assert_eq!(normalise(path), Path::new(expect), "for {path:?}");
            assert_eq!(leaves_base(path), leaves, "for {path:?}");
        };
        check("./a//b/.", "a/b", false);
        check("a/../b", "b", false);
        check(".", "", false);
        check("a/../../b", "../b", true);
        check("../..", "../..", true);
        check("/../etc", "/etc", true);
    }
}
