//! The launcher's one loop: takes requests, and waits for whatever ends a sandbox.

use std::{
    collections::BTreeMap,
    fs::File,
    os::fd::{AsFd, OwnedFd},
    time::Instant,
};

use crate::{
    child,
    home::Home,
    live::{self, Leaving, Live, UserMaps},
    plan::Plan,
    report::{EndCause, Step},
    step::{Failure, Steps},
    sys::{
        self, Side,
        epoll::Epoll,
        message::{self, Received},
    },
    template::Templates,
    workspace,
};

/// Tokens of the two descriptors that are not of a sandbox.
const CONTROL: u64 = u64::MAX;
const HOST: u64 = u64::MAX - 1;

/// What of a sandbox is ready, in the lowest bits of a token.
const ENDED: u64 = 0;
const CLOSED: u64 = 1;
const SAID: u64 = 2;
const KINDS: u64 = 4;

/// How often the removal of a cgroup is tried again, in milliseconds.
const RETRY_MS: i32 = 2;

/// All that the launcher holds.
#[derive(Debug)]
pub(crate) struct Server {
    epoll: Epoll,
    control: OwnedFd,
    /// The process that started this one.
    host: OwnedFd,
    guest: OwnedFd,
    home: Option<Home>,
    templates: Templates,
    live: BTreeMap<u64, Live>,
    leaving: Vec<Leaving>,
    next: u64,
    closing: bool,
}

