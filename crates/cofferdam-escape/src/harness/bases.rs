//! Workspaces on a directory of the host that many sandboxes share: out of a sandbox into that directory, into another sandbox on
//! it, and into what the host reads of the changes.
//!
//! A backend that begins every workspace empty refuses a base by name, and so gives nothing to attack.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use cofferdam_sandbox::{
    ExecRequest, Sandbox, SandboxError, SandboxExt as _, SandboxSpec, WorkspaceBase,
};

use super::{Found, Trial, attack_table, denied, naive, open};
use crate::{
    report::{Answer, Outcome},
    worker,
};

attack_table! {
    write_down "base-write" "change a base that sandboxes share, by every way to change a file", naive::base_write;
    lead_out "base-link" "be led out of a base by its links", naive::read_link;
    dig_down "base-mounts" "uncover or change a base by mounts and handles", naive::base_write;
    across "base-neighbour" "leave something in a base for another sandbox on it", naive::base_write;
    forge "base-whiteout" "make the host believe that a file of a base was removed", naive::whiteout;
}

/// Changes a directory in every way that a shell has.
pub(super) const CHANGES: &str = "echo x >> file; : > dir/file; chmod 777 dir/kept; mv dir/moved dir/away; rm dir/removed; \
    mkdir made; ln file linked && echo y >> linked; touch -d @1 dir/kept; ln -sf elsewhere dir/link; echo x > new";

/// Probes that would find a way below what covers a base.
const PROBES: &[&str] = &[
    "remount",
    "umount",
    "mount-bind",
    "mount-overlay",
    "open-tree",
    "move-mount",
    "mount-setattr",
    "fsopen",
    "open-by-handle",
    "userns-mount",
];

/// A directory with files that sandboxes may read and that stay as they are.
pub(super) fn base(link_to: &Path) -> Result<tempfile::TempDir> {
    let base = tempfile::Builder::new().prefix("cofferdam-base-").tempdir_in("/var/tmp")?;
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755))?;
    fs::create_dir(base.path().join("dir"))?;
    for name in ["file", "dir/file", "dir/kept", "dir/moved", "dir/removed"] {
        fs::write(base.path().join(name), name)?;
    }
    symlink(link_to, base.path().join("out"))?;
    Ok(base)
}

/// All of a directory as text: names, modes, times and contents.
pub(super) fn picture(directory: &Path) -> Result<String> {
    let mut lines = Vec::new();
    let mut look = vec![directory.to_owned()];
    while let Some(next) = look.pop() {
        for entry in fs::read_dir(next)? {
            let path = entry?.path();
            let found = fs::symlink_metadata(&path)?;
            let content = match found.file_type() {
                kind if kind.is_file() => fs::read(&path)?,
                kind if kind.is_symlink() => super::text_of(&fs::read_link(&path)?),
                _ => Vec::new(),
            };
            let content = String::from_utf8_lossy(&content).into_owned();
            lines.push(format!(
                "{} {:o} {} {content}",
                path.display(),
                found.mode(),
                found.mtime()
            ));
            if found.is_dir() {
                look.push(path);
            }
        }
    }
    lines.sort();
    Ok(lines.join("\n"))
}

/// Makes a sandbox on a base; `Err` tells why there is none.
async fn on(trial: &Trial, base: &Path) -> Result<Result<Arc<dyn Sandbox>, String>> {
    let base = Some(WorkspaceBase::new(base));
    match worker::prepared(&*trial.backend, &SandboxSpec { base, ..worker::spec() }, &trial.text)
        .await
    {
        Ok(sandbox) => Ok(Ok(sandbox)),
        Err(error) => match error.downcast_ref::<SandboxError>() {
            Some(refused @ (SandboxError::Unsupported { .. } | SandboxError::Base { .. })) => {
                Ok(Err(refused.to_string()))
            }
            _ => Err(error),
        },
    }
}

