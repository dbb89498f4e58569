//! Many idle sandboxes at once: what each takes of the host's memory, and how long closing all of them takes.
//!
//! Two figures of memory, each of one sandbox: `pss` is the guest's share of its pages with a part of the launcher's, `cgroup`
//! what the kernel charges to the sandbox's memory cgroup, its own structures included. A bar on memory is kept by the one
//! with the most. JSON lines: `{"case", "n", "max_kib", "median_kib", "bar_kib"}`, with `ms` for what is a time.
//! `cargo bench -p cofferdam-sandbox-linux --bench crowd`.

#[expect(dead_code, reason = "the other benchmark compares cases; this one has bars of its own")]
mod report;

use std::{error::Error, fs, path::Path, time::Instant};

use cofferdam_sandbox::{SandboxBackend, SandboxSpec};
use cofferdam_sandbox_linux::LinuxBackend;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use crate::report::{line, rounded, skip};

const CROWD: usize = 500;
const AT_A_TIME: usize = 8;

/// The greatest memory of one, and the longest time to close all.
const MEMORY_BAR_KIB: u64 = 3 * 1024;
const CLOSE_BAR_MS: u64 = 5000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let backend = LinuxBackend::new();
    let spec = SandboxSpec::default();
    let started = Instant::now();
    let crowd: Vec<_> = stream::iter(0..CROWD)
        .map(|_| backend.create(&spec))
        .buffer_unordered(AT_A_TIME)
        .try_collect()
        .await?;
    let made = started.elapsed().as_secs_f64() * 1000.0;
    line(&json!({
        "case": "make 500 sandboxes, each", "n": CROWD, "median_ms": rounded(made / CROWD as f64),
    }));

    let ours = format!("cofferdam-launcher\0{}\0", std::process::id());
    let launcher = processes().find(|pid| cmdline(pid) == ours).ok_or("no launcher")?;
    let guests: Vec<_> =
        processes().filter(|pid| parent(pid).as_deref() == Some(launcher.as_str())).collect();
    let share = pss_kib(&launcher) / CROWD as u64;
    memory(
        "memory of one of 500 idle sandboxes, pss",
        guests.iter().map(|pid| Some(pss_kib(pid) + share)).collect(),
    );
    memory(
        "memory of one of 500 idle sandboxes, cgroup",
        guests.iter().map(|pid| cgroup_kib(pid)).collect(),
    );

    let started = Instant::now();
    let closed = futures::future::join_all(crowd.iter().map(|sandbox| sandbox.close())).await;
    let closing = started.elapsed().as_secs_f64() * 1000.0;
    closed.into_iter().collect::<Result<Vec<()>, _>>()?;
    line(&json!({
        "case": "close 500 sandboxes", "n": 1, "median_ms": rounded(closing), "bar_ms": CLOSE_BAR_MS,
    }));
    Ok(())
}

fn memory(case: &str, sizes: Option<Vec<u64>>) {
    let Some(mut sizes) = sizes.filter(|sizes| !sizes.is_empty()) else {
        return skip(case, "it cannot be read here");
    };
    sizes.sort_unstable();
    line(&json!({
        "case": case,
        "n": sizes.len(),
        "median_kib": sizes[sizes.len() / 2],
        "max_kib": sizes[sizes.len() - 1],
        "bar_kib": MEMORY_BAR_KIB,
    }));
}

fn processes() -> impl Iterator<Item = String> {
    fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.parse::<u32>().is_ok().then_some(name)
    })
}

fn cmdline(pid: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

fn parent(pid: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(1).map(str::to_owned)
}

fn pss_kib(pid: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Reads what the process's memory cgroup is charged with, for version 2, then for version 1.
fn cgroup_kib(pid: &str) -> Option<u64> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let mut found = groups.lines().filter_map(|group| {
        let mut fields = group.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let (top, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.current"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.usage_in_bytes"),
            _ => return None,
        };
        let file = Path::new(top).join(path.trim_start_matches('/')).join(file);
        fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()
    });
    found.next().map(|bytes| bytes / 1024)
}
