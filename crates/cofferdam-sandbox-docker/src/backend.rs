//! [`DockerBackend`]: makes sandboxes on a container engine.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU32},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bollard::{
    models::SystemInfo,
    query_parameters::{AttachContainerOptions, CreateContainerOptions},
};
use cofferdam_core::SandboxId;
use cofferdam_sandbox::{
    Capabilities, Enforcement, Guarantees, GuestClient, GuestOptions, ListedSandbox,
    RootFilesystem, Sandbox, SandboxBackend, SandboxError, SandboxSpec, SandboxState,
    SessionOptions, SessionToken, Wall,
};
use serde_json::json;
use tokio::sync::{Mutex, OnceCell};

use crate::{
    attach::{self, Found, Lingering},
    container::{self, Plan, WORKSPACE},
    endpoint::DockerEndpoint,
    engine::{BACKEND, Engine, refusal},
    events::Events,
    image::{self, Image, ImageOptions, OnProgress, PullPolicy, PullProgress},
    labels::{self, Labels, Owner},
    prepare,
    prepared::{self, Keep},
    sandbox::{Container, DockerSandbox, better_reason},
    seccomp::Delivery,
    stream::{Said, guest_stream},
    sweep,
    users::Users,
    walls::{self, Facts},
};

/// Makes sandboxes that are containers of a Docker engine, or of Podman, of this host or another.
///
/// Cloning it gives another handle to the same backend. It connects at the first use, and then removes what processes of this
/// host that have died have left on the engine.
#[derive(Debug, Clone)]
pub struct DockerBackend {
    inner: Arc<Inner>,
}

/// Sets up a [`DockerBackend`].
#[derive(Debug, Clone)]
pub struct DockerBackendBuilder {
    endpoint: DockerEndpoint,
    timeout: Duration,
    images: ImageOptions,
    keep: Keep,
}

#[derive(Debug)]
struct Inner {
    endpoint: Arc<DockerEndpoint>,
    timeout: Duration,
    images: ImageOptions,
    keep: Keep,
    connected: OnceCell<Connected>,
    guarantees: OnceCell<Guarantees>,
}

/// What is found once on an engine.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) engine: Engine,
    info: SystemInfo,
    pub(crate) labels: Labels,
    pub(crate) events: Arc<Events>,
    users: Users,
    turn: AtomicU32,
    seccomp: Delivery,
    /// Images with the guest in them, by the image that they are made of. Held while one is made, so that it is made once.
    layered: Mutex<HashMap<String, Layered>>,
    keep: Keep,
}

/// An image with the guest in it, and when the engine was told that it is used.
#[derive(Debug)]
struct Layered {
    id: String,
    noted: Instant,
}

/// How long a use stands for others.
const NOTED: Duration = Duration::from_secs(3600);

/// How often an image is looked for whose removal by somebody comes between looking and using.
const ATTEMPTS: u32 = 3;

impl Default for DockerBackend {
    fn default() -> Self {
        Self::builder().build()
    }
}

impl DockerBackend {
    /// Returns a backend on the usual socket of this host, without a default image.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins to set up a backend.
    #[must_use]
    pub fn builder() -> DockerBackendBuilder {
        DockerBackendBuilder {
            endpoint: DockerEndpoint::default(),
            timeout: Duration::from_secs(30),
            images: ImageOptions {
                default_image: None,
                pull: PullPolicy::default(),
                transfer_timeout: Duration::from_secs(600),
                on_progress: None,
            },
            keep: Keep { images: 16, unused: Duration::from_secs(7 * 24 * 3600) },
        }
    }
}

impl DockerBackendBuilder {
    /// Sets where the engine listens. Default: [`DockerEndpoint::default`].
    #[must_use]
    pub fn endpoint(mut self, endpoint: DockerEndpoint) -> Self {
        self.endpoint = endpoint;
        self
    }

    /// Sets the image of sandboxes whose specification names no root. Default: none, and they are refused.
    #[must_use]
    pub fn default_image(mut self, name: impl Into<String>) -> Self {
        self.images.default_image = Some(name.into());
        self
    }