async fn shell(sandbox: &dyn Sandbox, script: &str) -> Result<String> {
    let output = sandbox.run(ExecRequest::shell(script), 64 << 10).await?;
    Ok(output.stdout.to_text().into_owned())
}

async fn write_down(trial: &Trial) -> Result<Found> {
    let base = base(&trial.targets.canary())?;
    let before = picture(base.path())?;
    let sandbox = match on(trial, base.path()).await? {
        Ok(sandbox) => sandbox,
        Err(refused) => return denied(refused),
    };
    shell(&*sandbox, CHANGES).await?;
    let inside = shell(&*sandbox, "cat new file").await?;
    sandbox.close().await?;
    if picture(base.path())? != before {
        return open("the base was changed");
    }
    anyhow::ensure!(inside.starts_with("x\nfile"), "nothing was changed inside: {inside:?}");
    denied("changed inside only")
}

async fn lead_out(trial: &Trial) -> Result<Found> {
    let base = base(&trial.targets.canary())?;
    let sandbox = match on(trial, base.path()).await? {
        Ok(sandbox) => sandbox,
        Err(refused) => return denied(refused),
    };
    let read = shell(&*sandbox, "cat out dir/../out 2>&1").await?;
    sandbox.close().await?;
    if trial.targets.is_canary(read.as_bytes()) {
        open("read the host's file")
    } else {
        denied(read)
    }
}

async fn dig_down(trial: &Trial) -> Result<Found> {
    let base = base(&trial.targets.canary())?;
    let before = picture(base.path())?;
    let sandbox = match on(trial, base.path()).await? {
        Ok(sandbox) => sandbox,
        Err(refused) => return denied(refused),
    };
    let said = trial.run(&*sandbox, &[&["run", "targets"], PROBES].concat()).await?;
    sandbox.close().await?;
    let answers: Vec<Answer> =
        said.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("its answers")?;
    anyhow::ensure!(answers.len() == PROBES.len(), "{} answers: {said}", answers.len());
    if let Some(found) = answers.iter().find(|answer| answer.outcome == Outcome::Open) {
        return open(format!("{}: {}", found.id, found.evidence));
    }
    if picture(base.path())? == before {
        denied("none works")
    } else {
        open("the base was changed")
    }
}

async fn across(trial: &Trial) -> Result<Found> {
    let base = base(&trial.targets.canary())?;
    let (one, two) = match (on(trial, base.path()).await?, on(trial, base.path()).await?) {
        (Ok(one), Ok(two)) => (one, two),
        (Err(refused), _) | (_, Err(refused)) => return denied(refused),
    };
    shell(&*one, "echo message > left; echo message >> file; rm dir/kept").await?;
    let seen = shell(&*two, "cat left file 2>&-; ls dir/kept").await?;
    one.close().await?;
    two.close().await?;
    if seen == "filedir/kept\n" {
        denied("each sees its own")
    } else {
        open(format!("saw {seen:?}"))
    }
}

async fn forge(trial: &Trial) -> Result<Found> {
    let base = base(&trial.targets.canary())?;
    let sandbox = match on(trial, base.path()).await? {
        Ok(sandbox) => sandbox,
        Err(refused) => return denied(refused),
    };
    let said =
        shell(&*sandbox, "mknod forged c 0 0 2>&1; mknod dir/kept c 0 0 2>&1; ls dir/kept").await?;
    let forged = match sandbox.host_workspace() {
        None => shell(&*sandbox, "[ -c forged ] && echo made; :").await?.contains("made"),
        Some(workspace) => {
            use std::os::fd::AsRawFd as _;
            let layer = workspace.layer()?;
            let seen = |name: &str| {
                let path = format!("/proc/self/fd/{}/{name}", layer.directory.as_raw_fd());
                fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_char_device())
            };
            seen("forged") || seen("dir/kept")
        }
    };
    sandbox.close().await?;
    if forged { open("made a whiteout") } else { denied(said) }
}
