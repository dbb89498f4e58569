//! Starts from images beside the start with the host's programs, as JSON lines like those of `start`.
//!
//! The ratio is of the minima, which a busy machine disturbs least. `cargo bench -p cofferdam-sandbox-linux --bench image`.

use std::{
    error::Error,
    fs,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use cofferdam_image::{ImageCache, ImageCacheOptions};
use cofferdam_sandbox::{ImageSource, RootFilesystem, SandboxBackend, SandboxSpec};
use cofferdam_sandbox_linux::LinuxBackend;
use cofferdam_testkit::{ImageBuilder, LayerBuilder, image::write_layout};
use serde_json::json;

const ROUNDS: usize = 100;
/// Files of the large image, of 10 kB each.
const FILES: usize = 10_000;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let place = tempfile::tempdir()?;
    let cache = place.path().join("cache");
    let backend = LinuxBackend::new().with_image_cache(&cache, ImageCacheOptions::default());
    let host = starts(&backend, &SandboxSpec::default()).await?;
    report("create, the host's programs", &host, None)?;
    for layers in [1, 2, 16, 128] {
        let directory = place.path().join(layers.to_string());
        let image = (0..layers).fold(ImageBuilder::new(), |image, n| {
            image.layer(LayerBuilder::new().file(&format!("opt/{n}"), b"x").file("etc/n", b"x"))
        });
        write_layout(&directory, &[(None, &image)]);
        let spec = layout(&directory);
        let first = Instant::now();
        backend.create(&spec).await?.close().await?;
        report(&format!("the first, {layers} layers, unpacked"), &[first.elapsed()], None)?;
        let starts = starts(&backend, &spec).await?;
        report(&format!("create, {layers} layers"), &starts, Some(&host))?;
    }
    large(place.path())
}

/// Unpacks and merges an image as large as a small distribution's.
fn large(place: &Path) -> Result<()> {
    let content: Vec<u8> =
        (0..10_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let files = (0..FILES).fold(LayerBuilder::new(), |layer, n| {
        layer.file(&format!("usr/{}/{n}", n % 100), &content)
    });
    let above = LayerBuilder::new().file("usr/1/.wh.1", b"");
    let file = place.join("large.tar");
    fs::write(&file, ImageBuilder::new().layer(files).layer(above).saved("large:1"))?;
    let cache = ImageCache::open(place.join("large"), ImageCacheOptions::default())?;
    for case in ["unpack 10 000 files, 100 MB", "find them again"] {
        let started = Instant::now();
        cache.from_archive(&file, None)?;
        report(case, &[started.elapsed()], None)?;
    }
    let root = cache.from_archive(&file, None)?;
    let started = Instant::now();
    root.merged()?;
    report("merge them", &[started.elapsed()], None)
}

fn layout(directory: &Path) -> SandboxSpec {
    let source = ImageSource::Layout { directory: directory.to_owned(), name: None };
    SandboxSpec { root: RootFilesystem::Image(source), ..SandboxSpec::default() }
}

async fn starts(backend: &LinuxBackend, spec: &SandboxSpec) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let sandbox = backend.create(spec).await?;
        times.push(started.elapsed());
        sandbox.close().await?;
    }
    Ok(times)
}

fn report(case: &str, times: &[Duration], floor: Option<&[Duration]>) -> Result<()> {
    let millis = |time: &Duration| time.as_secs_f64() * 1000.0;
    let sorted = |times: &[Duration]| {
        let mut times: Vec<f64> = times.iter().map(millis).collect();
        times.sort_by(f64::total_cmp);
        times
    };
    let times = sorted(times);
    let ratio = floor.map(|floor| times[0] / sorted(floor)[0]);
    let line = json!({
        "case": case,
        "median_ms": times[times.len() / 2],
        "min_ms": times[0],
        "n": times.len(),
        "ratio": ratio,
    });
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
