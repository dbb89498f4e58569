//! Cases on workspaces that begin with a directory of the host, and on the host's sight of workspaces. Skipped where the
//! backend says that it can do neither.

use std::{sync::Arc, time::Duration};

use super::{
    case_table,
    host_tree::{HostTree, layer_lines},
    support::{CaseResult, equal, errno, holds, mismatch, names, read, refused, shell, write},
    trial::{Stop, Trial},
};
use crate::{
    Capabilities, HostLayer, HostLayerKind, LossReason, Sandbox, SandboxError, WorkspaceBase,
    WriteOptions,
};

case_table! { "base":
    refused_by_name: "a base is taken where the backend says that it can, and else refused by name",
    nonsense: "a base that is not there, no directory, or a relative path is refused",
    seen: "files, links, modes and directories of a base are there, and belong to the sandbox's user",
    unchanged: "writing, appending, removing, renaming, linking and changing modes leaves the base as it was",
    apart: "two sandboxes on one base see the base and not each other",
    removed: "what is removed is gone, and what is made in its place shows nothing of it",
    renamed: "a file of the base is renamed; a directory is, or `EXDEV` says that it is copied instead",
    linked: "a hard link of the base may part when it is written, and shows the same before",
    executed: "a program of the base runs; its set-id bits say nothing",
    one_file_system: "programs that stay on one file system see all of a workspace",
    limit: "what is copied up to be changed counts against the disk limit; what is read does not",
    kept: "a base is whole after its sandboxes are closed, and may then be removed",
    host_sees_whole: "without a base, the host sees the whole workspace as it is",
    host_sees_changes: "with a base, the host sees exactly what changed",
    attached: "a sandbox on a base that outlived its process is seen by the host and frozen like any other",
    host_sees_on: "the host sees the workspace after its sandbox was lost, and no more after it was closed",
}

const BASE: &[&str] = &[
    "750 ./",
    "dir/",
    "dir/sub/",
    "600 dir/secret: hidden",
    "dir/sub/deep: deep",
    "644 file: base",
    "755 run: #!/bin/sh\necho ran",
    "link -> dir/sub/deep",
    "out -> /etc/passwd",
    "twin: same",
    "other = twin",
];

impl Trial<'_> {
    /// Skips the case if the backend says that it cannot do something here.
    pub(super) async fn can(
        &self,
        what: &str,
        which: fn(&Capabilities) -> bool,
    ) -> Result<(), Stop> {
        if which(&self.backend.capabilities().await?) {
            return Ok(());
        }
        Err(Stop::Skipped(format!("the backend says that it cannot do this here: {what}")))
    }

    async fn can_have_a_base(&self) -> Result<(), Stop> {
        self.can("workspace_base", |found| found.workspace_base).await
    }

    fn tree(&self, entries: &[&str]) -> Result<HostTree, Stop> {
        HostTree::new(&self.options.host_directory, entries)
    }

    async fn on(&self, base: &HostTree) -> Result<Arc<dyn Sandbox>, SandboxError> {
        self.on_with(base, |_| {}).await
    }

    async fn on_with(
        &self,
        base: &HostTree,
        change: impl FnOnce(&mut crate::SandboxSpec),
    ) -> Result<Arc<dyn Sandbox>, SandboxError> {
        self.sandbox_with(|spec| {
            spec.base = Some(WorkspaceBase::new(base.path()));
            change(spec);
        })
        .await
    }
}

fn layer(sandbox: &dyn Sandbox) -> Result<HostLayer, Stop> {
    match sandbox.host_workspace() {
        Some(workspace) => Ok(workspace.layer()?),
        None => Err(mismatch("the host's sight", "there, as the backend says", &"none")),
    }
}

async fn refused_by_name(trial: &Trial<'_>) -> CaseResult {
    let base = trial.tree(BASE)?;
    let made = trial.on(&base).await;
    if trial.backend.capabilities().await?.workspace_base {
        return made.map(drop).map_err(Stop::from);
    }
    let by_name = matches!(made, Err(SandboxError::Unsupported { .. } | SandboxError::Base { .. }));
    holds("a base where there is none", by_name, "SandboxError::Unsupported or Base", &made)
}

