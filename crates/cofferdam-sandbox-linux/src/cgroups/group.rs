//! [`Group`]: the cgroups of one sandbox.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::Instant,
};

use super::{Version, path_bytes, settings::write_file};

/// How long to wait before looking again at a version 1 directory, which tells nobody when it becomes empty.
const PAUSE: Duration = Duration::from_millis(2);

/// The cgroups of one sandbox: at most one directory of version 2, and of version 1 one for each controller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    /// All directories, in the order in which they were made.
    pub(crate) directories: Vec<PathBuf>,
    /// The file whose `oom_kill` line counts the kills for memory.
    pub(crate) oom_counter: Option<PathBuf>,
    /// The files of version 1 to which the first process writes itself.
    #[serde(skip)]
    joins: Vec<PathBuf>,
    /// The directory of version 2.
    tree: Option<PathBuf>,
    /// The directory of version 1 that stops all processes in it, where there is none of version 2.
    #[serde(default)]
    freezer: Option<PathBuf>,
}

/// The file that stops the processes of a group, and what is written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FreezeFile {
    pub(crate) file: PathBuf,
    freeze: &'static str,
    pub(crate) thaw: &'static str,
}

impl Group {
    /// Makes the directory of version 2, unless it is there.
    pub(super) fn make_tree(&mut self, directory: PathBuf) -> io::Result<()> {
        if self.tree.is_none() {
            fs::create_dir(&directory)?;
            self.directories.push(directory.clone());
            self.tree = Some(directory);
        }
        Ok(())
    }

    /// Makes a directory of version 1, unless it is there: controllers that are mounted together share one.
    pub(super) fn make_v1(&mut self, directory: &Path) -> io::Result<()> {
        if !self.directories.iter().any(|made| made == directory) {
            fs::create_dir(directory)?;
            self.directories.push(directory.to_owned());
            // `tasks` takes a single thread, which is much cheaper than a process.
            self.joins.push(directory.join("tasks"));
        }
        Ok(())
    }

    /// Makes the directory of version 1 that stops processes.
    pub(super) fn make_freezer(&mut self, directory: PathBuf) -> io::Result<()> {
        self.make_v1(&directory)?;
        self.freezer = Some(directory);
        Ok(())
    }

    pub(super) fn count_memory_kills(&mut self, version: Version, directory: &Path) {
        self.oom_counter = Some(directory.join(match version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        }));
    }

    /// Returns the directory that the sandbox's first process is cloned into, which costs less than to move there.
    #[expect(clippy::wrong_self_convention, reason = "the kernel's word: CLONE_INTO_CGROUP")]
    pub(crate) fn into_directory(&self) -> Option<Vec<u8>> {
        self.tree.as_deref().map(path_bytes)
    }

    /// Returns the files to which the first process writes itself, besides.
    pub(crate) fn joins(&self) -> Vec<Vec<u8>> {
        self.joins.iter().map(|join| path_bytes(join)).collect()
    }

    /// Returns how often the kernel has killed something in the sandbox for memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let Some(file) = &self.oom_counter else { return 0 };
        fs::read_to_string(file)
            .ok()
            .and_then(|text| {
                text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
            })
            .unwrap_or(0)
    }

    /// Removes what is still there. Every directory is tried, and the first failure returned.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let removed = self.directories.iter().map(|directory| match fs::remove_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        });
        removed.fold(Ok(()), Result::and)
    }

    /// Waits until everything in it has ended, and removes it. With version 2 the kernel tells the moment.
    ///
    /// # Errors
    ///
    /// What is left after the timeout is an error of kind [`io::ErrorKind::ResourceBusy`].
    pub(crate) async fn remove_when_empty(&self, timeout: Duration) -> io::Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            let error = match self.remove() {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => error,
                Err(error) => return Err(error),
            };
            if Instant::now() >= deadline {
                return Err(error);
            }
            // Whoever cannot watch looks again after a moment; so does one whose directories of version 1 lag behind.
            let emptied = self.emptied();
            match tokio::time::timeout_at(deadline, emptied).await {
                Ok(Ok(true)) => {}
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Waits until the directory of version 2 is empty. Returns false if there is nothing to wait for.
    async fn emptied(&self) -> io::Result<bool> {
        let Some(tree) = &self.tree else { return Ok(false) };
        match wait_for_event(tree, "populated 0").await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            waited => waited,
        }
    }
}

