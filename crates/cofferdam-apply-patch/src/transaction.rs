//! A plan carried out step by step, without doing the steps.
//!
//! A [`Transaction`] says what to do next and is told how it went, so the same order of writing, renaming and rolling back
//! serves a host directory, a sandbox with asynchronous files, and a test that fails on purpose. [`commit`] is the loop
//! for a synchronous [`Target`].
//!
//! In [`Mode::Atomic`] all new content is first written to temporary files beside their places. Then each file is renamed
//! into place, and what it replaces is kept under a second name until the last rename succeeded. When a step fails, the
//! steps done are undone in reverse order. A rename is the only moment at which a path changes, so a reader sees the old
//! file or the new one. In [`Mode::Partial`] each file is written and renamed before the next, and nothing is undone.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::options::Mode;
use crate::path::PatchPath;
use crate::plan::{Change, Plan};

/// One thing to do to the files. No step follows a symbolic link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the directories above `path` that are missing, and answer with those made, outermost first. A failure leaves
    /// none behind.
    MakeParents {
        /// The file whose directories are meant.
        path: PatchPath,
    },
    /// Write a new file. It must not be there yet.
    Write {
        /// The temporary name.
        path: PatchPath,
        /// The file that it will replace or become: its owner may be copied from there.
        destination: PatchPath,
        /// All bytes.
        content: Arc<Vec<u8>>,
        /// The permission bits, or the default of the place.
        mode: Option<u32>,
    },
    /// Give the file a second name, by a hard link or a copy with the same mode. The first name stays in place.
    Keep {
        /// The file.
        path: PatchPath,
        /// The second name, which must not be there yet.
        backup: PatchPath,
    },
    /// Rename a file.
    Rename {
        /// The present name.
        from: PatchPath,
        /// The new name.
        to: PatchPath,
        /// Whether a file at the new name is replaced; otherwise there must be none.
        replace: bool,
    },
    /// Remove a file or link. One that is not there counts as removed.
    Remove {
        /// The file.
        path: PatchPath,
    },
    /// Remove a directory that [`Step::MakeParents`] made, if it is empty.
    RemoveDirectory {
        /// The directory.
        path: PatchPath,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakeParents { path } => write!(formatter, "make the directories of {path}"),
            Self::Write { destination, .. } => {
                write!(formatter, "write the new content of {destination}")
            }
            Self::Keep { path, .. } => write!(formatter, "keep a copy of {path}"),
            Self::Rename { from, to, .. } => write!(formatter, "rename {from} to {to}"),
            Self::Remove { path } => write!(formatter, "remove {path}"),
            Self::RemoveDirectory { path } => write!(formatter, "remove the directory {path}"),
        }
    }
}

/// What a step that succeeded has to tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepDone {
    /// The directories that [`Step::MakeParents`] made, outermost first.
    pub created_directories: Vec<PatchPath>,
}

/// Something that can do the steps.
pub trait Target {
    /// Does one step.
    ///
    /// # Errors
    /// Any error stops the transaction. [`Step::Rename`] must then have changed nothing.
    fn perform(&mut self, step: &Step) -> io::Result<StepDone>;
}

/// The order in which a plan is carried out, and undone when a step fails.
///
/// # Examples
/// The loop around asynchronous files; [`commit`] is the same without `await`:
/// ```
/// # use cofferdam_apply_patch::{CommitError, Plan, Step, StepDone, Transaction};
/// # struct Files;
/// # impl Files { async fn perform(&self, _: &Step) -> std::io::Result<StepDone> { Ok(StepDone::default()) } }
/// async fn carry_out(plan: &Plan, files: &Files) -> Result<(), CommitError> {
///     let mut transaction = Transaction::new(plan, "unique-token");
///     while let Some(step) = transaction.step() {
///         let answer = files.perform(step).await;
///         transaction.record(answer);
///     }
///     transaction.finish().map(drop)
/// }
/// ```
///
/// # Cancel safety
/// Dropping a transaction before [`Transaction::step`] returned nothing leaves files as the last step left them, with
/// temporary files beside them. To stop early, record an error instead: that rolls back.
#[derive(Debug)]
pub struct Transaction {
    mode: Mode,
    current: Option<Task>,
    ahead: VecDeque<Task>,
    /// What undoes the steps done so far, last first.
    undo: Vec<Step>,
    failure: Option<(Task, io::Error)>,
    /// What could not be cleaned up or undone.
    leftovers: Vec<Leftover>,
    /// How many changes took effect.
    published: usize,
}

/// A step and its part in the whole.
#[derive(Debug)]
struct Task {
    step: Step,
    kind: Kind,
    /// The path of the patch that it is about.
    path: PatchPath,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Must succeed; does not yet change a path of the patch.
    Prepare,
    /// Must succeed; changes a path of the patch.
    Publish,
    /// Removes a kept file after success.
    CleanUp,
    /// Undoes a step after a failure.
    RollBack,
}

