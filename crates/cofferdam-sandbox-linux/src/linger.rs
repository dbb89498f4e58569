//! Sandboxes that outlive this process: starting one, finding it again, listing and removing.
//!
//! Each has a supervisor ([`Supervisor`]) and a directory ([`StateDirectory`]). A process that wants one connects to its
//! supervisor, which counts it as attached, and to the guest's own socket.

use std::{
    io::{self, Read as _, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream as StdStream},
    time::{Duration, Instant},
};

use cofferdam_core::{SandboxId, Timestamp};
use cofferdam_sandbox::{
    GuestOptions, ListedSandbox, LossReason, SandboxError, SandboxSpec, SandboxState,
    SessionOptions, SessionToken,
};
use rustix::time::{ClockId, clock_gettime};

use crate::{
    backend::{Inner, Prepared, new_id, not_started, random},
    cgroups::{Group, Owner, path_bytes},
    launch::{Launched, REMOVE_TIMEOUT, loss_reason},
    launcher::Supervisor,
    layout::{Layout, Places, WORKSPACE},
    mode::Mode,
    plan::Linger,
    report,
    report_stream::Report,
    sandbox::{Started, cleanup, options},
    setup::{BACKEND, host, invalid},
    state_directory::{Entry, StateDirectory, StateFile, is_gone},
};

/// How long a supervisor may take to say how it stands.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a supervisor may take to end its sandbox.
const END_TIMEOUT: Duration = Duration::from_secs(15);

/// How much longer than its supervisor the guest waits, so that it is the supervisor that knows why the sandbox has ended.
const GRACE: Duration = Duration::from_secs(5);

impl Inner {
    /// Returns where sandboxes that linger are found again.
    pub(crate) fn state_directory(&self) -> Result<&StateDirectory, SandboxError> {
        self.state.as_ref().ok_or(SandboxError::Unsupported {
            backend: BACKEND,
            operation: "lingering without a directory for its state \
                        (`LinuxBackend::with_state_directory`)",
        })
    }

    /// Starts a sandbox that outlives this process.
    pub(crate) fn start_lingering(
        &self,
        spec: &SandboxSpec,
        mode: Mode,
        layout: Layout,
        kept: &[OwnedFd],
    ) -> Result<Started, SandboxError> {
        let directory = self.state_directory()?;
        directory.prepare()?;
        let id = new_id()?;
        let Some(entry) = directory.entry(&id) else {
            return Err(invalid(format!("no sandbox can be named {id}")));
        };
        let token = SessionToken(random()?);
        let mut options = options(spec, &Places::of_own_root());
        options.session = Some(session(token, spec.linger));

        let supervisor =
            Supervisor::start(id.as_str()).map_err(host("start the supervisor of a sandbox"))?;
        let owner = Owner::of_process(supervisor.pid);
        let Prepared { mut plan, group, .. } = self.prepare(spec, mode, layout, &id, owner)?;
        plan.linger = Some(Linger {
            time_ms: u64::try_from(spec.linger.as_millis()).unwrap_or(u64::MAX),
            directory: path_bytes(&entry.directory),
            ended: path_bytes(&entry.ended),
        });
        let file = StateFile {
            version: StateFile::VERSION,
            id,
            created: now(),
            labels: spec.labels.clone(),
            supervisor: supervisor.pid,
            wall_time: spec.limits.wall_time,
            linger: spec.linger,
            environment: options.environment.clone(),
            output_bytes: options.max_output_bytes,
            idle_time: options.idle_time,
            token: token_text(token),
            group: group.clone(),
        };
        let made = match directory.make(&file) {
            Ok(made) => made,
            Err(error) => {
                group
                    .remove()
                    .map_err(host("remove the cgroups of a sandbox that did not start"))?;
                return Err(error);
            }
        };
        let started = Launched::start_lingering(supervisor, &plan, group.clone(), made, kept);
        match started {
            Ok((launched, stream)) => Ok(Started {
                state: file.state(),
                options,
                launched,
                stream,
                group,
                confined: None,
            }),
            Err(error) => {
                entry.remove().map_err(host("remove the state of a sandbox that did not start"))?;
                Err(not_started(&group, error))
            }
        }
    }

    /// Connects to a sandbox that lingers.
    pub(crate) fn find(&self, state: &SandboxState) -> Result<Started, SandboxError> {
        if state.backend != BACKEND || state.version != 1 {
            return Err(invalid(format!(
                "the state is of the {} backend, version {}; this is {BACKEND}, version 1",
                state.backend, state.version
            )));
        }
        let directory = self.state_directory()?;
        if state.data["lingers"] != true {
            return Err(gone("it was not asked to outlive its process (`SandboxSpec::linger`)"));
        }
        let Some(entry) = directory.entry(&state.id) else {
            return Err(invalid("the state names no sandbox"));
        };
        directory.prepare()?;
        let file = match entry.read() {
            Ok(file) => file,
            Err(error) if is_gone(&error) => return Err(ended(&entry)),
            Err(error) => {
                return Err(invalid(format!("the state of {} cannot be read: {error}", state.id)));
            }
        };
        let token = parse_token(&file.token)
            .ok_or_else(|| invalid(format!("the state of {} has no token", state.id)))?;
        let connected = entry.connect_supervisor().and_then(|control| {
            control.set_write_timeout(Some(ANSWER_TIMEOUT))?;
            let stream = entry.connect_guest()?;
            stream.set_nonblocking(true)?;
            Ok((control, stream))
        });
        let (control, stream) = match connected {
            Ok(connected) => connected,
            Err(error) if is_gone(&error) => return Err(ended(&entry)),
            Err(error) => return Err(host("connect to a sandbox that lingers")(error)),
        };
        let launched = Launched::attach(control, file.group.clone(), entry)
            .map_err(host("attach to the supervisor of a sandbox"))?;
        Ok(Started {
            confined: None,
            state: file.state(),
            options: GuestOptions {
                workspace: WORKSPACE.to_owned(),
                environment: file.environment,
                max_output_bytes: file.output_bytes,
                idle_time: file.idle_time,
                session: Some(session(token, file.linger)),
                ..GuestOptions::default()
            },
            launched,
            stream,
            group: file.group,
        })
    }

