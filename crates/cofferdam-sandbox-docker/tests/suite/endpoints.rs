//! Every way to an engine, each by making a sandbox over it.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use cofferdam_sandbox::{
    ExecRequest, SandboxBackend as _, SandboxError, SandboxExt as _, SandboxSpec, WriteOptions,
    conformance::{self, Options},
};
use cofferdam_sandbox_docker::{DockerBackend, DockerEndpoint, TlsCertificates};
use cofferdam_testkit::engine::{Kept, TestEngine, find, host_command, wait_for};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::engine::{PATIENCE, TestEngineExt as _};

/// Makes a sandbox, lets it do something of everything, and closes it.
async fn check(endpoint: DockerEndpoint, spec: &SandboxSpec) {
    let backend = DockerBackend::builder().endpoint(endpoint).request_timeout(PATIENCE).build();
    let sandbox = backend.create(spec).await.expect("a sandbox");
    let told = sandbox.run(ExecRequest::shell("id -un; pwd"), 1024).await.expect("it ran");
    assert_eq!(told.stdout.to_text(), "sandbox\n/workspace\n", "{told:?}");
    let path = "file".parse().expect("a path");
    let content = Bytes::from(vec![7; 1 << 20]);
    let options = WriteOptions::default();
    sandbox.files().write(&path, content.clone(), &options).await.expect("written");
    assert_eq!(sandbox.files().read(&path, 0, 2 << 20).await.expect("read"), content);
    sandbox.close().await.expect("closed");
}

/// A port of loopback that is free now.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}

#[tokio::test(flavor = "multi_thread")]
async fn unix_socket() {
    let Some(engine) = TestEngine::get("unix_socket") else { return };
    check(engine.endpoint(), &engine.spec()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp() {
    let address = format!("127.0.0.1:{}", free_port());
    let engine = match TestEngine::start(&[&format!("--host=tcp://{address}")]) {
        Ok(engine) => engine,
        Err(reason) => return cofferdam_testkit::skip("tcp", &reason),
    };
    // It waits a moment before it listens without TLS.
    engine.wait_for(|| std::net::TcpStream::connect(&address).is_ok()).expect("it listens");
    let endpoint = format!("tcp://{address}").parse().expect("an address");
    check(endpoint, &engine.spec()).await;
}

/// A certificate authority, and certificates for both sides.
struct Certificates {
    authority: String,
    server: (String, String),
    client: (String, String),
}

fn certificates() -> Result<Certificates, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);
    let issue = |name: &str| {
        let key = KeyPair::generate()?;
        let certificate =
            CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &issuer)?;
        Ok::<_, rcgen::Error>((certificate.pem(), key.serialize_pem()))
    };
    Ok(Certificates { authority, server: issue("127.0.0.1")?, client: issue("client")? })
}

#[tokio::test(flavor = "multi_thread")]
async fn tls() {
    let ours = certificates().expect("certificates");
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        fs::write(&path, content).expect("a file");
        path.display().to_string()
    };
    let address = format!("127.0.0.1:{}", free_port());
    let arguments = [
        format!("--host=tcp://{address}"),
        "--tlsverify".to_owned(),
        format!("--tlscacert={}", file("authority", &ours.authority)),
        format!("--tlscert={}", file("certificate", &ours.server.0)),
        format!("--tlskey={}", file("key", &ours.server.1)),
    ];
    let engine = match TestEngine::start(&arguments.each_ref().map(String::as_str)) {
        Ok(engine) => engine,
        Err(reason) => return cofferdam_testkit::skip("tls", &reason),
    };
    let endpoint = |authority: &str, client: &(String, String)| DockerEndpoint::Tls {
        address: address.clone(),
        certificates: TlsCertificates {
            authority: authority.as_bytes().into(),
            certificate: client.0.as_bytes().into(),
            key: client.1.as_bytes().into(),
        },
    };
    check(endpoint(&ours.authority, &ours.client), &engine.spec()).await;

    // Neither side takes another authority's word.
    let others = certificates().expect("certificates");
    for wrong in
        [endpoint(&others.authority, &ours.client), endpoint(&ours.authority, &others.client)]
    {
        let backend = DockerBackend::builder().endpoint(wrong).build();
        let error = backend.create(&engine.spec()).await.expect_err("it is refused");
        assert!(matches!(error, SandboxError::Unavailable { .. }), "{error}");
    }
}

/// An `sshd` on loopback that knows one key, and whose sessions find the engine.
struct SshServer {
    port: u16,
    directory: tempfile::TempDir,
}

