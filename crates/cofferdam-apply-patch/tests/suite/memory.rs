//! Files in memory, stricter than a disk: every step that the rules forbid fails, and any step can be made to fail.

use std::collections::BTreeMap;
use std::io;

use cofferdam_apply_patch::{FileContent, FileState, PatchPath, ReadError, Step, StepDone, Target};

/// Files by path, with their bytes and modes, and the directories above them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) files: BTreeMap<PatchPath, FileContent>,
    pub(crate) directories: Vec<PatchPath>,
    pub(crate) links: Vec<PatchPath>,
    /// How many steps succeed before one fails.
    pub(crate) fails_after: Option<usize>,
    /// Whether all steps after that fail too.
    pub(crate) stays_broken: bool,
}

pub(crate) fn path(text: &str) -> PatchPath {
    PatchPath::new(text).unwrap()
}

impl Memory {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let content = |bytes: &str| FileContent::new(bytes.as_bytes().to_vec(), Some(0o640));
        let files: BTreeMap<_, _> =
            files.iter().map(|(name, bytes)| (path(name), content(bytes))).collect();
        let mut memory = Self::default();
        for path in files.keys() {
            memory.make_parents(path);
        }
        Self { files, ..memory }
    }

    pub(crate) fn read(&self, path: &PatchPath) -> Result<Option<FileState>, ReadError> {
        if self.links.contains(path) {
            return Ok(Some(FileState::Symlink));
        }
        if self.directories.contains(path) {
            return Ok(Some(FileState::Directory));
        }
        Ok(self.files.get(path).cloned().map(FileState::File))
    }

    /// All files as lines of `name=content`, with newlines shown as `|`.
    pub(crate) fn list(&self) -> String {
        let line = |(path, content): (&PatchPath, &FileContent)| {
            format!(
                "{}={}",
                path.as_str(),
                String::from_utf8_lossy(&content.bytes).replace('\n', "|")
            )
        };
        self.files.iter().map(line).collect::<Vec<_>>().join(" ")
    }

    fn make_parents(&mut self, of: &PatchPath) -> Vec<PatchPath> {
        let mut made = Vec::new();
        let mut so_far = String::new();
        for name in of.parents() {
            so_far = if so_far.is_empty() { name.to_owned() } else { format!("{so_far}/{name}") };
            if !self.directories.contains(&path(&so_far)) {
                self.directories.push(path(&so_far));
                made.push(path(&so_far));
            }
        }
        made
    }

    fn take(&mut self, path: &PatchPath) -> io::Result<FileContent> {
        self.files.remove(path).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn put(&mut self, path: &PatchPath, content: FileContent, replace: bool) -> io::Result<()> {
        if self.files.contains_key(path) != replace {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let parent = path.as_str().rsplit_once('/').map(|(parent, _)| self::path(parent));
        if parent.is_some_and(|parent| !self.directories.contains(&parent)) {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        self.files.insert(path.clone(), content);
        Ok(())
    }
}

impl Target for Memory {
    fn perform(&mut self, step: &Step) -> io::Result<StepDone> {
        match &mut self.fails_after {
            Some(0) => {
                if !self.stays_broken {
                    self.fails_after = None;
                }
                // A failed write may leave a part of its file.
                if let Step::Write { path, .. } = step {
                    self.files.insert(path.clone(), FileContent::new(b"torn".to_vec(), None));
                }
                return Err(io::Error::other("the disk is full"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        match step {
            Step::MakeParents { path } => {
                return Ok(StepDone { created_directories: self.make_parents(path) });
            }
            Step::Write { path, content, mode, .. } => {
                self.put(path, FileContent { bytes: content.clone(), mode: *mode }, false)?;
            }
            Step::Keep { path, backup } => {
                let content = self.files.get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
                self.put(backup, content, false)?;
            }
            Step::Rename { from, to, replace } => {
                let content = self.take(from)?;
                self.put(to, content, *replace)?;
            }
            Step::Remove { path } => {
                self.files.remove(path);
                self.links.retain(|link| link != path);
            }
            Step::RemoveDirectory { path } => {
                self.directories.retain(|directory| directory != path)
            }
        }
        Ok(StepDone::default())
    }
}
