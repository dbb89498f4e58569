//! Several layers: what each hides of those below, merged and listed.

use std::{os::unix::fs::MetadataExt, path::Path};

use cofferdam_image::ImageEntry;
use cofferdam_testkit::{ImageBuilder, LayerBuilder};

use crate::kit::{Place, lines, tree};

fn three_layers() -> ImageBuilder {
    ImageBuilder::new()
        .layer(
            LayerBuilder::new()
                .directory("bin")
                .file_with_mode("bin/sh", 0o4755, b"shell")
                .file_with_mode("bin/secret", 0o600, b"for all")
                .link("lib", "usr/lib")
                .directory("usr")
                .file("usr/lib/old.so", b"old")
                .file("usr/lib/kept.so", b"kept")
                .file("etc/motd", b"first")
                .file("opt/a/b/c", b"deep")
                .file("srv/data", b"data"),
        )
        .layer(
            LayerBuilder::new()
                .file("usr/lib/.wh.old.so", b"")
                .file("etc/.wh..wh..opq", b"")
                .file("etc/hosts", b"second")
                .file("opt/.wh.a", b"")
                .file("lib/new.so", b"a directory now")
                .hard_link("lib/again.so", "lib/new.so")
                .file(".wh.srv", b""),
        )
        .layer(
            LayerBuilder::new()
                .file("etc/motd", b"third")
                .file("opt/a/x", b"new")
                .file("srv", b"a file now"),
        )
}

