//! Root file systems that lead their launcher astray: links where it mounts or makes something.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::Result;
use bytes::Bytes;
use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{RootFilesystem, SandboxError, SandboxSpec, WriteOptions};

use super::{Found, Trial, attack_table, denied, naive, open};
use crate::worker;

attack_table! {
    mount_points "cve-2021-30465" "runc: a root whose mount points are links to the host", naive::root_links;
    process_directory "cve-2019-19921" "runc: a root whose /proc is a link", naive::root_links;
    parents "cve-2024-45310" "runc: a root in which the parent of what is made is a link", naive::root_links;
    null_device "cve-2025-31133-root" "runc: a root whose /dev/null is a link to a host file", naive::root_links;
    set_up_files "cve-2026-87766" "bubblewrap: a root whose /etc and /run are links to the host", naive::root_links;
}

/// The places in a root at which a launcher may mount or make something.
async fn with_links(trial: &Trial, names: &[&str]) -> Result<Found> {
    let mut seen = Vec::new();
    for name in names {
        let outside = &trial.targets.outside;
        let up = PathBuf::from("../".repeat(16)).join(outside.strip_prefix("/").unwrap_or(outside));
        for target in [outside.clone(), up] {
            match one(trial, name, &target).await? {
                Ok(said) => seen.push(format!("{name}: {said}")),
                Err(escaped) => return open(format!("{name}: {escaped}")),
            }
        }
    }
    seen.dedup();
    denied(seen.join("; "))
}

/// Starts a sandbox in a root in which one name is a link; `Err` tells what came of it on the host.
async fn one(trial: &Trial, name: &str, target: &Path) -> Result<Result<String, String>> {
    let root = tempfile::tempdir()?;
    let place = root.path().join(name);
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    symlink(target, &place)?;
    let before = listing(&trial.targets.outside)?;
    let spec =
        SandboxSpec { root: RootFilesystem::Directory(root.path().to_owned()), ..worker::spec() };
    let said = match worker::prepared(&*trial.backend, &spec, &trial.text).await {
        Ok(sandbox) => {
            let path = WorkspacePath::new("made-in-root")?;
            let content = Bytes::from_static(b"x");
            sandbox.files().write(&path, content, &WriteOptions::default()).await?;
            let ran = trial.run(&*sandbox, &["list"]).await;
            sandbox.close().await?;
            if let Err(error) = ran {
                format!("started, and runs nothing ({error:#})")
            } else {
                "started in a root of its own".to_owned()
            }
        }
        Err(error) => match error.downcast_ref::<SandboxError>() {
            Some(SandboxError::HostUnable { step, .. }) => format!("refused ({step})"),
            Some(error) => format!("refused ({error})"),
            None => return Err(error),
        },
    };
    let after = listing(&trial.targets.outside)?;
    let canary = fs::read(trial.targets.canary())?;
    for made in after.iter().filter(|name| !before.contains(name)) {
        trial.targets.take(made);
    }
    Ok(if after != before {
        Err(format!("the host's directory has {after:?}"))
    } else if !trial.targets.is_canary(&canary) {
        Err("the host's file was changed".to_owned())
    } else {
        Ok(said)
    })
}

fn listing(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

async fn mount_points(trial: &Trial) -> Result<Found> {
    with_links(trial, &["workspace", "tmp", "dev/shm"]).await
}

async fn process_directory(trial: &Trial) -> Result<Found> {
    with_links(trial, &["proc"]).await
}

async fn parents(trial: &Trial) -> Result<Found> {
    with_links(trial, &["home", "dev"]).await
}

async fn null_device(trial: &Trial) -> Result<Found> {
    with_links(trial, &["dev/null", "dev/console", "dev/ptmx"]).await
}

async fn set_up_files(trial: &Trial) -> Result<Found> {
    with_links(trial, &["etc", "run", "usr"]).await
}
