//! Where the root of a sandbox comes from, and what is told when there is none.

use std::{collections::HashMap, fs, path::Path};

use bollard::query_parameters::{ListImagesOptions, RemoveImageOptions};
use bytes::Bytes;
use cofferdam_sandbox::{
    ExecRequest, ImageSource, RootFilesystem, SandboxBackend as _, SandboxError, SandboxExt as _,
    SandboxSpec, WriteOptions,
};
use cofferdam_sandbox_docker::{DockerBackend, PullPolicy};
use cofferdam_testkit::TestEngine;
use futures::TryStreamExt as _;

use crate::engine::TestEngineExt as _;

fn spec(root: RootFilesystem) -> SandboxSpec {
    SandboxSpec { root, ..SandboxSpec::default() }
}

fn reference(name: &str) -> RootFilesystem {
    RootFilesystem::Image(ImageSource::Reference(name.to_owned()))
}

/// Makes a sandbox and runs a script of an image with a shell.
async fn run(backend: &DockerBackend, root: RootFilesystem, script: &str) -> String {
    let sandbox = backend.create(&spec(root)).await.expect("a sandbox");
    let told = sandbox.run(ExecRequest::shell(script), 4096).await.expect("it ran");
    sandbox.close().await.expect("closed");
    told.stdout.to_text().into_owned()
}

async fn refused(backend: &DockerBackend, root: RootFilesystem) -> String {
    match backend.create(&spec(root)).await.expect_err("it is refused") {
        error @ SandboxError::Image { .. } => error.to_string(),
        other => panic!("{other}"),
    }
}

/// Names the image of the test root, and returns its id.
async fn named(engine: &TestEngine, name: &str) -> String {
    let sandbox = engine.backend().create(&engine.spec()).await.expect("a sandbox");
    sandbox.close().await.expect("closed");
    let client = engine.client().expect("a client");
    let filter = ("reference".to_owned(), vec!["cofferdam/import".to_owned()]);
    let options =
        ListImagesOptions { filters: Some(HashMap::from([filter])), ..Default::default() };
    let images = client.list_images(Some(options)).await.expect("a list");
    // The largest: another test imports roots too.
    let image = images.into_iter().max_by_key(|image| image.size).expect("an image");
    let (repository, tag) = name.split_once(':').expect("a tag");
    let options = bollard::query_parameters::TagImageOptions {
        repo: Some(repository.to_owned()),
        tag: Some(tag.to_owned()),
    };
    client.tag_image(&image.id, Some(options)).await.expect("a name");
    image.id
}

