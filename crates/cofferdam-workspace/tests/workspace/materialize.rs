//! Local sources and inline files.

use std::{
    error::Error,
    fs,
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixListener,
    },
    path::Path,
};

use cofferdam_core::NetworkAccess;
use cofferdam_manifest::{Entry, Manifest, ManifestBuilder, RootSource};
use cofferdam_sandbox::{ImageSource, RootFilesystem};
use cofferdam_workspace::{MaterializeError, Materialized, Materializer};
use tempfile::TempDir;

use crate::fake::{AtFirstEvent, FakeSandbox, FakeTree};

/// Makes files from lines such as `a/b.txt 0644 content`, `dir/ 0755` and `a -> target`.
fn host(lines: &[&str]) -> TempDir {
    let base = tempfile::tempdir().unwrap();
    for line in lines {
        if let Some((path, target)) = line.split_once(" -> ") {
            symlink(target, base.path().join(path)).unwrap();
            continue;
        }
        let mut words = line.splitn(3, ' ');
        let path = base.path().join(words.next().unwrap());
        let mode = u32::from_str_radix(words.next().unwrap(), 8).unwrap();
        if line.split(' ').next().unwrap().ends_with('/') {
            fs::create_dir_all(&path).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, words.next().unwrap_or_default()).unwrap();
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    base
}

async fn fill(
    base: &Path,
    manifest: ManifestBuilder,
    sandbox: &FakeSandbox,
) -> Result<Materialized, MaterializeError> {
    Materializer::new(base).materialize(&manifest.build().unwrap(), sandbox).await
}

/// Returns the whole message of a refusal, with the base written as BASE, after checking that nothing was uploaded.
async fn refusal(base: &TempDir, entry: &str, yaml: &str) -> String {
    let manifest = format!("version: 1\nentries:\n  {entry}: {yaml}\n");
    let manifest = Manifest::parse(&manifest, "m.yaml").unwrap();
    let sandbox = FakeSandbox::new();
    let error = Materializer::new(base.path()).materialize(&manifest, &sandbox).await.unwrap_err();
    assert_eq!(sandbox.listing(), "", "something was uploaded");
    error.to_string().replace(&base.path().display().to_string(), "BASE")
}

#[tokio::test]
async fn a_tree_arrives_as_it_is() {
    let base = host(&[
        "src/run.sh 0755 #!/bin/sh",
        "src/secret 0600 x",
        "src/setuid 4755 x",
        "src/empty/ 0755",
        "src/closed/inner 0644 y",
        "src/deep/er/file 0640 hello",
        "src/link -> deep/er/file",
        "src/deep/up -> ../run.sh",
        "src/dangling -> nowhere",
        "one.txt 0664 one",
    ]);
    fs::set_permissions(base.path().join("src/closed"), fs::Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(base.path().join("src/deep"), fs::Permissions::from_mode(0o770)).unwrap();
    let sandbox = FakeSandbox::new();
    let manifest = Manifest::builder()
        .entry("in/tree", Entry::local_dir("src").mode("0750".parse().unwrap()))
        .entry("in/tree/extra/note", Entry::file("note"))
        .entry("in/tree/secret", Entry::file("replaced"))
        .entry("one", Entry::local_file("./one.txt"))
        .entry("out", Entry::dir().mode("0700".parse().unwrap()));
    let receipt = fill(base.path(), manifest, &sandbox).await.unwrap();
    insta::assert_snapshot!(sandbox.listing(), @r#"
    0755 in/
    0750 in/tree/
    0555 in/tree/closed/
    0644 in/tree/closed/inner 1
    link in/tree/dangling -> nowhere
    0770 in/tree/deep/
    0755 in/tree/deep/er/
    0640 in/tree/deep/er/file 5
    link in/tree/deep/up -> ../run.sh
    0755 in/tree/empty/
    0755 in/tree/extra/
    0644 in/tree/extra/note 4
    link in/tree/link -> deep/er/file
    0755 in/tree/run.sh 9
    0644 in/tree/secret 8
    0755 in/tree/setuid 1
    0664 one 3
    0700 out/
    "#);
    assert_eq!(sandbox.content("in/tree/deep/er/file"), b"hello");
    assert_eq!(sandbox.content("in/tree/secret"), b"replaced");
    let lines: Vec<String> = receipt
        .entries
        .iter()
        .map(|e| {
            format!(
                "{} {} {:?}: {} files, {} directories, {} links, {} bytes, {} ignored",
                e.path, e.kind, e.source, e.files, e.directories, e.links, e.bytes, e.ignored
            )
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    in/tree local_dir Some("src"): 5 files, 5 directories, 3 links, 17 bytes, 0 ignored
    in/tree/extra/note file None: 1 files, 0 directories, 0 links, 4 bytes, 0 ignored
    in/tree/secret file None: 1 files, 0 directories, 0 links, 8 bytes, 0 ignored
    one local_file Some("./one.txt"): 1 files, 0 directories, 0 links, 3 bytes, 0 ignored
    out dir None: 0 files, 1 directories, 0 links, 0 bytes, 0 ignored
    "#);
    assert_eq!(receipt.uploaded, 20);
}

#[tokio::test]
async fn digests_tell_trees_apart() {
    let digest = async |lines: &[&str]| {
        let base = host(lines);
        let manifest = Manifest::builder().entry("t", Entry::local_dir("s"));
        let receipt = fill(base.path(), manifest, &FakeSandbox::new()).await.unwrap();
        receipt.entries[0].digest.clone()
    };
    let first = digest(&["s/a 0644 x", "s/b 0644 y"]).await;
    assert_eq!(first.len(), 64);
    assert_eq!(digest(&["s/a 0644 x", "s/b 0644 y"]).await, first);
    for other in [
        &["s/a 0644 x", "s/b 0644 z"][..],
        &["s/a 0755 x", "s/b 0644 y"],
        &["s/a 0644 x", "s/c 0644 y"],
        &["s/a 0644 xy", "s/b 0644 "],
        &["s/a 0644 x", "s/b/ 0755"],
    ] {
        assert_ne!(digest(other).await, first, "for {other:?}");
    }
}

#[tokio::test]
async fn large_files_come_in_pieces() {
    let base = host(&[]);
    let content: Vec<u8> = (0..1_000_003_u32).map(|n| n.to_le_bytes()[0]).collect();
    fs::write(base.path().join("big"), &content).unwrap();
    let sandbox = FakeSandbox::new();
    let manifest = Manifest::builder()
        .entry("big", Entry::local_file("big"))
        .entry("inline", Entry::file(content.clone()));
    fill(base.path(), manifest, &sandbox).await.unwrap();
    assert!(sandbox.content("big") == content);
    assert!(sandbox.content("inline") == content);
}

#[tokio::test]
async fn ignores_what_is_named() {
    let base = host(&[
        "s/.gitignore 0644 *.log\n/build/\n!keep.log",
        "s/.git/config 0644 x",
        "s/a.log 0644 x",
        "s/keep.log 0644 x",
        "s/build/out 0644 x",
        "s/sub/build/out 0644 x",
        "s/sub/.gitignore 0644 !deep.log\n*.tmp",
        "s/sub/deep.log 0644 x",
        "s/sub/x.tmp 0644 x",
        "s/x.tmp 0644 x",
        "s/target/debug/y 0644 x",
        "s/escape -> /etc/passwd",
    ]);
    let listing = async |fields: &str| {
        let yaml = format!("version: 1\nentries: {{s: {{type: local_dir, source: s, {fields}}}}}");
        let sandbox = FakeSandbox::new();
        let manifest = Manifest::parse(&yaml, "m").unwrap();
        let receipt =
            Materializer::new(base.path()).materialize(&manifest, &sandbox).await.unwrap();
        format!("{}\n{} ignored", sandbox.listing(), receipt.entries[0].ignored)
    };
    insta::assert_snapshot!(listing("ignore: [target/, /escape], gitignore: true").await, @r#"
    0755 s/
    0644 s/.gitignore 23
    0644 s/keep.log 1
    0755 s/sub/
    0644 s/sub/.gitignore 15
    0755 s/sub/build/
    0644 s/sub/build/out 1
    0644 s/sub/deep.log 1
    0644 s/x.tmp 1
    6 ignored
    "#);
    insta::assert_snapshot!(listing("ignore: ['*', '!sub/', '!*.tmp']").await, @r#"
    0755 s/
    0755 s/sub/
    0644 s/sub/x.tmp 1
    0644 s/x.tmp 1
    10 ignored
    "#);
}

#[tokio::test]
async fn sources_that_are_not_there_or_not_allowed() {
    let base = host(&["d/f 0644 x", "f 0644 x"]);
    let outside = host(&["secret 0600 x", "d/f 0644 y"]);
    symlink(outside.path(), base.path().join("way-out")).unwrap();
    symlink("d", base.path().join("way-in")).unwrap();
    let refused = async |fields: &str| refusal(&base, "e", &format!("{{{fields}}}")).await;
    insta::assert_snapshot!(refused("type: local_dir, source: ./records").await, @r#"entry e: ./records does not exist in BASE; create it or correct `source`"#);
    insta::assert_snapshot!(refused("type: local_file, source: f/g").await, @r#"entry e: f/g does not exist in BASE; create it or correct `source`"#);
    insta::assert_snapshot!(refused("type: local_dir, source: f").await, @r#"entry e: f is a file, expected a directory; correct `type` or `source`"#);
    insta::assert_snapshot!(refused("type: local_file, source: d").await, @r#"entry e: d is a directory, expected a file; correct `type` or `source`"#);
    insta::assert_snapshot!(refused("type: local_dir, source: /etc").await, @r#"entry e: /etc is outside of BASE, and no grant covers it; move it there, or have the caller allow the source"#);
    insta::assert_snapshot!(refused("type: local_file, source: d/../../x").await, @r#"entry e: d/../../x is outside of BASE, and no grant covers it; move it there, or have the caller allow the source"#);
    insta::assert_snapshot!(refused("type: local_dir, source: way-out").await, @r#"entry e: way-out leads out of BASE through a symbolic link; name the place that the link leads to, and have the caller allow it"#);
    insta::assert_snapshot!(refused("type: local_file, source: way-out/secret").await, @r#"entry e: way-out/secret leads out of BASE through a symbolic link; name the place that the link leads to, and have the caller allow it"#);
    let sandbox = FakeSandbox::new();
    let manifest = Manifest::builder()
        .entry("a", Entry::local_dir("way-in"))
        .entry("b", Entry::local_file("way-in/f"))
        .entry("c", Entry::local_dir(outside.path().join("d").display().to_string()))
        .entry("d", Entry::local_file(outside.path().join("secret").display().to_string()))
        .build()
        .unwrap();
    let materializer = Materializer::new(base.path())
        .allow_source(outside.path().join("d"))
        .allow_source(outside.path().join("secret"));
    materializer.materialize(&manifest, &sandbox).await.unwrap();
    insta::assert_snapshot!(sandbox.listing(), @r#"
    0755 a/
    0644 a/f 1
    0644 b 1
    0755 c/
    0644 c/f 1
    0600 d 1
    "#);
}

#[tokio::test]
async fn links_and_special_files_are_refused_by_name() {
    let base = host(&["up/f 0644 x"]);
    let make = |name: &str| fs::create_dir_all(base.path().join(name)).unwrap();
    for (dir, target) in [
        ("abs", "/etc/passwd"),
        ("over", "../up/f"),
        ("through", "inner/../../up/f"),
        ("deep/er", "../../up/f"),
    ] {
        make(dir);
        symlink(target, base.path().join(dir).join("link")).unwrap();
    }
    make("sock");
    let _listener = UnixListener::bind(base.path().join("sock/s")).unwrap();
    make("fifo");
    let fifo = base.path().join("fifo/f");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_bits_truncate(0o600))
        .unwrap();
    let mut messages = Vec::new();
    for dir in ["abs", "over", "through", "deep", "sock", "fifo"] {
        messages.push(refusal(&base, "e", &format!("{{type: local_dir, source: {dir}}}")).await);
    }
    messages.push(refusal(&base, "e", "{type: local_file, source: fifo/f}").await);
    messages.push(refusal(&base, "e", "{type: local_file, source: sock/s}").await);
    insta::assert_snapshot!(messages.join("\n"), @r#"
    entry e: the symbolic link link leads out of the source, to /etc/passwd; remove it or add it to `ignore`
    entry e: the symbolic link link leads out of the source, to ../up/f; remove it or add it to `ignore`
    entry e: the symbolic link link leads out of the source, to inner/../../up/f; remove it or add it to `ignore`
    entry e: the symbolic link er/link leads out of the source, to ../../up/f; remove it or add it to `ignore`
    entry e: s is a socket, which cannot be copied; remove it or add it to `ignore`
    entry e: f is a fifo, which cannot be copied; remove it or add it to `ignore`
    entry e: fifo/f is a fifo, expected a file; correct `type` or `source`
    entry e: sock/s is a socket, expected a file; correct `type` or `source`
    "#);
}

#[tokio::test]
async fn caps_are_held_before_anything_is_uploaded() {
    let base = host(&["s/a 0644 12345", "s/b/c 0644 67890", "s/d 0644 x"]);
    let refused = async |fields: &str| refusal(&base, "e", &format!("{{{fields}}}")).await;
    insta::assert_snapshot!(refused("type: local_dir, source: s, max_files: 3").await, @r#"entry e: s holds more than 3 files (4 up to d); raise `max_files` or take less"#);
    insta::assert_snapshot!(refused("type: local_dir, source: s, max_bytes: 9B").await, @r#"entry e: s holds more than 9 bytes (10 up to b/c); raise `max_bytes` or take less"#);
    insta::assert_snapshot!(refused("type: local_file, source: s/a, max_bytes: 4B").await, @r#"entry e: s/a holds more than 4 bytes (5 up to s/a); raise `max_bytes` or take less"#);
    let exact =
        "version: 1\nentries: {e: {type: local_dir, source: s, max_files: 4, max_bytes: 11B}}";
    let manifest = Manifest::parse(exact, "m").unwrap();
    let receipt =
        Materializer::new(base.path()).materialize(&manifest, &FakeSandbox::new()).await.unwrap();
    assert_eq!((receipt.entries[0].files, receipt.entries[0].bytes), (3, 11));
}

#[tokio::test]
async fn bad_patterns_and_collisions_are_refused() {
    let base = host(&["s/f 0644 x", "s/d/ 0755", "s/l -> d"]);
    insta::assert_snapshot!(
        refusal(&base, "e", "{type: local_dir, source: s, ignore: ['[z-a]']}").await, @r#"entry e: the ignore pattern "[z-a]" cannot be read: error parsing glob '[z-a]': invalid range; 'z' > 'a'"#
    );
    let collide = async |path: &str, entry: Entry| {
        let manifest = Manifest::builder().entry("e", Entry::local_dir("s")).entry(path, entry);
        fill(base.path(), manifest, &FakeSandbox::new()).await.unwrap_err().to_string()
    };
    insta::assert_snapshot!(collide("e/f/x", Entry::dir()).await, @r#"entry e/f/x: e/f is a file of entry e, so it cannot be a directory; move one of the entries"#);
    insta::assert_snapshot!(collide("e/l/x", Entry::file("x")).await, @r#"entry e/l/x: e/l is a link of entry e, so it cannot be a directory; move one of the entries"#);
    insta::assert_snapshot!(collide("e/d", Entry::file("x")).await, @r#"entry e/d: e/d is a directory of entry e, so it cannot be a file; move one of the entries"#);
}

#[tokio::test]
async fn a_failure_of_the_sandbox_ends_the_reading() {
    let base = host(&[]);
    fs::write(base.path().join("big"), vec![0; 8 << 20]).unwrap();
    let sandbox = FakeSandbox::with(FakeTree { fail_after: Some(3), ..FakeTree::default() });
    let manifest = Manifest::builder().entry("big", Entry::local_file("big"));
    let error = fill(base.path(), manifest, &sandbox).await.unwrap_err();
    assert_eq!(error.to_string(), "the sandbox failed at the upload of the workspace");
    assert_eq!(
        error.source().unwrap().to_string(),
        "cannot fake \"x\" in the workspace: no space left on device"
    );
}

/// Changes a source while a large file before it holds the reading back, and returns the refusal.
async fn changed_during(action: impl Fn(&Path) + Send + Sync + 'static) -> String {
    let base = host(&["s/z 0644 mine", "s/zz/f 0644 mine", "other/f 0644 not granted"]);
    // More than may wait between reader and sandbox.
    fs::write(base.path().join("s/a"), vec![0; 8 << 20]).unwrap();
    let place = base.path().join("s");
    let at_first_event = Some(AtFirstEvent(Box::new(move || action(&place))));
    let sandbox = FakeSandbox::with(FakeTree { at_first_event, ..FakeTree::default() });
    let manifest = Manifest::builder().entry("e", Entry::local_dir("s"));
    let error = fill(base.path(), manifest, &sandbox).await.unwrap_err();
    assert!(error.retry().is_retryable());
    error.to_string()
}

#[tokio::test]
async fn a_source_that_changes_is_refused_and_never_followed() {
    let file = |action: fn(&Path)| changed_during(move |place| action(&place.join("z")));
    let message = "entry e: z changed while it was read; try again when nothing writes to it";
    assert_eq!(file(|z| fs::write(z, "longer than before").unwrap()).await, message);
    assert_eq!(file(|z| fs::remove_file(z).unwrap()).await, message);
    let swap = file(|z| {
        fs::remove_file(z).unwrap();
        symlink("../other/f", z).unwrap();
    });
    assert_eq!(swap.await, message);
    let directory = changed_during(|place| {
        fs::rename(place.join("zz"), place.join("gone")).unwrap();
        symlink("../other", place.join("zz")).unwrap();
    });
    let message = "entry e: zz/f changed while it was read; try again when nothing writes to it";
    assert_eq!(directory.await, message);
}

#[tokio::test]
async fn the_workspace_itself_can_be_an_entry() {
    let base = host(&["s/a 0644 x"]);
    let sandbox = FakeSandbox::new();
    let manifest = Manifest::builder().entry(".", Entry::local_dir("s"));
    fill(base.path(), manifest, &sandbox).await.unwrap();
    assert_eq!(sandbox.listing(), "0644 a 1");
}

#[test]
fn a_sandbox_is_asked_for_what_the_manifest_says() {
    let base = host(&["roots/study/ 0755"]);
    let with_root = |root: RootSource| {
        let manifest = Manifest::builder()
            .entry("p", Entry::file("x").read_only())
            .environment("TZ", "UTC")
            .network(NetworkAccess::Host)
            .root(root)
            .build()
            .unwrap();
        Materializer::new(base.path()).sandbox_spec(&manifest)
    };
    let spec = |root: &str| with_root(RootSource::Directory(root.to_owned()));
    let made = spec("roots/study").unwrap();
    let expected = fs::canonicalize(base.path().join("roots/study")).unwrap();
    assert_eq!(made.root, RootFilesystem::Directory(expected));
    assert_eq!(made.network, NetworkAccess::Host);
    assert_eq!(made.environment["TZ"], "UTC");
    assert_eq!(made.read_only, ["p".parse().unwrap()]);
    let error = spec("/").unwrap_err().to_string();
    insta::assert_snapshot!(error.replace(&base.path().display().to_string(), "BASE"), @r#"the root of the sandbox: / is outside of BASE, and no grant covers it; move it there, or have the caller allow the source"#);
    let real = fs::canonicalize(base.path()).unwrap();
    let name = Some("a:1".to_owned());
    let (path, outside) = ("image".to_owned(), "/etc/image".to_owned());
    for (root, expect) in [
        (RootSource::Archive(path.clone()), RootFilesystem::Archive(real.join("image"))),
        (
            RootSource::Layout { path: path.clone(), name: name.clone() },
            RootFilesystem::Image(ImageSource::Layout {
                directory: real.join("image"),
                name: name.clone(),
            }),
        ),
        (
            RootSource::Saved { path, name: name.clone() },
            RootFilesystem::Image(ImageSource::Archive {
                file: real.join("image"),
                name: name.clone(),
            }),
        ),
        (
            RootSource::Image("a:1".to_owned()),
            RootFilesystem::Image(ImageSource::Reference("a:1".to_owned())),
        ),
    ] {
        assert_eq!(with_root(root).unwrap().root, expect);
    }
    for root in [
        RootSource::Archive(outside.clone()),
        RootSource::Layout { path: outside.clone(), name: None },
        RootSource::Saved { path: outside, name: None },
    ] {
        let error = with_root(root).unwrap_err();
        assert!(matches!(error, MaterializeError::NotGranted { .. }), "{error}");
    }
}
