//! What containers cost, as JSON lines: `{"case", "median_ms", "min_ms", "n", "floor", "ratio", "bar"}`.
//!
//! A floor is what the `docker` program does with the same image on the same engine in the same run, so a busy machine slows
//! both. `ratio` is the quotient of the medians, `bar` the greatest one that is accepted, `bar_ms` the greatest median. The
//! engine is one of its own; starting it needs root. Run it on a quiet machine with
//! `cargo bench -p cofferdam-sandbox-docker`.

use std::{
    collections::HashMap,
    error::Error,
    fs::File,
    io::Write as _,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use bollard::query_parameters::ListImagesOptions;
use bytes::Bytes;
use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{
    ExecRequest, Sandbox, SandboxBackend as _, SandboxExt as _, SandboxSpec, TreeEntry,
    TreeEntryKind, TreeEvent, WriteOptions,
};
use cofferdam_sandbox_docker::DockerBackend;
use cofferdam_testkit::engine::{TestEngine, find, host_command};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};

#[path = "../tests/suite/engine.rs"]
mod engine;
use engine::TestEngineExt as _;

const SMALL_FILES: usize = 200;
const TREE_FILES: usize = 2000;
const TREE_DIRECTORIES: usize = 50;
const BIG_FILE: usize = 64 << 20;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let mut report = Report::default();
    let engine = match (TestEngine::start(&[]), find("docker")) {
        (Ok(engine), Some(_)) => engine,
        (Err(reason), _) => return report.skip(&reason),
        (_, None) => return report.skip("the docker program is not installed"),
    };
    // Brings the image in, and the guest into the image.
    engine.backend().create(&engine.spec()).await?.close().await?;
    let image = imported(&engine).await?;
    let backend =
        DockerBackend::builder().endpoint(engine.endpoint()).default_image(&image).build();
    let docker = Docker(engine.endpoint().to_string());

    start(&mut report, &backend, &docker, &image).await?;

    docker.run(&["run", "-d", "--name", "floor", "--network", "none", &image, "sleep", "600"])?;
    let sandbox = backend.create(&SandboxSpec::default()).await?;
    report.add(
        "docker exec true",
        None,
        &repeat(20, async || docker.run(&["exec", "floor", "true"])).await?,
    );
    let live = repeat(100, async || run(&*sandbox, "true").await).await?;
    report.add("true in a live sandbox", Some(Bar::Ratio("docker exec true", 0.1)), &live);

    files(&mut report, &*sandbox).await?;
    big_file(&mut report, &*sandbox, &docker).await?;
    sandbox.close().await?;
    Ok(())
}

/// Making sandboxes and ending them.
async fn start(
    report: &mut Report,
    backend: &DockerBackend,
    docker: &Docker,
    image: &str,
) -> Result<()> {
    let (mut plain, mut first, mut close) = (Vec::new(), Vec::new(), Vec::new());
    // In turn, so that what slows one slows the other.
    for round in 0..12 {
        let started = Instant::now();
        docker.run(&["run", "--rm", "--network", "none", image, "true"])?;
        let of_docker = started.elapsed();
        let started = Instant::now();
        let sandbox = backend.create(&SandboxSpec::default()).await?;
        run(&*sandbox, "true").await?;
        let of_first = started.elapsed();
        let started = Instant::now();
        sandbox.close().await?;
        if round >= 2 {
            plain.push(of_docker);
            first.push(of_first);
            close.push(started.elapsed());
        }
    }
    report.add("docker run --rm true", None, &plain);
    report.add("create and first true", Some(Bar::Ratio("docker run --rm true", 1.15)), &first);
    report.add("close", Some(Bar::Milliseconds(500.0)), &close);
    Ok(())
}

/// Many small files, one by one and as a tree.
async fn files(report: &mut Report, sandbox: &dyn Sandbox) -> Result<()> {
    let content = Bytes::from(vec![b'x'; 4096]);
    let one_by_one = repeat(5, async || {
        for number in 0..SMALL_FILES {
            let path: WorkspacePath = format!("small-{number}").parse()?;
            sandbox.files().write(&path, content.clone(), &WriteOptions::default()).await?;
            let read = sandbox.files().read(&path, 0, 8192).await?;
            if read != content {
                return Err("other bytes than were written".into());
            }
        }
        Ok(())
    });
    report.add("200 files of 4 KiB written and read back", None, &one_by_one.await?);

    let content = Bytes::from(vec![b'x'; 10 << 10]);
    let tree = repeat(5, async || {
        let entry = |path: String, kind, mode| {
            let entry = TreeEntry { path: path.into_bytes(), kind, mode, modified_ns: None };
            Ok(TreeEvent::Entry(entry))
        };
        let directories = (0..TREE_DIRECTORIES)
            .map(|number| entry(format!("tree-{number}"), TreeEntryKind::Directory, 0o755));
        let files = (0..TREE_FILES).flat_map(|number| {
            let path = format!("tree-{}/{number}", number % TREE_DIRECTORIES);
            let file = entry(path, TreeEntryKind::File { size: 10 << 10 }, 0o644);
            [file, Ok(TreeEvent::Content(content.clone()))]
        });
        let events = directories.chain(files);
        let events = stream::iter(events.collect::<Vec<_>>()).boxed();
        sandbox.tree().upload(&WorkspacePath::root(), events).await?;
        Ok(())
    });
    report.add("2000 files of 10 KiB uploaded", None, &tree.await?);
    Ok(())
}

