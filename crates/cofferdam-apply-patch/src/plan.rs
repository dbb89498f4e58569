//! A whole patch worked out in memory, before anything is written.
//!
//! [`plan`] reads the files through a callback, applies every operation to a staged state, and gives a [`Plan`]: for each
//! path what was there and what shall be there. A file that the patch names twice is changed twice in the staged state.
//! Nothing here does I/O; [`crate::Transaction`] carries a plan out.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::apply::apply_hunks;
use crate::options::{Existing, Mode, Options};
use crate::patch::{Hunk, Operation, Patch};
use crate::path::PatchPath;
use crate::report::HunkReport;

mod error;

pub use error::{Irreversible, PlanError, PlanFault, ReadError};

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileState {
    /// A regular file.
    File(FileContent),
    /// A directory.
    Directory,
    /// A symbolic link, which is never followed.
    Symlink,
    /// A socket, pipe or device.
    Other,
}

/// A regular file's bytes and mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    /// All bytes. Plans, their reverses and the steps of a transaction share them.
    pub bytes: Arc<Vec<u8>>,
    /// The permission bits, as in `st_mode & 0o7777`. Nothing: what the place gives to a new file.
    pub mode: Option<u32>,
}

impl FileContent {
    /// Returns the content of a file without copying it.
    pub fn new(bytes: Vec<u8>, mode: Option<u32>) -> Self {
        Self { bytes: Arc::new(bytes), mode }
    }
}

/// What one path was and shall be. The two differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path.
    pub path: PatchPath,
    /// What was there; nothing when there was no file.
    pub before: Option<FileState>,
    /// The file that shall be there; nothing when there shall be none.
    pub after: Option<FileContent>,
}

/// What one operation did, in the words of the patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What happened.
    pub action: Action,
    /// The path that is left, or that was deleted. For a move it is the destination.
    pub path: PatchPath,
    /// Where the file was before a move.
    pub moved_from: Option<PatchPath>,
    /// Where the hunks went.
    pub hunks: Vec<HunkReport>,
}

impl Outcome {
    fn whole_file(operation: &Operation) -> Self {
        Self {
            action: operation.action(),
            path: operation.path().clone(),
            moved_from: None,
            hunks: Vec::new(),
        }
    }
}

/// What an operation did to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Made it.
    Added,
    /// Changed it, moved it, or both.
    Modified,
    /// Removed it.
    Deleted,
}

/// A patch worked out against the files as they are.
#[derive(Debug)]
pub struct Plan {
    /// The net change of each path, in the order in which they are to be made.
    pub changes: Vec<Change>,
    /// What each operation did, in order.
    pub outcomes: Vec<Outcome>,
    /// The operation that ended the plan early. Only in [`Mode::Partial`].
    pub failure: Option<PlanError>,
    /// Whether the changes are made as a whole.
    pub mode: Mode,
}

