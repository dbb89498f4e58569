//! Sudden death of the harness, the shim of a container, the guest, what runs inside, and the engine, in the middle of
//! everything.
//!
//! Containers, volumes, networks, processes, control groups and mounts of sandboxes are ours. What an engine that is killed
//! leaves of its own is its own affair: its files, mounts, and, of a container that it was just making and knows nothing of
//! afterwards, a shim with nothing below it and control groups with nobody in them. `cargo xtask suite chaos` plays more rounds than `cargo test`.
#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]
#![expect(
    clippy::disallowed_methods,
    reason = "the harness is told where the engine is by a variable"
)]

#[expect(dead_code, reason = "the other tests use more of it")]
#[path = "suite/engine.rs"]
mod engine;

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bollard::query_parameters::{ListContainersOptions, ListNetworksOptions, ListVolumesOptions};
use cofferdam_core::SandboxLimits;
use cofferdam_sandbox::{RootFilesystem, SandboxBackend, SandboxSpec};
use cofferdam_sandbox_docker::{DockerBackend, DockerEndpoint};
use cofferdam_testkit::{
    TestEngine,
    chaos::{self, Process, Subject, Victim},
};
use engine::TestEngineExt as _;

/// Tells the harness the directory of the engine.
const DIRECTORY: &str = "COFFERDAM_CHAOS_ENGINE";

/// How long the engine may take for one request; shorter than the harness waits for any call.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

struct Docker {
    directory: PathBuf,
    /// None in the harness.
    engine: Option<&'static TestEngine>,
    victims: &'static [Victim],
    rounds: u64,
}

impl Docker {
    /// Returns the engine of this test program, or the one that the harness was told; `None`, and a skip that says why, if
    /// there can be none.
    fn get(test: &str, victims: &'static [Victim], rounds: u64) -> Option<Self> {
        if let Some(told) = env::var_os(DIRECTORY) {
            return Some(Self { directory: told.into(), engine: None, victims, rounds });
        }
        let engine = TestEngine::get(test)?;
        let directory = engine.socket().parent()?.to_owned();
        Some(Self { directory, engine: Some(engine), victims, rounds })
    }

    fn engine_dies(&self) -> bool {
        self.victims.contains(&Victim::Engine)
    }

    /// What the engine knows that is not its own.
    async fn known(engine: &TestEngine) -> Result<Vec<String>, bollard::errors::Error> {
        let client = engine.client()?;
        let all = ListContainersOptions { all: true, ..Default::default() };
        let containers = client.list_containers(Some(all)).await?;
        let name = |names: Option<Vec<String>>| names.unwrap_or_default().join(" ");
        let mut found: Vec<String> = containers
            .into_iter()
            .map(|it| format!("container {} ({:?})", name(it.names), it.state))
            .collect();
        let volumes =
            client.list_volumes(None::<ListVolumesOptions>).await?.volumes.unwrap_or_default();
        found.extend(volumes.into_iter().map(|it| format!("volume {}", it.name)));
        let networks = client.list_networks(None::<ListNetworksOptions>).await?;
        let names = networks.into_iter().filter_map(|network| network.name);
        let others = names.filter(|name| !["bridge", "host", "none"].contains(&name.as_str()));
        found.extend(others.map(|name| format!("network {name}")));
        Ok(found)
    }

    /// What is mounted for containers. The engine's own are its data and the host's network namespace.
    fn mounts(&self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let below = points.filter(|point| Path::new(point).starts_with(&self.directory));
        below
            .filter(|point| !["/data", "/netns/default"].iter().any(|own| point.ends_with(own)))
            .map(|point| format!("mount {point}"))
            .collect()
    }

    /// The control groups below the engine's own.
    fn control_groups(&self) -> Vec<PathBuf> {
        let own = self.directory.file_name().unwrap_or_default();
        let mut found = Vec::new();
        let mut look = vec![(Path::new("/sys/fs/cgroup").to_owned(), false)];
        while let Some((directory, is_own)) = look.pop() {
            let entries = fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok);
            for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                if is_own {
                    found.push(entry.path());
                }
                look.push((entry.path(), is_own || entry.file_name() == own));
            }
        }
        found
    }
}

/// The processes between the engine and its containers, one for each, of which the guest is a child.
fn shims() -> Vec<Process> {
    let mut below = chaos::descendants(std::process::id());
    below.retain(|process| process.name == "containerd-shim");
    below
}

/// The first processes of containers. What has not become the guest yet bears the name of the program that makes containers.
fn guests() -> Vec<Process> {
    let mut below: Vec<_> =
        shims().into_iter().flat_map(|shim| chaos::children(shim.pid)).collect();
    below.retain(|process| !process.name.starts_with("runc") && process.name != "containerd-shim");
    below
}

