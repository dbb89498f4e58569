//! `cofferdam doctor`: what sandboxes on this host enforce, backend by backend, and the commands that enable the rest.

use std::{fmt::Write as _, io::Write as _};

use anyhow::Context as _;
use cofferdam::{
    backends,
    sandbox::{Capabilities, Enforcement, Guarantees, SandboxError},
};
use serde::Serialize;

use crate::exit::{Exit, Failure};

/// What is known of one backend on this host.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Examined {
    /// It makes sandboxes, or says of each wall why not.
    Walls {
        #[serde(flatten)]
        guarantees: Guarantees,
        capabilities: Capabilities,
    },
    /// What it stands on is not there.
    Unavailable {
        backend: String,
        unavailable: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        remedy: Option<String>,
    },
}

/// The whole report, as it is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    /// Version of this form; 1.
    version: u32,
    backends: Vec<Examined>,
}

pub(crate) async fn doctor(backend: Option<String>, json: bool) -> Result<Exit, Failure> {
    let names: Vec<String> = match backend {
        Some(name) => vec![name],
        None => backends::names().map(str::to_owned).collect(),
    };
    let mut report = Report { version: 1, backends: Vec::new() };
    for name in names {
        let backend = backends::open(&name).map_err(Failure::usage)?;
        report.backends.push(match backend.guarantees().await {
            Ok(guarantees) => {
                // What cannot be asked is not there.
                let capabilities = backend.capabilities().await.unwrap_or_default();
                Examined::Walls { guarantees, capabilities }
            }
            Err(error) => unavailable(name, &error),
        });
    }
    let text = if json {
        let text = serde_json::to_string_pretty(&report).context("cannot write JSON")?;
        format!("{text}\n")
    } else {
        report.backends.iter().map(render).collect::<Vec<_>>().join("\n")
    };
    std::io::stdout().lock().write_all(text.as_bytes()).context(crate::exit::NOT_WRITTEN)?;
    // One backend that holds is enough to work with; the first is the one that is used when none is named.
    Ok(if report.backends.first().is_some_and(holds) { Exit::Done } else { Exit::HostUnable })
}

fn unavailable(backend: String, error: &SandboxError) -> Examined {
    let (unavailable, remedy) = match error {
        SandboxError::Unavailable { reason, remedy, .. }
        | SandboxError::HostUnable { reason, remedy, .. }
        | SandboxError::Image { reason, remedy, .. } => (reason.clone(), Some(remedy.clone())),
        error => (format!("{:#}", anyhow::Error::msg(error.to_string())), None),
    };
    Examined::Unavailable { backend, unavailable, remedy }
}

fn holds(examined: &Examined) -> bool {
    match examined {
        Examined::Walls { guarantees, .. } => !guarantees
            .walls
            .iter()
            .any(|guarantee| matches!(guarantee.enforcement, Enforcement::Missing { .. })),
        Examined::Unavailable { .. } => false,
    }
}

fn render(examined: &Examined) -> String {
    match examined {
        Examined::Walls { guarantees, capabilities } => {
            render_walls(guarantees) + &render_capabilities(capabilities)
        }
        Examined::Unavailable { backend, unavailable, remedy } => {
            let mut text = format!("backend {backend}: not available: {unavailable}\n");
            if let Some(remedy) = remedy {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "  to change: {remedy}");
            }
            text
        }
    }
}

fn render_walls(guarantees: &Guarantees) -> String {
    let mut text = format!("backend {}\n", guarantees.backend);
    for guarantee in &guarantees.walls {
        let (state, detail, remedy) = match &guarantee.enforcement {
            Enforcement::Full { mechanism } => ("full", mechanism.clone(), None),
            Enforcement::Weak { mechanism, gap, remedy } => {
                ("weak", format!("{mechanism}; gap: {gap}"), remedy.as_ref())
            }
            Enforcement::Missing { reason, remedy } => ("MISSING", reason.clone(), remedy.as_ref()),
            _ => ("unknown", String::new(), None),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {:<24} {state:<8} {detail}", guarantee.wall.to_string());
        if let Some(remedy) = remedy {
            let _ = writeln!(text, "  {:<24} {:<8} to change: {remedy}", "", "");
        }
    }
    text
}

/// What survives and what it costs: no walls, so nothing is weaker without them.
fn render_capabilities(capabilities: &Capabilities) -> String {
    let rows = [
        ("outlives its process", capabilities.linger),
        ("begins on a shared base", capabilities.workspace_base),
        ("changes seen from outside", capabilities.host_workspace),
        ("stands still for snapshots", capabilities.freeze),
    ];
    let mut text = String::new();
    for (what, is_there) in rows {
        let _ = writeln!(text, "  {what:<26} {}", if is_there { "yes" } else { "no" });
    }
    for note in &capabilities.notes {
        let _ = writeln!(text, "    {note}");
    }
    text
}

#[cfg(test)]
mod tests {
    use cofferdam::sandbox::{Guarantee, Wall};

    use super::*;

    #[test]
    fn renders_each_state_with_its_remedy() {
        let guarantees = Guarantees {
            backend: "linux".into(),
            walls: vec![
                Guarantee {
                    wall: Wall::Network,
                    enforcement: Enforcement::Full { mechanism: "netns".into() },
                },
                Guarantee {
                    wall: Wall::MemoryLimit,
                    enforcement: Enforcement::Weak {
                        mechanism: "RLIMIT_AS".into(),
                        gap: "a process, not the sandbox".into(),
                        remedy: Some("delegate a cgroup".into()),
                    },
                },
                Guarantee {
                    wall: Wall::SystemCalls,
                    enforcement: Enforcement::Missing { reason: "no seccomp".into(), remedy: None },
                },
            ],
        };
        insta::assert_snapshot!(render_walls(&guarantees), @r"
        backend linux
          network                  full     netns
          memory limit             weak     RLIMIT_AS; gap: a process, not the sandbox
                                            to change: delegate a cgroup
          system calls             MISSING  no seccomp
        ");
    }
}
