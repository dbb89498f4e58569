//! [`LinuxBackend`]: makes sandboxes on this host.

use std::{
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use async_trait::async_trait;
use cofferdam_core::{NetworkAccess, SandboxId};
use cofferdam_image::ImageCacheOptions;
use cofferdam_sandbox::{
    Capabilities, Guarantees, ListedSandbox, RootFilesystem, Sandbox, SandboxBackend, SandboxError,
    SandboxSpec, SandboxState, Wall, WorkspaceBase,
};
use serde_json::json;

use crate::{
    cgroups::{Cgroups, Controller, Group, Owner, path_bytes, process_slots},
    confined,
    filter::{Confinement, Filters},
    identity::{self, Facts},
    launch::Launched,
    launcher::Launchers,
    layout::{Layout, Places, WRITABLE},
    mode::{Cause, Mode},
    plan::{self, Plan, Root, Scratch},
    private_directory::{self, PrivateDirectory},
    report::Step,
    rootfs::{ImageLease, Images, Rootfs},
    sandbox::{Confined, LinuxSandbox, Started, options},
    setup::{BACKEND, HostSettings, describe, host, invalid, oldest_kernel, unenforceable},
    state_directory::StateDirectory,
    walls::{self, DELEGATE, Probe},
    workspace,
};

/// Makes sandboxes on this host out of what its kernel has, as root or as an ordinary user, without a daemon.
///
/// Cloning it gives another handle to the same backend. It looks at the host once, at the first use.
#[derive(Debug, Clone, Default)]
pub struct LinuxBackend {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    cgroup_parent: Option<PathBuf>,
    /// Where the directories of sandboxes without namespaces are made, if somebody has said.
    private_parent: Option<PathBuf>,
    /// Whether the caller wants no namespaces.
    no_namespaces: bool,
    fault: Option<(Step, i32)>,
    /// Where sandboxes that linger are found again.
    pub(crate) state: Option<StateDirectory>,
    launchers: Launchers,
    images: Arc<Images>,
    host: OnceLock<Host>,
    mode: Mutex<Option<Mode>>,
    /// What was found in a mode, by building a sandbox in it.
    found: tokio::sync::Mutex<Option<(Mode, Guarantees)>>,
    /// The same of what sandboxes can do besides.
    capable: tokio::sync::Mutex<Option<(Mode, Capabilities)>>,
}

/// What is found once on this host.
#[derive(Debug)]
struct Host {
    cgroups: Cgroups,
    facts: Facts,
    filters: Filters,
    layout: Layout,
    owner: Owner,
}

/// Everything for one sandbox, before it is started.
pub(crate) struct Prepared {
    pub(crate) plan: Plan,
    pub(crate) group: Group,
    pub(crate) places: Places,
    pub(crate) confined: Option<Confined>,
}

impl LinuxBackend {
    /// Returns a backend that makes cgroups below the one of this process.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a backend that makes cgroups below a given one, such as one that systemd delegated.
    ///
    /// The path is that of `/proc/self/cgroup`: absolute, from the top of the hierarchy. With cgroup v2 no process may be
    /// in it.
    #[must_use]
    pub fn with_cgroup_parent(parent: impl Into<PathBuf>) -> Self {
        Self { inner: Arc::new(Inner { cgroup_parent: Some(parent.into()), ..Inner::default() }) }
    }

    /// Returns this backend with a directory in which it unpacks images, for [`RootFilesystem::Archive`] and
    /// [`RootFilesystem::Image`]; without one it refuses them.
    ///
    /// Several processes may share a directory. It is made if it is not there, and must belong to the user of this process
    /// and be writable for nobody else. Call this before the backend is used or cloned: another handle stays as it is.
    #[must_use]
    pub fn with_image_cache(
        self,
        directory: impl Into<PathBuf>,
        options: ImageCacheOptions,
    ) -> Self {
        let images = Arc::new(Images::new(directory.into(), options));
        Self { inner: Arc::new(Inner { images, ..self.inner.unused() }) }
    }

    /// Returns this backend with a directory in which sandboxes that linger are found again; without one it refuses
    /// [`SandboxSpec::linger`].
    ///
    /// All backends that are to find each other's sandboxes are given the same one, which should not outlive a boot, such as
    /// one below `XDG_RUNTIME_DIR`. It is made when it is first needed, and must belong to the user of this process with mode
    /// 0700: whoever reads it can use the sandboxes. Call this before the backend is used or cloned: another handle stays as
    /// it is.
    #[must_use]
    pub fn with_state_directory(self, directory: impl Into<PathBuf>) -> Self {
        let state = Some(StateDirectory::new(directory.into()));
        Self { inner: Arc::new(Inner { state, ..self.inner.unused() }) }
    }

    /// Returns this backend such that it makes every sandbox without namespaces, as it does by itself on hosts that let nobody
    /// make them.
    ///
    /// Such a sandbox stands behind Landlock (version 6, Linux 6.12), a stricter system call filter and limits only. Most walls
    /// are reported as weaker, so `strict` refuses it. A root of its own, a workspace on a base, lingering, ports, watching and,
    /// for an ordinary user, terminals are refused by name or not there. Call this before the backend is used or cloned:
    /// another handle stays as it is.
    #[must_use]
    pub fn without_namespaces(self) -> Self {
        Self { inner: Arc::new(Inner { no_namespaces: true, ..self.inner.unused() }) }
    }

    /// Returns this backend with a directory in which it makes the directories of sandboxes without namespaces; without one it
    /// uses `/var/tmp`, or else `/tmp`.
    ///
    /// It must be there, and writable for the user of this process; programs must be allowed to run from it. What is in it has
    /// no bound. Call this before the backend is used or cloned: another handle stays as it is.
    #[must_use]
    pub fn with_private_directory(self, directory: impl Into<PathBuf>) -> Self {
        let private_parent = Some(directory.into());
        Self { inner: Arc::new(Inner { private_parent, ..self.inner.unused() }) }
    }

    /// Returns a backend whose launcher fails a step instead of doing it.
    #[cfg(test)]
    fn with_fault(step: Step, errno: i32) -> Self {
        Self { inner: Arc::new(Inner { fault: Some((step, errno)), ..Inner::default() }) }
    }

    /// Starts a sandbox and returns what it takes to talk to it. One that lingers has `kept` open as long as it lives.
    async fn start(
        &self,
        spec: &SandboxSpec,
        mode: Mode,
        layout: Option<Layout>,
        kept: Vec<OwnedFd>,
    ) -> Result<Started, SandboxError> {
        let inner = Arc::clone(&self.inner);
        let spec = spec.clone();
        // If this future is dropped, the handle is dropped with the task's result, and that ends the sandbox.
        blocking("hand a sandbox to the launcher", move || {
            let layout = layout.map_or_else(|| inner.layout(&spec), Ok)?;
            if spec.linger.is_zero() {
                inner.start(&spec, mode, layout)
            } else {
                inner.start_lingering(&spec, mode, layout, &kept)
            }
        })
        .await
    }

    /// Returns the root of an image, if the spec asks for one.
    async fn rootfs(&self, spec: &SandboxSpec) -> Result<Option<Rootfs>, SandboxError> {
        let inner = Arc::clone(&self.inner);
        let (root, network) = (spec.root.clone(), spec.network);
        blocking("unpack an image", move || inner.images.rootfs(&root, network)).await
    }

    /// Builds a sandbox to see what stands, and takes it down again; in a weaker mode, if it must be.
    async fn probe(&self) -> Result<(Mode, Guarantees), SandboxError> {
        loop {
            let mode = self.inner.mode();
            let spec = SandboxSpec::default();
            let (built, failed) = match self.start(&spec, mode, None, Vec::new()).await {
                Ok(Started { launched, stream: _stream, .. }) => {
                    let watch = launched.watch();
                    (watch.clone().ready().await, watch.failed_step())
                }
                Err(error) => (Err(error), None),
            };
            if let Err(error @ SandboxError::Host { .. }) = built {
                // A passing want of the host says nothing on its walls.
                return Err(error);
            }
            if self.inner.weaken(mode, failed)? {
                continue;
            }
            let host = self.inner.host()?;
            let own_user = match mode.confined {
                None => host.facts.may_map,
                Some(_) => host.facts.other_user(),
            };
            let built = built.map_err(|error| explained(error, mode));
            let probe = Probe { built, mode, cgroups: &host.cgroups, own_user };
            return Ok((mode, walls::guarantees(&probe)));
        }
    }

    /// Builds sandboxes to see what they can do besides.
    async fn look(&self, mode: Mode) -> Result<Capabilities, SandboxError> {
        // A directory of root's that is everywhere, and that every sandbox may see.
        let base = Some(WorkspaceBase::new("/usr"));
        let mut found = Capabilities::default();
        for spec in [SandboxSpec { base, ..SandboxSpec::default() }, SandboxSpec::default()] {
            if let Some(cause) = mode.confined
                && let Err(error) = confined::check(&spec, cause)
            {
                found.notes.push(error.to_string());
                continue;
            }
            match self.look_at(&spec, mode).await {
                Ok((seen, freezes)) => {
                    found.workspace_base = spec.base.is_some();
                    (found.host_workspace, found.freeze) = (seen, freezes);
                    break;
                }
                // A passing want of the host says nothing on what it can do.
                Err(error @ SandboxError::Host { .. }) => return Err(error),
                Err(error) => found.notes.push(error.to_string()),
            }
        }
        if !found.freeze {
            found
                .notes
                .push(format!("no sandbox can be frozen: there is no cgroup for it; {DELEGATE}"));
        }
        let linger =
            SandboxSpec { linger: std::time::Duration::from_secs(1), ..SandboxSpec::default() };
        let lingers = mode.confined.map_or(Ok(()), |cause| confined::check(&linger, cause));
        match lingers.and_then(|()| self.inner.state_directory()) {
            Ok(_) => found.linger = true,
            Err(error) => found.notes.push(error.to_string()),
        }
        Ok(found)
    }

    /// Builds a sandbox, takes it down again, and says whether the host saw its workspace and could freeze it.
    async fn look_at(&self, spec: &SandboxSpec, mode: Mode) -> Result<(bool, bool), SandboxError> {
        let Started { launched, group, stream: _stream, .. } =
            self.start(spec, mode, None, Vec::new()).await?;
        let watch = launched.watch();
        let built = watch.clone().ready().await;
        built.map_err(|error| workspace::refused(spec, watch.failed_step()).unwrap_or(error))?;
        let found = (launched.workspace().is_there(), group.can_freeze());
        launched.stop();
        watch.ended().await?;
        Ok(found)
    }

    /// Makes a sandbox in a mode, with the root of an image if there is one; a failure comes with the step that failed, if it
    /// was one.
    async fn attempt(
        &self,
        spec: &SandboxSpec,
        mode: Mode,
        rootfs: Option<Rootfs>,
    ) -> Result<LinuxSandbox, (SandboxError, Option<(Step, i32)>)> {
        let mut spec = spec.clone();
        let (layout, image) = match rootfs {
            None => (None, None),
            Some(Rootfs { layout, search_path, lease }) => {
                if let Some(path) = search_path {
                    spec.environment.entry("PATH".to_owned()).or_insert(path);
                }
                (Some(layout), Some(lease))
            }
        };
        let kept = kept(&spec, image.as_ref());
        let kept = kept.map_err(|error| (host("keep what a sandbox is made of")(error), None))?;
        let started = self.start(&spec, mode, layout, kept).await;
        let started = started.map_err(|error| (error, None))?;
        let watch = started.launched.watch();
        let connected = LinuxSandbox::connect(started).await;
        let sandbox = connected.map_err(|error| (error, watch.failed_step()))?;
        Ok(sandbox.keeping(image))
    }

    /// Refuses the first wall that was demanded in full and is not.
    async fn demand_walls(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        if !spec.strict && spec.require.is_empty() {
            return Ok(());
        }
        self.guarantees().await?.demand(spec, BACKEND)
    }
}

#[async_trait]
impl SandboxBackend for LinuxBackend {
    fn name(&self) -> &str {
        BACKEND
    }

    async fn guarantees(&self) -> Result<Guarantees, SandboxError> {
        let mut found = self.inner.found.lock().await;
        match &*found {
            Some((mode, guarantees)) if *mode == self.inner.mode() => Ok(guarantees.clone()),
            _ => Ok(found.insert(self.probe().await?).1.clone()),
        }
    }

    async fn capabilities(&self) -> Result<Capabilities, SandboxError> {
        // First, since what it finds may change the mode.
        self.guarantees().await?;
        let mode = self.inner.mode();
        let mut capable = self.inner.capable.lock().await;
        match &*capable {
            Some((known, capabilities)) if *known == mode => Ok(capabilities.clone()),
            _ => Ok(capable.insert((mode, self.look(mode).await?)).1.clone()),
        }
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<Arc<dyn Sandbox>, SandboxError> {
        self.inner.check(spec)?;
        // Layers are refused once at most: afterwards they are merged.
        let mut restacked = false;
        loop {
            self.demand_walls(spec).await?;
            let mode = self.inner.mode();
            if let Some(cause) = mode.confined {
                confined::check(spec, cause)?;
            }
            let rootfs = self.rootfs(spec).await?;
            let may_restack = rootfs.is_some() && !restacked;
            match self.attempt(spec, mode, rootfs).await {
                Ok(sandbox) => {
                    // Only now is there somebody who knows of it.
                    sandbox.keep()?;
                    return Ok(Arc::new(sandbox));
                }
                Err((error, _))
                    if may_restack && self.inner.images.has_refused_to_stack(&error) =>
                {
                    restacked = true;
                }
                // In a weaker mode a demand may not be met any more.
                Err((_, failed)) if self.inner.weaken(mode, failed)? => {}
                Err((error, failed)) => {
                    let error = explained(error, mode);
                    return Err(workspace::refused(spec, failed).unwrap_or(error));
                }
            }
        }
    }

    async fn attach(&self, state: &SandboxState) -> Result<Arc<dyn Sandbox>, SandboxError> {
        let (inner, state) = (Arc::clone(&self.inner), state.clone());
        let found = blocking("find a sandbox again", move || inner.find(&state)).await?;
        Ok(Arc::new(LinuxSandbox::resume(found).await?))
    }

    async fn list(&self) -> Result<Vec<ListedSandbox>, SandboxError> {
        let inner = Arc::clone(&self.inner);
        blocking("list the sandboxes", move || inner.list()).await
    }

    async fn remove(&self, id: &SandboxId) -> Result<(), SandboxError> {
        let (inner, id) = (Arc::clone(&self.inner), id.clone());
        blocking("remove a sandbox", move || inner.remove(&id)).await
    }
}

/// Returns descriptors for the supervisor of a sandbox that lingers, which keep what it is made of.
fn kept(spec: &SandboxSpec, image: Option<&ImageLease>) -> std::io::Result<Vec<OwnedFd>> {
    if spec.linger.is_zero() {
        return Ok(Vec::new());
    }
    let mut kept = image.map_or_else(|| Ok(Vec::new()), ImageLease::keepers)?;
    if let Some(lock) = spec.base.as_ref().and_then(|base| base.lock.as_ref()) {
        kept.push(lock.0.try_clone()?);
    }
    Ok(kept)
}

/// Does something that blocks.
async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T, SandboxError> + Send + 'static,
) -> Result<T, SandboxError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| SandboxError::Host { operation, source: Box::new(error) })?
}