async fn nonsense(trial: &Trial<'_>) -> CaseResult {
    trial.can_have_a_base().await?;
    let tree = trial.tree(&["file"])?;
    for directory in [tree.path().join("missing"), tree.path().join("file"), "relative".into()] {
        let shown = directory.display().to_string();
        let made = trial
            .sandbox_with(|spec| spec.base = Some(WorkspaceBase::new(directory)))
            .await
            .map(drop);
        let expected =
            matches!(made, Err(SandboxError::Base { .. } | SandboxError::InvalidRequest { .. }));
        holds(&shown, expected, "SandboxError::Base or InvalidRequest", &made)?;
    }
    Ok(())
}

async fn seen(trial: &Trial<'_>) -> CaseResult {
    trial.can_have_a_base().await?;
    let base = trial.tree(BASE)?;
    let sandbox = trial.on(&base).await?;
    let listed = names(&*sandbox, ".").await?;
    equal("its names", listed.join(" "), "dir file link other out run twin")?;
    equal("a file", &read(&*sandbox, "dir/secret").await?[..], b"hidden")?;
    equal("through a link", shell(&*sandbox, "cat link").await?, "deep")?;
    let modes = shell(&*sandbox, "stat -c '%a %n' . dir/secret file run").await?;
    equal("its modes", modes, "750 .\n600 dir/secret\n644 file\n755 run\n")?;
    let script = "find . ! -uid $(id -u) -o ! -gid $(id -g) | head -3; readlink out";
    equal(
        "what belongs to others, and a link out",
        shell(&*sandbox, script).await?,
        "/etc/passwd\n",
    )
}

async fn unchanged(trial: &Trial<'_>) -> CaseResult {
    trial.can_have_a_base().await?;
    let base = trial.tree(BASE)?;
    let before = base.lines()?;
    let sandbox = trial.on(&base).await?;
    write(&*sandbox, "file", "changed").await?;
    let script = "echo more >> dir/secret; rm run; mv twin moved; chmod 700 dir; ln dir/sub/deep linked; \
                  touch -d @1 other; mkdir made; rm -r dir/sub; ln -sf nowhere link; : > made/file; \
                  rm -rf dir; echo again > dir; chmod 000 other";
    shell(&*sandbox, script).await?;
    let now = "dir file link linked made moved other out";
    equal("its names now", names(&*sandbox, ".").await?.join(" "), now)?;
    equal("what changed", &read(&*sandbox, "file").await?[..], b"changed")?;
    equal("the base", base.lines()?, before)
}

async fn apart(trial: &Trial<'_>) -> CaseResult {
    trial.can_have_a_base().await?;
    let base = trial.tree(BASE)?;
    let (one, other) = (trial.on(&base).await?, trial.on(&base).await?);
    shell(&*one, "echo one > file; rm twin; echo x > only-one").await?;
    shell(&*other, "echo two > file; echo x > only-two").await?;
    let script = "cat file; ls twin only-* 2>&-; :";
    equal("the first", shell(&*one, script).await?, "one\nonly-one\n")?;
    equal("the second", shell(&*other, script).await?, "two\nonly-two\ntwin\n")?;
    let third = trial.on(&base).await?;
    equal("a third", shell(&*third, script).await?, "basetwin\n")
}

async fn removed(trial: &Trial<'_>) -> CaseResult {
    trial.can_have_a_base().await?;
    let base = trial.tree(BASE)?;
    let before = base.lines()?;
    let sandbox = trial.on(&base).await?;
    sandbox.files().remove(&super::support::path("dir")?, true).await?;
    shell(&*sandbox, "[ ! -e dir ] && mkdir dir").await?;
    equal("a directory in its place", names(&*sandbox, "dir").await?.len(), 0)?;
    shell(&*sandbox, "rm file && mkdir file && [ -z \"$(ls -A file)\" ]").await?;
    shell(&*sandbox, "rmdir dir && echo file > dir && rm dir && [ ! -e dir ]").await?;
    equal("the base", base.lines()?, before)
}

async fn renamed(trial: &Trial<'_>) -> CaseResult {
    trial.can_have_a_base().await?;
    let base = trial.tree(BASE)?;
    let sandbox = trial.on(&base).await?;
    equal(
        "a file",
        shell(&*sandbox, "mv file dir/moved && cat dir/moved && ls file 2>&-; :").await?,
        "base",
    )?;
    // Programs that move know what to do about it.
    let script = "mv dir moved && cat moved/sub/deep moved/moved && ls -d dir 2>&-; :";
    equal("a directory, by mv", shell(&*sandbox, script).await?, "deepbase")?;
    // What was made here is renamed like anywhere.
    shell(&*sandbox, "mkdir -p own/below && mv own own2 && [ -d own2/below ]").await?;
    Ok(())
}

