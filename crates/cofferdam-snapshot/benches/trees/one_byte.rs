//! One byte changed in a tree of small and large files, by the upper directory of an overlay and by a scan, beside what the Agents SDK
//! takes to keep the same (`xtask/suites/agents_sdk_snapshots.py`), if that is measured in the same run.

use std::{fs, os::unix::fs::FileExt as _, path::Path};

use cofferdam_snapshot::{DirectoryOptions, DirectorySource};
use serde_json::json;

use crate::{
    kit::{Result, Store, fresh, make_tree, report_against},
    whole::time,
};

const FILES: usize = 20_000;
const SIZE: usize = 200;
const MEBIBYTES: usize = 300;
const ROUNDS: usize = 9;
const FILE: &str = "d0000/f000000.txt";
const SDK: &str = "agents sdk, unix_local: 20,000 files and 300 MiB kept after one byte changed";

fn change(tree: &Path, round: usize) -> Result<()> {
    let file = fs::File::options().write(true).open(tree.join(FILE))?;
    Ok(file.write_all_at(&round.to_le_bytes()[..1], 0)?)
}

pub(crate) async fn run() -> Result<()> {
    let place = tempfile::tempdir()?;
    let tree = fresh(place.path(), "tree")?;
    make_tree(&tree, FILES, SIZE, MEBIBYTES)?;
    let store = Store::open(&fresh(place.path(), "store")?).await?;
    let options = |cache: &str| DirectoryOptions {
        cache: Some(place.path().join(cache)),
        ..DirectoryOptions::default()
    };
    let base = store.take("scan", &DirectorySource::open(&tree, options("seen"))?).await?;
    // As an overlay has it: the file as a whole, once something in it is changed.
    let upper = fresh(place.path(), "upper")?;
    fs::create_dir(upper.join("d0000"))?;
    fs::copy(tree.join(FILE), upper.join(FILE))?;
    let (mut by_upper, mut by_scan) = (Vec::new(), Vec::new());
    let (mut objects, mut read) = ([0; 2], [0; 2]);
    for round in 0..=ROUNDS {
        change(&upper, round + 1)?;
        let layer = fs::File::open(&upper)?.into();
        let source = DirectorySource::upper(layer, base.snapshot.clone(), options("seen-upper"));
        let (took, of_upper) = time(store.take("upper", &source)).await?;
        change(&tree, round + 1)?;
        let source = DirectorySource::open(&tree, options("seen"))?;
        let (scan_took, of_scan) = time(store.take("scan", &source)).await?;
        // The first begins a lineage, and has nothing to remember.
        if round > 0 {
            by_upper.push(took);
            by_scan.push(scan_took);
        }
        objects = [of_upper.stored.objects_put, of_scan.stored.objects_put];
        read = [of_upper.stored.files_read, of_scan.stored.files_read];
    }
    let case = "one byte changed in 20,000 files and 300 MiB";
    for (at, (how, times)) in
        [("by the upper directory", &by_upper), ("by a scan", &by_scan)].into_iter().enumerate()
    {
        let more = json!({ "objects": objects[at], "read": read[at] });
        report_against(&format!("{case}, {how}"), times, SDK, 0.01, more)?;
    }
    Ok(())
}
