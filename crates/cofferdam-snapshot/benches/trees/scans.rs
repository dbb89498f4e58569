//! Ten files changed in a directory that is scanned, beside git and restic on the same tree and the same change.

use std::{fs, path::Path};

use cofferdam_snapshot::{DirectoryOptions, DirectorySource};
use serde_json::json;

use crate::{
    kit::{Numbers, Result, Store, fresh, has, make_tree, random, report, sh, skipped, timed},
    whole::time,
};

const FILES: usize = 20_000;
const CHANGED: usize = 10;
const ROUNDS: usize = 9;

fn change(tree: &Path, numbers: &Numbers) -> Result<()> {
    for number in 0..CHANGED {
        let number = number * FILES / CHANGED;
        let path = tree.join(format!("d{:04}/f{number:06}.txt", number / 100));
        fs::write(path, random(numbers, 200))?;
    }
    Ok(())
}

pub(crate) async fn run() -> Result<()> {
    let place = tempfile::tempdir()?;
    let tree = fresh(place.path(), "tree")?;
    make_tree(&tree, FILES, 200, 0)?;
    let store = Store::open(&fresh(place.path(), "store")?).await?;
    let options = || DirectoryOptions {
        cache: Some(place.path().join("cache")),
        ..DirectoryOptions::default()
    };
    let git = has("git");
    let restic = has_restic();
    let prefix = "export GIT_DIR=$PWD/git GIT_WORK_TREE=$PWD/tree GIT_CONFIG_GLOBAL=/dev/null; ";
    // As durable as the snapshot is: objects and index are on the disk when it returns.
    let durable = "git -c core.fsync=all -c core.fsyncMethod=batch";
    if git {
        sh(place.path(), &format!("{prefix} git init -q && git add -A && git write-tree"))?;
    }
    let backup = "export RESTIC_PASSWORD=x; restic -q -r repository --no-cache";
    if restic {
        sh(place.path(), &format!("{backup} init && {backup} backup tree"))?;
    }
    let numbers = Numbers::new(9);
    let mut times = [const { Vec::new() }; 4];
    let mut more = json!({});
    for round in 0..=ROUNDS {
        change(&tree, &numbers)?;
        let source = DirectorySource::open(&tree, options())?;
        let (took, receipt) = time(store.take("line", &source)).await?;
        let by_git = |command: &str| {
            let script = format!("{prefix} {command} add -A && {command} write-tree");
            git.then(|| timed(|| sh(place.path(), &script))).transpose()
        };
        let plain = by_git("git")?;
        // Once more, so that there is something to do.
        change(&tree, &numbers)?;
        let synced = by_git(durable)?;
        let by_restic = restic
            .then(|| timed(|| sh(place.path(), &format!("{backup} backup tree"))))
            .transpose()?;
        // The second change is read by the next snapshot together with the third; the first has nothing to remember.
        store.take("line", &DirectorySource::open(&tree, options())?).await?;
        if round > 0 {
            times[0].push(took);
            times[1].extend(plain.map(|(took, ())| took));
            times[2].extend(synced.map(|(took, ())| took));
            times[3].extend(by_restic.map(|(took, ())| took));
            more =
                json!({ "read": receipt.stored.files_read, "objects": receipt.stored.objects_put });
        }
    }
    let [ours, plain, synced, restic] = &times;
    let case = "ten of 20 000 files changed, by a scan";
    if plain.is_empty() {
        skipped("git", "there is no git");
        report(case, ours, None, None, more)?;
    } else {
        let floor = Some(("git add -A && git write-tree", plain.as_slice()));
        report(case, ours, floor, Some(1.5), more)?;
        let floor = Some(("the same by git, on the disk when it returns", synced.as_slice()));
        report(&format!("{case}, beside durable git"), ours, floor, None, json!({}))?;
    }
    if restic.is_empty() {
        skipped("restic", "there is no restic");
        return Ok(());
    }
    let floor = Some(("restic backup", restic.as_slice()));
    report(&format!("{case}, beside restic"), ours, floor, Some(0.1), json!({}))
}

fn has_restic() -> bool {
    std::process::Command::new("restic").arg("version").output().is_ok()
}