    /// Sets when images are asked of their registry. Default: [`PullPolicy::IfMissing`].
    #[must_use]
    pub fn pull(mut self, policy: PullPolicy) -> Self {
        self.images.pull = policy;
        self
    }

    /// Sets who is told how far a pull is. It is called between two pieces of the engine's answer, so it must return soon.
    #[must_use]
    pub fn on_pull_progress(
        mut self,
        tell: impl Fn(&PullProgress) + Send + Sync + 'static,
    ) -> Self {
        self.images.on_progress = Some(OnProgress(Arc::new(tell)));
        self
    }

    /// Sets how long the engine may take for one request. Default: 30 s.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how long a pull, a load or an import may take. Default: 10 minutes.
    #[must_use]
    pub fn transfer_timeout(mut self, timeout: Duration) -> Self {
        self.images.transfer_timeout = timeout;
        self
    }

    /// Sets how many prepared images stay on the engine, and how long each stays without being used. Default: 16, for 7 days.
    ///
    /// A prepared image is one with the guest in it, together with the root that was imported for it. What is beyond is
    /// removed at the first use and after one was prepared, the longest unused first; what a container uses stays. Backends
    /// that share an engine share its images too, so the smallest bound holds for all.
    #[must_use]
    pub fn keep_images(mut self, images: usize, unused: Duration) -> Self {
        self.keep = Keep { images, unused };
        self
    }

    /// Returns the backend. It connects at the first use.
    #[must_use]
    pub fn build(self) -> DockerBackend {
        DockerBackend {
            inner: Arc::new(Inner {
                endpoint: Arc::new(self.endpoint),
                timeout: self.timeout,
                images: self.images,
                keep: self.keep,
                connected: OnceCell::new(),
                guarantees: OnceCell::new(),
            }),
        }
    }
}

#[async_trait]
impl SandboxBackend for DockerBackend {
    fn name(&self) -> &str {
        BACKEND
    }

    async fn guarantees(&self) -> Result<Guarantees, SandboxError> {
        self.inner.guarantees().await.cloned()
    }

    async fn capabilities(&self) -> Result<Capabilities, SandboxError> {
        let mut found = Capabilities::default();
        found.linger = true;
        found.notes = ["a workspace begins empty and is filled", "files are seen from inside only"]
            .map(str::to_owned)
            .into();
        Ok(found)
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<Arc<dyn Sandbox>, SandboxError> {
        check(spec)?;
        self.inner.demand_walls(spec).await?;
        let (inner, spec) = (Arc::clone(&self.inner), spec.clone());
        // If this future is dropped, the sandbox is dropped with the task's result, and ends.
        let lingers = !spec.linger.is_zero();
        let made = tokio::spawn(async move { inner.create(&spec).await });
        let made = made.await.map_err(|error| SandboxError::Host {
            operation: "make a container",
            source: Box::new(error),
        })??;
        // Only now is there somebody who knows of it.
        if lingers {
            made.linger();
        }
        Ok(Arc::new(made))
    }

    async fn attach(&self, state: &SandboxState) -> Result<Arc<dyn Sandbox>, SandboxError> {
        let found = Found::read(state)?;
        let (inner, state) = (Arc::clone(&self.inner), state.clone());
        let attached = tokio::spawn(async move {
            inner
                .connected()
                .await?
                .attach(state, found)
                .await
                .map(|sandbox| Arc::new(sandbox) as _)
        });
        attached.await.map_err(|error| SandboxError::Host {
            operation: "find a container again",
            source: Box::new(error),
        })?
    }

    async fn list(&self) -> Result<Vec<ListedSandbox>, SandboxError> {
        self.inner.connected().await?.list().await
    }

    async fn remove(&self, id: &SandboxId) -> Result<(), SandboxError> {
        let (inner, id) = (Arc::clone(&self.inner), id.clone());
        let removed = tokio::spawn(async move { inner.connected().await?.remove(&id).await });
        removed.await.map_err(|error| SandboxError::Host {
            operation: "remove a container",
            source: Box::new(error),
        })?
    }
}

/// Refuses what makes no sense, and what this backend never does.
fn check(spec: &SandboxSpec) -> Result<(), SandboxError> {
    spec.check()?;
    if spec.base.is_some() {
        let operation = "a base of the workspace; begin with an empty one and fill it";
        return Err(SandboxError::Unsupported { backend: BACKEND, operation });
    }
    if let Some(path) = spec.read_only.first() {
        return Err(unenforceable(
            Wall::Filesystem,
            format!(
                "read-only workspace paths ({path}) are not built by this backend; keep what must not change outside of \
                 the workspace, or compare it afterwards"
            ),
        ));
    }
    Ok(())
}

fn unenforceable(wall: Wall, reason: impl Into<String>) -> SandboxError {
    SandboxError::Unenforceable { backend: BACKEND, wall, reason: reason.into() }
}

impl Inner {
    async fn connected(&self) -> Result<&Connected, SandboxError> {
        let connect = || Connected::new(&self.endpoint, self.timeout, self.keep);
        self.connected.get_or_try_init(connect).await
    }

