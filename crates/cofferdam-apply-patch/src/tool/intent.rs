//! What is written down before a patch is carried out, and how it is found out later whether it was.
//!
//! The content that each file had and will have is known before the first step, so the files themselves tell: all as before, and
//! the patch was not carried out; all as planned, and it was. Some of each: the process died between two renames. New content
//! is staged as a whole before the first of them, so what is left to do lies there, and is done. A file that is neither was
//! changed by somebody else since: that is said, file by file, and left to others.

use cofferdam_core::ToolOutput;
use cofferdam_tool::ProbeOutcome;
use serde::{Deserialize, Serialize};

use super::workspace::Workspace;
use super::{Failure, report};
use crate::path::PatchPath;
use crate::plan::{FileState, Plan};
use crate::transaction::{Step, temporary_names};

/// What a patch is about to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Intent {
    files: Vec<FileIntent>,
    /// What the model is told once it is done.
    report: ToolOutput,
}

#[derive(Debug, Serialize, Deserialize)]
struct FileIntent {
    path: String,
    /// BLAKE3 of the content before, in hex; `None`: no such file.
    before: Option<String>,
    /// The same for after.
    after: Option<String>,
}

/// What is at a path that is no regular file.
const NOT_A_FILE: &str = "not a file";

impl Intent {
    pub(super) fn of(plan: &Plan) -> Self {
        let files = plan.changes.iter().map(|change| FileIntent {
            path: change.path.as_str().to_owned(),
            before: state_hash(change.before.as_ref()),
            after: change.after.as_ref().map(|content| hash(&content.bytes)),
        });
        Self { files: files.collect(), report: report(plan) }
    }

    /// Looks at the files. What an interrupted call left beside those that are done is removed.
    pub(super) async fn find_out(
        self,
        workspace: &mut Workspace<'_>,
        token: &str,
    ) -> Result<ProbeOutcome, Failure> {
        let mut paths = Vec::with_capacity(self.files.len());
        for file in &self.files {
            paths.push(
                PatchPath::new(&file.path).map_err(|error| Failure::Told(error.to_string()))?,
            );
        }
        workspace.load(paths.iter()).await?;
        let (mut untouched, mut done, mut neither) = (Vec::new(), Vec::new(), Vec::new());
        for (file, path) in self.files.iter().zip(&paths) {
            let now = match workspace.state(path) {
                Ok(state) => state_hash(state.as_ref()),
                Err(_) => Some(NOT_A_FILE.to_owned()),
            };
            let place = match now {
                now if now == file.after => &mut done,
                now if now == file.before => &mut untouched,
                _ => &mut neither,
            };
            place.push(file.path.as_str());
        }
        if untouched.len() == self.files.len() {
            return Ok(ProbeOutcome::NotStarted);
        }
        let is_done = done.len() == self.files.len();
        if is_done || (neither.is_empty() && self.do_the_rest(workspace, &paths, token).await?) {
            for (number, path) in paths.iter().enumerate() {
                for left in temporary_names(path, token, number) {
                    workspace.remove(&left).await?;
                }
            }
            return Ok(ProbeOutcome::Finished(self.report));
        }
        let list = |paths: &[&str]| match paths {
            [] => "none".to_owned(),
            paths => paths.join(", "),
        };
        let why = format!(
            "the patch was carried out in part, or its files were changed since: patched: {}; as before: {}; neither: {}",
            list(&done),
            list(&untouched),
            list(&neither)
        );
        Ok(ProbeOutcome::Unknown { why })
    }
}

impl Intent {
    /// Does what an interrupted call had not come to. Answers false, and has done nothing, if not all of it is there.
    async fn do_the_rest(
        &self,
        workspace: &mut Workspace<'_>,
        paths: &[PatchPath],
        token: &str,
    ) -> Result<bool, Failure> {
        let mut steps = Vec::new();
        for (number, (file, path)) in self.files.iter().zip(paths).enumerate() {
            if workspace.state(path).is_ok_and(|now| state_hash(now.as_ref()) == file.after) {
                continue;
            }
            if file.after.is_none() {
                steps.push(Step::Remove { path: path.clone() });
                continue;
            }
            let [staged, _] = temporary_names(path, token, number);
            workspace.load(std::iter::once(&staged)).await?;
            if !workspace.state(&staged).is_ok_and(|it| state_hash(it.as_ref()) == file.after) {
                return Ok(false);
            }
            let replace = file.before.is_some();
            steps.push(Step::Rename { from: staged, to: path.clone(), replace });
        }
        for step in &steps {
            workspace.perform(step).await?;
        }
        Ok(true)
    }
}

fn state_hash(state: Option<&FileState>) -> Option<String> {
    state.map(|state| match state {
        FileState::File(content) => hash(&content.bytes),
        _ => NOT_A_FILE.to_owned(),
    })
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}