impl Subject for Docker {
    fn backend(&self) -> Arc<dyn SandboxBackend> {
        let endpoint = DockerEndpoint::Unix(self.directory.join("socket"));
        let builder = DockerBackend::builder().endpoint(endpoint);
        Arc::new(builder.request_timeout(REQUEST_TIMEOUT).build())
    }

    fn spec(&self) -> SandboxSpec {
        let limits = SandboxLimits {
            memory_bytes: 256 << 20,
            processes: 64,
            disk_bytes: 32 << 20,
            ..SandboxLimits::default()
        };
        let root = RootFilesystem::Directory(self.directory.join("root"));
        SandboxSpec { root, limits, ..SandboxSpec::default() }
    }

    fn victims(&self) -> Vec<Victim> {
        self.victims.to_vec()
    }

    fn find(&self, victim: Victim, _harness: u32) -> Vec<u32> {
        let found = match victim {
            Victim::Helper => shims(),
            Victim::Guest => guests(),
            Victim::Inside => {
                guests().into_iter().flat_map(|guest| chaos::descendants(guest.pid)).collect()
            }
            Victim::Engine => {
                return self.engine.and_then(TestEngine::process).into_iter().collect();
            }
            _ => Vec::new(),
        };
        found.into_iter().filter(|process| !process.zombie).map(|process| process.pid).collect()
    }

    fn leftovers(&self, _harness: u32) -> Vec<String> {
        let Some(engine) = self.engine else { return Vec::new() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let known = runtime.expect("a runtime").block_on(Self::known(engine));
        let mut found =
            known.unwrap_or_else(|error| vec![format!("the engine does not tell: {error}")]);
        if self.engine_dies() {
            let mut groups = self.control_groups();
            groups.retain(|group| {
                fs::read(group.join("cgroup.procs")).is_ok_and(|pids| !pids.is_empty())
            });
            found.extend(groups.iter().map(|group| format!("processes in {}", group.display())));
        } else {
            found.extend(self.mounts());
            found.extend(
                self.control_groups().iter().map(|group| format!("cgroup {}", group.display())),
            );
        }
        found
    }

    fn recover(&self, victim: Victim) {
        if victim == Victim::Engine
            && let Some(engine) = self.engine
        {
            engine.restart().expect("the engine comes back");
        }
    }

    fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![(DIRECTORY, self.directory.clone().into())]
    }

    fn bystanders(&self) -> Vec<u32> {
        let engine = self.engine.and_then(TestEngine::process);
        let keepers = chaos::children(std::process::id()).into_iter().filter(|process| {
            engine.is_some_and(|engine| {
                chaos::children(process.pid).iter().any(|it| it.pid == engine)
            })
        });
        let below = engine.into_iter().flat_map(chaos::children);
        let runtimes = below.filter(|process| process.name == "containerd");
        let mut spared: Vec<_> =
            keepers.chain(runtimes).map(|process| process.pid).chain(engine).collect();
        if self.engine_dies() {
            let idle = shims().into_iter().filter(|shim| chaos::children(shim.pid).is_empty());
            spared.extend(idle.filter(|shim| !shim.zombie).map(|shim| shim.pid));
        }
        spared
    }

    fn length(&self) -> Duration {
        // A container is dearer than a sandbox of this host.
        Duration::from_secs(2)
    }

    fn rounds(&self) -> u64 {
        self.rounds
    }
}

/// Held by each test, since a round looks at all processes below this one.
static ALONE: Mutex<()> = Mutex::new(());

/// Whether the suite runs, or a harness of it. It looks at all processes of the host and restarts an engine, so it wants the
/// machine for itself, and minutes.
fn was_asked_for(test: &str) -> bool {
    let asked = ["COFFERDAM_CHAOS_ROUNDS", "COFFERDAM_CHAOS_HARNESS"]
        .into_iter()
        .any(|variable| std::env::var_os(variable).is_some());
    if !asked {
        cofferdam_testkit::skip(
            test,
            "it wants the machine for itself, and minutes: `cargo xtask suite chaos` plays it",
        );
    }
    asked
}

#[test]
fn chaos() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let victims =
        &[Victim::Harness, Victim::Helper, Victim::HelperAndHarness, Victim::Guest, Victim::Inside];
    if !was_asked_for("chaos") {
        return;
    }
    let Some(docker) = Docker::get("chaos", victims, 10) else { return };
    chaos::run("chaos", &docker);
}

#[test]
fn chaos_of_the_engine() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if !was_asked_for("chaos_of_the_engine") {
        return;
    }
    let Some(docker) = Docker::get("chaos_of_the_engine", &[Victim::Engine], 3) else { return };
    chaos::run("chaos_of_the_engine", &docker);
}
