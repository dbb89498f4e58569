//! Loss of power: what a program did to a directory is recorded, and the directory is rebuilt as the disk might be found
//! after the power went at any moment.
//!
//! [`record`] runs a command with a library in front of libc that logs each change of a file below a directory, in order, and
//! what the command wrote to standard output meanwhile: its acknowledgements. [`Log::crash_states`] then goes through the
//! moments around each flush (`fsync`, `fdatasync`), and some others, and makes directories of what a disk may have kept:
//!
//! - what was flushed before, always; the entry of a file in its directory counts as flushed when that *directory* was;
//! - of the rest nothing, everything, all names without their content, or a random part: any of the writes, torn at the
//!   512-byte sectors of a disk, with or without the length that they gave the file, and the changes of each directory up
//!   to any of them.
//!
//! A program is right if from each of these directories it comes back with everything that it had acknowledged.
//!
//! What does not go through libc (system calls made by hand, writes through mappings, threads of the kernel) is not seen.
//! The log is therefore compared with the directory that the command left, and refused if they differ.
//!
//! ```no_run
//! use cofferdam_testkit::power_loss;
//! # use std::{path::Path, process::Command};
//! # fn test(mut child: Command, directory: &Path) -> Result<(), power_loss::Error> {
//! let log = power_loss::record(&mut child, directory, &["-shm"])?;
//! for state in log.crash_states(7, 20) {
//!     let acknowledged = state.acknowledged.lines().count();
//!     // open what is in `state.directory`, and look for as many records
//!     # let _ = acknowledged;
//! }
//! # Ok(())
//! # }
//! ```

mod disk;
mod events;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use self::{
    disk::{Disk, Kept},
    events::Event,
};
use crate::random::Random;

/// What a command did to a directory.
#[derive(Debug)]
pub struct Log {
    root: PathBuf,
    ignored: Vec<String>,
    before: Disk,
    events: Vec<Event>,
}

/// A directory as it may be found after the power went.
#[derive(Debug)]
pub struct CrashState {
    /// Where it is. It is removed with this.
    pub directory: TempDir,
    /// What the command had written to standard output until then.
    pub acknowledged: String,
    /// When the power went and what the disk kept, for messages.
    pub description: String,
}

/// Why nothing could be recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no C compiler: skip the test by name.
    #[error("no C compiler (cc) is installed, which the recorder of file operations needs")]
    NoCompiler,
    /// The file system failed, or the recorder could not be compiled.
    #[error("could not {operation}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The command failed.
    #[error("the recorded command ended with {0}")]
    Command(std::process::ExitStatus),
    /// The log does not tell everything that happened to the directory.
    #[error("something was done to {path} that the recorder cannot replay: {detail}")]
    Unseen {
        /// What was changed.
        path: PathBuf,
        /// How it differs.
        detail: String,
    },
}

fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { operation, source }
}

/// Runs a command to its end and records what it does to a directory, which it must not move or leave by symbolic links.
///
/// Files whose names have one of the `ignored` endings may be written in ways that cannot be seen, such as through a mapping.
///
/// # Errors
///
/// As [`Error`] says.
pub fn record(command: &mut Command, directory: &Path, ignored: &[&str]) -> Result<Log, Error> {
    let scratch = TempDir::new().map_err(failed("make a temporary directory"))?;
    let library = compile(scratch.path())?;
    let root = directory.canonicalize().map_err(failed("find the directory"))?;
    let before = Disk::read(&root).map_err(failed("read the directory"))?;
    let log = scratch.path().join("log");
    fs::write(&log, []).map_err(failed("make the log"))?;
    let status = command
        .env("LD_PRELOAD", library)
        .env("COFFERDAM_POWER_LOSS_DIRECTORY", &root)
        .env("COFFERDAM_POWER_LOSS_LOG", &log)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(failed("start the command"))?;
    if !status.success() {
        return Err(Error::Command(status));
    }
    let bytes = fs::read(&log).map_err(failed("read the log"))?;
    let events = Event::parse_all(&bytes, &root)?;
    let ignored = ignored.iter().map(|ending| (*ending).to_owned()).collect();
    let log = Log { root, ignored, before, events };
    log.compare()?;
    Ok(log)
}

