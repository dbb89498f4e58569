//! [`FieldPath`]: where in a file something is, as `workspace.entries.records.mode`.

use std::fmt;

/// The path of a field from the file's root.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct FieldPath(Vec<Segment>);

/// One step of a [`FieldPath`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Into the value of a mapping's key.
    Key(String),
    /// Into an element of a list, counted from 0.
    Index(usize),
}

impl FieldPath {
    /// Returns the path of the file's root.
    #[must_use]
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Returns the path of a key below this one.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.child(Segment::Key(key.to_owned()))
    }

    /// Returns the path of a list element below this one.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.child(Segment::Index(index))
    }

    /// Returns the steps from the root.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    fn child(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }
}

impl fmt::Display for FieldPath {
    /// Writes plain keys with dots between, other keys quoted in brackets, and `the file` for the root.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the file");
        }
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if is_plain(key) => {
                    write!(f, "{}{key}", if position == 0 { "" } else { "." })?;
                }
                Segment::Key(key) => write!(f, "[{key:?}]")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

fn is_plain(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_like_a_person_would_write_it() {
        let root = FieldPath::root();
        let check = |path: FieldPath, expect: &str| assert_eq!(path.to_string(), expect);
        check(root.clone(), "the file");
        check(root.key("workspace").key("entries").key("a-b"), "workspace.entries.a-b");
        check(root.key("outputs").index(2).key("path"), "outputs[2].path");
        check(root.key("entries").key("a/b.txt").key("mode"), r#"entries["a/b.txt"].mode"#);
    }
}