impl Inner {
    /// Returns one with the same settings that has done nothing yet.
    fn unused(&self) -> Self {
        Self {
            cgroup_parent: self.cgroup_parent.clone(),
            private_parent: self.private_parent.clone(),
            no_namespaces: self.no_namespaces,
            fault: self.fault,
            state: self.state.clone(),
            images: Arc::clone(&self.images),
            ..Self::default()
        }
    }

    /// Refuses what makes no sense, and what this backend never does.
    fn check(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        spec.check()?;
        if !spec.linger.is_zero() {
            self.state_directory()?;
        }
        if let Some(path) = spec.read_only.first() {
            return Err(unenforceable(
                Wall::Filesystem,
                format!(
                    "read-only workspace paths ({path}) are not built by this backend; keep what must not change outside \
                     of the workspace, or compare it afterwards"
                ),
            ));
        }
        Ok(())
    }

    /// Starts a sandbox that ends with this process.
    fn start(
        &self,
        spec: &SandboxSpec,
        mode: Mode,
        layout: Layout,
    ) -> Result<Started, SandboxError> {
        let id = new_id()?;
        let Prepared { plan, group, places, confined } =
            self.prepare(spec, mode, layout, &id, self.host()?.owner)?;
        let private = confined.as_ref().map(|confined| Arc::clone(&confined.directory));
        let started = Launched::start(&self.launchers, &plan, group.clone(), private);
        let (launched, stream) = match started {
            Ok(started) => started,
            Err(error) => return Err(not_started(&group, error)),
        };
        let state = SandboxState {
            version: 1,
            backend: BACKEND.to_owned(),
            id,
            data: json!({ "pid": std::process::id(), "labels": spec.labels }),
        };
        Ok(Started { state, options: options(spec, &places), launched, stream, group, confined })
    }

