//! A stand-in for registries: it answers what a test tells it to, such as tokens, redirects, and halves of layers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use cofferdam_image::ImageError;
use cofferdam_testkit::image::ImageParts;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::kit::{Place, USER, image, said};

/// One answer.
#[derive(Debug, Clone)]
struct Answer {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
    /// Bytes of the body that are really sent.
    sent: usize,
}

impl Answer {
    fn new(status: &'static str, headers: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { status, headers: headers.into(), sent: body.len(), body }
    }

    fn good(body: impl Into<Vec<u8>>) -> Self {
        Self::new("200 OK", "", body)
    }
}

/// The path and the `authorization` of a request.
type Asked = (String, Option<String>);

/// Says what is answered to the request of this number.
type Rule = dyn Fn(usize, &Asked) -> Answer + Send + Sync;

struct Standin {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Drop for Standin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Standin {
    /// Starts a server; `rule` is given its address.
    async fn start<R>(rule: impl FnOnce(String) -> R) -> Self
    where
        R: Fn(usize, &Asked) -> Answer + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let rule: Arc<Rule> = Arc::new(rule(address.clone()));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&rule), Arc::clone(&log)));
            }
        });
        Self { address, asked, task }
    }

    fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

/// Answers one request, and closes.
async fn serve(mut stream: TcpStream, rule: Arc<Rule>, log: Arc<Mutex<Vec<Asked>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
    let entry = text.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
    });
    let asked = (path, entry);
    let number = {
        let mut log = log.lock().expect("not poisoned");
        log.push(asked.clone());
        log.len()
    };
    let answer = rule(number, &asked);
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n",
        answer.status,
        answer.body.len(),
        answer.headers
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(&answer.body[..answer.sent]).await;
    let _ = stream.shutdown().await;
}

/// Returns the parts of an image by the paths that a registry has for them.
fn paths(parts: &ImageParts) -> HashMap<String, Vec<u8>> {
    let manifest = parts.manifest["digest"].as_str().expect("a digest");
    let mut paths: HashMap<_, _> = parts
        .blobs
        .iter()
        .map(|(digest, bytes)| (format!("/v2/tool/blobs/{digest}"), bytes.clone()))
        .collect();
    for name in [manifest, "latest"] {
        paths.insert(format!("/v2/tool/manifests/{name}"), parts.blobs[manifest].clone());
    }
    paths
}

