//! What to wait for: descriptors, and a time.

use std::{io, os::fd::RawFd, time::Instant};

use crate::sys;

/// Collects what is waited for. Which descriptor became ready is not told: looking at all of them costs less than the
/// bookkeeping, since each is read and written without blocking.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    fds: Vec<sys::PollFd>,
    due: Option<Instant>,
    /// Something can be done at once.
    pub(crate) busy: bool,
}

impl Waiting {
    pub(crate) fn readable(&mut self, fd: RawFd) -> usize {
        self.add(fd, sys::POLLIN)
    }

    pub(crate) fn writable(&mut self, fd: RawFd) -> usize {
        self.add(fd, sys::POLLOUT)
    }

    fn add(&mut self, fd: RawFd, events: i16) -> usize {
        self.fds.push(sys::PollFd { fd, events, ready: 0 });
        self.fds.len() - 1
    }

    /// Wakes at this time even if nothing is ready.
    pub(crate) fn until(&mut self, due: Option<Instant>) {
        self.due = [self.due, due].into_iter().flatten().min();
    }

    /// Waits.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        let timeout = if self.busy {
            0
        } else {
            self.due.map_or(-1, |due| {
                let left = due.saturating_duration_since(Instant::now());
                // Rounded up, so that it does not wake a moment too early and spin.
                i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
            })
        };
        sys::wait_ready(&mut self.fds, timeout)
    }

    /// Returns whether a descriptor that was added became ready.
    pub(crate) fn is_ready(&self, at: Option<usize>) -> bool {
        at.and_then(|at| self.fds.get(at)).is_some_and(|fd| fd.ready != 0)
    }
}