    fn host(&self) -> Result<&Host, SandboxError> {
        if let Some(host) = self.host.get() {
            return Ok(host);
        }
        oldest_kernel(rustix::system::uname().release().to_string_lossy().as_ref())?;
        let cgroups =
            Cgroups::detect(self.cgroup_parent.as_deref()).map_err(host("find its cgroups"))?;
        let swept = cgroups.sweep();
        if swept > 0 {
            tracing::info!(swept, "removed cgroups of sandboxes whose process has died");
        }
        let swept = private_directory::sweep(self.private_parent.as_deref());
        if swept > 0 {
            tracing::info!(swept, "removed the files of sandboxes whose process has died");
        }
        if let Some(state) = &self.state {
            let swept = state.sweep()?;
            if swept > 0 {
                tracing::info!(swept, "removed the state of sandboxes whose supervisor has died");
            }
        }
        let found = Host {
            cgroups,
            facts: Facts::read().map_err(host("read who it runs as"))?,
            filters: Filters::compile().map_err(|error| SandboxError::Host {
                operation: "compile the system call filter",
                source: Box::new(error),
            })?,
            layout: Layout::of(&RootFilesystem::HostSystem, NetworkAccess::None)?,
            owner: Owner::current(),
        };
        Ok(self.host.get_or_init(|| found))
    }

