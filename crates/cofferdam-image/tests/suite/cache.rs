//! The cache: made once, kept while used, bounded, safe with several users and after a crash.

use std::{fs, path::PathBuf, sync::Barrier, thread};

use cofferdam_image::{ImageCache, ImageCacheOptions, ImageError};
use cofferdam_testkit::{ImageBuilder, LayerBuilder};

use crate::kit::{Place, lines};

fn layer(name: &str, size: usize) -> LayerBuilder {
    LayerBuilder::new().file(name, &vec![b'x'; size])
}

#[test]
fn layers_are_shared() {
    let place = Place::new();
    let base = layer("base", 10);
    let one = place.root(&ImageBuilder::new().layer(base.clone()).layer(layer("one", 1)));
    let two = place.root(&ImageBuilder::new().layer(base).layer(layer("two", 1)));
    let (one, two) = (one.expect("a root"), two.expect("a root"));
    assert_eq!(one.stack().expect("stackable").pop(), two.stack().expect("stackable").pop());
    assert_eq!(place.shelf("layers").len(), 3);
}

#[test]
fn many_at_once_make_a_layer_once() {
    let place = Place::new();
    let image = ImageBuilder::new().layer(layer("a", 1 << 20)).layer(layer("b", 1 << 20));
    let saved = place.path("saved.tar");
    fs::write(&saved, image.saved("a:1")).expect("written");
    let start = Barrier::new(8);
    let directory = place.path("cache");
    let stacks: Vec<Vec<PathBuf>> = thread::scope(|scope| {
        let users: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    // As another process would.
                    let cache = ImageCache::open(&directory, ImageCacheOptions::default());
                    let root = cache.expect("a cache").from_archive(&saved, None).expect("a root");
                    root.merged().expect("merged");
                    root.stack().expect("stackable")
                })
            })
            .collect();
        users.into_iter().map(|user| user.join().expect("done")).collect()
    });
    assert!(stacks.iter().all(|stack| *stack == stacks[0]));
    assert_eq!(place.shelf("layers").len(), 2);
    assert_eq!(place.shelf("roots").len(), 1);
    assert_eq!(place.shelf("new"), Vec::<PathBuf>::new());
}

#[test]
fn what_a_crash_has_left_is_removed_and_what_is_being_made_is_not() {
    let place = Place::new();
    let new = place.path("cache/v1/new");
    fs::create_dir_all(new.join("1-1/tree/deep")).expect("made");
    fs::create_dir(new.join("1-2")).expect("made");
    let busy = fs::File::open(new.join("1-2")).expect("opened");
    rustix::fs::flock(&busy, rustix::fs::FlockOperation::LockExclusive).expect("locked");
    ImageCache::open(place.path("cache"), ImageCacheOptions::default()).expect("a cache");
    assert_eq!(place.shelf("new"), [new.join("1-2")]);
}

#[test]
fn what_was_not_used_for_longest_makes_room() {
    // Each layer is one file: its content in pages, and one page more.
    let place = Place::with(ImageCacheOptions {
        max_bytes: 3 * (40_960 + 4096),
        ..ImageCacheOptions::default()
    });
    let unpack = |name: &str| place.unpack(layer(name, 40_960));
    let is_there = |tree: &PathBuf| tree.exists();
    let a = unpack("a").expect("a root").stack().expect("a tree").remove(0);
    let b = unpack("b").expect("a root").stack().expect("a tree").remove(0);
    let c = unpack("c").expect("a root").stack().expect("a tree").remove(0);
    unpack("a").expect("used again");
    let d = unpack("d").expect("a root");
    assert_eq!([&a, &b, &c].map(is_there), [true, false, true], "b was not used for longest");
    // In use: kept, whoever else is older.
    let e = unpack("e").expect("a root");
    let f = unpack("f").expect("a root");
    assert_eq!([&a, &c].map(is_there), [false, false]);
    let error = unpack("g").expect_err("all is in use");
    assert!(matches!(error, ImageError::CacheFull { .. }), "{error}");
    for root in [&d, &e, &f] {
        assert!(is_there(&root.stack().expect("a tree")[0]));
    }
    drop(e);
    unpack("g").expect("there is room again");
    assert_eq!(place.shelf("new"), Vec::<PathBuf>::new());
}

#[test]
fn a_directory_that_others_can_write_to_is_not_trusted() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("changed");
    let error = ImageCache::open(directory.path(), ImageCacheOptions::default());
    assert!(matches!(error.expect_err("refused"), ImageError::Cache { .. }));
}

#[test]
fn an_archive_that_changed_is_read_again() {
    let place = Place::new();
    let saved = place.path("saved.tar");
    for content in ["one", "two"] {
        let layer = LayerBuilder::new().file("which", content.as_bytes());
        fs::write(&saved, ImageBuilder::new().layer(layer).saved("a:1")).expect("written");
        let root = place.cache.from_archive(&saved, None).expect("a root");
        let merged = root.merged().expect("merged");
        assert_eq!(lines(merged.path()), format!("which: 644 {content}"));
    }
}
