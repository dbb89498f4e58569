//! Layers that want out, or that are made to be misunderstood: each is refused by name, and leaves nothing.

use std::fs;

use cofferdam_image::{EntryProblem, ImageCacheOptions, ImageError, ImageLimits};
use cofferdam_testkit::{ImageBuilder, LayerBuilder, Packing, image::header, image::write_layout};
use proptest::prelude::*;
use tar::EntryType;

use crate::kit::{Place, lines};

const LINK: EntryType = EntryType::Symlink;
const HARD: EntryType = EntryType::Link;
const FILE: EntryType = EntryType::Regular;

/// Unpacks a layer beside a file that nobody may touch, and returns what came of it.
fn check(layer: LayerBuilder) -> Result<String, ImageError> {
    let place = Place::new();
    let outside = place.path("outside");
    fs::create_dir(&outside).expect("made");
    fs::write(outside.join("canary"), "untouched").expect("written");
    let result = place.unpack(layer).map(|root| lines(root.merged().expect("merged").path()));
    assert_eq!(lines(&outside), "canary: 644 untouched");
    if result.is_err() {
        assert_eq!(place.shelf("new"), Vec::<std::path::PathBuf>::new(), "a draft is left");
        assert_eq!(place.shelf("layers"), Vec::<std::path::PathBuf>::new(), "a layer appeared");
    }
    result
}

fn problem(layer: LayerBuilder) -> EntryProblem {
    match check(layer) {
        Err(ImageError::Entry { problem, .. }) => problem,
        other => panic!("not refused as an entry: {other:?}"),
    }
}

fn one(kind: EntryType, path: &[u8], link: &[u8]) -> LayerBuilder {
    LayerBuilder::new().member(kind, path, link, 0o644, b"")
}

#[test]
fn paths_that_lead_out_are_refused() {
    let long_name = [b'n'; 256];
    let long_path = b"d/".repeat(2049);
    let deep = b"d/".repeat(200);
    for (path, expect) in [
        (b"../outside/canary".as_slice(), EntryProblem::ParentDirectory),
        (b"a/../../outside/canary", EntryProblem::ParentDirectory),
        (b"/etc/cofferdam-canary", EntryProblem::Absolute),
        (&long_name, EntryProblem::TooLong),
        (&long_path, EntryProblem::TooLong),
        (&deep, EntryProblem::TooLong),
    ] {
        for kind in [FILE, EntryType::Directory, LINK, HARD] {
            let link = if kind == FILE || kind == EntryType::Directory { "" } else { "a" };
            assert_eq!(problem(one(kind, path, link.as_bytes())), expect, "{kind:?}");
        }
    }
    assert_eq!(problem(one(FILE, b"", b"")), EntryProblem::NoName);
    assert_eq!(problem(one(FILE, b".", b"")), EntryProblem::NoName);
    let pax = LayerBuilder::new().pax(&[("path", b"a\0b")]).file("a", b"");
    assert_eq!(problem(pax), EntryProblem::NoName);
    let pax = LayerBuilder::new().pax(&[("path", b"../outside/canary")]).file("a", b"");
    assert_eq!(problem(pax), EntryProblem::ParentDirectory);
    let gnu = LayerBuilder::new()
        .member(EntryType::GNULongName, b"long", b"", 0, b"/outside/canary\0")
        .file("a", b"");
    assert_eq!(problem(gnu), EntryProblem::Absolute);
}

#[test]
fn nothing_is_written_through_a_link() {
    for target in ["/tmp", "..", "../outside", ".", "real"] {
        let through = LayerBuilder::new()
            .directory("real")
            .link("link", target)
            .file("link/canary", b"written");
        assert_eq!(problem(through), EntryProblem::ThroughLink, "{target}");
        let over = LayerBuilder::new().link("link", target).file("link", b"written");
        assert_eq!(problem(over), EntryProblem::Duplicate, "{target}");
        let directory = LayerBuilder::new().link("link", target).directory("link");
        assert_eq!(problem(directory), EntryProblem::ThroughLink, "{target}");
        let hidden = LayerBuilder::new().link("link", target).file("link/.wh.canary", b"");
        assert_eq!(problem(hidden), EntryProblem::ThroughLink, "{target}");
        let opaque = LayerBuilder::new().link("link", target).file("link/.wh..wh..opq", b"");
        assert_eq!(problem(opaque), EntryProblem::ThroughLink, "{target}");
    }
    let file = LayerBuilder::new().file("file", b"").file("file/below", b"");
    assert_eq!(problem(file), EntryProblem::ThroughLink);
}

