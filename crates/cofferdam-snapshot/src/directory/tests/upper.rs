//! The upper directories of overlays that a kernel has really mounted, as root and in a user namespace.

use std::{fs, process::Command};

use super::support::{Collected, Place, collect, path};
use crate::{DirectorySource, SnapshotId, source::Coverage};

/// An overlay over a lower directory; scripts run in what is mounted.
struct Overlay {
    place: Place,
    rootless: bool,
}

impl Overlay {
    /// Makes one, or says why none can be mounted here.
    fn new(rootless: bool, lower: &str) -> Option<Self> {
        let place = Place::new();
        for name in ["lower", "work", "merged"] {
            fs::create_dir(place.directory.path().join(name)).unwrap();
        }
        super::support::sh(&place.directory.path().join("lower"), lower);
        let overlay = Self { place, rootless };
        match overlay.run(":") {
            Ok(()) => Some(overlay),
            Err(why) => {
                println!("skipped: no overlay can be mounted: {why}");
                None
            }
        }
    }

    /// Runs a script in the merged tree, in a mount namespace that ends with it.
    fn run(&self, script: &str) -> Result<(), String> {
        let (flags, option) = if self.rootless { ("-Urm", ",userxattr") } else { ("-m", "") };
        let mount = format!(
            "mount -t overlay overlay -o lowerdir=lower,upperdir=tree,workdir=work{option} merged && cd merged"
        );
        let output = Command::new("unshare")
            .args([flags, "sh", "-euc", &format!("{mount}\n{script}")])
            .current_dir(self.place.directory.path())
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn source(&self) -> DirectorySource {
        let base = "base@1".parse::<SnapshotId>().unwrap();
        let upper = fs::File::open(self.place.tree()).unwrap().into();
        DirectorySource::upper(upper, base, self.place.options())
    }

    async fn take(&mut self) -> Collected {
        let source = self.source();
        self.place.take_of(&source).await
    }
}

const LOWER: &str = "mkdir -p keep/deep gone replaced/sub cleared/sub opened
    for d in keep keep/deep gone replaced replaced/sub cleared cleared/sub; do echo lower > $d/file; done
    echo lower > top; ln -s top link; echo lower > kept; ln kept kept-too";

const CHANGES: &str = "echo new > keep/new; echo changed > keep/deep/file; rm -r gone; rm link
    rm -r replaced; mkdir -p replaced/sub; echo new > replaced/sub/other
    rm cleared/file; mkdir -p fresh/inner; echo x > fresh/inner/file; ln fresh/inner/file fresh/second
    rm -r cleared/sub; echo file > cleared/sub; chmod 711 opened; mv top moved";

fn names(found: &Collected) -> Vec<String> {
    found.entries.keys().map(ToString::to_string).collect()
}

async fn changes_are_listed(rootless: bool) {
    let Some(mut overlay) = Overlay::new(rootless, LOWER) else {
        return;
    };
    overlay.run(CHANGES).unwrap();
    overlay.place.settle();
    let found = overlay.take().await;
    assert_eq!(found.coverage, Some(Coverage::ChangesTo("base@1".parse().unwrap())));
    let mut removed = found.removed.clone();
    removed.sort();
    assert_eq!(removed, ["cleared/file", "gone", "link", "top"]);
    assert_eq!(
        names(&found),
        [
            "cleared",
            "cleared/sub",
            "fresh",
            "fresh/inner",
            "fresh/inner/file",
            "fresh/second",
            "keep",
            "keep/deep",
            "keep/deep/file",
            "keep/new",
            "moved",
            "opened",
            "replaced",
            "replaced/sub",
            "replaced/sub/other",
        ]
    );
    // What hides all that was below is listed whole, and so is what is new in it.
    let mut complete = found.complete.clone();
    complete.retain(|path| !path.starts_with("fresh"));
    assert_eq!(complete, ["replaced", "replaced/sub"]);
    assert_eq!(found.skipped, []);
    assert_eq!(found.entries[&path("opened")].0.mode, 0o711);

    // The second time, what has not changed since the first is known.
    overlay.place.settle();
    assert_eq!(overlay.take().await.read, Vec::<String>::new());
    overlay.run("echo more >> keep/new; echo again > kept; rm moved").unwrap();
    let found = overlay.take().await;
    assert_eq!(found.read, ["kept", "keep/new"]);
    // A file of the upper alone leaves nothing behind.
    assert!(!names(&found).contains(&"moved".to_owned()));
    assert!(!found.removed.contains(&"moved".to_owned()));
}

#[tokio::test]
async fn changes_are_listed_as_root() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root mounts an overlay outside a user namespace");
        return;
    }
    changes_are_listed(false).await;
}

#[tokio::test]
async fn changes_are_listed_in_a_user_namespace() {
    changes_are_listed(true).await;
}

#[tokio::test]
async fn an_empty_upper_is_no_change() {
    let Some(mut overlay) = Overlay::new(true, LOWER) else {
        return;
    };
    let found = overlay.take().await;
    assert_eq!((names(&found), found.removed, found.complete), (vec![], vec![], vec![]));
}

#[tokio::test]
async fn a_whiteout_is_only_one_in_an_upper_directory() {
    let Some(overlay) = Overlay::new(true, LOWER) else {
        return;
    };
    overlay.run("rm top").unwrap();
    let whole = DirectorySource::open(&overlay.place.tree(), overlay.place.options()).unwrap();
    let found = collect(&whole, None).await.unwrap();
    assert_eq!(found.removed, Vec::<String>::new());
    assert_eq!(found.skipped, [("top".to_owned(), crate::SkipReason::Special)]);
}