impl Server {
    pub(crate) fn new(control: OwnedFd, host: OwnedFd, guest: OwnedFd) -> std::io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(control.as_fd(), CONTROL)?;
        epoll.add(host.as_fd(), HOST)?;
        Ok(Self {
            epoll,
            control,
            host,
            guest,
            home: None,
            templates: Templates::default(),
            live: BTreeMap::new(),
            leaving: Vec::new(),
            next: 0,
            closing: false,
        })
    }

    /// Serves until the host has closed or died, and all sandboxes have ended.
    pub(crate) fn serve(&mut self) {
        while !(self.closing && self.live.is_empty() && self.leaving.is_empty()) {
            // Without it nothing can be waited for: end, and all sandboxes with this process.
            let Ok(ready) = self.epoll.wait(self.timeout_ms()) else { return };
            for token in ready {
                match token {
                    CONTROL => self.receive(),
                    HOST => self.close(),
                    _ => self.attend(token / KINDS, token % KINDS),
                }
            }
            let now = Instant::now();
            for live in self.live.values_mut() {
                if live.deadline.is_some_and(|deadline| now >= deadline) {
                    live.deadline = None;
                    live.kill(EndCause::WallTime);
                }
            }
            self.leaving.retain_mut(|leaving| !leaving.finish());
        }
    }

    fn timeout_ms(&self) -> i32 {
        if !self.leaving.is_empty() {
            return RETRY_MS;
        }
        let deadline = self.live.values().filter_map(|live| live.deadline).min();
        deadline.map_or(-1, |deadline| {
            // Rounded up, so that the deadline is over when the wait is.
            let left = deadline.saturating_duration_since(Instant::now()).as_millis() + 1;
            i32::try_from(left).unwrap_or(i32::MAX)
        })
    }

    fn receive(&mut self) {
        match message::receive_descriptors(self.control.as_fd()) {
            Ok(Received::Descriptors(descriptors)) => {
                // Without all there is nobody to tell; the host sees that its ends are closed.
                if let Ok([stream, report, plan]) = <[OwnedFd; 3]>::try_from(descriptors) {
                    let report = File::from(report);
                    if let Err(failure) = self.start(stream, &report, &plan.into()) {
                        failure.send(&report);
                    }
                }
            }
            Ok(Received::Nothing) => {}
            Ok(Received::End) | Err(_) => self.close(),
        }
    }

    /// Ends all sandboxes and takes no more.
    fn close(&mut self) {
        self.closing = true;
        self.epoll.remove(self.control.as_fd());
        self.epoll.remove(self.host.as_fd());
        self.live.values_mut().for_each(|live| live.kill(EndCause::HostClosed));
    }

    fn attend(&mut self, id: u64, kind: u64) {
        let Some(live) = self.live.get_mut(&id) else { return };
        match kind {
            CLOSED => {
                self.epoll.remove(live.report.as_fd());
                live.kill(EndCause::HostClosed);
            }
            SAID if !live.listen() => self.epoll.remove(live.said.as_fd()),
            ENDED => self.end(id),
            _ => {}
        }
    }

    /// Takes leave of a sandbox whose first process has ended.
    fn end(&mut self, id: u64) {
        let Some(mut live) = self.live.remove(&id) else { return };
        self.unwatch(&live);
        // What it said last; nothing more comes from a process that has ended, and the other end is closed.
        while live.listen() {}
        self.leaving.push(live.reap());
    }

    fn watch(&self, id: u64, live: &Live) -> std::io::Result<()> {
        self.epoll.add(live.pidfd.as_fd(), id * KINDS + ENDED)?;
        self.epoll.add(live.report.as_fd(), id * KINDS + CLOSED)?;
        self.epoll.add(live.said.as_fd(), id * KINDS + SAID)
    }

    fn unwatch(&self, live: &Live) {
        self.epoll.remove(live.pidfd.as_fd());
        self.epoll.remove(live.report.as_fd());
        self.epoll.remove(live.said.as_fd());
    }

    /// Starts a sandbox. What fails before its first process was made is told by the caller, and what fails in that
    /// process by itself.
    fn start(&mut self, stream: OwnedFd, report: &File, plan: &File) -> Result<(), Failure> {
        let plan =
            live::read_plan(plan).map_err(|error| Failure::new(Step::ReadPlan, &error, b"plan"))?;
        let steps = Steps::new(plan.fault);
        let report = steps.run(Step::ReadPlan, b"descriptors", || report.try_clone())?;
        if plan.identity.drop_groups {
            steps.run(Step::DropGroups, b"", sys::drop_groups)?;
        }
        let (said, guest_said) = steps.run(Step::CreateNamespaces, b"socket", sys::socket_pair)?;
        let joins = live::open_joins(&plan, &steps)?;
        let cgroup = live::open_cgroup(&plan, &steps)?;
        if self.home.is_none() {
            self.home = Some(Home::make(&plan, &steps)?);
        }
        let Some(home) = &self.home else { return Ok(()) };

        let base = workspace::open_base(&plan, &steps)?;
        let entered = self.templates.enter(&plan.root, home, &steps);
        let cloned = entered.and_then(|()| {
            steps.run(Step::CreateNamespaces, b"", || {
                let cgroup = cgroup.as_ref().map(AsFd::as_fd);
                // The child keeps it until it becomes the guest: only so can an ordinary user write its maps.
                sys::set_dumpable(true)?;
                sys::clone_process(namespaces(&plan), cgroup)
            })
        });
        if let Ok(Side::Child) = cloned {
            let guest = self.guest.as_fd();
            let descriptors = child::Descriptors {
                stream: stream.as_fd(),
                guest,
                said: guest_said.as_fd(),
                report: &report,
                base: base.as_ref(),
                joins: &joins,
            };
            child::run(&plan, &steps, &descriptors).send(&report);
            sys::exit_now(1);
        }
        if sys::set_dumpable(false).and_then(|()| home.return_here()).is_err() {
            // Lost in a template: nothing that follows would be right. All sandboxes end with this process.
            sys::exit_now(1);
        }
        let Side::Parent(pid, pidfd) = cloned? else { return Ok(()) };
        // The guest must be the only holder of its stream, so that the host sees its end.
        drop((stream, guest_said, base, joins));

        let maps = plan.own_users.then(|| UserMaps::of(&plan));
        let mut live = Live::new(plan, pid, pidfd, report, said);
        let admitted = live
            .admit(maps.as_ref(), &steps)
            .and_then(|()| steps.run(Step::Descriptors, b"wait", || self.watch(self.next, &live)));
        if let Err(failure) = admitted {
            failure.send(&live.report);
            self.unwatch(&live);
            live.kill(EndCause::HostClosed);
            self.leaving.push(live.reap());
            return Ok(());
        }
        self.live.insert(self.next, live);
        self.next += 1;
        Ok(())
    }
}

fn namespaces(plan: &Plan) -> u64 {
    let always = sys::CLONE_NEWNS | sys::CLONE_NEWPID | sys::CLONE_NEWIPC | sys::CLONE_NEWUTS;
    let users = if plan.own_users { sys::CLONE_NEWUSER } else { 0 };
    let network = if plan.own_network { sys::CLONE_NEWNET } else { 0 };
    always | users | network
}