/// A step after the decision, in clean-up or roll-back, that did not succeed.
#[derive(Debug)]
pub struct Leftover {
    /// The step.
    pub step: Step,
    /// Why it failed.
    pub cause: io::Error,
}

/// A plan that was carried out.
#[derive(Debug)]
pub struct Committed {
    /// Kept files that could not be removed. The patch itself is complete.
    pub leftovers: Vec<Leftover>,
}

/// A plan that was not carried out.
#[derive(Debug, thiserror::Error)]
#[error("could not {step}; {}", state(*.mode, *.published, .leftovers))]
pub struct CommitError {
    /// The path of the patch that could not be changed.
    pub path: PatchPath,
    /// The step that failed.
    pub step: Box<Step>,
    /// Why.
    #[source]
    pub cause: io::Error,
    /// Whether the steps before it were undone.
    pub mode: Mode,
    /// How many of the plan's changes, from the first, are in effect. Always 0 in [`Mode::Atomic`] without leftovers.
    pub published: usize,
    /// Steps of the roll-back that failed. When there are any, files may differ from both states.
    pub leftovers: Vec<Leftover>,
}

fn state(mode: Mode, published: usize, leftovers: &[Leftover]) -> String {
    match (mode, leftovers) {
        (Mode::Partial, _) => format!("{published} earlier changes stay applied"),
        (Mode::Atomic, []) => "nothing was changed".to_owned(),
        (Mode::Atomic, [first, ..]) => {
            format!("and rolling back failed too: could not {}: {}", first.step, first.cause)
        }
    }
}

impl Transaction {
    /// Begins to carry out a plan.
    ///
    /// `token` makes the names of temporary files, so it must differ between transactions that run at the same time in
    /// one workspace. Letters, digits and `-` only; anything else is left out.
    pub fn new(plan: &Plan, token: &str) -> Self {
        let token = clean(token);
        let mut transaction = Self {
            mode: plan.mode,
            current: None,
            ahead: VecDeque::new(),
            undo: Vec::new(),
            failure: None,
            leftovers: Vec::new(),
            published: 0,
        };
        let mut publish = Vec::new();
        let mut clean_up = Vec::new();
        for (number, change) in plan.changes.iter().enumerate() {
            // The last change needs no way back: when it fails it changed nothing, and nothing comes after it.
            let keeps = plan.mode == Mode::Atomic && number + 1 < plan.changes.len();
            let names = Names::new(change, &token, number);
            transaction.prepare(change, &names);
            let steps = publication(change, names, keeps, &mut clean_up);
            match plan.mode {
                Mode::Atomic => publish.extend(steps),
                Mode::Partial => transaction.ahead.extend(steps),
            }
        }
        transaction.ahead.extend(publish);
        transaction.ahead.extend(clean_up);
        transaction.current = transaction.ahead.pop_front();
        transaction
    }

    fn prepare(&mut self, change: &Change, names: &Names) {
        let Some(content) = &change.after else { return };
        let path = change.path.clone();
        if change.before.is_none() {
            let step = Step::MakeParents { path: path.clone() };
            self.ahead.push_back(Task { step, kind: Kind::Prepare, path: path.clone() });
        }
        let step = Step::Write {
            path: names.temporary.clone(),
            destination: path.clone(),
            content: Arc::clone(&content.bytes),
            mode: content.mode,
        };
        self.ahead.push_back(Task { step, kind: Kind::Prepare, path });
    }

    /// Returns the step to do now, or nothing when all is done or undone.
    pub fn step(&self) -> Option<&Step> {
        self.current.as_ref().map(|task| &task.step)
    }

    /// Takes the outcome of the step, and moves on. Without a step to do it has no effect.
    pub fn record(&mut self, outcome: io::Result<StepDone>) {
        let Some(task) = self.current.take() else { return };
        match (outcome, task.kind) {
            (Ok(done), Kind::Prepare | Kind::Publish) => {
                self.published += usize::from(task.kind == Kind::Publish);
                if self.mode == Mode::Atomic {
                    self.remember(&task.step, done);
                }
            }
            (Err(cause), Kind::Prepare | Kind::Publish) => {
                self.roll_back(&task);
                self.failure = Some((task, cause));
            }
            (Ok(_), Kind::CleanUp | Kind::RollBack) => {}
            (Err(cause), Kind::CleanUp | Kind::RollBack) => {
                self.leftovers.push(Leftover { step: task.step, cause });
            }
        }
        self.current = self.ahead.pop_front();
    }