    async fn guarantees(&self) -> Result<&Guarantees, SandboxError> {
        self.guarantees.get_or_try_init(|| self.probe()).await
    }

    /// Builds a sandbox to see what stands, and takes it down again.
    async fn probe(&self) -> Result<Guarantees, SandboxError> {
        let connected = self.connected().await?;
        let built = connected.create_of(&SandboxSpec::default(), None, &self.images).await;
        let built = match built {
            Ok(sandbox) => sandbox.close().await,
            Err(error @ SandboxError::Unavailable { .. }) => return Err(error),
            Err(error) => Err(error),
        };
        Ok(walls::guarantees(&connected.facts(), built.as_ref().err()))
    }

    /// Refuses the first wall that was demanded in full and is not, and any limit that the engine would pass over.
    async fn demand_walls(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        let connected = self.connected().await?;
        let wants_cpu = spec.limits.cpu_millis.is_some() || spec.limits.cpu_weight.is_some();
        let asked = [
            (Wall::SystemCalls, true),
            (Wall::MemoryLimit, true),
            (Wall::ProcessLimit, true),
            (Wall::CpuLimit, wants_cpu),
        ];
        for (wall, _) in asked.into_iter().filter(|(_, asked)| *asked) {
            if let Enforcement::Missing { reason, remedy } =
                walls::enforcement(wall, &connected.facts())
            {
                return Err(unenforceable(wall, with_remedy(reason, remedy.as_ref())));
            }
        }
        if !spec.strict && spec.require.is_empty() {
            return Ok(());
        }
        self.guarantees().await?.demand(spec, BACKEND)
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<DockerSandbox, SandboxError> {
        self.connected().await?.create_of(spec, Some(&spec.root), &self.images).await
    }
}

fn with_remedy(reason: String, remedy: Option<&String>) -> String {
    remedy.map_or(reason.clone(), |remedy| format!("{reason}; {remedy}"))
}

impl Connected {
    async fn new(
        endpoint: &Arc<DockerEndpoint>,
        timeout: Duration,
        keep: Keep,
    ) -> Result<Self, SandboxError> {
        let engine = Engine::connect(Arc::clone(endpoint), timeout).await?;
        let info = engine.call("ask for the engine's state", engine.client().info()).await?;
        check_host(&info)?;
        let swept = sweep::sweep(&engine).await?;
        if swept > 0 {
            tracing::info!(swept, "removed containers of sandboxes that are nobody's any more");
        }
        let mapped = info.security_options.as_deref().unwrap_or_default();
        let mapped =
            mapped.iter().any(|o| o.contains("name=userns") || o.contains("name=rootless"));
        // Anywhere, so that processes that share an engine do not all begin with the same users.
        let start = getrandom::u32().map_err(no_random)?;
        let seccomp =
            Delivery::of(engine.is_podman(), engine.is_local()).map_err(profile_failure)?;
        let connected = Self {
            engine,
            info,
            seccomp,
            events: Arc::default(),
            labels: Labels { owner: Owner::this() },
            users: if mapped { Users::MAPPED } else { Users::HIGH },
            turn: AtomicU32::new(start),
            layered: Mutex::default(),
            keep,
        };
        connected.sweep_images().await;
        Ok(connected)
    }

