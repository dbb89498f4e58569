//! Start times beside their floors, as JSON lines: `{"case", "median_ms", "min_ms", "n", "floor", "ratio", "bar"}`.
//!
//! A floor is another case of the same run, so a busy machine slows both. `ratio` is the quotient of the medians, `bar` the
//! greatest one that is accepted; a case without a floor has neither. Run it on a quiet machine with
//! `cargo bench -p cofferdam-sandbox-linux`.

mod report;

use std::{
    error::Error,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use cofferdam_sandbox::{
    ExecRequest, Sandbox, SandboxBackend, SandboxExt, SandboxSpec, WorkspaceBase,
};
use cofferdam_sandbox_linux::LinuxBackend;

use crate::report::Report;

const ROUNDS: usize = 100;
const PARALLEL: usize = 8;

const BWRAP: &str =
    "--unshare-all --ro-bind / / --dev /dev --proc /proc --tmpfs /tmp --new-session";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let backend = LinuxBackend::new();
    let mut report = Report::default();

    report.add("plain spawn of true", None, &repeat(|| async { plain("true", &[]) }).await?);
    let bwrap: Vec<&str> = BWRAP.split(' ').chain(["true"]).collect();
    let bubblewrap = plain("bwrap", &bwrap).is_ok();
    if bubblewrap {
        report.add(
            "bwrap, all namespaces, true",
            None,
            &repeat(|| async { plain("bwrap", &bwrap) }).await?,
        );
    } else {
        report.skip("bwrap, all namespaces, true", "bwrap is not installed or does not work here");
    }
    let in_c = match floor_in_c() {
        Ok(times) => {
            report.add(FLOOR, None, &times);
            true
        }
        Err(error) => {
            report.skip(FLOOR, &error.to_string());
            false
        }
    };
    let ours = repeat(|| whole(&backend)).await?;
    // The same times against each: the least that a kernel needs, and what people use.
    report.add("create, true, close", in_c.then_some((FLOOR, 2.5)), &ours);
    if bubblewrap {
        let bwrap = Some(("bwrap, all namespaces, true", 1.0));
        report.add("create, true, close, against bwrap", bwrap, &ours);
    }
    if let Some(codex) = codex() {
        let times = repeat_some(20, || async { plain(&codex, &["sandbox", "--", "true"]) }).await;
        match times {
            Ok(times) => {
                report.add("codex sandbox, true", None, &times);
                let seventh = Some(("codex sandbox, true", 1.0 / 7.0));
                report.add("create, true, close, against codex", seventh, &ours);
            }
            Err(error) => report.skip("codex sandbox, true", &error.to_string()),
        }
    } else {
        report.skip("codex sandbox, true", "CODEX does not name its program");
    }
    let empty = SandboxSpec::default();
    report.add("create", None, &create_only(&backend, &empty).await?);
    if backend.capabilities().await?.workspace_base {
        let base = large_base()?;
        let directory = base.path().to_owned();
        let with_base = SandboxSpec { base: Some(WorkspaceBase::new(directory)), ..empty };
        let times = create_only(&backend, &with_base).await?;
        report.add("create on a base of 20 000 files, 300 MB", Some(("create", 2.0)), &times);
    } else {
        report.skip(
            "create on a base of 20 000 files, 300 MB",
            "this host stacks no workspace on one",
        );
    }

    let sandbox = backend.create(&SandboxSpec::default()).await?;
    let live = repeat(|| run_true(&*sandbox)).await?;
    report.add("true in a live sandbox", Some(("plain spawn of true", 1.5)), &live);
    sandbox.close().await?;

    if bubblewrap {
        let started = Instant::now();
        let workers: Vec<_> = (0..PARALLEL)
            .map(|_| {
                let arguments: Vec<String> = bwrap.iter().map(ToString::to_string).collect();
                tokio::task::spawn_blocking(move || {
                    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                    (0..ROUNDS / 2)
                        .try_for_each(|_| plain("bwrap", &arguments).map_err(|e| e.to_string()))
                })
            })
            .collect();
        for worker in workers {
            worker.await??;
        }
        report.add("bwrap, 8 in parallel, each", None, &[per_run(started)]);
    }
    let started = Instant::now();
    let workers: Vec<_> = (0..PARALLEL)
        .map(|_| {
            let backend = backend.clone();
            tokio::spawn(async move {
                for _ in 0..ROUNDS / 2 {
                    whole(&backend).await.map_err(|error| error.to_string())?;
                }
                Ok::<_, String>(())
            })
        })
        .collect();
    for worker in workers {
        worker.await??;
    }
    let floor = bubblewrap.then_some(("bwrap, 8 in parallel, each", 1.0 / 1.2));
    report.add("create, true, close, 8 in parallel, each", floor, &[per_run(started)]);
    Ok(())
}