    /// Notes how to undo a step that was done.
    fn remember(&mut self, step: &Step, done: StepDone) {
        match step {
            Step::MakeParents { .. } => {
                self.undo.extend(
                    done.created_directories.into_iter().map(|path| Step::RemoveDirectory { path }),
                );
            }
            Step::Write { path, .. } => self.undo.push(Step::Remove { path: path.clone() }),
            // From here on a rename of the backup undoes both the keeping and the replacing.
            Step::Keep { path, backup } => {
                self.undo.push(Step::Rename {
                    from: backup.clone(),
                    to: path.clone(),
                    replace: true,
                });
            }
            Step::Rename { replace: true, .. } => {}
            // A created file goes; a deleted one, which was renamed aside, comes back.
            Step::Rename { from, to, replace: false } => {
                self.undo.push(Step::Rename { from: to.clone(), to: from.clone(), replace: false });
            }
            Step::Remove { .. } | Step::RemoveDirectory { .. } => {}
        }
    }

    fn roll_back(&mut self, failed: &Task) {
        self.ahead.clear();
        let mut back = |step| {
            self.ahead.push_back(Task { step, kind: Kind::RollBack, path: failed.path.clone() })
        };
        // A write or copy that failed may have left a part of its file.
        match &failed.step {
            Step::Write { path, .. } | Step::Keep { backup: path, .. } => {
                back(Step::Remove { path: path.clone() })
            }
            // In partial mode the write before it is not undone.
            Step::Rename { from, .. } if *from != failed.path => {
                back(Step::Remove { path: from.clone() });
            }
            _ => {}
        }
        self.undo.drain(..).rev().for_each(back);
        if self.mode == Mode::Atomic {
            self.published = 0;
        }
    }

    /// Ends the transaction.
    ///
    /// # Errors
    /// [`CommitError`] when a step failed, or when there are still steps to do.
    pub fn finish(self) -> Result<Committed, CommitError> {
        let unfinished = self
            .current
            .map(|task| (task, io::Error::other("the transaction was ended before its last step")));
        match self.failure.or(unfinished) {
            None => Ok(Committed { leftovers: self.leftovers }),
            Some((task, cause)) => Err(CommitError {
                path: task.path,
                step: Box::new(task.step),
                cause,
                mode: self.mode,
                published: self.published,
                leftovers: self.leftovers,
            }),
        }
    }
}

/// Returns the names beside a path that the transaction of a token uses for its change of this number.
#[cfg(feature = "tool")]
pub(crate) fn temporary_names(path: &PatchPath, token: &str, number: usize) -> [PatchPath; 2] {
    let token = clean(token);
    ["new", "old"].map(|end| path.sibling(&format!(".patch-{token}-{number}.{end}")))
}

fn clean(token: &str) -> String {
    token.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect()
}

/// The temporary names of one change. They are in the same directory, so that a rename stays in one file system.
struct Names {
    temporary: PatchPath,
    backup: PatchPath,
}

impl Names {
    fn new(change: &Change, token: &str, number: usize) -> Self {
        Self {
            temporary: change.path.sibling(&format!(".patch-{token}-{number}.new")),
            backup: change.path.sibling(&format!(".patch-{token}-{number}.old")),
        }
    }
}

/// The steps at which one change takes effect.
fn publication(change: &Change, names: Names, keeps: bool, clean_up: &mut Vec<Task>) -> Vec<Task> {
    let path = change.path.clone();
    let Names { temporary, backup } = names;
    let task = |step, kind| Task { step, kind, path: change.path.clone() };
    if keeps && change.before.is_some() {
        clean_up.push(task(Step::Remove { path: backup.clone() }, Kind::CleanUp));
    }
    let mut tasks = Vec::with_capacity(2);
    let publish = match (&change.before, &change.after) {
        (Some(_), Some(_)) => {
            if keeps {
                tasks.push(task(Step::Keep { path: path.clone(), backup }, Kind::Prepare));
            }
            Step::Rename { from: temporary, to: path, replace: true }
        }
        (None, _) => Step::Rename { from: temporary, to: path, replace: false },
        (Some(_), None) if keeps => Step::Rename { from: path, to: backup, replace: false },
        (Some(_), None) => Step::Remove { path },
    };
    tasks.push(task(publish, Kind::Publish));
    tasks
}

/// Carries out a plan on a synchronous target.
///
/// # Errors
/// [`CommitError`] when a step failed. In [`Mode::Atomic`] the steps before it were undone.
pub fn commit(plan: &Plan, token: &str, target: &mut dyn Target) -> Result<Committed, CommitError> {
    let mut transaction = Transaction::new(plan, token);
    while let Some(step) = transaction.step() {
        let outcome = target.perform(step);
        transaction.record(outcome);
    }
    transaction.finish()
}
