//! `cofferdam doctor`: what sandboxes on this host enforce.

use std::{fmt::Write as _, io::Write as _};

use anyhow::Context as _;
use cofferdam::{
    agent::default_backend,
    sandbox::{Enforcement, Guarantees},
};

use crate::exit::{Exit, Failure};

pub(crate) async fn doctor(json: bool) -> Result<Exit, Failure> {
    let Some(backend) = default_backend() else {
        return Err(Failure::new(
            Exit::HostUnable,
            anyhow::anyhow!("this build has no sandbox backend"),
        ));
    };
    let guarantees =
        backend.guarantees().await.map_err(|error| Failure::new(Exit::HostUnable, error))?;
    let text = if json {
        let text = serde_json::to_string_pretty(&guarantees).context("cannot write JSON")?;
        format!("{text}\n")
    } else {
        render(&guarantees)
    };
    std::io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .context("cannot write to standard output")?;
    let missing =
        guarantees.walls.iter().any(|g| matches!(g.enforcement, Enforcement::Missing { .. }));
    Ok(if missing { Exit::HostUnable } else { Exit::Done })
}

fn render(guarantees: &Guarantees) -> String {
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
        insta::assert_snapshot!(render(&guarantees), @r"
        backend linux
          network                  full     netns
          memory limit             weak     RLIMIT_AS; gap: a process, not the sandbox
                                            to change: delegate a cgroup
          system calls             MISSING  no seccomp
        ");
    }
}