impl Plan {
    /// Returns the changes that make a file where there was none.
    pub fn creates(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.before.is_none())
    }

    /// Returns the changes that give new bytes or a new mode to a file.
    pub fn writes(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.before.is_some() && change.after.is_some())
    }

    /// Returns the changes that remove a file.
    pub fn deletes(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.after.is_none())
    }

    /// Returns the moves, as source and destination.
    pub fn moves(&self) -> impl Iterator<Item = (&PatchPath, &PatchPath)> {
        self.outcomes
            .iter()
            .filter_map(|outcome| Some((outcome.moved_from.as_ref()?, &outcome.path)))
    }

    /// Returns the success report in the peers' words: all added files, then all modified, then all deleted, as the patch
    /// spells them.
    pub fn summary(&self) -> String {
        let mut outcomes: Vec<&Outcome> = self.outcomes.iter().collect();
        outcomes.sort_by_key(|outcome| outcome.action);
        let lines = outcomes.into_iter().map(|outcome| {
            let letter = match outcome.action {
                Action::Added => 'A',
                Action::Modified => 'M',
                Action::Deleted => 'D',
            };
            format!("{letter} {}\n", outcome.path)
        });
        std::iter::once("Success. Updated the following files:\n".to_owned()).chain(lines).collect()
    }

    /// Returns one line for each thing that deserves a second look: fuzz and ambiguity.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        self.outcomes.iter().flat_map(|outcome| {
            (1..).zip(&outcome.hunks).filter_map(move |(number, hunk)| {
                Some(format!("{}: hunk {number} at {}", outcome.path, hunk.warning()?))
            })
        })
    }

    /// Returns the plan that restores the former state once this one was carried out.
    ///
    /// # Errors
    /// [`Irreversible`] when the plan removes a symbolic link, whose target it never read.
    pub fn reverse(&self) -> Result<Self, Irreversible> {
        let changes = self.changes.iter().rev().map(|change| {
            let after = match &change.before {
                None => None,
                Some(FileState::File(content)) => Some(content.clone()),
                Some(_) => return Err(Irreversible { path: change.path.clone() }),
            };
            Ok(Change {
                path: change.path.clone(),
                before: change.after.clone().map(FileState::File),
                after,
            })
        });
        Ok(Self {
            changes: changes.collect::<Result<_, _>>()?,
            outcomes: Vec::new(),
            failure: None,
            mode: Mode::Atomic,
        })
    }
}

/// Works out a patch against the files that `read` gives.
///
/// `read` is asked once for each path and answers with nothing when nothing is there. It must not follow links.
///
/// # Errors
/// In [`Mode::Atomic`] the first operation that fails is the error, and nothing is to be written. In [`Mode::Partial`]
/// it is [`Plan::failure`], and the operations before it are planned.
///
/// # Examples
/// ```
/// use cofferdam_apply_patch::{FileContent, FileState, Options, parse, plan};
///
/// let patch = parse("*** Begin Patch\n*** Update File: a.txt\n-one\n+two\n*** End Patch")?;
/// let file = FileContent::new(b"one\n".to_vec(), Some(0o644));
/// let plan = plan(&patch, &Options::default(), &mut |_path| Ok(Some(FileState::File(file.clone()))))?;
/// let after = plan.changes[0].after.as_ref().map(|content| content.bytes.as_slice());
/// assert_eq!(after, Some(b"two\n".as_slice()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn plan(
    patch: &Patch,
    options: &Options,
    read: &mut dyn FnMut(&PatchPath) -> Result<Option<FileState>, ReadError>,
) -> Result<Plan, PlanError> {
    let mut planner = Planner { options, read, staged: BTreeMap::new(), order: Vec::new() };
    let mut outcomes = Vec::with_capacity(patch.operations.len());
    let mut failure = None;
    for (index, operation) in patch.operations.iter().enumerate() {
        match planner.operation(operation) {
            Ok(outcome) => outcomes.push(outcome),
            Err((path, fault)) => {
                let error =
                    PlanError { operation: index + 1, action: operation.action(), path, fault };
                if options.mode == Mode::Atomic {
                    return Err(error);
                }
                failure = Some(error);
                break;
            }
        }
    }
    Ok(Plan { changes: planner.changes(), outcomes, failure, mode: options.mode })
}

impl Operation {
    /// Returns what the operation does, in the words of a report.
    pub fn action(&self) -> Action {
        match self {
            Self::Create { .. } => Action::Added,
            Self::Update { .. } => Action::Modified,
            Self::Delete { .. } => Action::Deleted,
        }
    }
}

/// A path before the patch and after the operations so far.
struct Staged {
    before: Option<FileState>,
    now: Option<FileState>,
    is_touched: bool,
}

type Fault = (PatchPath, PlanFault);

struct Planner<'r> {
    options: &'r Options,
    read: &'r mut dyn FnMut(&PatchPath) -> Result<Option<FileState>, ReadError>,
    staged: BTreeMap<PatchPath, Staged>,
    /// Paths in the order of their first change.
    order: Vec<PatchPath>,
}