impl SshServer {
    fn start(engine: &TestEngine) -> Result<Self, String> {
        let sshd = find("sshd").ok_or("sshd is not installed (Debian: openssh-server)")?;
        for program in ["ssh", "ssh-keygen", "docker"] {
            find(program).ok_or(format!("{program} is not installed"))?;
        }
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = |name: &str| directory.path().join(name).display().to_string();
        for key in ["host", "user"] {
            let made = host_command("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f", &path(key)])
                .status();
            made.map_err(|error| error.to_string())?;
        }
        fs::copy(path("user.pub"), path("authorized")).map_err(|error| error.to_string())?;
        let port = free_port();
        let DockerEndpoint::Unix(socket) = engine.endpoint() else {
            return Err("the engine has no socket".to_owned());
        };
        let configuration = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n\
             SetEnv DOCKER_HOST=unix://{}\n",
            path("host"),
            path("authorized"),
            socket.display()
        );
        fs::write(path("configuration"), configuration).map_err(|error| error.to_string())?;
        // Where it locks up the part of itself that is not root.
        fs::create_dir_all("/run/sshd").map_err(|error| error.to_string())?;
        let arguments = ["-D", "-e", "-f", &path("configuration")].map(str::to_owned);
        let kept = directory.path().join("kept");
        fs::create_dir(&kept).map_err(|error| error.to_string())?;
        Kept::start(&kept, &sshd, &arguments);
        let listens = || std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        wait_for(&kept, listens)?;
        Ok(Self { port, directory })
    }

    fn endpoint(&self) -> DockerEndpoint {
        let key = self.directory.path().join("user").display().to_string();
        let options =
            ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"];
        let options = options.iter().flat_map(|option| ["-o".to_owned(), (*option).to_owned()]);
        DockerEndpoint::Ssh {
            destination: "root@127.0.0.1".to_owned(),
            port: Some(self.port),
            arguments: ["-F".to_owned(), "/dev/null".to_owned(), "-i".to_owned(), key]
                .into_iter()
                .chain(options)
                .collect(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh() {
    let Some(engine) = TestEngine::get("ssh") else { return };
    let server = match SshServer::start(engine) {
        Ok(server) => server,
        Err(reason) => return cofferdam_testkit::skip("ssh", &reason),
    };
    check(server.endpoint(), &engine.spec()).await;
}

/// A `podman` service with storage of its own.
fn start_podman(directory: &Path) -> Result<PathBuf, String> {
    let podman = find("podman").ok_or("podman is not installed (Debian: podman)")?;
    let path = |name: &str| directory.join(name).display().to_string();
    let socket = directory.join("socket");
    let arguments = [
        format!("--root={}", path("root")),
        format!("--runroot={}", path("run")),
        "--storage-driver=vfs".to_owned(),
        "--cgroup-manager=cgroupfs".to_owned(),
        // Where both versions of control groups are there, `crun` refuses to start.
        format!("--runtime={}", find("runc").ok_or("runc is not installed")?.display()),
        "system".to_owned(),
        "service".to_owned(),
        "--time=0".to_owned(),
        format!("unix://{}", socket.display()),
    ];
    Kept::start(directory, &podman, &arguments);
    wait_for(directory, || std::os::unix::net::UnixStream::connect(&socket).is_ok())?;
    Ok(socket)
}

#[tokio::test(flavor = "multi_thread")]
async fn podman() {
    // For the root that is imported; Podman has images of its own.
    let Some(engine) = TestEngine::get("podman") else { return };
    let directory = tempfile::tempdir().expect("a directory").keep();
    let socket = match start_podman(&directory) {
        Ok(socket) => socket,
        Err(reason) => return cofferdam_testkit::skip("podman", &reason),
    };
    let endpoint = DockerEndpoint::Unix(socket);
    check(endpoint.clone(), &engine.spec()).await;

    // What is not the guest's doing.
    let backend = DockerBackend::builder().endpoint(endpoint).request_timeout(PATIENCE).build();
    for group in ["lifecycle::", "limits::"] {
        let options = Options {
            filter: Some(group.to_owned()),
            spec: engine.spec(),
            case_timeout: PATIENCE,
            at_once: 8,
            parallel: 2,
            ..Options::default()
        };
        let report = conformance::run(&backend, &options).await;
        println!("{report}");
        report.assert_passed();
    }

    // It has writable places of its own in a read-only root, and its own idea of what is to be masked.
    let sandbox = backend.create(&engine.spec()).await.expect("a sandbox");
    let script = "ls -A /sys /proc/bus; touch /run/file || touch /var/tmp/file || echo refused";
    let told = sandbox.run(ExecRequest::shell(script), 1024).await.expect("it ran");
    assert_eq!(told.stdout.to_text(), "/proc/bus:\n\n/sys:\nrefused\n");
    sandbox.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_not_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("socket");
    let check = async |endpoint: DockerEndpoint, expect: &str| {
        let backend = DockerBackend::builder()
            .endpoint(endpoint)
            .request_timeout(Duration::from_secs(1))
            .build();
        let error = backend.create(&SandboxSpec::default()).await.expect_err("nobody answers");
        let SandboxError::Unavailable { reason, remedy, .. } = &error else { panic!("{error}") };
        assert!(reason.contains(expect), "{reason}");
        assert!(!remedy.is_empty());
        assert_eq!(error.retry(), cofferdam_core::Retry::Backoff);
    };
    check(DockerEndpoint::Unix(socket.clone()), "there is no such socket").await;
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    check(DockerEndpoint::Unix(socket.clone()), "within 1 s").await;
    drop(listener);
    check(DockerEndpoint::Unix(socket), "Connection refused").await;
    let address = format!("127.0.0.1:{}", free_port());
    check(DockerEndpoint::Tcp { address }, "Connection refused").await;
}
