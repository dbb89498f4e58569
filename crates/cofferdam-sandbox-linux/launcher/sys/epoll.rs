//! Waiting for many descriptors.

use std::{
    ffi::c_int,
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    ptr,
};

use super::{EINTR, O_CLOEXEC, check, own};

const EPOLL_CTL_ADD: c_int = 1;
const EPOLL_CTL_DEL: c_int = 2;

/// Something can be read, or the peer is gone.
const EPOLLIN_OR_RDHUP: u32 = 1 | 0x2000;

/// `struct epoll_event`, which x86-64 packs.
#[cfg_attr(target_arch = "x86_64", repr(C, packed))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C))]
#[derive(Clone, Copy)]
struct Event {
    events: u32,
    token: u64,
}

unsafe extern "C" {
    fn epoll_create1(flags: c_int) -> c_int;
    fn epoll_ctl(epoll: c_int, operation: c_int, fd: c_int, event: *mut Event) -> c_int;
    fn epoll_wait(epoll: c_int, events: *mut Event, max: c_int, timeout_ms: c_int) -> c_int;
}

/// A set of descriptors, each with a token.
#[derive(Debug)]
pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: takes a number.
        own(check(unsafe { epoll_create1(O_CLOEXEC) })?.into()).map(Self)
    }

    /// Watches a descriptor for something to read and for the end of its peer.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        let mut event = Event { events: EPOLLIN_OR_RDHUP, token };
        // SAFETY: both descriptors are borrowed and `event` outlives the call.
        check(unsafe {
            epoll_ctl(self.0.as_raw_fd(), EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event)
        })
        .map(drop)
    }

    /// Stops watching a descriptor. Closing it is not enough while a copy of it is open elsewhere.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
        // SAFETY: both descriptors are borrowed; the event may be null. It fails if it was not watched.
        unsafe { epoll_ctl(self.0.as_raw_fd(), EPOLL_CTL_DEL, fd.as_raw_fd(), ptr::null_mut()) };
    }

    /// Waits and returns the tokens of those that are ready; none when the time is over. -1 waits for ever.
    pub(crate) fn wait(&self, timeout_ms: c_int) -> io::Result<Vec<u64>> {
        const MAX: c_int = 64;
        let mut events = [Event { events: 0, token: 0 }; MAX as usize];
        // SAFETY: pointer and count are of one array that outlives the call.
        let ready =
            check(unsafe { epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), MAX, timeout_ms) });
        match ready {
            Ok(count) => {
                let count = usize::try_from(count).unwrap_or(0);
                Ok(events[..count.min(events.len())].iter().map(|event| event.token).collect())
            }
            Err(error) if error.raw_os_error() == Some(EINTR) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}
