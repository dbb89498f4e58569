//! A real registry: the one of Debian's package `docker-registry`, on loopback.
#![expect(clippy::disallowed_methods, reason = "the registry is a program")]

use std::{
    fs,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use cofferdam_image::ImageError;
use cofferdam_testkit::{ImageBuilder, skip};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use tempfile::TempDir;

use crate::kit::{Place, USER, image, which};

/// `letmein`, hashed as the registry wants it.
const PASSWORD_FILE: &str =
    "somebody:$2y$05$piaHcPXEq2jGAA.m0jrWPuqZq6vG3ESmhP.IRKtR4pkw4KuOUQMGK\n";

/// A registry that ends with this value.
struct Server {
    address: String,
    directory: TempDir,
    process: Child,
    secured: bool,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// Starts a registry; `None` after a skip.
    async fn start(test: &str, secured: bool) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        // Free a moment ago; the registry says nothing of a port that it would choose.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let address = format!("127.0.0.1:{}", port.expect("a port").port());
        let path = directory.path().to_str().expect("text").to_owned();
        let mut configuration = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {path}/data}}}}\n\
             http: {{addr: \"{address}\"}}\n"
        );
        if secured {
            fs::write(directory.path().join("users"), PASSWORD_FILE).expect("written");
            configuration += &format!("auth: {{htpasswd: {{realm: test, path: {path}/users}}}}\n");
        }
        let file = directory.path().join("registry.yml");
        fs::write(&file, configuration).expect("written");
        let started = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(process) = started else {
            skip(test, "there is no docker-registry: run `cargo xtask setup`");
            return None;
        };
        let server = Self { address, directory, process, secured };
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(&server.address).is_err() {
            assert!(Instant::now() < deadline, "the registry did not start");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Some(server)
    }

    fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// Puts an image into the registry and returns the digest of its manifest.
    async fn push(&self, repository: &str, tag: &str, image: &ImageBuilder) -> String {
        let parts = image.parts();
        let manifest = parts.manifest["digest"].as_str().expect("a digest").to_owned();
        for (digest, bytes) in parts.blobs.iter().filter(|(digest, _)| **digest != manifest) {
            let url = format!("http://{}/v2/{repository}/blobs/uploads/", self.address);
            let answer = self.send(http().post(url)).await;
            let place = answer.headers()[LOCATION].to_str().expect("text").to_owned();
            let url = format!("{place}&digest={digest}");
            self.send(http().put(url).body(bytes.clone())).await;
        }
        self.push_document(repository, tag, "manifest", &parts.blobs[&manifest]).await;
        manifest
    }

    async fn push_document(&self, repository: &str, tag: &str, kind: &str, bytes: &[u8]) {
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.address);
        let kind = format!("application/vnd.oci.image.{kind}.v1+json");
        self.send(http().put(url).header(CONTENT_TYPE, kind).body(bytes.to_vec())).await;
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> reqwest::Response {
        let request = match self.secured {
            // `somebody:letmein`
            true => request.header(AUTHORIZATION, "Basic c29tZWJvZHk6bGV0bWVpbg=="),
            false => request,
        };
        request.send().await.and_then(reqwest::Response::error_for_status).expect("an answer")
    }

    /// Returns the file in which the registry keeps a blob.
    fn blob(&self, digest: &str) -> std::path::PathBuf {
        let digits = &digest[7..];
        let blobs = self.directory.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&digits[..2]).join(digits).join("data")
    }
}

fn http() -> reqwest::Client {
    // Without a provider there is no TLS, which loopback does not need.
    let roots = rustls::RootCertStore::empty();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls).build().expect("a client")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_pulled_by_tag_and_by_digest() {
    let Some(server) = Server::start("an_image_is_pulled_by_tag_and_by_digest", false).await else {
        return;
    };
    let digest = server.push("team/tool", "v1", &image("one")).await;
    let place = Place::new(None);
    let (tag, pinned) = (server.name("team/tool:v1"), server.name(&format!("team/tool@{digest}")));
    assert_eq!(place.which(&tag).await.expect("pulled"), "one");
    assert_eq!(place.which(&pinned).await.expect("pulled"), "one");

    // A tag means what it meant when it was last pulled; a digest means one thing.
    server.push("team/tool", "v1", &image("two")).await;
    let remembered = place.cache.from_name(&tag.parse().expect("a name")).expect("there");
    assert_eq!(which(&remembered), "one");
    assert_eq!(place.which(&tag).await.expect("pulled"), "two");
    assert_eq!(place.which(&pinned).await.expect("pulled"), "one");

    for missing in ["team/tool:v2", "other/tool:v1"] {
        let error = place.which(&server.name(missing)).await.expect_err("not there");
        assert!(matches!(error, ImageError::NotFound { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_index_the_image_for_this_machine_is_pulled() {
    let test = "of_an_index_the_image_for_this_machine_is_pulled";
    let Some(server) = Server::start(test, false).await else { return };
    let images = [image("other").architecture("s390x"), image("this")];
    let mut manifests = Vec::new();
    for (number, image) in images.iter().enumerate() {
        server.push("tool", &format!("part{number}"), image).await;
        manifests.push(image.parts().manifest);
    }
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });
    server.push_document("tool", "latest", "index", index.to_string().as_bytes()).await;
    let place = Place::new(None);
    assert_eq!(place.which(&server.name("tool")).await.expect("pulled"), "this");
    let error = place.which(&server.name("tool:part0")).await.expect_err("another machine");
    assert!(matches!(error, ImageError::Platform { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_with_users_asks_for_one() {
    let Some(server) = Server::start("a_registry_with_users_asks_for_one", true).await else {
        return;
    };
    server.push("tool", "latest", &image("one")).await;
    let name = server.name("tool");
    assert_eq!(Place::new(Some(USER.1)).which(&name).await.expect("pulled"), "one");
    for password in [None, Some("wrong")] {
        let error = Place::new(password).which(&name).await.expect_err("refused");
        assert!(matches!(error, ImageError::Denied { .. }), "{error}");
        assert!(!error.to_string().contains("wrong"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_in_the_registry_is_noticed() {
    let test = "what_was_changed_in_the_registry_is_noticed";
    let Some(server) = Server::start(test, false).await else { return };
    let parts = image("one").parts();
    server.push("tool", "latest", &image("one")).await;
    let blob = server.blob(&parts.layers[1]);
    let good = fs::read(&blob).expect("a layer");
    let other = cofferdam_testkit::Packing::Gzip
        .pack(&cofferdam_testkit::LayerBuilder::new().file("which", b"evil").build());
    let place = Place::new(None);
    for bad in [other.as_slice(), &good[..good.len() / 2]] {
        fs::write(&blob, bad).expect("written");
        let error = place.which(&server.name("tool")).await.expect_err("refused");
        assert!(
            matches!(error, ImageError::Digest { .. } | ImageError::Malformed { .. }),
            "{error:?}"
        );
        let name = server.name("tool").parse().expect("a name");
        assert!(place.cache.from_name(&name).is_err(), "it is not remembered");
    }
    fs::write(&blob, good).expect("written");
    assert_eq!(place.which(&server.name("tool")).await.expect("pulled"), "one");
}