#[test]
fn a_link_that_leads_out_stays_a_link() {
    let layer = LayerBuilder::new().link("a", "../../../outside/canary").link("b", "/etc/shadow");
    let expect = "a: link to ../../../outside/canary\nb: link to /etc/shadow";
    assert_eq!(check(layer).expect("unpacked"), expect);
}

#[test]
fn hard_links_reach_only_files_of_the_layer() {
    for target in
        ["../outside/canary", "/etc/passwd", "missing", "directory", "", "link/canary", "."]
    {
        let layer = LayerBuilder::new().directory("directory").link("link", "../outside").member(
            HARD,
            b"hard",
            target.as_bytes(),
            0o644,
            b"",
        );
        let found = problem(layer);
        let expect = match target {
            "../outside/canary" => EntryProblem::ParentDirectory,
            "/etc/passwd" => EntryProblem::Absolute,
            "" => EntryProblem::NoName,
            _ => EntryProblem::LinkTarget,
        };
        assert_eq!(found, expect, "{target}");
    }
    // A second mark of what is gone is made by no image.
    let mark = LayerBuilder::new().file(".wh.a", b"").hard_link("b", "a");
    assert_eq!(problem(mark), EntryProblem::LinkTarget);
    // To a link: the link itself gets a second name.
    let layer = LayerBuilder::new().link("a", "/etc/passwd").hard_link("b", "a");
    assert_eq!(check(layer).expect("unpacked"), "a: link to /etc/passwd\nb: link to /etc/passwd");
}

#[test]
fn a_path_is_made_once() {
    let file = || LayerBuilder::new().file("a", b"one");
    assert_eq!(problem(file().file("a", b"two")), EntryProblem::Duplicate);
    assert_eq!(problem(file().file("./a", b"two")), EntryProblem::Duplicate);
    assert_eq!(problem(file().link("a", "b")), EntryProblem::Duplicate);
    assert_eq!(problem(file().file("b", b"").hard_link("a", "b")), EntryProblem::Duplicate);
    assert_eq!(problem(file().directory("a")), EntryProblem::ThroughLink);
    assert_eq!(problem(LayerBuilder::new().directory("a").file("a", b"")), EntryProblem::Duplicate);
    // Directories are listed again by many programs.
    let layer = LayerBuilder::new().directory("a").file("a/b", b"").directory("a");
    assert_eq!(check(layer).expect("unpacked"), "a: directory\na/b: 644 ");
    // Names that differ in case are two names.
    let layer = LayerBuilder::new().file("a", b"1").file("A", b"2");
    assert_eq!(check(layer).expect("unpacked"), "A: 644 2\na: 644 1");
}

#[test]
fn whiteouts_hide_nothing_but_names_beside_them() {
    for path in [".wh.", ".wh..", ".wh...", "a/.wh...", ".wh.a/b", ".wh.a/.wh.b"] {
        assert_eq!(problem(one(FILE, path.as_bytes(), b"")), EntryProblem::Whiteout, "{path}");
    }
    assert_eq!(problem(one(FILE, b"../.wh.outside", b"")), EntryProblem::ParentDirectory);
    let layer =
        LayerBuilder::new().file("a", b"").file(".wh..wh.plnk/1", b"").file(".wh..wh.aufs", b"");
    assert_eq!(check(layer).expect("unpacked"), "a: 644 ");
}

#[test]
fn device_nodes_are_left_out() {
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo] {
        // 0:0 as well, which would be a mark.
        let layer = one(kind, b"node", b"").file("a", b"");
        assert_eq!(check(layer).expect("unpacked"), "a: 644 ", "{kind:?}");
    }
}

#[test]
fn marks_of_overlays_are_not_taken_from_attributes() {
    let place = Place::new();
    let attributes: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.user.overlay.redirect", b"/../../etc"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.metacopy", b""),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.security.capability", b"\x01\0\0\x02"),
        ("SCHILY.xattr.user.kept", b"yes\n=\0"),
    ];
    let layer = LayerBuilder::new().pax(attributes).directory("d").pax(attributes).file("f", b"");
    let root = place.unpack(layer).expect("unpacked");
    let tree = root.stack().expect("stackable").remove(0);
    for name in ["d", "f"] {
        let mut names = vec![0_u8; 1024];
        let length = rustix::fs::listxattr(tree.join(name), &mut names[..]).expect("listed");
        assert_eq!(String::from_utf8_lossy(&names[..length]), "user.kept\0", "{name}");
    }
}

