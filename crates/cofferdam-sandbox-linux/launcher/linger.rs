//! The supervisor: a launcher with one sandbox, which outlives the host that asked for it.
//!
//! It owns the sandbox: the walls end with it, and the names of the cgroups tell of it. Hosts come and go at its socket.
//! Whoever connects is told how it stands ([`report::STATUS`]) and, if it stays, how the sandbox ends. It may say that it is
//! attached, and that it wants the end. While nobody is attached the linger time runs.
//!
//! The host that asked is not attached before it says so: if it dies earlier, nobody knows of the sandbox, which ends.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{
            fs::OpenOptionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    child::DOOR,
    live::{self, Leaving, Live},
    maker::{Door, Maker, Request},
    plan::{LINGER_FILES, Linger},
    report::{self, EndCause},
    step,
    sys::{
        self,
        epoll::Epoll,
        message::{self, Received},
    },
};

/// What is ready; from [`FIRST_HOST`] on, a host.
const ENDED: u64 = 0;
const SAID: u64 = 1;
const ARRIVED: u64 = 2;
const KEPT: u64 = 3;
const FIRST_HOST: u64 = 4;

/// Hosts at a time; of those that are not attached, the one that came first makes room.
const MAX_HOSTS: usize = 32;

/// How often the removal of a cgroup is tried again.
const RETRY: Duration = Duration::from_millis(2);

/// Serves one sandbox from its request to its end.
pub(crate) fn serve() -> io::Result<()> {
    sys::close_between(DOOR.cast_unsigned(), u32::MAX)?;
    // Held for as long as the sandbox may be made, so that nothing else comes to be there.
    let place = File::open("/dev/null")?;
    if place.as_raw_fd() != DOOR {
        return Err(io::Error::from_raw_os_error(sys::EINVAL));
    }
    let (control, guest) = crate::prepare()?;
    let Some(descriptors) = receive(control)? else { return Ok(()) };
    let mut descriptors = descriptors.into_iter();
    let mut next = || descriptors.next().ok_or(io::Error::from_raw_os_error(sys::EINVAL));
    let (stream, report, plan, door, listener) = (next()?, next()?, next()?, next()?, next()?);
    // Locks that keep what the sandbox is made of: they are held as long as this process has them.
    let _kept: Vec<OwnedFd> = descriptors.collect();
    let report = File::from(report);
    let (kept_here, keep) = sys::socket_pair()?;
    let door = Door { socket: door, keep: keep.into() };
    let made = Request::new(stream, &report, plan.into(), Some(door)).and_then(|request| {
        let (linger, has_base) = (request.plan.linger.clone(), request.plan.base.is_some());
        let newborn = Maker::new(guest).make(request)?;
        Ok(newborn.zip(linger).map(|(newborn, linger)| (newborn, linger, has_base)))
    });
    let (newborn, linger, has_base) = match made {
        Ok(Some(made)) => made,
        Ok(None) => return Ok(()),
        Err(failure) => {
            failure.send(&report);
            return Ok(());
        }
    };
    let epoll = Epoll::new()?;
    let admitted = newborn.admit(|live| {
        epoll.add(live.pidfd.as_fd(), ENDED)?;
        epoll.add(live.said.as_fd(), SAID)?;
        epoll.add(kept_here.as_fd(), KEPT)
    });
    match admitted {
        (live, Ok(())) => {
            let workspace = Workspace { from: kept_here, directory: None, upper: has_base };
            Supervisor::new(epoll, live, linger, workspace, listener, report.into()).serve();
        }
        (live, Err(failure)) => {
            failure.send(&report);
            leave(live.end(EndCause::HostClosed, vec![report]));
        }
    }
    Ok(())
}

/// Waits for the request; none if the host is gone.
fn receive(control: OwnedFd) -> io::Result<Option<Vec<OwnedFd>>> {
    const POLLIN: i16 = 1;
    loop {
        let mut fds = [sys::PollFd { fd: control.as_raw_fd(), events: POLLIN, ready: 0 }];
        sys::poll_all(&mut fds, -1)?;
        match message::receive_descriptors(control.as_fd())? {
            Received::Descriptors(descriptors) => return Ok(Some(descriptors)),
            Received::Nothing => {}
            Received::End => return Ok(None),
        }
    }
}