/// One big file out of the container.
async fn big_file(report: &mut Report, sandbox: &dyn Sandbox, docker: &Docker) -> Result<()> {
    let make = format!("head -c {BIG_FILE} /dev/zero >");
    docker.run(&["exec", "floor", "sh", "-c", &format!("{make} /big")])?;
    run(sandbox, &format!("{make} big")).await?;
    let copied = repeat(5, async || docker.run(&["cp", "floor:/big", "-"])).await?;
    report.add("docker cp of 64 MiB", None, &copied);
    // What the engine's stream lets pass, which is the way that the guest's bytes take too.
    let streamed = repeat(5, async || docker.run(&["exec", "floor", "cat", "/big"])).await?;
    report.add("docker exec cat of 64 MiB", None, &streamed);
    let path: WorkspacePath = "big".parse()?;
    let read = repeat(5, async || {
        let read = sandbox.files().read(&path, 0, BIG_FILE as u64).await?;
        if read.len() == BIG_FILE { Ok(()) } else { Err("a short read".into()) }
    });
    report.add("64 MiB read", Some(Bar::Ratio("docker cp of 64 MiB", 2.0)), &read.await?);
    Ok(())
}

async fn run(sandbox: &dyn Sandbox, script: &str) -> Result<()> {
    let request = match script {
        "true" => ExecRequest::program(["true"]),
        script => ExecRequest::shell(script),
    };
    let output = sandbox.run(request, 1024).await?;
    let success = output.status.is_some_and(|status| status.success());
    if success { Ok(()) } else { Err(format!("{script}: {output:?}").into()) }
}

/// The name of the image that a directory was imported as.
async fn imported(engine: &TestEngine) -> Result<String> {
    let reference = ("reference".to_owned(), vec!["cofferdam/import".to_owned()]);
    let options =
        ListImagesOptions { filters: Some(HashMap::from([reference])), ..Default::default() };
    let images = engine.client()?.list_images(Some(options)).await?;
    let name = images.into_iter().flat_map(|image| image.repo_tags).next();
    name.ok_or_else(|| "no image was imported".into())
}

/// The `docker` program on an engine.
struct Docker(String);

impl Docker {
    fn run(&self, arguments: &[&str]) -> Result<()> {
        let log = tempfile::tempfile()?;
        let status = host_command("docker")
            .args(["--host", &self.0])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(File::options().write(true).open(Path::new("/dev/null"))?)
            .stderr(log.try_clone()?)
            .status()?;
        if status.success() {
            return Ok(());
        }
        let mut said = String::new();
        std::io::Seek::rewind(&mut &log)?;
        std::io::Read::read_to_string(&mut &log, &mut said)?;
        Err(format!("docker {arguments:?}: {said}").into())
    }
}

/// Runs a case after one round to warm up.
async fn repeat(rounds: usize, case: impl AsyncFn() -> Result<()>) -> Result<Vec<Duration>> {
    case().await?;
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let started = Instant::now();
        case().await?;
        times.push(started.elapsed());
    }
    Ok(times)
}

/// What a case is measured by.
enum Bar {
    Ratio(&'static str, f64),
    Milliseconds(f64),
}

/// The lines, and the medians that later cases are compared with.
#[derive(Debug, Default)]
struct Report(Vec<(String, f64)>);

impl Report {
    fn add(&mut self, case: &str, bar: Option<Bar>, times: &[Duration]) {
        let mut sorted: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        sorted.sort_by(f64::total_cmp);
        let median = sorted[sorted.len() / 2];
        let mut fields = json!({
            "case": case,
            "median_ms": rounded(median),
            "min_ms": rounded(sorted[0]),
            "n": times.len(),
        });
        match bar {
            Some(Bar::Ratio(name, bar)) => {
                let floor = self.0.iter().find(|(case, _)| case == name).map(|(_, median)| median);
                fields["floor"] = json!(name);
                fields["ratio"] = json!(floor.map(|floor| rounded(median / floor)));
                fields["bar"] = json!(bar);
            }
            Some(Bar::Milliseconds(bar)) => fields["bar_ms"] = json!(bar),
            None => {}
        }
        self.0.push((case.to_owned(), median));
        line(&fields);
    }

    fn skip(&self, reason: &str) -> Result<()> {
        line(&json!({ "case": "containers", "skipped": reason }));
        Ok(())
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn line(value: &Value) {
    // A reader that is gone needs no lines.
    let _ = writeln!(std::io::stdout(), "{value}");
}
