//! Those that do the same work and take turns at it, sample by sample, so that whatever else the machine does falls on all.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, FutureExt};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Rounds that are not counted.
const WARM_UP: usize = 5;

/// Does the work once and returns how long it took.
type Turn<'a> = Box<dyn FnMut() -> BoxFuture<'a, Result<Duration>> + Send + 'a>;

/// One that does the work, and the times that it has taken.
pub(crate) struct Contender<'a> {
    pub(crate) name: &'a str,
    turn: Turn<'a>,
    every: usize,
    pub(crate) times: Vec<Duration>,
}

impl<'a> Contender<'a> {
    /// One that measures itself, because not all that it does counts.
    pub(crate) fn measuring<F>(name: &'a str, mut turn: impl FnMut() -> F + Send + 'a) -> Self
    where
        F: Future<Output = Result<Duration>> + Send + 'a,
    {
        Self { name, turn: Box::new(move || turn().boxed()), every: 1, times: Vec::new() }
    }

    /// One that is measured from its begin to its end.
    pub(crate) fn new<F>(name: &'a str, mut work: impl FnMut() -> F + Send + 'a) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'a,
    {
        Self::measuring(name, move || {
            let started = Instant::now();
            let work = work();
            async move {
                work.await?;
                Ok(started.elapsed())
            }
        })
    }

    /// A program of the host, if it works here.
    pub(crate) fn program(name: &'a str, command: &'a [String]) -> Result<Self> {
        run(command)?;
        Ok(Self::measuring(name, move || {
            let started = Instant::now();
            std::future::ready(run(command).map(|()| started.elapsed()))
        }))
    }

    /// Lets it take part in one round of so many, because it is slow.
    pub(crate) fn every(self, rounds: usize) -> Self {
        Self { every: rounds, ..self }
    }
}

/// Lets all take turns. Each round begins with another, since what one leaves to the kernel falls on the next.
pub(crate) async fn take_turns(contenders: &mut [Contender<'_>], rounds: usize) -> Result<()> {
    let count = contenders.len();
    for round in 0..WARM_UP + rounds {
        for place in 0..count {
            let contender = &mut contenders[(round + place) % count];
            if round % contender.every != 0 {
                continue;
            }
            let took = (contender.turn)().await?;
            if round >= WARM_UP {
                contender.times.push(took);
            }
        }
    }
    Ok(())
}

/// Starts a program of the host and waits for it.
pub(crate) fn run(command: &[String]) -> Result<()> {
    let (program, arguments) = command.split_first().ok_or("no program")?;
    #[expect(clippy::disallowed_methods, reason = "what is compared with is a plain process")]
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(format!("{program}: {status}").into()) }
}

/// The running floor: a program of its own, which times itself.
pub(crate) struct FloorInC {
    // Dropped first: then the program ends.
    rounds: Option<ChildStdin>,
    times: BufReader<ChildStdout>,
    program: Child,
    _directory: tempfile::TempDir,
}

impl FloorInC {
    /// Compiles and starts it.
    pub(crate) fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("floor");
        let output = path.to_str().ok_or("the directory for temporary files has an odd name")?;
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/floor.c");
        run(&["cc", "-O2", "-o", output, source].map(str::to_owned))
            .map_err(|error| format!("no C compiler: {error}"))?;
        // A hybrid host has its second hierarchy here; one with version 2 alone has nothing else.
        let hierarchy = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .into_iter()
            .find(|place| Path::new(place).join("cgroup.procs").exists());
        #[expect(clippy::disallowed_methods, reason = "the floor is a program of its own")]
        let mut program = Command::new(&path)
            .args(hierarchy)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let times = BufReader::new(program.stdout.take().ok_or("no output")?);
        let mut floor =
            Self { rounds: program.stdin.take(), times, program, _directory: directory };
        floor.round()?;
        Ok(floor)
    }

    /// Does one round.
    pub(crate) fn round(&mut self) -> Result<Duration> {
        let mut line = String::new();
        self.rounds.as_ref().ok_or("no input")?.write_all(b"\n")?;
        self.times.read_line(&mut line)?;
        // It has said why on its standard error.
        let nanoseconds = line.trim().parse().map_err(|_| "the floor in C does not work here")?;
        Ok(Duration::from_nanos(nanoseconds))
    }
}

impl Drop for FloorInC {
    fn drop(&mut self) {
        drop(self.rounds.take());
        // It ends by itself then, and removes what it has made.
        let _ = self.program.wait();
    }
}