/// Removes the cgroups and tells the end.
fn leave(mut leaving: Leaving) {
    while !leaving.finish() {
        std::thread::sleep(RETRY);
    }
}

struct Supervisor {
    epoll: Epoll,
    live: Live,
    linger: Linger,
    workspace: Workspace,
    listener: UnixListener,
    hosts: Vec<Host>,
    next: u64,
    /// Whether anybody was ever attached, and so may come back.
    known: bool,
    /// Since when nobody is attached.
    alone_since: Option<Instant>,
}

/// What a host may see of the workspace.
struct Workspace {
    /// Where the first process hands it over, before it becomes the guest.
    from: OwnedFd,
    directory: Option<OwnedFd>,
    /// Whether it is what lies above a base.
    upper: bool,
}

impl Workspace {
    /// Takes it; false if there is nothing more to come.
    fn take(&mut self) -> bool {
        match message::receive_descriptors(self.from.as_fd()) {
            Ok(Received::Descriptors(descriptors)) => {
                self.directory = descriptors.into_iter().next().or(self.directory.take());
                true
            }
            Ok(Received::Nothing) => true,
            Ok(Received::End) | Err(_) => false,
        }
    }

    /// Shows it to a host. One that cannot be told does without.
    fn show(&self, host: &UnixStream) {
        let Some(directory) = &self.directory else { return };
        let mut message = [0; report::HEADER_LENGTH];
        let kind = if self.upper { report::UPPER } else { report::WHOLE };
        message[..2].copy_from_slice(&[report::WORKSPACE, kind]);
        let _ = message::send_descriptor(host.as_fd(), &message, directory.as_fd());
    }
}

struct Host {
    token: u64,
    stream: UnixStream,
    /// Whether it is the one that asked for the sandbox and has not taken it yet.
    maker: bool,
    attached: bool,
}

impl Supervisor {
    fn new(
        epoll: Epoll,
        live: Live,
        linger: Linger,
        workspace: Workspace,
        listener: OwnedFd,
        maker: OwnedFd,
    ) -> Self {
        let mut supervisor = Self {
            epoll,
            live,
            linger,
            workspace,
            listener: listener.into(),
            hosts: Vec::new(),
            next: FIRST_HOST,
            known: false,
            alone_since: None,
        };
        // A host that cannot be heard is as good as none.
        if !supervisor.greet(maker.into(), true) {
            supervisor.live.kill(EndCause::HostClosed);
        }
        let listening = supervisor
            .listener
            .set_nonblocking(true)
            .and_then(|()| supervisor.epoll.add(supervisor.listener.as_fd(), ARRIVED));
        if listening.is_err() {
            supervisor.live.kill(EndCause::HostClosed);
        }
        supervisor
    }

    /// Serves until the sandbox has ended, and tells all hosts of it.
    fn serve(mut self) {
        loop {
            // Without it nothing can be waited for: end, and the sandbox with this process.
            let Ok(ready) = self.epoll.wait(self.timeout_ms()) else { return };
            for token in ready {
                match token {
                    ENDED => return self.end(),
                    SAID if !self.live.listen() => self.epoll.remove(self.live.said.as_fd()),
                    SAID => {}
                    ARRIVED => self.accept(),
                    KEPT if !self.workspace.take() => {
                        self.epoll.remove(self.workspace.from.as_fd());
                    }
                    KEPT => {}
                    _ => self.hear(token),
                }
            }
            let now = Instant::now();
            self.live.keep_time(now);
            if self.hosts.iter().any(|host| host.attached || host.maker) {
                self.alone_since = None;
            } else {
                self.alone_since.get_or_insert(now);
            }
            if self.alone_until().is_some_and(|until| now >= until) {
                self.live.kill(EndCause::Left);
            }
        }
    }

