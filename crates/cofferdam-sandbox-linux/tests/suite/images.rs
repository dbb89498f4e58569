//! Roots from images: what is seen of them, what never is of the host, and how long they stay.

use std::{
    fs,
    io::{Cursor, Read},
    path::Path,
    sync::Arc,
};

use cofferdam_image::{Digest, Fetch, ImageCache, ImageCacheOptions, ImageError, Platform};
use cofferdam_sandbox::{
    ExecRequest, ExitStatus, ImageSource, RootFilesystem, Sandbox, SandboxBackend, SandboxError,
    SandboxExt, SandboxSpec,
};
use cofferdam_sandbox_linux::LinuxBackend;
use cofferdam_testkit::{
    ImageBuilder, LayerBuilder, TestEngine,
    image::{ImageParts, write_layout},
    skip,
};
use tempfile::TempDir;

use crate::host::{run, small};

/// A backend with a cache, and a directory for images.
struct Place {
    directory: TempDir,
    backend: LinuxBackend,
}

impl Place {
    fn new() -> Self {
        Self::with(ImageCacheOptions::default())
    }

    fn with(options: ImageCacheOptions) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = directory.path().join("cache");
        let backend = LinuxBackend::new().with_image_cache(cache, options);
        Self { directory, backend }
    }

    /// Writes an image as a layout and returns a spec with it as the root.
    fn spec(&self, name: &str, image: &ImageBuilder) -> SandboxSpec {
        let directory = self.directory.path().join(name);
        write_layout(&directory, &[(None, image)]);
        with_root(RootFilesystem::Image(ImageSource::Layout { directory, name: None }))
    }

    /// Writes a file and returns its path.
    fn file(&self, name: &str, bytes: &[u8]) -> std::path::PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, bytes).expect("written");
        path
    }
}

fn with_root(root: RootFilesystem) -> SandboxSpec {
    SandboxSpec { root, ..small() }
}

/// Returns a layer with a shell and the programs that the tests call, or `None` after a skip.
fn shell(test: &str) -> Option<LayerBuilder> {
    const BUSYBOX: &str = "/bin/busybox";
    let Ok(program) = fs::read(BUSYBOX) else {
        skip(test, "there is no /bin/busybox: install the Debian package busybox-static");
        return None;
    };
    let layer = LayerBuilder::new().file_with_mode("bin/busybox", 0o4755, &program);
    let names = ["sh", "cat", "ls", "stat", "id", "echo", "touch", "find", "grep", "wc"];
    Some(names.iter().fold(layer, |layer, name| layer.link(&format!("bin/{name}"), "busybox")))
}

async fn text(sandbox: &dyn Sandbox, script: &str) -> String {
    let output = run(sandbox, script).await;
    format!("{}{}", output.stdout.to_text(), output.stderr.to_text())
}

