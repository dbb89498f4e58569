//! Cases on generated data: trees that go in and come out, and operations compared with a model of them.
//!
//! The generator has a fixed seed for each turn, which a failure names, so that what failed once fails again.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt as _, stream};

use super::{
    case_table,
    layout::{Whole, download},
    model::{Model, Operation},
    support::{CaseResult, Random, equal, holds, mismatch, path},
    trial::{Stop, Trial},
};
use crate::{DownloadOptions, ListOptions, SandboxError, TreeEntry, TreeEntryKind, TreeEvent};

case_table! { "generated":
    trees: "generated trees of odd names, modes, times, links and sizes come out as they went in",
    trees_again: "what came out of a download goes in again and comes out the same",
    operations: "after each of many generated operations, the workspace is what a model says",
}

/// Returns a name that is seldom plain.
fn name(random: &mut Random) -> Vec<u8> {
    let length = match random.below(10) {
        0 => 255,
        1 => 100,
        _ => 1 + random.below(8),
    };
    let alphabet: &[u8] = match random.below(4) {
        0 => b"ab",
        1 => b" .-\n\t*?'\"$\\;|&",
        2 => b"\xff\x80\xc3\xbc\xe2",
        _ => b"abcXYZ019_",
    };
    let name: Vec<u8> = (0..length).map(|_| alphabet[random.below(alphabet.len())]).collect();
    if matches!(&*name, b"." | b"..") { b"dots".to_vec() } else { name }
}

/// Makes a tree, in the order in which a download tells it.
fn tree(random: &mut Random, above: &[u8], levels: usize, found: &mut Vec<Whole>) {
    let names: std::collections::BTreeSet<_> = (0..random.below(7)).map(|_| name(random)).collect();
    for name in names {
        let path = if above.is_empty() { name } else { [above, b"/", &name].concat() };
        let modified_ns = Some(match random.below(4) {
            0 => 0,
            1 => -86_400_000_000_000,
            2 => 4_102_444_800_000_000_001,
            _ => 1_700_000_000_000_000_000 + i64::from(random.next_u32()),
        });
        let (kind, mode, content) = match random.below(4) {
            0 if levels > 0 => {
                (TreeEntryKind::Directory, [0o755, 0o700, 0o1777][random.below(3)], vec![])
            }
            1 => {
                let target =
                    if random.below(2) == 0 { b"/etc/passwd".to_vec() } else { self::name(random) };
                (TreeEntryKind::Link { target }, 0o777, vec![])
            }
            _ => {
                let size = [0, 1, 4096, 70_000][random.below(4)] + random.below(3);
                let content = random.bytes(size);
                let mode = [0o644, 0o755, 0o600, 0o444, 0o640][random.below(5)];
                (TreeEntryKind::File { size: size as u64 }, mode, content)
            }
        };
        let is_directory = kind == TreeEntryKind::Directory;
        found.push((TreeEntry { path: path.clone(), mode, modified_ns, kind }, content));
        if is_directory {
            tree(random, &path, levels - 1, found);
        }
    }
}

fn events(random: &mut Random, tree: &[Whole]) -> Vec<TreeEvent> {
    let mut events = Vec::new();
    for (entry, content) in tree {
        events.push(TreeEvent::Entry(entry.clone()));
        let mut rest = Bytes::copy_from_slice(content);
        while !rest.is_empty() {
            let piece = rest.split_to((1 + random.below(20_000)).min(rest.len()));
            events.push(TreeEvent::Content(piece));
        }
    }
    events
}

/// Demands that a tree is another one. A link's own mode means nothing.
fn same(what: &str, found: Vec<Whole>, expected: &[Whole]) -> CaseResult {
    equal(&format!("{what}: the entries"), found.len(), expected.len())?;
    for ((mut entry, content), (wanted, wanted_content)) in found.into_iter().zip(expected) {
        if let TreeEntryKind::Link { .. } = entry.kind {
            entry.mode = wanted.mode;
        }
        equal(what, &entry, wanted)?;
        let shown = String::from_utf8_lossy(&entry.path).into_owned();
        holds(
            &format!("{what}: {shown:?}"),
            content == *wanted_content,
            "its content",
            &content.len(),
        )?;
    }
    Ok(())
}

async fn trees(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    for seed in 1..=25 {
        let mut random = Random::new(seed);
        let mut expected = Vec::new();
        tree(&mut random, b"", 4, &mut expected);
        let target = format!("t{seed}");
        let entries = stream::iter(events(&mut random, &expected).into_iter().map(Ok)).boxed();
        let made = sandbox.tree().upload(&path(&target)?, entries).await?;
        let what = format!("the tree of seed {seed}");
        equal(&what, made, expected.len() as u64)?;
        same(&what, download(&*sandbox, &target).await?, &expected)?;
        sandbox.files().remove(&path(&target)?, true).await?;
    }
    Ok(())
}

async fn trees_again(trial: &Trial<'_>) -> CaseResult {
    let (one, two) = (trial.sandbox().await?, trial.sandbox().await?);
    for seed in 101..=110 {
        let mut random = Random::new(seed);
        let mut expected = Vec::new();
        tree(&mut random, b"", 3, &mut expected);
        let target = path(&format!("t{seed}"))?;
        let entries = stream::iter(events(&mut random, &expected).into_iter().map(Ok)).boxed();
        one.tree().upload(&target, entries).await?;
        let entries = one.tree().download(&target, &DownloadOptions::default()).await?;
        two.tree().upload(&target, entries).await?;
        let what = format!("the tree of seed {seed}, carried over");
        same(&what, download(&*two, target.as_str()).await?, &expected)?;
    }
    Ok(())
}

async fn operations(trial: &Trial<'_>) -> CaseResult {
    for seed in 1..=8 {
        let sandbox = trial.sandbox().await?;
        let mut random = Random::new(seed);
        let mut model = Model::default();
        for step in 0..60 {
            let operation = Operation::generate(&mut random);
            let what = format!("seed {seed}, step {step}: {operation:?}");
            let expected = model.apply(&operation);
            let found = operation.perform(&*sandbox).await;
            match (&found, &expected) {
                (Ok(()), Ok(())) => {}
                (Err(SandboxError::File { errno, .. }), Err(numbers))
                    if numbers.contains(errno) => {}
                _ => return Err(mismatch(&what, &format!("{expected:?}"), &found)),
            }
            let options = ListOptions { depth: 10, ..ListOptions::default() };
            let listing = sandbox.files().list(&path(".")?, &options).await?;
            let listed: BTreeMap<_, _> = listing
                .entries
                .into_iter()
                .map(|entry| {
                    let metadata = entry.metadata;
                    (entry.path, (metadata.kind, metadata.mode, metadata.link_target))
                })
                .collect();
            equal(&what, listed, model.listing())?;
        }
        let found = download(&*sandbox, ".").await?;
        let contents: BTreeMap<_, _> = found
            .into_iter()
            .filter(|(entry, _)| matches!(entry.kind, TreeEntryKind::File { .. }))
            .map(|(entry, content)| (entry.path, content))
            .collect();
        equal(&format!("the contents of seed {seed}"), contents, model.contents())?;
        sandbox.close().await.map_err(Stop::from)?;
    }
    Ok(())
}