    /// Returns the sandboxes that linger.
    pub(crate) fn list(&self) -> Result<Vec<ListedSandbox>, SandboxError> {
        let Some(directory) = &self.state else { return Ok(Vec::new()) };
        let entries = directory.entries()?;
        if !entries.is_empty() {
            directory.prepare()?;
        }
        Ok(entries.iter().filter_map(listed).collect())
    }

    /// Ends a sandbox that lingers, whoever is attached to it.
    pub(crate) fn remove(&self, id: &SandboxId) -> Result<(), SandboxError> {
        let Some(entry) = self.state.as_ref().and_then(|directory| directory.entry(id)) else {
            return Ok(());
        };
        entry.forget().map_err(|source| cleanup(entry.ended.display().to_string(), source))?;
        let group = match entry.read() {
            Ok(file) => file.group,
            // It is being removed by somebody else, or there was none.
            Err(error) if is_gone(&error) => Group::default(),
            Err(error) => {
                tracing::warn!(%id, %error, "a sandbox is removed whose state cannot be read");
                Group::default()
            }
        };
        match entry.connect_supervisor().and_then(end) {
            Ok(()) => {}
            Err(error) if is_gone(&error) => {
                // Nobody is there to do it: the rest, if there is one, goes here.
                group.kill().map_err(|source| cleanup(group.to_string(), source))?;
            }
            Err(source) => {
                group.kill().map_err(|source| cleanup(group.to_string(), source))?;
                return Err(cleanup(format!("the supervisor of {id}"), source));
            }
        }
        remove_group(&group).map_err(|source| cleanup(group.to_string(), source))?;
        entry.remove().map_err(|source| cleanup(entry.directory.display().to_string(), source))
    }
}

/// Removes cgroups whose processes were killed.
fn remove_group(group: &Group) -> io::Result<()> {
    const PAUSE: Duration = Duration::from_millis(2);
    let deadline = Instant::now() + REMOVE_TIMEOUT;
    loop {
        match group.remove() {
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                std::thread::sleep(PAUSE);
            }
            removed => return removed,
        }
    }
}

/// Asks a supervisor for the end and waits for it.
fn end(mut supervisor: StdStream) -> io::Result<()> {
    supervisor.set_write_timeout(Some(END_TIMEOUT))?;
    supervisor.set_read_timeout(Some(END_TIMEOUT))?;
    // It may end at the same moment.
    let _ = supervisor.write_all(&[report::END]);
    // What it says last is that nothing is left.
    match supervisor.read_to_end(&mut Vec::new()) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        read => read.map(drop),
    }
}

/// Returns a sandbox as its directory and its supervisor tell of it; none if it has ended or tells nothing.
fn listed(entry: &Entry) -> Option<ListedSandbox> {
    let file = entry.read().ok()?;
    let mut expires = file.created.as_millis().saturating_add(millis(file.wall_time));
    let connected = match entry.connect_supervisor().and_then(status) {
        Ok(status) => {
            if let Ok(left) = status.detail.parse::<u64>() {
                expires = expires.min(now().as_millis().saturating_add(left));
            }
            status.code != 0
        }
        Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::UnexpectedEof => {
            return None;
        }
        Err(error) => {
            tracing::warn!(id = %file.id, %error, "the supervisor of a sandbox does not answer");
            true
        }
    };
    Some(ListedSandbox {
        id: file.id.clone(),
        backend: BACKEND.to_owned(),
        labels: file.labels.clone(),
        created: file.created,
        expires: Some(Timestamp(expires)),
        connected,
        state: file.state(),
    })
}

/// Hears how it stands. A supervisor that has ended may say that instead, or nothing.
fn status(mut supervisor: StdStream) -> io::Result<Report> {
    supervisor.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let (mut said, mut at) = (Vec::new(), 0);
    loop {
        while let Some((report, end)) = Report::parse(&said[at..]) {
            if report.kind == report::STATUS {
                return Ok(report);
            }
            at += end;
        }
        let mut piece = [0; 512];
        match supervisor.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => said.extend_from_slice(&piece[..length]),
        }
    }
}

/// Says what is known of the end of a sandbox that is not there.
fn ended(entry: &Entry) -> SandboxError {
    let reason = entry.read_ended().and_then(|said| {
        let (said, _) = Report::parse(&said)?;
        (said.kind == report::ENDED).then(|| loss_reason(&said))
    });
    match reason {
        Some(LossReason::Closed) => gone("another process ended it"),
        Some(reason) => SandboxError::Lost { reason },
        None => gone("it was closed, its supervisor was killed, or this host has restarted"),
    }
}

fn gone(detail: &str) -> SandboxError {
    SandboxError::Lost { reason: LossReason::Removed { detail: detail.to_owned() } }
}

fn session(token: SessionToken, linger: Duration) -> SessionOptions {
    SessionOptions::new(token, linger.saturating_add(GRACE))
}

fn now() -> Timestamp {
    let time = clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Timestamp(seconds * 1000 + u64::try_from(time.tv_nsec / 1_000_000).unwrap_or(0))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn token_text(token: SessionToken) -> String {
    token.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_token(text: &str) -> Option<SessionToken> {
    let mut token = [0; 32];
    if text.len() != 2 * token.len() || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in token.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(SessionToken(token))
}
