//! The guest's own costs beside their floors, without any walls, as JSON lines: `{"case", "median_ms", "min_ms", "n",
//! "ratio", "min_ratio", "bar"}`. Ratios are to a floor, another case of the same run; `bar` is the greatest accepted quotient of
//! the medians. Run it on a quiet machine with `cargo bench -p cofferdam-sandbox`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement says no more than that it failed"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use cofferdam_sandbox::{DownloadOptions, ExecRequest, ExitStatus, Tree as _, TreeEvent};
use futures::StreamExt as _;
use serde_json::json;
use support::{open, path};

/// Bytes of the large transfer.
const LARGE: usize = 256 << 20;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let sandbox = open().await;
    let plain = repeat(200, || async { plain_true() }).await;
    report("plain spawn of true", &plain, None);
    let ping = repeat(200, || async { sandbox.client.ping().await.unwrap() }).await;
    report("ping", &ping, None);
    let live = repeat(200, || async {
        let status = sandbox.run(ExecRequest::program(["true"])).await.2;
        assert_eq!(status, Some(ExitStatus::Code(0)));
    })
    .await;
    report("true through the guest, to the end of its tree", &live, Some((&plain, 1.5)));

    let file = sandbox.workspace.path().join("large");
    std::fs::write(&file, vec![7; LARGE]).unwrap();
    let copy = repeat(5, || async {
        let mut content = std::fs::File::open(&file).unwrap();
        let read = std::io::copy(&mut content, &mut std::io::sink()).unwrap();
        assert_eq!(read, LARGE as u64);
    })
    .await;
    report("256 MiB read by the host itself", &copy, None);
    let download = repeat(5, || async {
        let options = DownloadOptions::default();
        let mut tree = sandbox.client.download(&path("large"), &options).await.unwrap();
        let mut bytes = 0;
        while let Some(event) = tree.next().await {
            if let TreeEvent::Content(piece) = event.unwrap() {
                bytes += piece.len();
            }
        }
        assert_eq!(bytes, LARGE);
    })
    .await;
    report("256 MiB downloaded", &download, Some((&copy, 20.0)));
}

#[expect(clippy::disallowed_methods, reason = "the floor is a plain process")]
fn plain_true() {
    let status = Command::new("true").stdin(Stdio::null()).stdout(Stdio::null()).status();
    assert!(status.unwrap().success());
}

async fn repeat<F: Future<Output = ()>>(rounds: usize, case: impl Fn() -> F) -> Vec<Duration> {
    case().await;
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let started = Instant::now();
        case().await;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    times
}

/// Writes a line; the times are sorted.
fn report(case: &str, times: &[Duration], floor: Option<(&[Duration], f64)>) {
    let milliseconds = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    let quotient =
        |a: Duration, b: Duration| (a.as_secs_f64() / b.as_secs_f64() * 1000.0).round() / 1000.0;
    let median = times[times.len() / 2];
    let line = json!({
        "case": case,
        "median_ms": milliseconds(median),
        "min_ms": milliseconds(times[0]),
        "n": times.len(),
        "ratio": floor.map(|(floor, _)| quotient(median, floor[floor.len() / 2])),
        "min_ratio": floor.map(|(floor, _)| quotient(times[0], floor[0])),
        "bar": floor.map(|(_, bar)| bar),
    });
    // A reader that is gone needs no lines.
    let _ = writeln!(std::io::stdout(), "{line}");
}
