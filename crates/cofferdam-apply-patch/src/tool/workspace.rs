//! [`Workspace`]: a sandbox's files as a plan reads them and a transaction changes them.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{FileKind, Files, SandboxError, WriteOptions};
use cofferdam_tool::ToolError;

use super::Failure;
use crate::path::PatchPath;
use crate::plan::{FileContent, FileState, ReadError};
use crate::transaction::{Step, StepDone};

/// What is not there, or not there because a file is in its way.
const ABSENT: [i32; 2] = [2, 20];
/// Something has the name already.
const EXISTS: i32 = 17;

/// The files that a patch names, read before it is planned: planning itself does not wait.
#[derive(Debug)]
pub(super) struct Workspace<'a> {
    files: &'a dyn Files,
    max_file_bytes: u64,
    states: BTreeMap<PatchPath, Result<Option<FileState>, String>>,
}

impl<'a> Workspace<'a> {
    pub(super) fn new(files: &'a dyn Files, max_file_bytes: usize) -> Self {
        Self { files, max_file_bytes: max_file_bytes as u64, states: BTreeMap::new() }
    }

    /// Reads what is at the paths. A file that cannot be read fails the operations on it, not the reading.
    pub(super) async fn load(
        &mut self,
        paths: impl Iterator<Item = &PatchPath>,
    ) -> Result<(), Failure> {
        for path in paths {
            if self.states.contains_key(path) {
                continue;
            }
            let state = match self.read(path).await {
                Ok(state) => Ok(state),
                Err(Failure::Lost(error)) => return Err(Failure::Lost(error)),
                Err(Failure::Step(error)) => Err(error.to_string()),
                Err(Failure::Told(message)) => Err(message),
            };
            self.states.insert(path.clone(), state);
        }
        Ok(())
    }

    /// Returns what was read.
    pub(super) fn state(&self, path: &PatchPath) -> Result<Option<FileState>, ReadError> {
        match self.states.get(path) {
            Some(Ok(state)) => Ok(state.clone()),
            Some(Err(message)) => Err(message.clone().into()),
            None => Err("it was not read".into()),
        }
    }

    async fn read(&self, path: &PatchPath) -> Result<Option<FileState>, Failure> {
        let place = place(path)?;
        let metadata = match self.files.stat(&place).await {
            Ok(metadata) => metadata,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(failure(error)),
        };
        Ok(Some(match metadata.kind {
            FileKind::File => {
                // One byte more than allowed: the engine then refuses the file as too large.
                let limit = self.max_file_bytes.saturating_add(1);
                let bytes = self.files.read(&place, 0, limit).await.map_err(failure)?;
                FileState::File(FileContent::new(bytes.to_vec(), Some(metadata.mode & 0o7777)))
            }
            FileKind::Directory => FileState::Directory,
            FileKind::Link => FileState::Symlink,
            _ => FileState::Other,
        }))
    }

    /// Does one step of a transaction.
    pub(super) async fn perform(&self, step: &Step) -> Result<StepDone, Failure> {
        match step {
            Step::MakeParents { path } => return self.make_parents(path).await,
            Step::Write { path, content, mode, .. } => {
                let content = Bytes::copy_from_slice(content);
                self.write_new(&place(path)?, content, *mode).await?;
            }
            Step::Keep { path, backup } => {
                let (path, backup) = (place(path)?, place(backup)?);
                let metadata = self.files.stat(&path).await.map_err(failure)?;
                let content = self.files.read(&path, 0, metadata.size).await.map_err(failure)?;
                self.write_new(&backup, content, Some(metadata.mode & 0o7777)).await?;
            }
            Step::Rename { from, to, replace } => {
                self.files.rename(&place(from)?, &place(to)?, *replace).await.map_err(failure)?;
            }
            Step::Remove { path } => self.remove(path).await?,
            Step::RemoveDirectory { path } => {
                self.files.remove(&place(path)?, false).await.map_err(failure)?;
            }
        }
        Ok(StepDone::default())
    }

    /// Removes a file; one that is not there counts as removed.
    pub(super) async fn remove(&self, path: &PatchPath) -> Result<(), Failure> {
        match self.files.remove(&place(path)?, false).await {
            Err(error) if !is_absent(&error) => Err(failure(error)),
            _ => Ok(()),
        }
    }

    /// Writes a temporary file. One that an interrupted call with the same names has left is replaced.
    async fn write_new(
        &self,
        path: &WorkspacePath,
        content: Bytes,
        mode: Option<u32>,
    ) -> Result<(), Failure> {
        let defaults = WriteOptions::default();
        let options = WriteOptions {
            mode: mode.unwrap_or(defaults.mode),
            keep_mode: false,
            must_be_new: true,
            make_parents: false,
        };
        match self.files.write(path, content.clone(), &options).await {
            Err(SandboxError::File { errno: EXISTS, .. }) => {
                self.files.remove(path, false).await.map_err(failure)?;
                self.files.write(path, content, &options).await.map_err(failure)
            }
            written => written.map_err(failure),
        }
    }

    async fn make_parents(&self, path: &PatchPath) -> Result<StepDone, Failure> {
        let mut created: Vec<PatchPath> = Vec::new();
        let mut parent = String::new();
        for component in path.parents() {
            if !parent.is_empty() {
                parent.push('/');
            }
            parent.push_str(component);
            match self.make_directory(&parent).await {
                Ok(made) => created.extend(made),
                Err(failure) => {
                    for directory in created.iter().rev() {
                        // The first failure is the one to tell.
                        let _ = self.files.remove(&place(directory)?, false).await;
                    }
                    return Err(failure);
                }
            }
        }
        Ok(StepDone { created_directories: created })
    }

    /// Makes a directory, and returns its path if it was not there.
    async fn make_directory(&self, path: &str) -> Result<Option<PatchPath>, Failure> {
        let path = PatchPath::new(path).map_err(|error| Failure::Told(error.to_string()))?;
        let place = place(&path)?;
        match self.files.stat(&place).await {
            Ok(metadata) if metadata.kind == FileKind::Directory => return Ok(None),
            Ok(_) => return Err(Failure::Step(io::ErrorKind::NotADirectory.into())),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(failure(error)),
        }
        self.files.make_directory(&place, 0o755).await.map_err(failure)?;
        Ok(Some(path))
    }
}

fn place(path: &PatchPath) -> Result<WorkspacePath, Failure> {
    WorkspacePath::new(path.as_str()).map_err(|error| Failure::Told(error.to_string()))
}

fn is_absent(error: &SandboxError) -> bool {
    matches!(error, SandboxError::File { errno, .. } if ABSENT.contains(errno))
}

fn failure(error: SandboxError) -> Failure {
    match error {
        error if error.is_loss() => Failure::Lost(ToolError::SandboxLost(Box::new(error))),
        SandboxError::File { errno, .. } => Failure::Step(io::Error::from_raw_os_error(errno)),
        error => Failure::Step(io::Error::other(error)),
    }
}