    /// Returns the layout of a root that is not from an image.
    fn layout(&self, spec: &SandboxSpec) -> Result<Layout, SandboxError> {
        match (&spec.root, spec.network) {
            (RootFilesystem::HostSystem, NetworkAccess::None) => Ok(self.host()?.layout.clone()),
            (root, network) => Layout::of(root, network),
        }
    }

    fn mode(&self) -> Mode {
        self.mode.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(self.first_mode())
    }

    /// Returns how it is tried first.
    fn first_mode(&self) -> Mode {
        if self.no_namespaces { Mode::confined(Cause::Asked) } else { Mode::FULL }
    }

    /// Changes to the mode that does without what has failed; false if there is none.
    fn weaken(&self, mode: Mode, failed: Option<(Step, i32)>) -> Result<bool, SandboxError> {
        let Some(failed) = failed else { return Ok(false) };
        let other_user = self.host()?.facts.other_user();
        let Some(weaker) = mode.without(failed, other_user, HostSettings::read()) else {
            return Ok(false);
        };
        let mut current = self.mode.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have been here first; then the next attempt finds out.
        if current.unwrap_or(self.first_mode()) == mode {
            tracing::warn!(
                step = describe(failed.0),
                ?weaker,
                "building weaker sandboxes on this host"
            );
            *current = Some(weaker);
        }
        Ok(true)
    }