#[tokio::test]
async fn layers_are_one_root() {
    let Some(shell) = shell("layers_are_one_root") else { return };
    let place = Place::new();
    let image = ImageBuilder::new()
        .layer(shell.file("etc/kept", b"kept\n").file("etc/gone", b"").file("opt/a/old", b""))
        .layer(LayerBuilder::new().file("etc/.wh.gone", b"").file("opt/a/.wh..wh..opq", b""))
        .layer(
            LayerBuilder::new().file("opt/a/new", b"").file_with_mode("opt/own", 0o700, b"own\n"),
        )
        .variable("PATH=/opt/bin:/bin")
        .variable("OTHER=1");
    let sealed = place.backend.create(&place.spec("image", &image)).await.expect("a sandbox");
    let script = "cat /etc/kept /opt/own; ls /etc /opt/a; echo $PATH:$OTHER; id -u; \
                  stat -c '%a %n' /bin/busybox /opt/own; ls /home /root /var /mnt";
    insta::assert_snapshot!(text(&*sealed, script).await, @"
    kept
    own
    /etc:
    kept

    /opt/a:
    new
    /opt/bin:/bin:
    1000
    755 /bin/busybox
    755 /opt/own
    /home:
    sandbox

    /var:
    empty
    run
    tmp
    ls: /root: No such file or directory
    ls: /mnt: No such file or directory
    ");
    // What is not the workspace is read-only, and the workspace is not.
    for path in ["/etc/kept", "/opt/new", "/bin/sh", "/new"] {
        let tried = text(&*sealed, &format!("echo x > {path}")).await;
        assert!(tried.contains("Read-only file system"), "{path}: {tried}");
    }
    assert_eq!(text(&*sealed, "echo x > here; cat here").await, "x\n");
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn layers_are_stacked_where_the_host_can() {
    let Some(shell) = shell("layers_are_stacked_where_the_host_can") else { return };
    let place = Place::new();
    let image = ImageBuilder::new().layer(shell).layer(LayerBuilder::new().file("etc/two", b""));
    let sealed = place.backend.create(&place.spec("image", &image)).await.expect("a sandbox");
    let mounts = text(&*sealed, "grep -E ' /(bin|etc) ' /proc/mounts").await;
    let merged = fs::read_dir(place.directory.path().join("cache/v1/roots")).expect("a directory");
    let is_merged = merged.count() > 0;
    let stacked = mounts.lines().filter(|line| line.starts_with("overlay ")).count();
    // Where overlays cannot be mounted, one tree is the same root.
    assert_eq!(stacked, if is_merged { 0 } else { 2 }, "{mounts}");
    assert!(mounts.lines().all(|line| line.contains(" ro,nosuid,nodev")), "{mounts}");
    assert!(!mounts.contains("/cache/"), "{mounts}");
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn saved_images_and_tar_files_are_roots() {
    let Some(shell) = shell("saved_images_and_tar_files_are_roots") else { return };
    let place = Place::new();
    let layer = shell.file("etc/which", b"this\n");
    let saved = ImageBuilder::new().layer(layer.clone()).saved("tool:1");
    let saved = place.file("saved.tar", &saved);
    let root = place.file("root.tar", &layer.build());
    let name = Some("tool:1".to_owned());
    for root in [
        RootFilesystem::Image(ImageSource::Archive { file: saved, name }),
        RootFilesystem::Archive(root),
    ] {
        for _ in 0..2 {
            let sealed = place.backend.create(&with_root(root.clone())).await.expect("a sandbox");
            assert_eq!(text(&*sealed, "cat /etc/which").await, "this\n", "{root:?}");
            sealed.close().await.expect("closes");
        }
    }
}

#[tokio::test]
async fn an_image_without_a_shell_is_a_root() {
    let place = Place::new();
    let image = ImageBuilder::new().layer(LayerBuilder::new().file_with_mode(
        "guest",
        0o755,
        cofferdam_guest::PROGRAM,
    ));
    let sealed = place.backend.create(&place.spec("image", &image)).await.expect("a sandbox");
    let started = sealed.run(ExecRequest::program(["/guest"]), 1 << 10).await.expect("it ran");
    assert!(matches!(started.status, Some(ExitStatus::Code(_))), "{:?}", started.status);
    let error = sealed.run(ExecRequest::shell("true"), 1).await.expect_err("there is no shell");
    assert!(matches!(error, SandboxError::NotStarted { errno: libc::ENOENT, .. }), "{error}");
    sealed.close().await.expect("closes");
}

#[tokio::test]
async fn links_of_an_image_do_not_lead_to_the_host() {
    let Some(shell) = shell("links_of_an_image_do_not_lead_to_the_host") else { return };
    let place = Place::new();
    let secret = place.file("secret", b"secret");
    let outside = place.directory.path().to_str().expect("text").to_owned();
    let layer = shell
        .link("var", "/var")
        .link("srv", &outside)
        .link("opt", &format!("../../../../..{outside}"))
        .directory("etc")
        .link("etc/shadow", "/etc/shadow")
        .link("etc/resolv.conf", secret.to_str().expect("text"));
    // The tree as it is, a stack, and a tar file.
    let one = place.spec("one", &ImageBuilder::new().layer(layer.clone()));
    let several =
        ImageBuilder::new().layer(layer.clone()).layer(LayerBuilder::new().file("bin/other", b""));
    let several = place.spec("several", &several);
    let tar = with_root(RootFilesystem::Archive(place.file("root.tar", &layer.build())));
    for spec in [one, several, tar] {
        let sealed = place.backend.create(&spec).await.expect("a sandbox");
        let script = "cat /srv/secret /opt/secret /etc/shadow /etc/resolv.conf; ls /var/lib/; \
                      find / -name secret -o -name v1 -o -name shadow -type f";
        let found = run(&*sealed, script).await;
        assert_eq!(found.stdout.to_text(), "", "{spec:?}");
        sealed.close().await.expect("closes");
    }
}

#[tokio::test]
async fn an_image_stays_as_long_as_its_sandbox_and_is_found_when_it_comes_back() {
    let Some(shell) = shell("an_image_stays_as_long_as_its_sandbox") else { return };
    let layer = |which: &str| shell.clone().file("etc/which", which.as_bytes());
    let size = layer("one").build().len() as u64;
    let place = Place::with(ImageCacheOptions { max_bytes: size * 3 / 2, ..Default::default() });
    let one = place.spec("one", &ImageBuilder::new().layer(layer("one")));
    let two = place.spec("two", &ImageBuilder::new().layer(layer("two")));
    let first = place.backend.create(&one).await.expect("a sandbox");
    let error = place.backend.create(&two).await.expect_err("no room beside what is in use");
    assert!(matches!(&error, SandboxError::Image { .. }), "{error}");
    assert_eq!(text(&*first, "cat /etc/which").await, "one");
    first.close().await.expect("closes");
    drop(first);
    // The other one takes its place, and it comes back: not as the emptied tree of the first time.
    for (spec, which) in [(&two, "two"), (&one, "one"), (&two, "two")] {
        let sealed = place.backend.create(spec).await.expect("a sandbox");
        assert_eq!(text(&*sealed, "cat /etc/which").await, which);
        sealed.close().await.expect("closes");
    }
}

#[tokio::test]
async fn an_image_that_cannot_be_used_says_why_and_what_to_do() {
    let place = Place::new();
    let other = place.spec("other", &ImageBuilder::new().architecture("s390x"));
    let hostile = ImageBuilder::new().layer(LayerBuilder::new().file("../out", b""));
    let hostile = place.spec("hostile", &hostile);
    let archive = |file: &str| {
        let file = place.directory.path().join(file);
        with_root(RootFilesystem::Image(ImageSource::Archive { file, name: None }))
    };
    let relative = with_root(RootFilesystem::Archive("root.tar".into()));
    let mut said = Vec::new();
    let reference =
        |name: &str| with_root(RootFilesystem::Image(ImageSource::Reference(name.to_owned())));
    let (absent, nameless) = (reference("debian:bookworm"), reference("no name"));
    for spec in [&other, &hostile, &archive("missing.tar"), &relative, &absent, &nameless] {
        said.push(place.backend.create(spec).await.expect_err("refused").to_string());
    }
    let without = LinuxBackend::new().create(&other).await.expect_err("refused");
    said.push(without.to_string());
    let said = said.join("\n").replace(place.directory.path().to_str().expect("text"), "PLACE");
    let said = said.replace(&Platform::host().to_string(), "linux/THIS");
    insta::assert_snapshot!(said, @r#"
    the image PLACE/other cannot be used: it is for linux/s390x, and programs for linux/THIS run here; choose an image for this kind of machine
    the image PLACE/hostile cannot be used: the entry "../out" of a layer is refused: its path has a `..`; do not use this image, or build it again
    the image PLACE/missing.tar cannot be used: cannot read PLACE/missing.tar: No such file or directory (os error 2); look at the path and its permissions
    invalid sandbox request: the image root.tar is not an absolute path
    the image debian:bookworm cannot be used: there is no image in the cache under the name "docker.io/library/debian:bookworm"; fetch it into the cache first, with `cofferdam_registry::Registry::pull`
    invalid sandbox request: "no name" is no name of an image: write `name:tag`, `registry/name:tag` or `registry/name@sha256:…`
    the image PLACE/other cannot be used: the backend has no directory to unpack images in; give it one with `LinuxBackend::with_image_cache`
    "#);
}

/// The parts of an image, as a registry gives them.
#[derive(Debug)]
struct Parts(ImageParts);

impl Parts {
    fn get(&self, digest: &str) -> Result<Vec<u8>, ImageError> {
        Ok(self.0.blobs[digest].clone())
    }
}

impl Fetch for Parts {
    fn named(&self, _limit: u64) -> Result<Vec<u8>, ImageError> {
        self.get(self.0.manifest["digest"].as_str().expect("a digest"))
    }

    fn manifest(&self, digest: &Digest, _limit: u64) -> Result<Vec<u8>, ImageError> {
        self.get(&digest.to_string())
    }

    fn blob(&self, digest: &Digest) -> Result<Box<dyn Read + Send>, ImageError> {
        Ok(Box::new(Cursor::new(self.get(&digest.to_string())?)))
    }
}

#[tokio::test]
async fn a_name_is_the_image_that_was_fetched_under_it() {
    let Some(shell) = shell("a_name_is_the_image_that_was_fetched_under_it") else { return };
    let place = Place::new();
    let cache = place.directory.path().join("cache");
    let cache = ImageCache::open(cache, ImageCacheOptions::default()).expect("a cache");
    let image = ImageBuilder::new().layer(shell.file("etc/which", b"this\n"));
    let name = "registry.example/tool:1";
    cache
        .from_fetch(&name.parse().expect("a name"), Arc::new(Parts(image.parts())))
        .expect("fetched");
    let spec = with_root(RootFilesystem::Image(ImageSource::Reference(name.to_owned())));
    let sealed = place.backend.create(&spec).await.expect("a sandbox");
    assert_eq!(text(&*sealed, "cat /etc/which").await, "this\n");
    sealed.close().await.expect("closes");
}

/// What the real engine saves.
#[tokio::test]
async fn an_image_that_docker_saved_is_a_root() {
    let test = "an_image_that_docker_saved_is_a_root";
    let Some(shell) = shell(test) else { return };
    let Some(engine) = TestEngine::get(test) else { return };
    let place = Place::new();
    let path = |name: &str| place.directory.path().join(name).to_str().expect("text").to_owned();
    let name = format!("127.0.0.1:5/cofferdam-test:{}", crate::host::unique());
    let root = place.file("root.tar", &shell.file("etc/which", b"docker\n").build());
    let docker = |arguments: &[&str]| {
        let output = engine.docker().args(arguments).output().expect("docker runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    // Two layers: what was imported, and what a container changed.
    let change = "ENV PATH=/opt/bin:/bin";
    docker(&["import", "-c", change, root.to_str().expect("text"), &name]);
    let container = docker(&[
        "run",
        "-d",
        "--network=none",
        &name,
        "sh",
        "-c",
        "rm /etc/which; echo two > /etc/two",
    ]);
    docker(&["wait", &container]);
    docker(&["commit", &container, &name]);
    docker(&["save", "-o", &path("saved.tar"), &name]);
    let file = Path::new(&path("saved.tar")).to_owned();
    let source = ImageSource::Archive { file, name: Some(name) };
    let spec = with_root(RootFilesystem::Image(source));
    let sealed = place.backend.create(&spec).await.expect("a sandbox");
    let found = text(&*sealed, "cat /etc/two; ls /etc/which; echo $PATH").await;
    assert_eq!(found, "two\n/opt/bin:/bin\nls: /etc/which: No such file or directory\n");
    sealed.close().await.expect("closes");
}