async fn linked(trial: &Trial<'_>) -> CaseResult {
    trial.can_have_a_base().await?;
    let base = trial.tree(BASE)?;
    let sandbox = trial.on(&base).await?;
    equal("both names", shell(&*sandbox, "cat twin other").await?, "samesame")?;
    equal("the written one", shell(&*sandbox, "echo new > twin; cat twin").await?, "new\n")?;
    let other = shell(&*sandbox, "cat other").await?;
    holds("the other one", other == "same" || other == "new\n", "as before, or the same", &other)?;
    let script = "ln run hard && echo x >> hard && cmp run hard && stat -c %h run";
    equal("a link that is made here", shell(&*sandbox, script).await?, "2\n")
}

async fn executed(trial: &Trial<'_>) -> CaseResult {
    trial.can_have_a_base().await?;
    let base =
        trial.tree(&["755 run: #!/bin/sh\necho ran", "6755 set: #!/bin/sh\nid -u; id -g"])?;
    let sandbox = trial.on(&base).await?;
    equal("a program", shell(&*sandbox, "./run").await?, "ran\n")?;
    let script = "cp $(command -v id) own 2>&-; chmod 6755 own; \
                  [ \"$(./set)\" = \"$(id -u; id -g)\" ] && [ \"$(./own -u)\" = \"$(id -u)\" ]";
    shell(&*sandbox, script).await.map(drop)
}

async fn one_file_system(trial: &Trial<'_>) -> CaseResult {
    trial.can_have_a_base().await?;
    let base = trial.tree(BASE)?;
    let sandbox = trial.on(&base).await?;
    shell(&*sandbox, "echo x > own; echo y > file").await?;
    let devices = shell(&*sandbox, "find . -exec stat -c %d {} + | sort -u | wc -l").await?;
    equal("its device numbers", devices.trim(), "1")?;
    let numbers =
        shell(&*sandbox, "find . -type f -exec stat -c '%i %h' {} + | grep ' 1$' | sort | uniq -d")
            .await?;
    equal("inode numbers that two files have", numbers, "")
}

async fn limit(trial: &Trial<'_>) -> CaseResult {
    const LIMIT: u64 = 4 << 20;
    trial.can_have_a_base().await?;
    let base = trial.tree(&["small: x"])?;
    let large = vec![b'x'; usize::try_from(2 * LIMIT).unwrap_or_default()];
    std::fs::write(base.path().join("large"), &large)
        .map_err(|error| super::host_tree::host_failed(&error))?;
    let sandbox = trial.on_with(&base, |spec| spec.limits.disk_bytes = LIMIT).await?;
    let size = shell(&*sandbox, "wc -c < large").await?;
    equal("what is read", size.trim(), (2 * LIMIT).to_string())?;
    // By an error, or by the signal of a process that writes more than it may.
    let script = "(echo y >> large) && echo grew; echo y >> small && cat small";
    let told = super::support::run(&*sandbox, crate::ExecRequest::shell(script)).await?;
    equal("a file that does not fit, and one that does", told.text(), "xy\n")?;
    let full = bytes::Bytes::from(vec![0; usize::try_from(LIMIT).unwrap_or_default()]);
    let path = super::support::path("full")?;
    let written = sandbox.files().write(&path, full, &WriteOptions::default()).await;
    refused("a full disk", written, Some(errno::ENOSPC))?;
    shell(&*sandbox, "rm large && echo room > room").await.map(drop)
}

async fn kept(trial: &Trial<'_>) -> CaseResult {
    trial.can_have_a_base().await?;
    let base = trial.tree(BASE)?;
    let before = base.lines()?;
    for _ in 0..3 {
        let sandbox = trial.on(&base).await?;
        shell(&*sandbox, "rm -rf dir; echo x > file").await?;
        sandbox.close().await?;
    }
    equal("the base", base.lines()?, before)?;
    std::fs::remove_dir_all(base.path()).map_err(|error| super::host_tree::host_failed(&error))
}