#[test]
fn what_readers_could_understand_differently_is_refused() {
    let contradiction = EntryProblem::Contradiction;
    // Two sizes: one reader takes for content what is members to another.
    let size = LayerBuilder::new().pax(&[("size", b"1024")]).file("a", b"");
    assert_eq!(problem(size), contradiction);
    // Content of what has none.
    for kind in [LINK, HARD, EntryType::Directory, EntryType::Fifo] {
        let mut bad = header(kind, b"a", b"b", 0o644, 512);
        bad.set_cksum();
        assert_eq!(problem(LayerBuilder::new().header(&bad, &[0; 512])), contradiction, "{kind:?}");
    }
    // Two names.
    let names = LayerBuilder::new()
        .member(EntryType::GNULongName, b"long", b"", 0, b"one\0")
        .pax(&[("path", b"two")])
        .file("a", b"");
    assert_eq!(problem(names), contradiction);
    let twice =
        LayerBuilder::new().pax(&[("path", b"one")]).pax(&[("path", b"two")]).file("a", b"");
    assert_eq!(problem(twice), contradiction);
    let global = LayerBuilder::new()
        .member(EntryType::XGlobalHeader, b"g", b"", 0, b"9 path=b\n")
        .file("a", b"");
    assert_eq!(problem(global), contradiction);
    let sparse = LayerBuilder::new().pax(&[("GNU.sparse.major", b"1")]).file("a", b"");
    assert_eq!(problem(sparse), EntryProblem::Sparse);
    assert_eq!(problem(one(EntryType::GNUSparse, b"a", b"")), EntryProblem::Sparse);
    assert_eq!(problem(one(EntryType::new(b'V'), b"a", b"")), EntryProblem::Kind);
}

