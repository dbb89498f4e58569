//! The launcher's one loop: takes requests, and waits for whatever ends a sandbox.

use std::{
    collections::BTreeMap,
    fs::File,
    os::fd::{AsFd, OwnedFd},
    time::Instant,
};

use crate::{
    confined,
    live::{Leaving, Live},
    maker::{Maker, Request},
    report::EndCause,
    step::Failure,
    sys::{
        epoll::Epoll,
        message::{self, Received},
    },
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
    maker: Maker,
    live: BTreeMap<u64, Served>,
    leaving: Vec<Leaving>,
    next: u64,
    closing: bool,
}

/// A sandbox, and where its host is told; the closing of the other end asks for its end.
#[derive(Debug)]
struct Served {
    live: Live,
    report: File,
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
            maker: Maker::new(guest),
            live: BTreeMap::new(),
            leaving: Vec::new(),
            next: 0,
            closing: false,
        })
    }

    /// Serves until the host has closed or died, and all sandboxes have ended.
    pub(crate) fn serve(&mut self) {
        while !(self.closing && self.live.is_empty() && self.leaving.is_empty()) {
            let can_make_ahead = self.maker.can_make_ahead() && !self.closing;
            let timeout_ms = if can_make_ahead { 0 } else { self.timeout_ms() };
            // Without it nothing can be waited for: end, and all sandboxes with this process.
            let Ok(ready) = self.epoll.wait(timeout_ms) else { return };
            if can_make_ahead && ready.is_empty() {
                self.maker.make_ahead();
            }
            for token in ready {
                match token {
                    CONTROL => self.receive(),
                    HOST => self.close(),
                    _ => self.attend(token / KINDS, token % KINDS),
                }
            }
            let now = Instant::now();
            self.live.values_mut().for_each(|served| served.live.keep_time(now));
            self.leaving.retain_mut(|leaving| !leaving.finish());
        }
    }

    fn timeout_ms(&self) -> i32 {
        if !self.leaving.is_empty() {
            return RETRY_MS;
        }
        let deadline = self.live.values().filter_map(|served| served.live.deadline).min();
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
                    if let Err(failure) = self.start(stream, &report, plan.into()) {
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
        self.live.values_mut().for_each(|served| served.live.kill(EndCause::HostClosed));
    }

    fn attend(&mut self, id: u64, kind: u64) {
        let Some(Served { live, report }) = self.live.get_mut(&id) else { return };
        match kind {
            CLOSED => {
                self.epoll.remove(report.as_fd());
                live.kill(EndCause::HostClosed);
            }
            SAID if !live.listen() => self.epoll.remove(live.said.as_fd()),
            ENDED => self.end(id),
            _ => {}
        }
    }

    /// Takes leave of a sandbox whose first process has ended.
    fn end(&mut self, id: u64) {
        let Some(Served { live, report }) = self.live.remove(&id) else { return };
        self.unwatch(&live, &report);
        let kept_whole = live.kept_whole;
        let leaving = live.reap(vec![report]);
        // A keeper ends as the guest did; but it may have been killed itself, and then what it kept is here.
        if kept_whole && leaving.was_killed() {
            let spared: Vec<i32> = self.live.values().map(|served| served.live.pid).collect();
            confined::end_orphans(&spared);
        }
        self.leaving.push(leaving);
    }

    fn watch(&self, id: u64, live: &Live, report: &File) -> std::io::Result<()> {
        self.epoll.add(live.pidfd.as_fd(), id * KINDS + ENDED)?;
        self.epoll.add(report.as_fd(), id * KINDS + CLOSED)?;
        self.epoll.add(live.said.as_fd(), id * KINDS + SAID)
    }

    fn unwatch(&self, live: &Live, report: &File) {
        self.epoll.remove(live.pidfd.as_fd());
        self.epoll.remove(report.as_fd());
        self.epoll.remove(live.said.as_fd());
    }

    /// Starts a sandbox. What fails before its first process was made is told by the caller, and what fails in that
    /// process by itself.
    fn start(&mut self, stream: OwnedFd, report: &File, plan: File) -> Result<(), Failure> {
        let request = Request::new(stream, report, plan, None)?;
        let report = request.report()?;
        let Some(newborn) = self.maker.make(request)? else { return Ok(()) };
        match newborn.admit(|live| self.watch(self.next, live, &report)) {
            (live, Ok(())) => {
                self.live.insert(self.next, Served { live, report });
                self.next += 1;
            }
            (live, Err(failure)) => {
                failure.send(&report);
                self.unwatch(&live, &report);
                self.leaving.push(live.end(EndCause::HostClosed, vec![report]));
            }
        }
        Ok(())
    }
}