    /// Removes prepared images beyond what is kept. That it fails is no reason not to make a sandbox.
    async fn sweep_images(&self) {
        match prepared::sweep(&self.engine, self.keep).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed prepared images that were not used"),
            Err(error) => tracing::warn!(%error, "could not look for unused prepared images"),
        }
    }

    fn facts(&self) -> Facts<'_> {
        let engine = &self.engine;
        Facts { info: &self.info, is_podman: engine.is_podman(), is_local: engine.is_local() }
    }

    /// Returns the image with the guest in it, and whether it was not there and has been made.
    async fn layered(&self, image: &Image) -> Result<(String, bool), SandboxError> {
        let mut layered = self.layered.lock().await;
        if let Some(found) = layered.get(&image.id).filter(|found| found.noted.elapsed() < NOTED) {
            return Ok((found.id.clone(), false));
        }
        // What has gone from the engine need not be remembered.
        layered.retain(|_, found| found.noted.elapsed() < NOTED);
        let (id, made) =
            prepare::layered_image(&self.engine, &image.id, self.users, &self.labels).await?;
        let found = Layered { id: id.clone(), noted: Instant::now() };
        layered.insert(image.id.clone(), found);
        Ok((id, made))
    }

    /// Makes a sandbox of the image of a root, or an empty one; the image is found again if somebody removes it meanwhile.
    async fn create_of(
        &self,
        spec: &SandboxSpec,
        root: Option<&RootFilesystem>,
        options: &ImageOptions,
    ) -> Result<DockerSandbox, SandboxError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let image = match root {
                Some(root) => image::find(&self.engine, root, options).await?,
                None => image::empty(&self.engine, options).await?,
            };
            match self.create(spec, &image).await {
                Err(error) if attempts < ATTEMPTS && prepared::image_is_gone(&error) => {}
                done => return done,
            }
        }
    }

    async fn create(
        &self,
        spec: &SandboxSpec,
        image: &Image,
    ) -> Result<DockerSandbox, SandboxError> {
        let id = SandboxId::new(random_text()?);
        let name = format!("cofferdam-{id}");
        let container = Container::new(
            self.engine.clone(),
            name.clone(),
            self.events.follow(&self.engine, &name),
        );
        let lingers = !spec.linger.is_zero();
        let token = if lingers { Some(new_token()?) } else { None };
        let environment = container::environment(&image.environment, spec);
        let mut data = json!({ "container": name, "labels": spec.labels });
        if lingers {
            data["lingering"] = json!(Lingering {
                environment: environment.clone(),
                output_bytes: spec.limits.output_bytes,
                idle_time: spec.limits.idle_time,
                linger: spec.linger,
            });
        }
        let state = SandboxState { version: 1, backend: BACKEND.to_owned(), id, data };
        self.make(spec, image, &state, &name, token).await?;
        let said = Said::default();
        let options = GuestOptions {
            workspace: WORKSPACE.to_owned(),
            environment,
            max_output_bytes: spec.limits.output_bytes,
            idle_time: spec.limits.idle_time,
            session: token.map(|token| SessionOptions::new(token, spec.linger)),
            ..GuestOptions::default()
        };
        let client = self.start(options, &container, &said).await?;
        Ok(DockerSandbox::new(state, client, said, container, spec.limits.wall_time))
    }

    /// Asks the engine for the container.
    async fn make(
        &self,
        spec: &SandboxSpec,
        image: &Image,
        state: &SandboxState,
        name: &str,
        token: Option<SessionToken>,
    ) -> Result<(), SandboxError> {
        let mut labels = self.labels.for_sandbox(state.id.as_str(), spec);
        labels.insert(labels::STATE.to_owned(), state.data.to_string());
        if let Some(token) = token {
            labels.insert(labels::SESSION.to_owned(), attach::token_text(token));
        }
        let seccomp = self.seccomp.option(spec.system_calls).map_err(profile_failure)?;
        let (layered, new) = self.layered(image).await?;
        let body = container::body(&Plan {
            spec,
            image: &layered,
            image_volumes: &image.volumes,
            podman: self.engine.is_podman(),
            user: self.users.next(&self.turn),
            seccomp: seccomp.as_deref(),
            labels,
        });
        let options = CreateContainerOptions { name: Some(name.to_owned()), ..Default::default() };
        let created = self.engine.client().create_container(Some(options), body);
        let created = self.engine.call("make a container", created).await;
        if created.as_ref().is_err_and(prepared::image_is_gone) {
            self.layered.lock().await.remove(&image.id);
        }
        for warning in created?.warnings {
            tracing::debug!(name, warning, "the engine warns");
        }
        // Only now, when a container holds the image.
        if new {
            self.sweep_images().await;
        }
        Ok(())
    }

    /// Attaches to the guest's streams, starts it, and greets it.
    async fn start(
        &self,
        options: GuestOptions,
        container: &Container,
        said: &Said,
    ) -> Result<GuestClient, SandboxError> {
        let attach = AttachContainerOptions {
            stream: true,
            stdin: true,
            stdout: true,
            stderr: true,
            ..Default::default()
        };
        let attached = self.engine.client().attach_container(container.name(), Some(attach));
        let attached = self.engine.call("attach to a container", attached).await?;
        let started = self.engine.client().start_container(container.name(), None);
        self.engine.call("start a container", started).await.map_err(start_failure)?;
        match GuestClient::connect(guest_stream(attached, said.clone()), options).await {
            Ok(client) => Ok(client),
            Err(error) => Err(better_reason(error, container.following(), said).await),
        }
    }
}

