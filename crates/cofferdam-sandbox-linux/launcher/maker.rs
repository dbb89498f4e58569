//! [`Maker`]: makes the first process of a sandbox, inside a template of its root.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
};

use crate::{
    child, confined,
    home::Home,
    live::{self, Live, UserMaps},
    network::Spare,
    plan::Plan,
    report::Step,
    step::{Failure, Steps},
    sys::{self, Side},
    template::Templates,
    workspace,
};

/// What sandboxes are made of and in.
#[derive(Debug)]
pub(crate) struct Maker {
    guest: OwnedFd,
    home: Option<Home>,
    templates: Templates,
    network: Spare,
}

/// A sandbox that is asked for.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) plan: Plan,
    stream: OwnedFd,
    report: File,
    door: Option<Door>,
    steps: Steps,
}

/// What a sandbox gets that lingers.
#[derive(Debug)]
pub(crate) struct Door {
    /// The socket at which its guest is found again.
    pub(crate) socket: OwnedFd,
    /// Where its first process hands over what the host may see of the workspace.
    pub(crate) keep: File,
}

impl Request {
    /// Reads the plan of a request.
    pub(crate) fn new(
        stream: OwnedFd,
        report: &File,
        plan: File,
        door: Option<Door>,
    ) -> Result<Self, Failure> {
        let plan = live::read_plan(&plan)
            .map_err(|error| Failure::new(Step::ReadPlan, &error, b"plan"))?;
        let steps = Steps::new(plan.fault);
        let report = steps.run(Step::ReadPlan, b"descriptors", || report.try_clone())?;
        Ok(Self { plan, stream, report, door, steps })
    }

    /// Returns a copy of the socket for reports.
    pub(crate) fn report(&self) -> Result<File, Failure> {
        self.steps.run(Step::ReadPlan, b"descriptors", || self.report.try_clone())
    }
}

/// A first process that waits to be let go.
#[derive(Debug)]
pub(crate) struct Newborn {
    live: Live,
    maps: Option<UserMaps>,
    steps: Steps,
}

impl Newborn {
    /// Maps its user and lets it go, once `watch` sees to it that its end is heard. It may have failed and be there all the
    /// same.
    pub(crate) fn admit(
        mut self,
        watch: impl FnOnce(&Live) -> io::Result<()>,
    ) -> (Live, Result<(), Failure>) {
        let admitted = self
            .live
            .admit(self.maps.as_ref(), &self.steps)
            .and_then(|()| self.steps.run(Step::Descriptors, b"wait", || watch(&self.live)));
        (self.live, admitted)
    }
}

impl Maker {
    pub(crate) fn new(guest: OwnedFd) -> Self {
        Self { guest, home: None, templates: Templates::default(), network: Spare::default() }
    }

    /// Whether there is something to make for the next sandbox.
    pub(crate) fn can_make_ahead(&self) -> bool {
        self.network.is_wanted()
    }

    /// Makes what the next sandbox will need, which takes less than a millisecond.
    pub(crate) fn make_ahead(&mut self) {
        self.network.make();
    }

    /// Makes the first process; none if this cannot go on. What fails in that process is told by itself.
    pub(crate) fn make(&mut self, request: Request) -> Result<Option<Newborn>, Failure> {
        let Request { plan, stream, report, door, steps } = request;
        if plan.identity.drop_groups {
            steps.run(Step::DropGroups, b"", sys::drop_groups)?;
        }
        let (said, guest_said) = steps.run(Step::Descriptors, b"socket", sys::socket_pair)?;
        let keeping = plan
            .confined
            .as_ref()
            .map(|_| steps.run(Step::Descriptors, b"socket", sys::socket_pair));
        let (keeper, stop) = keeping.transpose()?.unzip();
        let joins = live::open_joins(&plan, &steps)?;
        let cgroup = live::open_cgroup(&plan, &steps)?;
        if self.home.is_none() && plan.confined.is_none() {
            self.home = Some(Home::make(&plan, &steps)?);
        }

        let base = workspace::open_base(&plan, &steps)?;
        // A test that wants a step to fail wants it to be taken.
        let takes_spare = plan.own_network && plan.confined.is_none() && !steps.has_fault();
        let network = if takes_spare { self.network.enter() } else { None };
        let cgroup = cgroup.as_ref().map(AsFd::as_fd);
        let (away, cloned) = match (&plan.confined, &self.home) {
            (Some(_), _) => (None, confined::clone_keeper(cgroup, &steps)),
            (None, Some(home)) => {
                let entered = self.templates.enter(&plan.root, home, &steps);
                let cloned = entered.and_then(|()| {
                    steps.run(Step::CreateNamespaces, b"", || {
                        // The child keeps it until it becomes the guest: only so can an ordinary user write its maps.
                        sys::set_dumpable(true)?;
                        sys::clone_process(namespaces(&plan, network.is_some()), cgroup)
                    })
                });
                (Some(home), cloned)
            }
            (None, None) => return Ok(None),
        };
        if let Ok(Side::Child) = cloned {
            let guest = self.guest.as_fd();
            let descriptors = child::Descriptors {
                stream: stream.as_fd(),
                guest,
                said: guest_said.as_fd(),
                report: &report,
                door: door.as_ref().map(|door| door.socket.as_fd()),
                keep: door.as_ref().map(|door| &door.keep),
                stop: stop.as_ref().map(AsFd::as_fd),
                base: base.as_ref(),
                joins: &joins,
                has_network: network.is_some(),
            };
            match &plan.confined {
                None => child::run(&plan, &steps, &descriptors),
                Some(confined) => confined::run(&plan, confined, &steps, &descriptors),
            }
            .send(&report);
            sys::exit_now(1);
        }
        drop(network);
        if sys::set_dumpable(false).and_then(|()| away.map_or(Ok(()), Home::return_here)).is_err() {
            // Lost in a template: nothing that follows would be right. All sandboxes end with this process.
            sys::exit_now(1);
        }
        let Side::Parent(pid, pidfd) = cloned? else { return Ok(None) };
        // The guest must be the only holder of its stream and its door, so that the host sees their end.
        drop((stream, guest_said, stop, door, base, joins));

        let maps = plan.own_users.then(|| UserMaps::of(&plan));
        Ok(Some(Newborn { live: Live::new(plan, pid, pidfd, said, keeper), maps, steps }))
    }
}

fn namespaces(plan: &Plan, has_network: bool) -> u64 {
    let always = sys::CLONE_NEWNS | sys::CLONE_NEWPID | sys::CLONE_NEWIPC | sys::CLONE_NEWUTS;
    let users = if plan.own_users { sys::CLONE_NEWUSER } else { 0 };
    let network = if plan.own_network && !has_network { sys::CLONE_NEWNET } else { 0 };
    always | users | network
}