    /// Computes the plan of a sandbox and makes its cgroups, whose names tell of their owner.
    pub(crate) fn prepare(
        &self,
        spec: &SandboxSpec,
        mode: Mode,
        layout: Layout,
        id: &SandboxId,
        owner: Owner,
    ) -> Result<Prepared, SandboxError> {
        let found = self.host()?;
        let limits = &spec.limits;
        if limits.cpu_millis.is_some() || limits.cpu_weight.is_some() {
            let driven = found.cgroups.version(Controller::Cpu);
            driven.map_err(|reason| unenforceable(Wall::CpuLimit, reason))?;
        }
        let other_user = found.facts.other_user();
        let filters = match mode.confined {
            None => found.filters.of(spec.system_calls).map(<[_]>::to_vec),
            Some(_) => {
                let host_network = spec.network == NetworkAccess::Host;
                let confinement = Confinement { own_user: other_user, host_network };
                let made = found.filters.confined(spec.system_calls, confinement);
                made.map_err(|error| SandboxError::Host {
                    operation: "compile the system call filter",
                    source: Box::new(error),
                })?
            }
        };
        let filters = filters.ok_or_else(|| {
            unenforceable(
                Wall::SystemCalls,
                format!("the profile {:?} is not known", spec.system_calls),
            )
        })?;
        let identity = identity::choose(&found.facts, u32::from_le_bytes(random()?))
            .map_err(|reason| unenforceable(Wall::Privileges, reason))?;
        let base = workspace::base(spec, &found.facts, &identity)?;
        // The places, and the directory that they are in, are not the sandbox's.
        let own_inodes =
            WRITABLE.len() as u64 + 1 + base.as_ref().map_or(0, |_| workspace::OVERLAY_INODES);
        let name = owner.directory_name(id.as_str());
        let confined = mode.confined.map(|_| {
            let user = other_user.then_some((identity.outer_user, identity.outer_group));
            let made = PrivateDirectory::make(self.private_parent.as_deref(), &name, user)
                .map_err(host("make the sandbox's directory"))?;
            Ok::<_, SandboxError>(Confined { directory: Arc::new(made), terminals: other_user })
        });
        let confined = confined.transpose()?;
        let directory = confined.as_ref().map(|confined| confined.directory.path());
        let places = directory.map_or_else(|| Some(Places::of_own_root()), confined::places);
        let places =
            places.ok_or_else(|| invalid("the private directory of the backend is no text"))?;
        let group =
            found.cgroups.create(&name, limits).map_err(host("make the sandbox's cgroups"))?;
        // Without namespaces a user that others are too is counted with them.
        let shared = confined.is_some() && !other_user;
        let others = if shared { confined::allowance(found.facts.user) } else { 0 };
        let plan = Plan {
            fault: self.fault,
            hostname: b"sandbox".to_vec(),
            own_network: spec.network == NetworkAccess::None,
            own_users: mode.own_users,
            identity,
            cgroup_into: group.into_directory(),
            cgroup_joins: group.joins(),
            cgroup_directories: group.directories.iter().map(|d| path_bytes(d)).collect(),
            cgroup_thaw: group.freeze_file().map(|f| (path_bytes(&f.file), f.thaw.into())),
            oom_counter: group.oom_counter.as_deref().map(path_bytes),
            wall_time_ms: u64::try_from(limits.wall_time.as_millis()).unwrap_or(u64::MAX),
            confined: directory.and_then(|directory| {
                let directory = std::ffi::CString::new(path_bytes(directory)).ok()?;
                Some(plan::Confined { directory, own_user: other_user })
            }),
            linger: None,
            root: Root {
                staging: layout.staging,
                layers: layout.layers,
                trees: layout.trees,
                entries: layout.entries,
                own_proc: mode.own_proc,
            },
            scratch: Scratch {
                bytes: limits.disk_bytes,
                inodes: limits.disk_inodes.saturating_add(own_inodes),
                directories: match directory {
                    None => WRITABLE.map(Into::into).into(),
                    Some(_) => confined::PLACES.map(Into::into).into(),
                },
            },
            base,
            masks: layout.masks,
            resource_limits: resource_limits(spec, &found.cgroups, others),
            landlock: match directory {
                None => layout.landlock,
                Some(directory) => confined::landlock_rules(directory, spec.network, other_user),
            },
            filters,
        };
        Ok(Prepared { plan, group, places, confined })
    }
}