/// Says what to do about a container that the engine could make and not start.
fn start_failure(error: SandboxError) -> SandboxError {
    let Some((_, message)) = refusal(&error) else { return error };
    let remedy = if message.contains("seccomp") {
        "use a newer runc and libseccomp"
    } else if message.contains("cgroup") || message.contains("memory") {
        "raise the limits that were asked for, or look at the control groups of the engine's host"
    } else {
        "look at the engine's log"
    };
    SandboxError::HostUnable {
        backend: BACKEND,
        step: "start a container".to_owned(),
        reason: message.to_owned(),
        remedy: remedy.to_owned(),
    }
}

/// Refuses an engine whose machine cannot run the guest.
fn check_host(info: &SystemInfo) -> Result<(), SandboxError> {
    let system = info.os_type.as_deref().unwrap_or("linux");
    let architecture = info.architecture.as_deref().unwrap_or(std::env::consts::ARCH);
    let fits = matches!(
        (architecture, image::platform()),
        ("x86_64" | "amd64", "amd64") | ("aarch64" | "arm64", "arm64")
    );
    if system == "linux" && fits {
        return Ok(());
    }
    Err(SandboxError::HostUnable {
        backend: BACKEND,
        step: "use the engine's machine".to_owned(),
        reason: format!(
            "it runs {system} on {architecture}, and the guest is built for linux on {}",
            std::env::consts::ARCH
        ),
        remedy: "build for the architecture of that machine, or use another engine".to_owned(),
    })
}

fn profile_failure(error: std::io::Error) -> SandboxError {
    SandboxError::Host { operation: "hand its seccomp profile on", source: Box::new(error) }
}

fn new_token() -> Result<SessionToken, SandboxError> {
    let mut token = [0; 32];
    getrandom::fill(&mut token).map_err(no_random)?;
    Ok(SessionToken(token))
}

fn no_random(error: getrandom::Error) -> SandboxError {
    SandboxError::Host { operation: "draw a random number", source: Box::new(error) }
}

fn random_text() -> Result<String, SandboxError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(no_random)?;
    Ok(format!("{:032x}", u128::from_be_bytes(random)))
}
