//! How a run was started, kept beside its journal so that `cofferdam resume` can set the same agent up again.

use std::{
    ffi::OsString,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::Context as _;
use clap::Parser as _;
use cofferdam::core::RunId;
use serde::{Deserialize, Serialize};

use crate::{
    arguments::{Arguments, Command, RunArguments},
    exit::Failure,
};

/// The words of a `cofferdam run` and where they were said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Version of this form; 1.
    version: u32,
    /// The directory that relative paths begin at.
    directory: PathBuf,
    /// What followed the name of the program.
    arguments: Vec<String>,
}

const VERSION: u32 = 1;

impl Job {
    /// Takes down how this process was started.
    pub(crate) fn of_this_process() -> Result<Self, Failure> {
        let words = std::env::args_os().skip(1).map(OsString::into_string);
        let arguments = words.collect::<Result<_, _>>().map_err(|word| {
            Failure::usage(anyhow::anyhow!(
                "the argument {word:?} is not UTF-8, so the run could not be resumed; use `--no-state` to run without that"
            ))
        })?;
        let directory = std::env::current_dir().context("the working directory is gone")?;
        Ok(Self { version: VERSION, directory, arguments })
    }

    /// Writes it beside the journal.
    pub(crate) fn save(&self, state: &Path, run: &RunId) -> Result<(), Failure> {
        let path = path(state, run);
        let directory = state.join("jobs");
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let text = serde_json::to_vec(self).context("cannot write JSON")?;
        // A job that cannot be read as a whole must not take the place of one that can.
        let new = path.with_extension("new");
        let write = || {
            let mut options = std::fs::File::options();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&new, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }

    /// Reads the job of a run.
    pub(crate) fn load(state: &Path, run: &RunId) -> Result<Self, Failure> {
        let path = path(state, run);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Failure::usage(anyhow::anyhow!(
                    "run {run} was not started by `cofferdam run` with this state directory; name another with `--state`, or resume it with the program that started it"
                )));
            }
            Err(error) => {
                return Err(anyhow::Error::new(error)
                    .context(format!("cannot read {}", path.display()))
                    .into());
            }
        };
        let job: Self = serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged", path.display()))?;
        if job.version != VERSION {
            return Err(Failure::usage(anyhow::anyhow!(
                "{} is of version {}, which this release does not know; resume the run with the release that started it",
                path.display(),
                job.version
            )));
        }
        Ok(job)
    }

    /// Forgets the job of a run. Idempotent.
    pub(crate) fn remove(state: &Path, run: &RunId) -> Result<(), Failure> {
        let path = path(state, run);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(anyhow::Error::new(error)
                    .context(format!("cannot remove {}", path.display()))
                    .into())
            }
            _ => Ok(()),
        }
    }

    /// Returns the runs that have a job which was written before a time.
    pub(crate) fn older_than(state: &Path, time: SystemTime) -> Vec<RunId> {
        let Ok(listed) = std::fs::read_dir(state.join("jobs")) else { return Vec::new() };
        let is_old = |entry: &std::fs::DirEntry| {
            entry.metadata().and_then(|it| it.modified()).is_ok_and(|written| written < time)
        };
        let jobs = listed.flatten().filter(is_old).map(|entry| entry.path());
        let jobs = jobs.filter(|path| path.extension().is_some_and(|kind| kind == "json"));
        jobs.filter_map(|path| Some(RunId::new(path.file_stem()?.to_str()?))).collect()
    }

    /// Goes to the directory of the job and reads its words again.
    pub(crate) fn take_up(self) -> Result<RunArguments, Failure> {
        std::env::set_current_dir(&self.directory).map_err(|error| {
            Failure::usage(anyhow::Error::new(error).context(format!(
                "the directory {} that the run was started in is gone",
                self.directory.display()
            )))
        })?;
        let words = std::iter::once("cofferdam".to_owned()).chain(self.arguments);
        match Arguments::try_parse_from(words).map(|arguments| arguments.command) {
            Ok(Command::Run(run)) => Ok(run),
            Ok(_) => {
                Err(Failure::usage(anyhow::anyhow!("the job of the run is not that of a run")))
            }
            Err(error) => Err(Failure::usage(error)),
        }
    }
}

fn path(state: &Path, run: &RunId) -> PathBuf {
    // Ids are made of letters and digits; whatever else a caller types is no file name.
    let name: String = run.as_str().chars().filter(char::is_ascii_alphanumeric).collect();
    state.join("jobs").join(format!("{name}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_read_as_it_was_written() {
        let state = tempfile::tempdir().unwrap();
        let run = RunId::new("01abc");
        let job = Job {
            version: VERSION,
            directory: "/".into(),
            arguments: ["run", "agent.yaml", "the task", "--strict"].map(str::to_owned).into(),
        };
        job.save(state.path(), &run).unwrap();
        let read = Job::load(state.path(), &run).unwrap();
        assert_eq!(read, job);
        let written = std::fs::metadata(path(state.path(), &run)).unwrap().modified().unwrap();
        assert_eq!(Job::older_than(state.path(), written), []);
        let later = written + std::time::Duration::from_secs(1);
        assert_eq!(Job::older_than(state.path(), later), std::slice::from_ref(&run));
        Job::remove(state.path(), &run).unwrap();
        Job::remove(state.path(), &run).unwrap();
        let error = Job::load(state.path(), &run).unwrap_err().error.to_string();
        assert!(error.contains("was not started by `cofferdam run` with this state"), "{error}");
    }

    #[test]
    fn a_name_that_is_no_id_stays_inside() {
        assert_eq!(path(Path::new("s"), &RunId::new("../../x")), Path::new("s/jobs/x.json"));
    }
}
