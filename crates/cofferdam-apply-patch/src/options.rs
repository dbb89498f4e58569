//! What a caller may choose, and the peers' choices under one name.

/// Choices of planning and applying. The default is the strict and safe one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Whether a patch that fails in one place may leave its other parts applied. Default: [`Mode::Atomic`].
    pub mode: Mode,
    /// What happens to a file that is already where one is to be made. Default: [`Existing::Refuse`].
    pub existing: Existing,
    /// What happens to a missing final newline. Default: [`FinalNewline::Keep`].
    pub final_newline: FinalNewline,
    /// Whether an anchor must be in the file. Default: [`Anchors::Required`].
    pub anchors: Anchors,
    /// Largest file that is changed as text, in bytes. Default: 256 MiB; never more than 4 GiB.
    pub max_file_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::Atomic,
            existing: Existing::Refuse,
            final_newline: FinalNewline::Keep,
            anchors: Anchors::Required,
            max_file_bytes: 256 * 1024 * 1024,
        }
    }
}

impl Options {
    /// Returns the peers' behaviour: partial application, silent overwriting, and a final newline added to every
    /// updated file.
    ///
    /// Their faults that destroy work are not kept: a move to the same path is safe, a pure addition lands at its
    /// anchor, paths stay inside and links are not followed in this mode too.
    pub fn peer_compatible() -> Self {
        Self {
            mode: Mode::Partial,
            existing: Existing::Overwrite,
            final_newline: FinalNewline::Always,
            ..Self::default()
        }
    }
}

/// Whether a patch is applied as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// All operations apply, or none does.
    #[default]
    Atomic,
    /// Operations apply in order up to the first that fails; what was applied stays and is listed.
    Partial,
}

/// What happens to a file that is in the way of a created or moved one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// The patch is refused.
    #[default]
    Refuse,
    /// The file is replaced.
    Overwrite,
}

/// What an update does with a file that has no final newline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FinalNewline {
    /// It still has none.
    #[default]
    Keep,
    /// It gets one.
    Always,
}

/// Whether the anchors of a hunk must be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Anchors {
    /// Each anchor must be found.
    #[default]
    Required,
    /// A single anchor that is not found is passed over when the hunk has context or removed lines of its own; the
    /// report says so. Stacked anchors must be found.
    Advisory,
}