fn found(paths: &HashMap<String, Vec<u8>>, path: &str) -> Answer {
    match paths.get(path) {
        Some(body) => Answer::good(body.clone()),
        None => Answer::new("404 Not Found", "", ""),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_got_where_the_registry_says() {
    let paths = paths(&image("one").parts());
    let server = Standin::start(|address| {
        move |_, (path, entry): &Asked| match (path.as_str(), entry.as_deref()) {
            // `somebody:letmein`
            (path, Some("Basic c29tZWJvZHk6bGV0bWVpbg==")) if path.starts_with("/token?") => {
                Answer::good(r#"{"access_token":"abc","expires_in":60}"#)
            }
            (path, Some("Bearer abc")) => found(&paths, path),
            _ => Answer::new(
                "401 Unauthorized",
                format!(
                    "WWW-Authenticate: Bearer realm=\"http://{address}/token\",service=\"a b\"\r\n"
                ),
                "",
            ),
        }
    })
    .await;
    let name = server.name("tool");
    assert_eq!(Place::new(Some(USER.1)).which(&name).await.expect("pulled"), "one");
    let asked = server.asked();
    assert_eq!(asked[1].0, "/token?scope=repository%3Atool%3Apull&service=a+b");
    // Once, and then used.
    assert_eq!(asked.iter().filter(|(path, _)| path.starts_with("/token")).count(), 1);
    let error = Place::new(None).which(&name).await.expect_err("refused");
    assert!(matches!(error, ImageError::Denied { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_go_nowhere_but_to_the_registry() {
    let paths = paths(&image("one").parts());
    let elsewhere = Standin::start(|_| move |_, (path, _): &Asked| found(&paths, path)).await;
    let target = elsewhere.address.clone();
    // Everything is somewhere else, and the registry wants a login first.
    let server = Standin::start(|_| {
        move |_, (path, entry): &Asked| match entry {
            Some(_) => Answer::new(
                "307 Temporary Redirect",
                format!("Location: http://{target}{path}\r\n"),
                "",
            ),
            None => Answer::new("401 Unauthorized", "WWW-Authenticate: Basic realm=\"a\"\r\n", ""),
        }
    })
    .await;
    let place = Place::new(Some(USER.1));
    assert_eq!(place.which(&server.name("tool")).await.expect("pulled"), "one");
    assert!(server.asked().iter().any(|(_, entry)| entry.is_some()));
    assert!(elsewhere.asked().len() >= 3);
    assert!(elsewhere.asked().iter().all(|(_, entry)| entry.is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_end_and_stay_where_they_may() {
    let mut said_all = Vec::new();
    for target in
        ["/v2/tool/manifests/latest", "http://169.254.169.254/latest", "file:///etc/passwd"]
    {
        let server = Standin::start(|_| {
            move |_, _: &Asked| Answer::new("302 Found", format!("Location: {target}\r\n"), "")
        })
        .await;
        let error = Place::new(None).which(&server.name("tool")).await.expect_err("not followed");
        said_all.push(said(&error).replace(&server.address, "ADDRESS"));
        assert!(server.asked().len() <= 6, "{:?}", server.asked());
    }
    insta::assert_snapshot!(said_all.join("\n"), @"
    cannot fetch manifests/latest of ADDRESS/tool:latest: it was redirected too often
    cannot fetch manifests/latest of ADDRESS/tool:latest: it was redirected to where nothing is fetched
    cannot fetch manifests/latest of ADDRESS/tool:latest: it was redirected to where nothing is fetched
    ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_that_passes_is_tried_again_and_layers_that_came_are_not() {
    let parts = image("one").parts();
    let paths = paths(&parts);
    let last = format!("/v2/tool/blobs/{}", parts.layers[1]);
    let broken = last.clone();
    let server = Standin::start(|_| {
        let tried = Mutex::new(0);
        move |number, (path, _): &Asked| {
            let mut answer = found(&paths, path);
            if number == 1 {
                return Answer::new("503 Service Unavailable", "", "");
            }
            let mut tried = tried.lock().expect("not poisoned");
            if *path == broken && *tried == 0 {
                *tried += 1;
                answer.sent /= 2;
            }
            answer
        }
    })
    .await;
    let place = Place::new(None);
    assert_eq!(place.which(&server.name("tool")).await.expect("pulled"), "one");
    let count = |wanted: &str| server.asked().iter().filter(|(path, _)| path == wanted).count();
    assert_eq!(count(&last), 2);
    assert_eq!(count(&format!("/v2/tool/blobs/{}", parts.layers[0])), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tries_and_sizes_have_an_end() {
    let server = Standin::start(|_| |_, _: &Asked| Answer::new("502 Bad Gateway", "", "")).await;
    let error = Place::new(None).which(&server.name("tool")).await.expect_err("never there");
    assert!(matches!(error, ImageError::Fetch { passing: true, .. }), "{error}");
    assert_eq!(server.asked().len(), 4);

    let server = Standin::start(|_| |_, _: &Asked| Answer::good(vec![b' '; 5 << 20])).await;
    let error = Place::new(None).which(&server.name("tool")).await.expect_err("too large");
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");

    // More than was named, for ever: the layer is cut, and is another one.
    let parts = image("one").parts();
    let mut paths = paths(&parts);
    let layer = paths.get_mut(&format!("/v2/tool/blobs/{}", parts.layers[0])).expect("a layer");
    layer.extend(std::iter::repeat_n(0, 1 << 20));
    let server = Standin::start(|_| move |_, (path, _): &Asked| found(&paths, path)).await;
    let error = Place::new(None).which(&server.name("tool")).await.expect_err("another layer");
    assert!(matches!(error, ImageError::Digest { .. } | ImageError::Malformed { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_image_is_the_one_that_was_named() {
    let parts = image("one").parts();
    let pinned = parts.manifest["digest"].as_str().expect("a digest").to_owned();
    let mut paths = paths(&parts);
    let other = image("evil").parts();
    for (digest, bytes) in &other.blobs {
        paths.insert(format!("/v2/tool/blobs/{digest}"), bytes.clone());
    }
    let evil = other.blobs[other.manifest["digest"].as_str().expect("a digest")].clone();
    paths.insert(format!("/v2/tool/manifests/{pinned}"), evil);
    let server = Standin::start(|_| move |_, (path, _): &Asked| found(&paths, path)).await;
    let place = Place::new(None);
    let name = server.name(&format!("tool@{pinned}"));
    let error = place.which(&name).await.expect_err("another image");
    assert!(matches!(error, ImageError::Digest { .. }), "{error}");
}
