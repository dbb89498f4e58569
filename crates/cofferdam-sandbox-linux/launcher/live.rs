//! One sandbox as the launcher sees it, from `clone` to its end.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    plan::Plan,
    report::{self, EndCause, Step},
    step::{self, Failure, Steps},
    sys,
};

/// The bytes of the guest's diagnostics that are kept.
const MAX_SAID: usize = 4096;

/// A sandbox whose first process was made.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    /// The other end of the guest's descriptor 2.
    pub(crate) said: File,
    /// Where its keeper is told to end it, if it has one: by the closing of this.
    keeper: Option<OwnedFd>,
    /// Whether it has a keeper, which ends all that there is of it.
    pub(crate) kept_whole: bool,
    kept: Vec<u8>,
    pub(crate) deadline: Option<Instant>,
    cgroup_kill: Option<Vec<u8>>,
    cgroup_thaw: Option<(Vec<u8>, Vec<u8>)>,
    cgroup_directories: Vec<Vec<u8>>,
    oom_counter: Option<Vec<u8>>,
    /// Why it was killed by the launcher.
    cause: Option<EndCause>,
}

impl Live {
    pub(crate) fn new(
        plan: Plan,
        pid: i32,
        pidfd: OwnedFd,
        said: OwnedFd,
        keeper: Option<OwnedFd>,
    ) -> Self {
        Self {
            pid,
            pidfd,
            said: said.into(),
            kept_whole: keeper.is_some(),
            keeper,
            kept: Vec::new(),
            deadline: Instant::now().checked_add(Duration::from_millis(plan.wall_time_ms)),
            cgroup_kill: plan
                .cgroup_into
                .map(|directory| [&directory[..], b"/cgroup.kill"].concat()),
            cgroup_thaw: plan.cgroup_thaw,
            cgroup_directories: plan.cgroup_directories,
            oom_counter: plan.oom_counter,
            cause: None,
        }
    }

    /// Maps the child's user, if it has a namespace of its own, and lets it go.
    pub(crate) fn admit(&mut self, maps: Option<&UserMaps>, steps: &Steps) -> Result<(), Failure> {
        let pid = self.pid;
        let write = |name: &str, content: &str| {
            steps.run(Step::MapUser, name.as_bytes(), || {
                fs::write(format!("/proc/{pid}/{name}"), content)
            })
        };
        if let Some(maps) = maps {
            write("uid_map", &maps.users)?;
            // Without this an unprivileged launcher may not map a group, since dropping one can also gain access.
            write("setgroups", "deny")?;
            write("gid_map", &maps.groups)?;
        }
        // When the host runs out of memory, sandboxes go first. It also undoes a host's protection from being killed,
        // with which a sandbox at its memory limit would hang.
        steps.run(Step::Descriptors, b"oom_score_adj", || {
            fs::write(format!("/proc/{pid}/oom_score_adj"), "500")
        })?;
        steps.run(Step::Descriptors, b"go", || self.said.write_all(b"g"))
    }

    /// Kills the first process, and with it all of the pid namespace; or has its keeper do so. The first cause is the one that
    /// is told.
    pub(crate) fn kill(&mut self, cause: EndCause) {
        if self.cause.is_none() {
            self.cause = Some(cause);
        }
        if self.kept_whole {
            // Killing the keeper would leave what it keeps.
            self.keeper = None;
            return self.thaw();
        }
        // A child that has ended cannot be killed again, which is the only way for the call to fail.
        let _ = sys::kill_process(self.pidfd.as_fd());
        // Those that are stuck in the middle of a fork are killed by this too. Older kernels do not have the file.
        if let Some(file) = &self.cgroup_kill {
            let _ = fs::write(path(file), "1");
        }
        // With version 1, what the host has stopped does not die before it goes on.
        self.thaw();
    }

    /// Lets go on what the host has stopped and, since it is gone, will not let go on itself.
    pub(crate) fn thaw(&self) {
        if let Some((file, word)) = &self.cgroup_thaw {
            // It may be gone with the sandbox, which is as well.
            let _ =
                File::options().write(true).open(path(file)).and_then(|mut f| f.write_all(word));
        }
    }