#[test]
fn what_a_layer_hides_is_gone() {
    let place = Place::new();
    let root = place.root(&three_layers()).expect("a root");
    let merged = root.merged().expect("merged");
    insta::assert_snapshot!(lines(merged.path()), @"
    bin: directory
    bin/secret: 644 for all
    bin/sh: 755 shell
    etc: directory
    etc/hosts: 644 second
    etc/motd: 644 third
    lib: directory
    lib/again.so: 644 a directory now
    lib/new.so: 644 a directory now
    opt: directory
    opt/a: directory
    opt/a/x: 644 new
    srv: 644 a file now
    usr: directory
    usr/lib: directory
    usr/lib/kept.so: 644 kept
    ");
}

#[test]
fn listing_says_what_merging_makes() {
    let place = Place::new();
    let root = place.root(&three_layers()).expect("a root");
    let merged = root.merged().expect("merged").path().to_owned();
    for directory in ["", "usr/lib", "etc", "opt", "opt/a", "opt/a/b", "lib", "srv", "none"] {
        let listed: Vec<String> = root
            .list(Path::new(directory))
            .expect("listed")
            .into_iter()
            .map(|(name, entry)| match entry {
                ImageEntry::Directory => format!("{}: directory", name.display()),
                ImageEntry::Link(to) => format!("{}: link to {}", name.display(), to.display()),
                ImageEntry::File(_) => format!("{}: file", name.display()),
                other => panic!("{other:?}"),
            })
            .collect();
        let path = merged.join(directory);
        let made: Vec<String> = if path.is_dir() {
            let entries = tree(&path).into_iter().filter(|(name, _)| !name.contains('/'));
            entries
                .map(|(name, what)| match what.as_str() {
                    what if what == "directory" || what.starts_with("link") => {
                        format!("{name}: {what}")
                    }
                    _ => format!("{name}: file"),
                })
                .collect()
        } else {
            Vec::new()
        };
        assert_eq!(listed, made, "{directory:?}");
    }
}

#[test]
fn a_link_of_a_layer_does_not_lead_a_listing_to_the_host() {
    let place = Place::new();
    let image = ImageBuilder::new()
        .layer(LayerBuilder::new().file("etc/one", b""))
        .layer(LayerBuilder::new().link("etc", "/etc").link("var", "/var"));
    let root = place.root(&image).expect("a root");
    for directory in ["etc", "var", "var/lib"] {
        assert!(root.list(Path::new(directory)).expect("listed").is_empty(), "{directory}");
    }
}

#[test]
fn layers_are_stacked_uppermost_first_and_without_those_that_show_nothing() {
    let place = Place::new();
    let image = ImageBuilder::new()
        .layer(LayerBuilder::new().file("below", b""))
        .layer(LayerBuilder::new().file(".wh..wh..opq", b"").file("low", b""))
        .layer(LayerBuilder::new())
        .layer(LayerBuilder::new().file("high", b""));
    let root = place.root(&image).expect("a root");
    let stack = root.stack().expect("stackable");
    let tops: Vec<_> = stack.iter().map(|tree| lines(tree)).collect();
    assert_eq!(tops, ["high: 644 ", "low: 644 "]);
    assert_eq!(lines(root.merged().expect("merged").path()), "high: 644 \nlow: 644 ");
}

#[test]
fn one_layer_with_marks_is_not_shown_as_it_is() {
    let place = Place::new();
    let with_marks = LayerBuilder::new().file("a", b"").file(".wh.b", b"");
    let root = place.unpack(with_marks).expect("a root");
    assert_eq!(root.stack(), None);
    assert_eq!(lines(root.merged().expect("merged").path()), "a: 644 ");
    let without = place.unpack(LayerBuilder::new().file("a", b"")).expect("a root");
    assert_eq!(without.stack().expect("stackable").len(), 1);
}

#[test]
fn an_image_without_files_is_an_empty_root() {
    let place = Place::new();
    let root = place.root(&ImageBuilder::new()).expect("a root");
    assert_eq!(root.stack(), None);
    assert_eq!(lines(root.merged().expect("merged").path()), "");
}

#[test]
fn what_a_layer_hides_and_makes_again_is_new() {
    let place = Place::new();
    let below = LayerBuilder::new().file("d/old", b"").file("f/old", b"").file("e/old", b"");
    // Whiteouts before and after what replaces it.
    let above = LayerBuilder::new()
        .file(".wh.d", b"")
        .directory("d")
        .file("d/new", b"")
        .file(".wh.f", b"")
        .file("f", b"a file")
        .file("e/new", b"")
        .file(".wh.e", b"");
    let root = place.root(&ImageBuilder::new().layer(below).layer(above)).expect("a root");
    let expect = "d: directory\nd/new: 644 \ne: directory\ne/new: 644 \nf: 644 a file";
    assert_eq!(lines(root.merged().expect("merged").path()), expect);
}

#[test]
fn merged_files_are_those_of_the_layers() {
    let place = Place::new();
    let root = place.root(&three_layers()).expect("a root");
    let merged = root.merged().expect("merged").path().to_owned();
    let inode = |path: &Path| std::fs::metadata(path).expect("a file").ino();
    let lowest = root.stack().expect("stackable").pop().expect("a layer");
    assert_eq!(inode(&merged.join("bin/sh")), inode(&lowest.join("bin/sh")));
}

#[test]
fn all_of_a_root_can_be_read_whatever_the_umask_is() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let root = place.root(&three_layers());
    let merged = root.as_ref().map(|root| root.merged());
    rustix::process::umask(before);
    let merged = merged.expect("a root").expect("merged");
    let stack = root.as_ref().expect("a root").stack().expect("stackable");
    for tree in stack.iter().map(|tree| tree.as_path()).chain([merged.path()]) {
        for path in tree_paths(tree) {
            let found = std::fs::symlink_metadata(&path).expect("something");
            let mode = found.permissions().mode() & 0o777;
            let is_open = if found.is_dir() { mode == 0o755 } else { mode & 0o444 == 0o444 };
            assert!(is_open || !(found.is_dir() || found.is_file()), "{mode:o} {}", path.display());
        }
    }
}

/// Returns a tree and every path in it.
fn tree_paths(root: &Path) -> Vec<std::path::PathBuf> {
    let below = tree(root).into_keys().map(|name| root.join(name));
    std::iter::once(root.to_owned()).chain(below).collect()
}