/// Returns random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], SandboxError> {
    let mut random = [0; N];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| host("get random numbers")(errno.into()))?;
    Ok(random)
}

/// Returns a name that no other sandbox has.
pub(crate) fn new_id() -> Result<SandboxId, SandboxError> {
    Ok(SandboxId::new(format!("{:032x}", u128::from_le_bytes(random()?))))
}

/// Removes the cgroups of a sandbox that nobody has taken, and makes the error for it.
pub(crate) fn not_started(group: &Group, error: std::io::Error) -> SandboxError {
    match group.remove() {
        Ok(()) => host("hand a sandbox to the launcher")(error),
        Err(error) => host("remove the cgroups of a sandbox that did not start")(error),
    }
}

/// Adds what is known of why a sandbox has no namespaces to an error.
fn explained(error: SandboxError, mode: Mode) -> SandboxError {
    match mode.confined {
        Some(cause) => confined::explain(error, cause),
        None => error,
    }
}

/// Limits of each process, beside `others` of the same user that are counted with it; those of the sandbox as a whole are cgroups and the size of the writable file system.
fn resource_limits(spec: &SandboxSpec, cgroups: &Cgroups, others: u64) -> Vec<(u32, u64)> {
    let limits = &spec.limits;
    let mut list = vec![
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_NOFILE, u64::from(limits.open_files)),
        // Counted in the user namespace, so it holds for the sandbox as a whole and for nothing else. It stands beside
        // the cgroup, and alone where there is none.
        (libc::RLIMIT_NPROC, process_slots(limits).saturating_add(others)),
        // No file can claim to be larger than the disk, also not a sparse one that takes no space.
        (libc::RLIMIT_FSIZE, limits.disk_bytes),
        (libc::RLIMIT_RTPRIO, 0),
    ];
    if cgroups.version(Controller::Memory).is_err() {
        list.push((libc::RLIMIT_AS, limits.memory_bytes));
    }
    list
}

#[cfg(test)]
#[path = "backend_faults.rs"]
mod faults;
