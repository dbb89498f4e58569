//! Where images come from: layouts, archives old and new, tar files; which one of several; for which machine.

use std::fs;

use cofferdam_image::{ImageError, ImageRoot};
use cofferdam_testkit::{ImageBuilder, LayerBuilder, Packing, image::write_layout};

use crate::kit::{Place, lines};

fn image(content: &str) -> ImageBuilder {
    ImageBuilder::new().layer(LayerBuilder::new().file("which", content.as_bytes()))
}

fn which(root: Result<ImageRoot, ImageError>) -> String {
    match root {
        Ok(root) => lines(root.merged().expect("merged").path()).replace("which: 644 ", ""),
        Err(error) => error.to_string(),
    }
}

/// Writes a tar file of a layout, as newer programs save images.
fn layout_archive(place: &Place, images: &[(Option<&str>, &ImageBuilder)]) -> Vec<u8> {
    let directory = tempfile::tempdir_in(place.directory.path()).expect("a directory");
    write_layout(directory.path(), images);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all(".", directory.path()).expect("archived");
    archive.into_inner().expect("in memory")
}

#[test]
fn a_layout_has_images_by_name() {
    let place = Place::new();
    let layout = place.path("layout");
    let (one, two) = (image("one"), image("two"));
    write_layout(&layout, &[(Some("a:1"), &one), (Some("docker.io/library/b:latest"), &two)]);
    let root = |name: Option<&str>| which(place.cache.from_layout(&layout, name));
    assert_eq!(root(Some("a:1")), "one");
    assert_eq!(root(Some("b")), "two");
    assert_eq!(root(two.parts().manifest["digest"].as_str()), "two");
    insta::assert_snapshot!(root(None), @"there are several images; known: a:1, docker.io/library/b:latest");
    insta::assert_snapshot!(root(Some("c")), @r#"there is no image "c"; known: a:1, docker.io/library/b:latest"#);
    write_layout(&layout, &[(None, &one)]);
    assert_eq!(root(None), "one");
    insta::assert_snapshot!(root(Some("a:1")), @r#"there is no image "a:1""#);
}

#[test]
fn the_image_for_this_machine_is_taken() {
    let place = Place::new();
    let layout = place.path("layout");
    let other = image("other").architecture("s390x");
    write_layout(&layout, &[(None, &other), (None, &image("this"))]);
    assert_eq!(which(place.cache.from_layout(&layout, None)), "this");
    write_layout(&layout, &[(None, &other)]);
    let error = place.cache.from_layout(&layout, None).expect_err("for another machine");
    assert!(
        matches!(&error, ImageError::Platform { found, .. } if *found == ["linux/s390x"]),
        "{error}"
    );
    fs::write(place.path("saved.tar"), other.saved("a:1")).expect("written");
    let error = place.cache.from_archive(&place.path("saved.tar"), None).expect_err("refused");
    assert!(matches!(error, ImageError::Platform { .. }), "{error}");
}

#[test]
fn archives_of_both_forms_are_read_packed_and_plain() {
    let place = Place::new();
    let file = place.path("image.tar");
    let image = image("this");
    for bytes in [image.saved("a:1"), layout_archive(&place, &[(Some("a:1"), &image)])] {
        for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
            fs::write(&file, packing.pack(&bytes)).expect("written");
            for name in [None, Some("a:1"), Some("docker.io/library/a:1")] {
                assert_eq!(which(place.cache.from_archive(&file, name)), "this", "{packing:?}");
            }
            let error = place.cache.from_archive(&file, Some("a:2")).expect_err("another name");
            assert!(matches!(error, ImageError::NotFound { .. }), "{error}");
        }
    }
    assert_eq!(place.shelf("new"), Vec::<std::path::PathBuf>::new());
}

#[test]
fn equal_layers_may_be_saved_once() {
    let place = Place::new();
    let file = place.path("saved.tar");
    let layer = LayerBuilder::new().file("which", b"this").build();
    let config = serde_json::json!({
        "os": "linux",
        "architecture": cofferdam_image::Platform::host().architecture,
        "rootfs": {"diff_ids": [cofferdam_testkit::image::digest(&layer)]},
    });
    let manifest = r#"[{"Config":"c.json","RepoTags":null,"Layers":["two/layer.tar"]}]"#;
    let archive = LayerBuilder::new()
        .file("one/layer.tar", &layer)
        .link("two/layer.tar", "../one/layer.tar")
        .file("c.json", config.to_string().as_bytes())
        .file("manifest.json", manifest.as_bytes());
    fs::write(&file, archive.build()).expect("written");
    assert_eq!(which(place.cache.from_archive(&file, None)), "this");
}

#[test]
fn a_tar_file_is_a_root() {
    let place = Place::new();
    let file = place.path("root.tar");
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let content = format!("{packing:?}");
        let layer = LayerBuilder::new().file("./which", content.as_bytes());
        fs::write(&file, packing.pack(&layer.build())).expect("written");
        assert_eq!(which(place.cache.from_root_archive(&file)), content);
        // Not read again, and seen when it changes.
        assert_eq!(which(place.cache.from_root_archive(&file)), content);
    }
    assert_eq!(place.shelf("layers").len(), 3);
}

#[test]
fn what_is_no_image_is_told() {
    let place = Place::new();
    fs::write(place.path("text"), "no image").expect("written");
    fs::write(place.path("empty.tar"), LayerBuilder::new().build()).expect("written");
    fs::create_dir(place.path("directory")).expect("made");
    let archive = |name| which(place.cache.from_archive(&place.path(name), None));
    let text = [
        archive("text"),
        archive("empty.tar"),
        archive("directory"),
        archive("missing"),
        which(place.cache.from_layout(&place.path("directory"), None)),
        which(place.cache.from_layout(&place.path("missing"), None)),
        which(place.cache.from_root_archive(&place.path("text"))),
        which(place.cache.from_root_archive(&place.path("directory"))),
    ]
    .join("\n");
    let place = place.directory.path().to_str().expect("text");
    insta::assert_snapshot!(text.replace(place, "PLACE"), @r#"
    PLACE/text is malformed: failed to read entire block
    there is no index.json or manifest.json of an image in "PLACE/empty.tar"
    PLACE/directory is malformed: it is no file
    cannot read PLACE/missing
    there is no index.json or manifest.json of an image in "PLACE/directory"
    cannot read PLACE/missing
    PLACE/text is malformed: failed to read entire block
    PLACE/directory is malformed: it is no file
    "#);
}

#[test]
fn the_search_path_is_that_of_the_image() {
    let place = Place::new();
    let with = image("this").variable("SECRET=1").variable("PATH=/opt/tool/bin:/bin");
    let root = place.root(&with).expect("a root");
    assert_eq!(root.search_path(), Some("/opt/tool/bin:/bin"));
    fs::write(place.path("saved.tar"), with.saved("a:1")).expect("written");
    for _ in 0..2 {
        let root = place.cache.from_archive(&place.path("saved.tar"), None).expect("a root");
        assert_eq!(root.search_path(), Some("/opt/tool/bin:/bin"));
    }
    assert_eq!(place.root(&image("this")).expect("a root").search_path(), None);
}
