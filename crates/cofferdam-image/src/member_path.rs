//! Paths of entries: read once, as components that are safe by themselves.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::EntryProblem;

/// The longest path, in bytes.
const MAX_PATH: usize = 4096;
/// The longest name, in bytes.
const MAX_NAME: usize = 255;
/// The deepest path, in components.
const MAX_DEPTH: usize = 128;

/// Reads the path of an entry: relative, without `..`. Empty components and `.` are dropped; an empty result is the root.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn parse(bytes: &[u8]) -> Result<PathBuf, EntryProblem> {
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(EntryProblem::NoName);
    }
    if bytes.starts_with(b"/") {
        return Err(EntryProblem::Absolute);
    }
    if bytes.len() > MAX_PATH {
        return Err(EntryProblem::TooLong);
    }
    let mut path = PathBuf::new();
    let mut depth = 0;
    for name in bytes.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => continue,
            b".." => return Err(EntryProblem::ParentDirectory),
            _ => {}
        }
        depth += 1;
        if name.len() > MAX_NAME || depth > MAX_DEPTH {
            return Err(EntryProblem::TooLong);
        }
        path.push(OsStr::from_bytes(name));
    }
    Ok(path)
}

/// What an entry's name says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name<'a> {
    /// The root itself.
    Root,
    /// An ordinary entry.
    Plain,
    /// A whiteout: this name of the layers below is gone.
    Whiteout(&'a OsStr),
    /// An opaque directory: everything that the layers below have in it is gone.
    Opaque,
    /// Bookkeeping of a file system that wrote the layer; means nothing.
    Bookkeeping,
}

const WHITEOUT: &[u8] = b".wh.";
const BOOKKEEPING: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Says what the name of a path that [`parse`] returned means.
///
/// # Errors
///
/// [`EntryProblem::Whiteout`] if it is a whiteout of nothing, or lies below one.
pub(crate) fn classify(path: &Path) -> Result<Name<'_>, EntryProblem> {
    let Some(name) = path.file_name() else { return Ok(Name::Root) };
    for parent in path.parent().into_iter().flat_map(Path::iter) {
        if parent.as_bytes().starts_with(BOOKKEEPING) {
            return Ok(Name::Bookkeeping);
        }
        if parent.as_bytes().starts_with(WHITEOUT) {
            return Err(EntryProblem::Whiteout);
        }
    }
    match name.as_bytes() {
        OPAQUE => Ok(Name::Opaque),
        name if name.starts_with(BOOKKEEPING) => Ok(Name::Bookkeeping),
        name => match name.strip_prefix(WHITEOUT) {
            None => Ok(Name::Plain),
            Some(b"" | b"." | b"..") => Err(EntryProblem::Whiteout),
            Some(name) => Ok(Name::Whiteout(OsStr::from_bytes(name))),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_relative_and_go_down() {
        let long = [b'a'; 256];
        let deep = b"a/".repeat(129);
        let far = b"abcdefg/".repeat(513);
        let cases: &[(&[u8], Result<&str, EntryProblem>)] = &[
            (b"a", Ok("a")),
            (b"./a//b/.", Ok("a/b")),
            (b".", Ok("")),
            (b"./", Ok("")),
            (b"a/...", Ok("a/...")),
            (b"..a/b..", Ok("..a/b..")),
            (b"", Err(EntryProblem::NoName)),
            (b"a\0b", Err(EntryProblem::NoName)),
            (b"/", Err(EntryProblem::Absolute)),
            (b"/etc/passwd", Err(EntryProblem::Absolute)),
            (b"..", Err(EntryProblem::ParentDirectory)),
            (b"a/../b", Err(EntryProblem::ParentDirectory)),
            (b"a/..", Err(EntryProblem::ParentDirectory)),
            (&long, Err(EntryProblem::TooLong)),
            (&deep, Err(EntryProblem::TooLong)),
            (&far, Err(EntryProblem::TooLong)),
        ];
        for (input, expect) in cases {
            let expect = expect.map(PathBuf::from);
            assert_eq!(parse(input), expect, "{}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn whiteouts_name_something_in_their_own_directory() {
        let whiteout = |name| Ok(Name::Whiteout(OsStr::new(name)));
        for (input, expect) in [
            ("", Ok(Name::Root)),
            ("a/b", Ok(Name::Plain)),
            ("a/.wh.b", whiteout("b")),
            (".wh.b", whiteout("b")),
            (".wh....", whiteout("...")),
            ("a/.wh..wh..opq", Ok(Name::Opaque)),
            (".wh..wh.plnk", Ok(Name::Bookkeeping)),
            (".wh..wh.plnk/12.34", Ok(Name::Bookkeeping)),
            (".wh.", Err(EntryProblem::Whiteout)),
            ("a/.wh..", Err(EntryProblem::Whiteout)),
            ("a/.wh...", Err(EntryProblem::Whiteout)),
            (".wh.a/b", Err(EntryProblem::Whiteout)),
        ] {
            assert_eq!(classify(Path::new(input)), expect, "{input}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_stays_below(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(path) = parse(&bytes) {
                for component in path.components() {
                    prop_assert!(matches!(component, std::path::Component::Normal(_)));
                }
            }
        }
    }
}