impl Planner<'_> {
    fn operation(&mut self, operation: &Operation) -> Result<Outcome, Fault> {
        match operation {
            Operation::Create { path, content } => {
                let mode = self.vacant(path)?;
                self.put(path, Some(FileContent::new(content.clone().into_bytes(), mode)));
                Ok(Outcome::whole_file(operation))
            }
            Operation::Delete { path } => {
                match self.now(path)? {
                    Some(FileState::File(_) | FileState::Symlink) => self.put(path, None),
                    other => return Err((path.clone(), PlanFault::of_missing_file(other))),
                }
                Ok(Outcome::whole_file(operation))
            }
            Operation::Update { path, move_to, hunks } => {
                self.update(path, move_to.as_ref(), hunks)
            }
        }
    }

    fn update(
        &mut self,
        path: &PatchPath,
        move_to: Option<&PatchPath>,
        hunks: &[Hunk],
    ) -> Result<Outcome, Fault> {
        let content = match self.now(path)? {
            Some(FileState::File(content)) => content.clone(),
            other => return Err((path.clone(), PlanFault::of_missing_file(other))),
        };
        // A pure rename moves any bytes; only hunks need text.
        let (bytes, reports) = if hunks.is_empty() {
            (content.bytes, Vec::new())
        } else {
            let applied = apply_hunks(&content.bytes, hunks, self.options)
                .map_err(|error| (path.clone(), PlanFault::Hunk(Box::new(error))))?;
            (Arc::new(applied.content), applied.hunks)
        };
        let content = FileContent { bytes, mode: content.mode };
        let moved_to = move_to.filter(|destination| *destination != path);
        if let Some(destination) = moved_to {
            self.vacant(destination)?;
            self.put(destination, Some(content));
            self.put(path, None);
        } else {
            self.put(path, Some(content));
        }
        Ok(Outcome {
            action: Action::Modified,
            path: move_to.unwrap_or(path).clone(),
            moved_from: moved_to.map(|_| path.clone()),
            hunks: reports,
        })
    }

    /// Checks that a file can be made at `path`, and gives the mode of the one that it replaces.
    fn vacant(&mut self, path: &PatchPath) -> Result<Option<u32>, Fault> {
        let existing = self.options.existing;
        match self.now(path)? {
            None => Ok(None),
            Some(FileState::File(content)) if existing == Existing::Overwrite => Ok(content.mode),
            Some(FileState::File(_)) => Err((path.clone(), PlanFault::AlreadyExists)),
            other => Err((path.clone(), PlanFault::of_missing_file(other))),
        }
    }

    fn now(&mut self, path: &PatchPath) -> Result<Option<&FileState>, Fault> {
        if !self.staged.contains_key(path) {
            let before = (self.read)(path)
                .map_err(|source| (path.clone(), PlanFault::Read { source: Arc::from(source) }))?;
            self.staged
                .insert(path.clone(), Staged { now: before.clone(), before, is_touched: false });
        }
        Ok(self.staged.get(path).and_then(|staged| staged.now.as_ref()))
    }

    fn put(&mut self, path: &PatchPath, content: Option<FileContent>) {
        if let Some(staged) = self.staged.get_mut(path) {
            staged.now = content.map(FileState::File);
            if !std::mem::replace(&mut staged.is_touched, true) {
                self.order.push(path.clone());
            }
        }
    }

    fn changes(mut self) -> Vec<Change> {
        let changed = self.order.into_iter().filter_map(|path| {
            let Staged { before, now, .. } = self.staged.remove(&path)?;
            if before == now {
                return None;
            }
            let after = match now {
                Some(FileState::File(content)) => Some(content),
                _ => None,
            };
            Some(Change { path, before, after })
        });
        changed.collect()
    }
}
