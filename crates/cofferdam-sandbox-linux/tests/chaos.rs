//! Sudden death of the harness, the launcher, the guest and of what runs inside, in the middle of everything.
//!
//! `cargo xtask suite chaos` plays more rounds than `cargo test`.

#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]
#![expect(clippy::disallowed_methods, reason = "the tests run again as another user")]

#[path = "suite/as_ordinary_user.rs"]
mod as_ordinary_user;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use cofferdam_core::{SandboxId, SandboxLimits};
use cofferdam_sandbox::{SandboxBackend, SandboxSpec};
use cofferdam_sandbox_linux::LinuxBackend;
use cofferdam_testkit::chaos::{self, Subject, Victim};

struct Linux;

impl Subject for Linux {
    fn backend(&self) -> Arc<dyn SandboxBackend> {
        Arc::new(LinuxBackend::new())
    }

    fn spec(&self) -> SandboxSpec {
        let limits = SandboxLimits {
            memory_bytes: 256 << 20,
            processes: 64,
            disk_bytes: 32 << 20,
            ..SandboxLimits::default()
        };
        SandboxSpec { limits, ..SandboxSpec::default() }
    }

    fn victims(&self) -> Vec<Victim> {
        vec![
            Victim::Harness,
            Victim::Helper,
            Victim::HelperAndHarness,
            Victim::Guest,
            Victim::Inside,
        ]
    }

    fn find(&self, victim: Victim, harness: u32) -> Vec<u32> {
        // The launcher is the child of the harness, the guest that of the launcher, and the rest is below the guest.
        let below = |parents: Vec<u32>| -> Vec<u32> {
            parents.into_iter().flat_map(chaos::children).map(|process| process.pid).collect()
        };
        let launchers = below(vec![harness]);
        match victim {
            Victim::Helper => launchers,
            Victim::Guest => below(launchers),
            Victim::Inside => below(launchers)
                .into_iter()
                .flat_map(chaos::descendants)
                .map(|process| process.pid)
                .collect(),
            _ => Vec::new(),
        }
    }

    fn leftovers(&self, harness: u32) -> Vec<String> {
        cgroups_where(|name| name.starts_with(&format!("cofferdam-{harness}.")))
    }
}

fn cgroups_where(wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = vec![Path::new("/sys/fs/cgroup").to_owned()];
    while let Some(directory) = look.pop() {
        let entries = fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok);
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if wanted(&entry.file_name().to_string_lossy()) {
                found.push(format!("cgroup {}", entry.path().display()));
            }
            look.push(entry.path());
        }
    }
    found
}

/// The same with sandboxes that outlive their harness.
struct Lingering(PathBuf);

/// Where the director has its state directory, told to the harness.
const STATE: &str = "COFFERDAM_TEST_STATE";

impl Subject for Lingering {
    fn backend(&self) -> Arc<dyn SandboxBackend> {
        Arc::new(LinuxBackend::new().with_state_directory(&self.0))
    }

    fn spec(&self) -> SandboxSpec {
        Linux.spec()
    }

    fn victims(&self) -> Vec<Victim> {
        vec![Victim::Harness, Victim::HelperAndHarness]
    }

    fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![(STATE, self.0.clone().into())]
    }

    fn find(&self, victim: Victim, harness: u32) -> Vec<u32> {
        let supervises = |pid: &u32| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.starts_with(b"cofferdam-launcher\0--linger\0"))
        };
        match victim {
            Victim::Helper => chaos::children(harness)
                .into_iter()
                .map(|process| process.pid)
                .filter(supervises)
                .collect(),
            _ => Vec::new(),
        }
    }

    fn leftovers(&self, harness: u32) -> Vec<String> {
        let mut found = Linux.leftovers(harness);
        let entries = fs::read_dir(&self.0).into_iter().flatten().filter_map(Result::ok);
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        // Why a sandbox has ended stays for whoever asks.
        found.extend(names.filter(|name| !name.ends_with(".ended")));
        found
    }

    fn leftovers_of(&self, sandbox: &SandboxId) -> Vec<String> {
        cgroups_where(|name| name.ends_with(sandbox.as_str()))
    }
}

/// Held by each test, since a round looks at all processes below this one.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn chaos() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    chaos::run("chaos", &Linux);
}

#[test]
fn lingering() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(state) = std::env::var_os(STATE) {
        return chaos::run_lingering("lingering", &Lingering(state.into()));
    }
    let place = tempfile::tempdir().expect("a directory");
    chaos::run_lingering("lingering", &Lingering(place.path().join("state")));
}

#[test]
fn lingering_as_an_ordinary_user() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    as_ordinary_user::run_again(&["--exact", "lingering", "--nocapture"], 1);
}

#[test]
fn chaos_as_an_ordinary_user() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    as_ordinary_user::run_again(&["--exact", "chaos", "--nocapture"], 1);
}