/// Makes a directory in memory, where it can be: there are many, and whoever opens them flushes again.
fn in_memory() -> io::Result<TempDir> {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new())
}

#[expect(clippy::disallowed_methods, reason = "the recorder is compiled where it is used")]
fn compile(scratch: &Path) -> Result<PathBuf, Error> {
    let (source, library) = (scratch.join("power_loss.c"), scratch.join("power_loss.so"));
    fs::write(&source, include_str!("power_loss.c")).map_err(failed("write the recorder"))?;
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .args(["-ldl", "-lpthread"])
        .output();
    match compiled {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NoCompiler),
        Err(error) => Err(failed("start the C compiler")(error)),
        Ok(output) if output.status.success() => Ok(library),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(failed("compile the recorder")(io::Error::other(text)))
        }
    }
}

impl Log {
    /// Returns how many flushes of files and of directories there were.
    #[must_use]
    pub fn flushes(&self) -> usize {
        self.events.iter().filter(|event| event.is_flush()).count()
    }

    /// Goes through the moments just before and just after each flush and at `samples` others, and makes what a disk may have
    /// kept at each. What is random follows from `seed`.
    ///
    /// # Panics
    ///
    /// If a directory cannot be made.
    pub fn crash_states(&self, seed: u64, samples: usize) -> impl Iterator<Item = CrashState> {
        let mut random = Random::new(seed);
        let mut moments: Vec<usize> = (0..self.events.len())
            .filter(|at| self.events[*at].is_flush())
            .flat_map(|at| [at, at + 1])
            .collect();
        let all = self.events.len() as u64 + 1;
        moments.extend((0..samples).filter_map(|_| usize::try_from(random.below(all)).ok()));
        moments.push(self.events.len());
        moments.sort_unstable();
        moments.dedup();
        let kept = [Kept::Flushed, Kept::Everything, Kept::Names, Kept::Part, Kept::Part];
        moments
            .into_iter()
            .flat_map(move |moment| kept.map(|kept| (moment, kept)))
            .map(move |(moment, kept)| self.crash_state(moment, kept, &mut random.fork()))
    }

    #[expect(clippy::expect_used, reason = "a test that cannot make its directories has failed")]
    fn crash_state(&self, moment: usize, kept: Kept, random: &mut Random) -> CrashState {
        let mut acknowledged = Vec::new();
        for event in &self.events[..moment] {
            if let Event::Mark { data } = event {
                acknowledged.extend_from_slice(data);
            }
        }
        let directory = in_memory().expect("a directory for the state of a disk");
        self.disk_at(moment)
            .write(directory.path(), kept, random)
            .expect("the state of a disk is written");
        CrashState {
            directory,
            acknowledged: String::from_utf8_lossy(&acknowledged).into_owned(),
            description: format!("power lost at event {moment}, disk kept: {kept:?}"),
        }
    }

    fn disk_at(&self, moment: usize) -> Disk {
        let mut disk = self.before.clone();
        for event in &self.events[..moment] {
            disk.apply(event);
        }
        disk
    }

    /// Looks whether the log explains everything that is there.
    fn compare(&self) -> Result<(), Error> {
        let known = self.disk_at(self.events.len()).files(Kept::Everything, &mut Random::new(0));
        let there = Disk::read(&self.root).map_err(failed("read the directory again"))?;
        let there = there.files(Kept::Everything, &mut Random::new(0));
        let paths: std::collections::BTreeSet<_> = known.keys().chain(there.keys()).collect();
        for path in paths {
            let name = path.to_string_lossy();
            if self.ignored.iter().any(|ending| name.ends_with(ending.as_str())) {
                continue;
            }
            let detail = match (known.get(path), there.get(path)) {
                (Some(known), Some(there)) if known == there => continue,
                (Some(_), Some(_)) => "its content is another than was written",
                (Some(_), None) => "it is gone",
                (None, _) => "it appeared",
            };
            return Err(Error::Unseen { path: path.clone(), detail: detail.to_owned() });
        }
        Ok(())
    }
}