#[test]
fn damaged_archives_are_malformed() {
    let mut wrong_sum = header(FILE, b"a", b"", 0o644, 0);
    wrong_sum.set_cksum();
    wrong_sum.as_old_mut().cksum = *b"0000000\0";
    let mut cut = header(FILE, b"a", b"", 0o644, 1 << 20);
    cut.set_cksum();
    let mut endless = header(FILE, b"a", b"", 0o644, u64::MAX);
    endless.set_cksum();
    let mut long = header(EntryType::GNULongName, b"a", b"", 0o644, 1 << 30);
    long.set_cksum();
    let text: Vec<String> = [
        LayerBuilder::new().header(&wrong_sum, b""),
        LayerBuilder::new().header(&cut, b"short"),
        LayerBuilder::new().header(&endless, b""),
        LayerBuilder::new().header(&long, b"name"),
        LayerBuilder::new().pax(&[("path", b"a")]),
    ]
    .into_iter()
    .map(|layer| check(layer).expect_err("refused").to_string())
    .collect();
    insta::assert_snapshot!(text.join("\n"), @r#"
    layer 1 is malformed: archive header checksum mismatch
    the entry "a" of a layer is refused: the archive ends in the middle of it
    layer 1 is malformed: size overflow
    an extension header of an archive, in bytes, is above the limit of 1048576
    layer 1 is malformed: it ends after a header that describes the next entry
    "#);
}

#[test]
fn bombs_are_stopped_at_the_limit() {
    let place = Place::with(ImageCacheOptions {
        limits: ImageLimits {
            layer_bytes: 300 << 20,
            layer_entries: 100,
            ..ImageLimits::default()
        },
        ..ImageCacheOptions::default()
    });
    // 80 MiB of nothing are a few hundred bytes.
    let zeros = vec![0; 80 << 20];
    let bomb = LayerBuilder::new().file("a", &zeros);
    for (packing, limit) in [(Packing::Gzip, "ratio"), (Packing::Zstd, "ratio")] {
        let error =
            place.root(&ImageBuilder::new().packed(bomb.clone(), packing)).expect_err("refused");
        assert!(
            matches!(error, ImageError::TooLarge { what, .. } if what.contains(limit)),
            "{error}"
        );
    }
    // What is really there is no bomb.
    place.root(&ImageBuilder::new().packed(bomb, Packing::Plain)).expect("unpacked");
    let many = (0..101).fold(LayerBuilder::new(), |layer, n| layer.file(&n.to_string(), b""));
    let error = place.unpack(many).expect_err("refused");
    assert!(matches!(error, ImageError::TooLarge { limit: 100, .. }), "{error}");
    // Directories that no entry names count as well.
    let parents = (0..51).fold(LayerBuilder::new(), |layer, n| layer.file(&format!("{n}/a"), b""));
    let error = place.unpack(parents).expect_err("refused");
    assert!(matches!(error, ImageError::TooLarge { limit: 100, .. }), "{error}");
}

#[test]
fn bytes_with_another_digest_do_not_become_a_layer() {
    let place = Place::new();
    let layout = place.path("layout");
    let image = ImageBuilder::new().layer(LayerBuilder::new().file("a", b"good"));
    write_layout(&layout, &[(None, &image)]);
    let parts = image.parts();
    let blob = layout.join("blobs/sha256").join(&parts.layers[0][7..]);
    let good = fs::read(&blob).expect("a layer");

    // Other files under the same name, of the same size.
    let mut other = good.clone();
    let last = other.len() - 10;
    other[last] ^= 1;
    fs::write(&blob, &other).expect("written");
    let error = place.cache.from_layout(&layout, None).expect_err("refused");
    assert!(matches!(error, ImageError::Digest { .. } | ImageError::Malformed { .. }), "{error}");

    // Trailing bytes belong to the digest too.
    fs::write(&blob, [good.as_slice(), b"\0"].concat()).expect("written");
    let error = place.cache.from_layout(&layout, None).expect_err("refused");
    assert!(error.to_string().contains("bytes, and"), "{error}");

    fs::write(&blob, &good[..good.len() / 2]).expect("written");
    assert!(place.cache.from_layout(&layout, None).is_err(), "truncated");

    fs::remove_file(&blob).expect("removed");
    let error = place.cache.from_layout(&layout, None).expect_err("refused");
    assert!(error.to_string().contains("is not there"), "{error}");
    assert_eq!(place.shelf("layers"), Vec::<std::path::PathBuf>::new());

    fs::write(&blob, &good).expect("written");
    let manifest = parts.manifest["digest"].as_str().expect("a digest");
    let manifest = layout.join("blobs/sha256").join(&manifest[7..]);
    let text = fs::read_to_string(&manifest).expect("a manifest");
    fs::write(&manifest, text.replace("\"schemaVersion\":2", "\"schemaVersion\":3"))
        .expect("written");
    let error = place.cache.from_layout(&layout, None).expect_err("refused");
    assert!(matches!(error, ImageError::Digest { .. }), "{error}");
}

#[test]
fn a_saved_layer_that_is_not_the_one_of_the_configuration_is_refused() {
    let place = Place::new();
    let image = |content: &[u8]| {
        ImageBuilder::new().packed(LayerBuilder::new().file("a", content), Packing::Plain)
    };
    let saved = image(b"good").saved("a:1");
    let at = saved.windows(4).position(|window| window == b"good").expect("the content");
    let mut other = saved.clone();
    other[at..at + 4].copy_from_slice(b"evil");
    fs::write(place.path("saved.tar"), other).expect("written");
    let error = place.cache.from_archive(&place.path("saved.tar"), None).expect_err("refused");
    assert!(matches!(error, ImageError::Digest { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Members of any kind, path and target, most of them nonsense: nothing outside changes, and what is made is whole.
    #[test]
    fn no_layer_reaches_out(
        members in proptest::collection::vec(
            (
                prop::sample::select(vec![b'0', b'1', b'2', b'3', b'5', b'6', b'7', 0]),
                r"(\.\./|/|\./|a/|b/|\.wh\.|l/){0,4}(a|b|l|\.\.|\.|\.wh\.a|\.wh\.\.wh\.\.opq)?",
                r"(\.\./|/|a/|l/){0,3}(a|b|l|outside|canary)?",
            ),
            1..12,
        ),
    ) {
        let mut layer = LayerBuilder::new().link("l", "../outside");
        for (kind, path, link) in members {
            layer = layer.member(EntryType::new(kind), path.as_bytes(), link.as_bytes(), 0o777, b"");
        }
        let _ = check(layer);
    }

    /// Damage anywhere in a layer is noticed: by its form, or by its digest at the latest.
    #[test]
    fn damage_is_noticed(at in 0_usize..4000, bit in 0_u8..8) {
        let place = Place::new();
        let layer = LayerBuilder::new().file("a", b"one").directory("d").link("d/l", "../a");
        let image = ImageBuilder::new().packed(layer, Packing::Plain);
        let layout = place.path("layout");
        write_layout(&layout, &[(None, &image)]);
        let blob = layout.join("blobs/sha256").join(&image.parts().layers[0][7..]);
        let mut bytes = fs::read(&blob).expect("a layer");
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        fs::write(&blob, bytes).expect("written");
        prop_assert!(place.cache.from_layout(&layout, None).is_err());
        prop_assert!(place.shelf("layers").is_empty());
    }
}