    /// Returns when it has been alone for too long.
    fn alone_until(&self) -> Option<Instant> {
        self.alone_since?.checked_add(Duration::from_millis(self.linger.time_ms))
    }

    /// Returns how much time it has left, if that is bounded.
    fn left(&self) -> Option<Duration> {
        let end = self.live.deadline.into_iter().chain(self.alone_until()).min()?;
        Some(end.saturating_duration_since(Instant::now()))
    }

    fn timeout_ms(&self) -> i32 {
        // Rounded up, so that the deadline is over when the wait is.
        self.left().map_or(-1, |left| i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX))
    }

    fn accept(&mut self) {
        // One at a time: the others are still ready.
        let Ok((stream, _)) = self.listener.accept() else { return };
        if self.hosts.len() >= MAX_HOSTS {
            let Some(stranger) = self.hosts.iter().position(|host| !host.attached) else { return };
            self.dismiss(stranger);
        }
        self.greet(stream, false);
    }

    /// Adds a host. Unless it made the sandbox it is shown the workspace, and then told how it stands.
    fn greet(&mut self, stream: UnixStream, maker: bool) -> bool {
        let token = self.next;
        self.next += 1;
        let watched =
            stream.set_nonblocking(true).and_then(|()| self.epoll.add(stream.as_fd(), token));
        if watched.is_err() {
            return false;
        }
        if !maker && let Ok(copy) = stream.as_fd().try_clone_to_owned() {
            let attached = self.hosts.iter().any(|host| host.attached);
            let left = self.left().map_or(u128::MAX, |left| left.as_millis());
            let detail = left.to_string();
            self.workspace.show(&stream);
            step::send(&copy.into(), report::STATUS, attached.into(), 0, detail.as_bytes());
        }
        self.hosts.push(Host { token, stream, maker, attached: false });
        true
    }

    /// Hears what a host says, or that it is gone.
    fn hear(&mut self, token: u64) {
        let Some(at) = self.hosts.iter().position(|host| host.token == token) else { return };
        let host = &mut self.hosts[at];
        let mut said = [0; 16];
        match host.stream.read(&mut said) {
            Ok(length @ 1..) => {
                for word in &said[..length] {
                    match *word {
                        report::ATTACH => {
                            (host.attached, host.maker) = (true, false);
                            self.known = true;
                        }
                        report::END => self.live.kill(EndCause::HostClosed),
                        // Of a later release.
                        _ => {}
                    }
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => {
                if host.maker {
                    self.live.kill(EndCause::HostClosed);
                }
                self.dismiss(at);
            }
        }
    }

    fn dismiss(&mut self, at: usize) {
        let host = self.hosts.remove(at);
        self.epoll.remove(host.stream.as_fd());
        // What it has stopped nobody else would let go on.
        if host.attached {
            self.live.thaw();
        }
    }

    /// Removes what is left of the sandbox, and tells whoever is there.
    fn end(self) {
        let Self { live, linger, hosts, known, .. } = self;
        let attached = hosts.iter().any(|host| host.attached);
        let reports = hosts.into_iter().map(|host| File::from(OwnedFd::from(host.stream)));
        let leaving = live.reap(reports.collect());
        if known && !attached {
            note(&linger, &leaving);
        }
        let directory = live::path(&linger.directory);
        for name in LINGER_FILES {
            // What cannot be removed, or was removed by somebody else, is for the next sweep.
            let _ = fs::remove_file(directory.join(name));
        }
        let _ = fs::remove_dir(directory);
        leave(leaving);
    }
}

/// Writes down why the sandbox has ended, for the host that comes back too late.
fn note(linger: &Linger, leaving: &Leaving) {
    let path: &Path = live::path(&linger.ended);
    let opened = File::options().write(true).create_new(true).mode(0o600).open(path);
    // Without it the host learns only that the sandbox is no more.
    if let Ok(file) = opened {
        leaving.tell(&file);
    }
}