/// Starts a program of the host and waits for it.
fn plain(program: &str, arguments: &[&str]) -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "the floor is a plain process")]
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(format!("{program}: {status}").into()) }
}

const FLOOR: &str = "floor in C: namespaces, overlay, proc, Landlock, seccomp, cgroup, true";

/// Compiles and runs the floor, as one program whose times come out of it.
fn floor_in_c() -> Result<Vec<Duration>> {
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("floor");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/floor.c");
    let output = program.to_str().ok_or("the directory for temporary files has an odd name")?;
    plain("cc", &["-O2", "-o", output, source])
        .map_err(|error| format!("no C compiler: {error}"))?;
    let rounds = ROUNDS.to_string();
    // A hybrid host has its second hierarchy here; one with version 2 alone has nothing else.
    let hierarchy = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .into_iter()
        .find(|place| std::path::Path::new(place).join("cgroup.procs").exists());
    #[expect(clippy::disallowed_methods, reason = "the floor is a program of its own")]
    let run = Command::new(&program).arg(rounds).args(hierarchy).output()?;
    if !run.status.success() {
        return Err(String::from_utf8_lossy(&run.stderr).trim().to_owned().into());
    }
    let nanoseconds = String::from_utf8(run.stdout)?;
    Ok(nanoseconds
        .lines()
        .map(|line| line.parse().map(Duration::from_nanos))
        .collect::<std::result::Result<_, _>>()?)
}

/// The program of Codex, where there is one.
#[expect(clippy::disallowed_methods, reason = "a peer is where the caller says")]
fn codex() -> Option<String> {
    std::env::var("CODEX").ok().filter(|path| !path.is_empty())
}

async fn run_true(sandbox: &dyn Sandbox) -> Result<()> {
    let output = sandbox.run(ExecRequest::program(["true"]), 1024).await?;
    if output.status.is_some_and(|status| status.success()) {
        Ok(())
    } else {
        Err(format!("{output:?}").into())
    }
}

async fn whole(backend: &LinuxBackend) -> Result<()> {
    let sandbox = backend.create(&SandboxSpec::default()).await?;
    run_true(&*sandbox).await?;
    Ok(sandbox.close().await?)
}

/// Makes a directory with 200 directories of 100 files each.
fn large_base() -> Result<tempfile::TempDir> {
    let base = tempfile::Builder::new().prefix("cofferdam-bench-").tempdir_in("/var/tmp")?;
    let content = vec![b'x'; 15_000];
    for directory in 0..200 {
        let directory = base.path().join(directory.to_string());
        std::fs::create_dir(&directory)?;
        (0..100).try_for_each(|file| std::fs::write(directory.join(file.to_string()), &content))?;
    }
    Ok(base)
}

async fn create_only(backend: &LinuxBackend, spec: &SandboxSpec) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let sandbox = backend.create(spec).await?;
        times.push(started.elapsed());
        sandbox.close().await?;
    }
    Ok(times)
}

/// Runs a case after a few rounds to warm up.
async fn repeat<F: Future<Output = Result<()>>>(case: impl Fn() -> F) -> Result<Vec<Duration>> {
    repeat_some(ROUNDS, case).await
}

async fn repeat_some<F: Future<Output = Result<()>>>(
    rounds: usize,
    case: impl Fn() -> F,
) -> Result<Vec<Duration>> {
    for _ in 0..5 {
        case().await?;
    }
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let started = Instant::now();
        case().await?;
        times.push(started.elapsed());
    }
    Ok(times)
}

fn per_run(started: Instant) -> Duration {
    started.elapsed() / u32::try_from(PARALLEL * (ROUNDS / 2)).unwrap_or(u32::MAX)
}
