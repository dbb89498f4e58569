//! Ten files changed over trees of different sizes, known from the upper directory of an overlay.

use std::{fs, io::Write as _, path::Path, time::Duration};

use cofferdam_snapshot::{DirectoryOptions, DirectorySource};
use serde_json::json;

use crate::{
    kit::{Numbers, Result, Store, fresh, random, report, timed},
    synthetic::{IN_DIRECTORY, Synthetic, directory, file},
    whole::time,
};

const CHANGED: usize = 10;

/// `TREES_ROUNDS` of them, more than the usual 15 for a profile.
fn rounds() -> usize {
    std::env::var("TREES_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(15)
}

fn sizes() -> Vec<usize> {
    std::env::var("TREES_BASES")
        .ok()
        .map(|sizes| sizes.split(',').filter_map(|size| size.parse().ok()).collect())
        .unwrap_or_else(|| vec![20_000, 100_000])
}

pub(crate) async fn run() -> Result<()> {
    let mut first: Option<Vec<Duration>> = None;
    for files in sizes() {
        let place = tempfile::tempdir()?;
        let store = Store::open(&fresh(place.path(), "store")?).await?;
        let (took, base) = time(store.take("line", &Synthetic { files })).await?;
        report(
            &format!("first snapshot of {files} files in memory"),
            &[took],
            None,
            None,
            json!({}),
        )?;
        let upper = fresh(place.path(), "upper")?;
        let numbers = Numbers::new(7);
        let (mut times, mut floors) = (Vec::new(), Vec::new());
        let (mut syncs, mut put) = (0, 0);
        for round in 0..=rounds() {
            for number in 0..CHANGED {
                let inner = upper.join(directory(number * files / IN_DIRECTORY / CHANGED));
                fs::create_dir_all(&inner)?;
                fs::write(inner.join(file(number)), random(&numbers, 200))?;
            }
            let options = DirectoryOptions {
                cache: Some(place.path().join("cache")),
                ..DirectoryOptions::default()
            };
            let layer = fs::File::open(&upper)?.into();
            let source = DirectorySource::upper(layer, base.snapshot.clone(), options);
            let before = store.objects.syncs();
            let (took, receipt) = time(store.take("line", &source)).await?;
            syncs = store.objects.syncs() - before;
            put = receipt.stored.objects_put;
            let floor = timed(|| floor(&upper, place.path(), syncs))?.0;
            // The first has nothing to remember.
            if round > 0 {
                times.push(took);
                floors.push(floor);
            }
        }
        let case = format!("ten files changed over {files}, by the upper directory");
        let name = "a listing of the upper and as many syncs";
        let more = json!({ "syncs": syncs, "objects": put });
        report(&case, &times, Some((name, &floors)), Some(4.0), more)?;
        match &first {
            None => first = Some(times),
            Some(first) => {
                let case = format!("the same over {files} files, beside the first");
                report(
                    &case,
                    &times,
                    Some(("the same over the first", first)),
                    Some(1.5),
                    json!({}),
                )?;
            }
        }
    }
    Ok(())
}

/// What cannot be avoided: looking at everything in the upper directory, and waiting for the disk as often.
fn floor(upper: &Path, place: &Path, syncs: u64) -> Result<()> {
    let mut stack = vec![upper.to_owned()];
    while let Some(directory) = stack.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.metadata()?.is_dir() {
                stack.push(entry.path());
            }
        }
    }
    for number in 0..syncs {
        let mut file = fs::File::create(place.join(format!("floor-{number}")))?;
        file.write_all(&[1; 4096])?;
        file.sync_all()?;
    }
    Ok(())
}