    /// Kills it if its wall time is over.
    pub(crate) fn keep_time(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.deadline = None;
            self.kill(EndCause::WallTime);
        }
    }

    /// Takes what the guest says; false when it will say no more.
    pub(crate) fn listen(&mut self) -> bool {
        let mut piece = [0; MAX_SAID];
        match self.said.read(&mut piece) {
            Ok(length) if length > 0 => {
                let room = MAX_SAID - self.kept.len();
                self.kept.extend_from_slice(&piece[..length.min(room)]);
                true
            }
            _ => false,
        }
    }

    /// Kills it, waits for it, and returns what is left to do.
    pub(crate) fn end(mut self, cause: EndCause, reports: Vec<File>) -> Leaving {
        self.kill(cause);
        self.reap(reports)
    }

    /// Waits for the first process, which has ended or was killed, and returns what is left to do; the end is told to all
    /// of `reports`.
    pub(crate) fn reap(mut self, reports: Vec<File>) -> Leaving {
        // What it said last; nothing more comes from a process that has ended, and the other end is closed.
        while self.listen() {}
        let status = sys::wait_for(self.pid).unwrap_or(0);
        let out_of_memory = self.oom_counter.as_deref().is_some_and(|file| oom_kills(file) > 0);
        let (cause, number) = match self.cause {
            Some(cause) => (cause, 0),
            None if status & 0x7f == 0 => (EndCause::Exited, (status >> 8) & 0xff),
            None if status & 0x7f == sys::SIGKILL && out_of_memory => (EndCause::OutOfMemory, 0),
            None => (EndCause::Signalled, status & 0x7f),
        };
        Leaving {
            cause,
            number,
            said: self.kept,
            reports,
            directories: self.cgroup_directories,
            give_up: Instant::now() + Leaving::PATIENCE,
        }
    }
}

/// The contents of a child's map files.
#[derive(Debug)]
pub(crate) struct UserMaps {
    users: String,
    groups: String,
}

impl UserMaps {
    pub(crate) fn of(plan: &Plan) -> Self {
        let identity = &plan.identity;
        Self {
            users: format!("{} {} 1", identity.inner, identity.outer_user),
            groups: format!("{} {} 1", identity.inner, identity.outer_group),
        }
    }
}

/// A sandbox without processes, whose cgroups may still be there.
#[derive(Debug)]
pub(crate) struct Leaving {
    cause: EndCause,
    number: i32,
    said: Vec<u8>,
    reports: Vec<File>,
    directories: Vec<Vec<u8>>,
    give_up: Instant,
}

impl Leaving {
    /// Returns whether its first process was killed by somebody else than the launcher.
    pub(crate) fn was_killed(&self) -> bool {
        matches!(self.cause, EndCause::Signalled | EndCause::OutOfMemory)
    }

    /// How long the kernel may take to let go of a cgroup; then the host has to remove it.
    const PATIENCE: Duration = Duration::from_secs(1);

    /// Removes the cgroups, and tells the end as soon as they are gone; false if it has to be called again.
    pub(crate) fn finish(&mut self) -> bool {
        let over = Instant::now() >= self.give_up;
        while let Some(directory) = self.directories.first() {
            const EBUSY: i32 = 16;
            match fs::remove_dir(path(directory)) {
                // The last process may still be on its way out of it.
                Err(error) if error.raw_os_error() == Some(EBUSY) && !over => return false,
                // Gone, or nothing that waiting would change: the host sweeps what is left.
                _ => drop(self.directories.remove(0)),
            }
        }
        for report in &self.reports {
            self.tell(report);
        }
        true
    }

    /// Writes why it has ended.
    pub(crate) fn tell(&self, report: &File) {
        step::send(report, report::ENDED, self.cause as u8, self.number, &self.said);
    }
}

/// Reads the `oom_kill` line of `memory.events` (v2) or `memory.oom_control` (v1).
fn oom_kills(file: &[u8]) -> u64 {
    let Ok(text) = fs::read_to_string(path(file)) else { return 0 };
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

/// Opens the cgroup files that a child writes itself to.
pub(crate) fn open_joins(plan: &Plan, steps: &Steps) -> Result<Vec<File>, Failure> {
    let open = |join: &Vec<u8>| {
        steps.run(Step::JoinCgroup, join, || File::options().write(true).open(path(join)))
    };
    plan.cgroup_joins.iter().map(open).collect()
}

/// Opens the cgroup that a child is made in.
pub(crate) fn open_cgroup(plan: &Plan, steps: &Steps) -> Result<Option<File>, Failure> {
    let open = |directory: &Vec<u8>| {
        steps.run(Step::JoinCgroup, directory, || File::open(path(directory)))
    };
    plan.cgroup_into.as_ref().map(open).transpose()
}

pub(crate) fn path(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// Reads a plan from its file.
pub(crate) fn read_plan(file: &File) -> io::Result<Plan> {
    /// The largest plan that is read, in bytes.
    const MAX_PLAN: usize = 1 << 20;
    let mut bytes =
        vec![0; MAX_PLAN.min(usize::try_from(file.metadata()?.len()).unwrap_or(MAX_PLAN))];
    file.read_exact_at(&mut bytes, 0)?;
    // One that is longer is cut, and so is none.
    crate::decode::decode(&bytes).map_err(|_| io::Error::from_raw_os_error(sys::EINVAL))
}