/// Waits until a line of `cgroup.events` is there, and returns whether it was not there at once.
async fn wait_for_event(directory: &Path, wanted: &str) -> io::Result<bool> {
    let events = fs::File::open(directory.join("cgroup.events"))?;
    #[expect(
        deprecated,
        reason = "sound for a file, which keeps its descriptor; the new form is unsafe for any type"
    )]
    let events = AsyncFd::with_interest(events, Interest::PRIORITY)?;
    let mut waited = false;
    loop {
        // A change after this reading wakes the waiting below.
        let text = read_from_start(events.get_ref())?;
        if text.lines().any(|line| line == wanted) {
            return Ok(waited);
        }
        events.ready(Interest::PRIORITY).await?.clear_ready();
        waited = true;
    }
}

/// What can be done with all processes at once.
impl Group {
    /// Kills every process in it. Idempotent; the processes leave it a moment later.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match (&self.tree, self.directories.first()) {
            (Some(directory), _) | (None, Some(directory)) => kill_directory(directory),
            (None, None) => Ok(()),
        }
    }

    /// Returns whether its processes can be stopped.
    pub(crate) fn can_freeze(&self) -> bool {
        self.freeze_file().is_some_and(|control| {
            rustix::fs::access(&control.file, rustix::fs::Access::WRITE_OK).is_ok()
        })
    }

    /// Returns what stops its processes, if something does.
    pub(crate) fn freeze_file(&self) -> Option<FreezeFile> {
        match (&self.tree, &self.freezer) {
            (Some(tree), _) => {
                Some(FreezeFile { file: tree.join("cgroup.freeze"), freeze: "1", thaw: "0" })
            }
            (None, Some(freezer)) => Some(FreezeFile {
                file: freezer.join("freezer.state"),
                freeze: "FROZEN",
                thaw: "THAWED",
            }),
            (None, None) => None,
        }
    }

    /// Stops every process in it until [`Group::thaw`]. Takes effect a moment later: see [`Group::frozen`].
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Unsupported`] where nothing stops processes.
    pub(crate) fn freeze(&self) -> io::Result<()> {
        let control = self.freeze_file().ok_or(io::ErrorKind::Unsupported)?;
        write_file(&control.file, control.freeze)
    }

    /// Returns whether every process stands still.
    ///
    /// # Errors
    ///
    /// As [`Group::freeze`].
    pub(crate) fn is_frozen(&self) -> io::Result<bool> {
        let (file, line) = match (&self.tree, self.freeze_file()) {
            (Some(tree), _) => (tree.join("cgroup.events"), "frozen 1"),
            (None, Some(control)) => (control.file, control.freeze),
            (None, None) => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(fs::read_to_string(file)?.lines().any(|found| found == line))
    }

    /// Lets every process go on.
    ///
    /// # Errors
    ///
    /// As [`Group::freeze`].
    pub(crate) fn thaw(&self) -> io::Result<()> {
        let control = self.freeze_file().ok_or(io::ErrorKind::Unsupported)?;
        write_file(&control.file, control.thaw)
    }

    /// Waits until every process stands still, after [`Group::freeze`]. With version 2 the kernel tells the moment.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if the group is gone.
    pub(crate) async fn frozen(&self) -> io::Result<()> {
        if let Some(tree) = &self.tree {
            return wait_for_event(tree, "frozen 1").await.map(drop);
        }
        while !self.is_frozen()? {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.directories.iter().map(|d| d.display().to_string()).collect();
        write!(f, "cgroups {}", names.join(", "))
    }
}

/// Kills every process in a directory: at once with version 2, else one by one until none is left.
pub(super) fn kill_directory(directory: &Path) -> io::Result<()> {
    /// Rounds in which processes that forked meanwhile are found again.
    const ROUNDS: usize = 64;
    match write_file(&directory.join("cgroup.kill"), "1") {
        // Of version 1, or gone.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        killed => return killed,
    }
    for _ in 0..ROUNDS {
        let members = match fs::read_to_string(directory.join("cgroup.procs")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            members => members?,
        };
        // 0 stands for a process of another pid namespace, which is not ours to end.
        let members: Vec<_> = members
            .lines()
            .filter_map(|line| rustix::process::Pid::from_raw(line.parse().ok()?))
            .collect();
        // What is stopped does not die before it goes on; only a directory that stops has the file.
        let _ = write_file(&directory.join("freezer.state"), "THAWED");
        if members.is_empty() {
            return Ok(());
        }
        for member in members {
            // It may have ended since.
            let _ = rustix::process::kill_process(member, rustix::process::Signal::KILL);
        }
    }
    Ok(())
}

/// Reads a small file of the kernel from its beginning.
fn read_from_start(file: &fs::File) -> io::Result<String> {
    use std::os::unix::fs::FileExt;
    let mut buffer = [0; 256];
    let length = file.read_at(&mut buffer, 0)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