async fn host_sees_whole(trial: &Trial<'_>) -> CaseResult {
    trial.can("host_workspace", |found| found.host_workspace).await?;
    let sandbox = trial.sandbox().await?;
    let layer = layer(&*sandbox)?;
    equal("its kind", layer.kind, HostLayerKind::Whole)?;
    equal("an empty workspace", layer_lines(&layer)?.len(), 0)?;
    shell(&*sandbox, "mkdir a; echo x > a/file; ln -s a/file link; echo y > $HOME/z; echo y > ${TMPDIR:-/tmp}/z; chmod 640 a/file")
        .await?;
    let expected = ["a/", "a/file 640: x\n", "link -> a/file"];
    equal("what is in it", layer_lines(&layer)?, expected)
}

async fn host_sees_changes(trial: &Trial<'_>) -> CaseResult {
    trial.can_have_a_base().await?;
    trial.can("host_workspace", |found| found.host_workspace).await?;
    let base = trial.tree(BASE)?;
    let sandbox = trial.on(&base).await?;
    let layer = layer(&*sandbox)?;
    equal("its kind", layer.kind, HostLayerKind::Upper)?;
    shell(&*sandbox, "cat file run > /dev/null; ls -lR > /dev/null").await?;
    equal("after reading", layer_lines(&layer)?.len(), 0)?;
    let script = "echo more >> file; rm run; chmod 640 dir/secret; mkdir made; echo x > made/file; \
                  rm -r dir/sub; mv twin moved";
    shell(&*sandbox, script).await?;
    let expected = [
        "dir/",
        "dir/secret 640: hidden",
        "dir/sub removed",
        "file 644: basemore\n",
        "made/",
        "made/file 644: x\n",
        "moved 644: same",
        "run removed",
        "twin removed",
    ];
    equal("what changed", layer_lines(&layer)?, expected)
}

async fn attached(trial: &Trial<'_>) -> CaseResult {
    trial.can_have_a_base().await?;
    trial.can("linger", |found| found.linger).await?;
    trial.can("host_workspace", |found| found.host_workspace).await?;
    let base = trial.tree(BASE)?;
    let mut spec = trial.spec.clone();
    spec.linger = Duration::from_secs(60);
    spec.base = Some(WorkspaceBase::new(base.path()));
    let sandbox = trial.backend.create(&spec).await?;
    shell(&*sandbox, "echo more >> file").await?;
    equal("before", layer_lines(&layer(&*sandbox)?)?, ["file 644: basemore\n"])?;
    let state = sandbox.state();
    drop(sandbox);
    for round in ["first", "second"] {
        let sandbox = trial.backend.attach(&state).await?;
        let layer = layer(&*sandbox)?;
        equal("its kind", layer.kind, HostLayerKind::Upper)?;
        equal(round, layer_lines(&layer)?, ["file 644: basemore\n"])?;
        if trial.backend.capabilities().await?.freeze {
            let Some(freezer) = sandbox.freezer() else {
                return Err(mismatch("the freezer", "there, as the backend says", &"none"));
            };
            let frozen = freezer.freeze(crate::DEFAULT_FREEZE).await?;
            holds("the thaw", frozen.thaw().await?, "to say that nothing moved", &false)?;
            // Whoever leaves lets go on what it has stopped.
            drop(freezer.freeze(Duration::from_secs(60)).await?);
        }
        drop(sandbox);
    }
    let sandbox = trial.adopt(trial.backend.attach(&state).await?);
    equal("what is inside", shell(&*sandbox, "cat file").await?, "basemore\n")
}

async fn host_sees_on(trial: &Trial<'_>) -> CaseResult {
    trial.can("host_workspace", |found| found.host_workspace).await?;
    trial.needs(crate::Wall::WallTimeLimit).await?;
    let sandbox = trial.sandbox_with(|spec| spec.limits.wall_time = Duration::from_secs(3)).await?;
    shell(&*sandbox, "echo kept > file").await?;
    let lost = sandbox.lost().await;
    let expected = matches!(lost, SandboxError::Lost { reason: LossReason::WallTime });
    holds("its end", expected, "LossReason::WallTime", &lost)?;
    equal("after its end", layer_lines(&layer(&*sandbox)?)?, ["file 644: kept\n"])?;
    sandbox.close().await?;
    match sandbox.host_workspace().map(|workspace| workspace.layer().map(drop)) {
        None | Some(Err(SandboxError::Lost { .. })) => Ok(()),
        other => Err(mismatch("after close", "SandboxError::Lost", &other)),
    }
}