/// Saves an image, as `docker save` does.
async fn saved(engine: &TestEngine, name: &str, file: &Path) {
    let client = engine.client().expect("a client");
    let pieces: Vec<Bytes> = client.export_image(name).try_collect().await.expect("an image");
    fs::write(file, pieces.concat()).expect("a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_anything_in_it() {
    let Some(engine) = TestEngine::get("scratch") else { return };
    let empty = tempfile::tempdir().expect("a directory");
    fs::write(empty.path().join("README"), "nothing else").expect("a file");
    let root = RootFilesystem::Directory(empty.path().to_owned());
    let sandbox = engine.backend().create(&spec(root)).await.expect("a sandbox");
    let path = "file".parse().expect("a path");
    let content = Bytes::from_static(b"content");
    let options = WriteOptions::default();
    sandbox.files().write(&path, content.clone(), &options).await.expect("written");
    assert_eq!(sandbox.files().read(&path, 0, 100).await.expect("read"), content);
    let error = sandbox.exec(ExecRequest::shell("true")).await.expect_err("there is no shell");
    assert!(matches!(error, SandboxError::NotStarted { errno: 2, .. }), "{error}");
    sandbox.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_name_and_by_default() {
    let Some(engine) = TestEngine::get("by_name") else { return };
    named(engine, "by-name:1").await;
    assert_eq!(run(&engine.backend(), reference("by-name:1"), "id -un").await, "sandbox\n");
    let backend =
        DockerBackend::builder().endpoint(engine.endpoint()).default_image("by-name:1").build();
    assert_eq!(run(&backend, RootFilesystem::HostSystem, "id -un").await, "sandbox\n");

    insta::assert_snapshot!(
        refused(&engine.backend(), RootFilesystem::HostSystem).await,
        @"the image of the host's system cannot be used: a container has no host system; name an image as the root, or a default image of the backend"
    );
    let never =
        DockerBackend::builder().endpoint(engine.endpoint()).pull(PullPolicy::Never).build();
    let message = refused(&never, reference("not/there:1")).await;
    let message = message.replace(&engine.endpoint().to_string(), "ENGINE");
    insta::assert_snapshot!(
        message,
        @"the image not/there:1 cannot be used: ENGINE does not have it; pull it (`docker pull not/there:1`), or let the backend pull"
    );
    // Nobody listens there, so pulling fails at once.
    let message = refused(&engine.backend(), reference("127.0.0.1:9/not/there:1")).await;
    assert!(message.contains("connection refused"), "{message}");
    assert!(
        message.contains("check the name and that the engine reaches the registry"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn from_files() {
    let Some(engine) = TestEngine::get("from_files") else { return };
    let backend = engine.backend();
    let directory = tempfile::tempdir().expect("a directory");
    named(engine, "from-file:1").await;
    let file = directory.path().join("image.tar");
    saved(engine, "from-file:1", &file).await;
    let client = engine.client().expect("a client");
    let options = RemoveImageOptions { force: true, ..Default::default() };
    client.remove_image("from-file:1", Some(options), None).await.expect("removed");

    let archive = |name: Option<&str>| {
        let name = name.map(str::to_owned);
        RootFilesystem::Image(ImageSource::Archive { file: file.clone(), name })
    };
    assert_eq!(run(&backend, archive(None), "id -un").await, "sandbox\n");
    assert_eq!(run(&backend, archive(Some("from-file:1")), "id -un").await, "sandbox\n");
    let message = refused(&backend, archive(Some("other:1"))).await;
    assert!(message.contains("there is no other:1 in it; it has: from-file:1"), "{message}");

    // What is no image at all.
    fs::write(&file, "no archive").expect("a file");
    refused(&backend, archive(None)).await;
    fs::remove_file(&file).expect("removed");
    let message = refused(&backend, archive(None)).await;
    assert!(message.contains("it cannot be read: No such file or directory"), "{message}");

    // A root file system as a tar file.
    let SandboxSpec { root: RootFilesystem::Directory(root), .. } = engine.spec() else {
        panic!("the root of tests is a directory")
    };
    let file = directory.path().join("root.tar");
    let mut builder = tar::Builder::new(fs::File::create(&file).expect("a file"));
    builder.follow_symlinks(false);
    builder.append_dir_all(".", root).expect("packed");
    builder.finish().expect("written");
    assert_eq!(run(&backend, RootFilesystem::Archive(file), "id -un").await, "sandbox\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oci_layout() {
    let Some(engine) = TestEngine::get("oci_layout") else { return };
    named(engine, "layout:1").await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("image.tar");
    saved(engine, "layout:1", &file).await;
    let layout = directory.path().join("layout");
    to_layout(&file, &layout);
    let root = |name: &str| {
        let (directory, name) = (layout.clone(), Some(name.to_owned()));
        RootFilesystem::Image(ImageSource::Layout { directory, name })
    };
    assert_eq!(run(&engine.backend(), root("one"), "id -un").await, "sandbox\n");
    let message = refused(&engine.backend(), root("two")).await;
    assert!(message.contains("there is no two for linux on"), "{message}");
}

/// Makes an OCI image layout of a saved image, with the name `one`.
fn to_layout(file: &Path, layout: &Path) {
    let unpacked = layout.with_extension("unpacked");
    tar::Archive::new(fs::File::open(file).expect("a file")).unpack(&unpacked).expect("unpacked");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a directory");
    let blob = |content: Vec<u8>| {
        let output = {
            let path = layout.with_extension("blob");
            fs::write(&path, &content).expect("a file");
            cofferdam_testkit::engine::host_command("sha256sum").arg(&path).output().expect("a sum")
        };
        let hex = String::from_utf8_lossy(&output.stdout)[..64].to_owned();
        fs::write(blobs.join(&hex), &content).expect("a file");
        serde_json::json!({ "digest": format!("sha256:{hex}"), "size": content.len() })
    };
    let read = |name: &str| fs::read(unpacked.join(name)).expect("a file");
    let table: serde_json::Value = serde_json::from_slice(&read("manifest.json")).expect("JSON");
    let name = |value: &serde_json::Value| value.as_str().expect("a name").to_owned();
    let layers = table[0]["Layers"].as_array().expect("layers");
    let layers: Vec<_> = layers.iter().map(|layer| blob(read(&name(layer)))).collect();
    let config = blob(read(&name(&table[0]["Config"])));
    let manifest = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": layers });
    let mut entry = blob(manifest.to_string().into_bytes());
    entry["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": "one" });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [entry] });
    fs::write(layout.join("index.json"), index.to_string()).expect("a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_image_that_was_removed_is_made_again() {
    let Some(engine) = TestEngine::get("prepared_image") else { return };
    // A root of its own, so that no other test uses the image.
    let SandboxSpec { root: RootFilesystem::Directory(root), .. } = engine.spec() else {
        panic!("the root of tests is a directory")
    };
    let own = tempfile::tempdir().expect("a directory");
    fs::create_dir(own.path().join("bin")).expect("a directory");
    for name in ["busybox", "sh"] {
        fs::copy(root.join("bin/busybox"), own.path().join("bin").join(name)).expect("a copy");
    }
    let backend = engine.backend();
    let root = RootFilesystem::Directory(own.path().to_owned());
    let sandbox = backend.create(&spec(root.clone())).await.expect("a sandbox");
    let client = engine.client().expect("a client");
    let name = sandbox.state().data["container"].as_str().expect("a name").to_owned();
    let container = client.inspect_container(&name, None).await.expect("a container");
    sandbox.close().await.expect("closed");
    let image = container.image.expect("its image");
    let options = RemoveImageOptions { force: true, ..Default::default() };
    client.remove_image(&image, Some(options), None).await.expect("removed");
    assert_eq!(run(&backend, root, "echo two").await, "two\n");
}

/// How many images have a name in a repository of the backend's, on an engine.
async fn prepared(client: &bollard::Docker, repository: &str) -> usize {
    let filter = ("reference".to_owned(), vec![repository.to_owned()]);
    let options =
        ListImagesOptions { filters: Some(HashMap::from([filter])), ..Default::default() };
    client.list_images(Some(options)).await.expect("a list").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_images_are_bounded() {
    // An engine of its own: other tests want their images to stay.
    let engine = match TestEngine::start(&[]) {
        Ok(engine) => engine,
        Err(reason) => return cofferdam_testkit::skip("prepared_images", &reason),
    };
    let client = engine.client().expect("a client");
    let week = std::time::Duration::from_secs(7 * 24 * 3600);
    let backend = engine.builder().keep_images(2, week).build();
    let roots: Vec<tempfile::TempDir> = (0..5)
        .map(|number| {
            let root = tempfile::tempdir().expect("a directory");
            fs::write(root.path().join("number"), number.to_string()).expect("a file");
            root
        })
        .collect();
    let made = async |backend: &DockerBackend, number: usize| {
        let root = RootFilesystem::Directory(roots[number].path().to_owned());
        backend.create(&spec(root)).await.expect("a sandbox")
    };
    let image = async |sandbox: &dyn cofferdam_sandbox::Sandbox| {
        let name = sandbox.state().data["container"].as_str().expect("a name").to_owned();
        let container = client.inspect_container(&name, None).await.expect("a container");
        container.image.expect("its image")
    };
    let there = async |image: &str| client.inspect_image(image).await.is_ok();

    // What a container uses stays, though it is the oldest.
    let first = made(&backend, 0).await;
    let first_image = image(&*first).await;
    // Somebody gives a prepared root a name, and another something that looks like one of ours.
    let labels = client.inspect_image(&first_image).await.expect("an image").config;
    let labels = labels.and_then(|config| config.labels).expect("labels");
    let root = &labels["cofferdam.base-image"];
    for (repository, tag) in [("somebodys", "1"), ("cofferdam/import", "somebodys")] {
        let options = bollard::query_parameters::TagImageOptions {
            repo: Some(repository.to_owned()),
            tag: Some(tag.to_owned()),
        };
        client.tag_image(root, Some(options)).await.expect("a name");
    }
    let mut images = Vec::new();
    for number in 1..4 {
        let sandbox = made(&backend, number).await;
        images.push(image(&*sandbox).await);
        sandbox.close().await.expect("closed");
    }
    assert!(there(&first_image).await, "it is in use");
    assert_eq!(
        [there(&images[0]).await, there(&images[1]).await, there(&images[2]).await],
        [false, false, true]
    );
    assert_eq!(prepared(&client, "cofferdam/sandbox").await, 2);
    assert_eq!(prepared(&client, "cofferdam/import").await, 2);
    first.close().await.expect("closed");

    // Used again, the first is the youngest; by another process, as far as the engine knows.
    made(&engine.builder().build(), 0).await.close().await.expect("closed");
    made(&backend, 4).await.close().await.expect("closed");
    assert_eq!([there(&first_image).await, there(&images[2]).await], [true, false]);

    // A first use sweeps too: nothing of ours stays, and all of others.
    let none = engine.builder().keep_images(0, week).build();
    let sandbox = made(&none, 3).await;
    assert_eq!(prepared(&client, "cofferdam/sandbox").await, 1, "the one that is in use");
    sandbox.close().await.expect("closed");
    let swept = engine.builder().keep_images(0, week).build();
    swept.guarantees().await.expect("an engine");
    assert!(!there(&first_image).await);
    assert!(there("somebodys:1").await && there("cofferdam/import:somebodys").await);
    // What was removed is prepared again.
    made(&backend, 0).await.close().await.expect("closed");
}
