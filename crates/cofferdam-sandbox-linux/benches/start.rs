//! Start times beside their floors, as JSON lines: `{"case", "median_ms", "min_ms", "n", "floor", "ratio", "bar"}`.
//!
//! A floor is another case that took turns with this one, so a busy machine slows both. `ratio` is the quotient of the
//! medians, `bar` the greatest one that is accepted; a case without a floor has neither. `CODEX` names the program of Codex,
//! which is one of the peers. Run it on a quiet machine with `cargo bench -p cofferdam-sandbox-linux --bench start`.

mod contender;
mod report;

use std::time::{Duration, Instant};

use cofferdam_sandbox::{
    ExecRequest, Sandbox, SandboxBackend, SandboxExt, SandboxSpec, WorkspaceBase,
};
use cofferdam_sandbox_linux::LinuxBackend;
use futures::future::BoxFuture;
use tokio::task::JoinHandle;

use crate::{
    contender::{Contender, FloorInC, Result, run, take_turns},
    report::{Report, skip},
};

const ROUNDS: usize = 100;
/// One round of so many is one of Codex, which takes long.
const CODEX_EVERY: usize = 4;
const PARALLEL: usize = 8;
/// How many each of those in parallel makes before it is the other's turn, and how many turns there are.
const SLICE: usize = 5;
const SLICES: usize = 12;

const PLAIN: &str = "plain spawn of true";
const BWRAP: &str = "bwrap, all namespaces, true";
const FLOOR: &str = "floor in C: namespaces, overlay, proc, Landlock, seccomp, cgroup, true";
const CODEX: &str = "codex sandbox, true";
const OURS: &str = "create, true, close";
const LIVE: &str = "true in a live sandbox";
const CREATE: &str = "create";
const CREATE_ON_BASE: &str = "create on a base of 20 000 files, 300 MB";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let backend = LinuxBackend::new();
    let mut report = Report::default();
    starts(&backend, &mut report).await?;
    bases(&backend, &mut report).await?;
    parallel(&backend, &mut report).await
}

/// A whole sandbox, and a command in one that lives, beside all others.
async fn starts(backend: &LinuxBackend, report: &mut Report) -> Result<()> {
    let (plain, bwrap, codex) = (words("true"), bwrap(), codex());
    let sandbox = backend.create(&SandboxSpec::default()).await?;
    let mut contenders = vec![
        Contender::program(PLAIN, &plain)?,
        Contender::new(OURS, || whole(backend)),
        Contender::new(LIVE, || run_true(&*sandbox)),
    ];
    let floor = FloorInC::start();
    let codex = codex.as_deref().ok_or_else(|| "CODEX does not name its program".into());
    for (name, contender) in [
        (BWRAP, Contender::program(BWRAP, &bwrap)),
        (
            FLOOR,
            floor.map(|mut floor| {
                Contender::measuring(FLOOR, move || std::future::ready(floor.round()))
            }),
        ),
        (CODEX, codex.and_then(|codex| Ok(Contender::program(CODEX, codex)?.every(CODEX_EVERY)))),
    ] {
        match contender {
            Ok(contender) => contenders.push(contender),
            Err(error) => skip(name, &error.to_string()),
        }
    }
    take_turns(&mut contenders, ROUNDS).await?;
    compare(&contenders, report);
    drop(contenders);
    Ok(sandbox.close().await?)
}

fn compare(contenders: &[Contender<'_>], report: &mut Report) {
    for (case, name, floor) in [
        (PLAIN, PLAIN, None),
        (BWRAP, BWRAP, None),
        (FLOOR, FLOOR, None),
        (CODEX, CODEX, None),
        // The same times against each: the least that a kernel needs, and what people use.
        (OURS, OURS, Some((FLOOR, 2.5))),
        ("create, true, close, against bwrap", OURS, Some((BWRAP, 1.0))),
        ("create, true, close, against codex", OURS, Some((CODEX, 1.0 / 7.0))),
        (LIVE, LIVE, Some((PLAIN, 1.5))),
    ] {
        if let Some(contender) = contenders.iter().find(|contender| contender.name == name) {
            report.add(case, floor, &contender.times);
        }
    }
}

/// A workspace that begins with much, beside one that is empty.
async fn bases(backend: &LinuxBackend, report: &mut Report) -> Result<()> {
    if !backend.capabilities().await?.workspace_base {
        skip(CREATE_ON_BASE, "this host stacks no workspace on one");
        return Ok(());
    }
    let base = large_base()?;
    let empty = SandboxSpec::default();
    let with_base = SandboxSpec { base: Some(WorkspaceBase::new(base.path())), ..empty.clone() };
    let mut contenders = [
        Contender::measuring(CREATE, || create_only(backend, &empty)),
        Contender::measuring(CREATE_ON_BASE, || create_only(backend, &with_base)),
    ];
    take_turns(&mut contenders, ROUNDS).await?;
    report.add(CREATE, None, &contenders[0].times);
    report.add(CREATE_ON_BASE, Some((CREATE, 2.0)), &contenders[1].times);
    Ok(())
}

/// As many as the machine can make, ours and those of bwrap in turns.
async fn parallel(backend: &LinuxBackend, report: &mut Report) -> Result<()> {
    const CASE: &str = "create, true, close, 8 in parallel, each";
    const AGAINST: &str = "bwrap, 8 in parallel, each";
    let bwrap = bwrap();
    let mut ours = Contender::measuring(CASE, || {
        at_once(|| {
            let backend = backend.clone();
            tokio::spawn(async move {
                for _ in 0..SLICE {
                    whole(&backend).await?;
                }
                Ok(())
            })
        })
    });
    let mut theirs = Contender::measuring(AGAINST, || {
        at_once(|| {
            let bwrap = bwrap.clone();
            tokio::task::spawn_blocking(move || (0..SLICE).try_for_each(|_| run(&bwrap)))
        })
    });
    match run(&bwrap) {
        Ok(()) => {
            let mut both = [ours, theirs];
            take_turns(&mut both, SLICES).await?;
            [ours, theirs] = both;
            report.add(AGAINST, None, &theirs.times);
        }
        Err(error) => {
            skip(AGAINST, &error.to_string());
            take_turns(std::slice::from_mut(&mut ours), SLICES).await?;
        }
    }
    // At least 1.2 times as many in the same time.
    report.add(CASE, Some((AGAINST, 1.0 / 1.2)), &ours.times);
    Ok(())
}

/// Lets workers do their slices at once, and returns the time of each piece.
fn at_once(
    mut worker: impl FnMut() -> JoinHandle<Result<()>>,
) -> BoxFuture<'static, Result<Duration>> {
    let started = Instant::now();
    let workers: Vec<_> = (0..PARALLEL).map(|_| worker()).collect();
    Box::pin(async move {
        for worker in workers {
            worker.await??;
        }
        Ok(started.elapsed() / u32::try_from(PARALLEL * SLICE)?)
    })
}

fn words(command: &str) -> Vec<String> {
    command.split(' ').map(str::to_owned).collect()
}

/// The walls that bwrap offers and a sealed sandbox also has.
fn bwrap() -> Vec<String> {
    words(
        "bwrap --unshare-all --ro-bind / / --dev /dev --proc /proc --tmpfs /tmp --new-session true",
    )
}

/// The program of Codex, where there is one.
#[expect(clippy::disallowed_methods, reason = "a peer is where the caller says")]
fn codex() -> Option<Vec<String>> {
    let program = std::env::var("CODEX").ok().filter(|path| !path.is_empty())?;
    Some([&program, "sandbox", "--", "true"].map(ToOwned::to_owned).into())
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

async fn create_only(backend: &LinuxBackend, spec: &SandboxSpec) -> Result<Duration> {
    let started = Instant::now();
    let sandbox = backend.create(spec).await?;
    let took = started.elapsed();
    sandbox.close().await?;
    Ok(took)
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
