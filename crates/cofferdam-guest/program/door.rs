//! The door: a listening socket at which the host comes back after its connection was lost.
//!
//! Commands may be able to reach it too, so whoever connects is a stranger until it has greeted with the session's
//! token. Strangers are few, say one thing, and have little time.

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::net::UnixListener,
    },
    path::Path,
    time::{Duration, Instant},
};

use cofferdam_guest::{HostHello, HostMessage};

use crate::{
    connection::{Arrived, Connection},
    sys,
};

/// Strangers at a time; the one that has waited longest makes room.
const MAX_STRANGERS: usize = 8;

/// How long a stranger may take to greet.
const GREETING_TIME: Duration = Duration::from_secs(5);

/// The longest greeting, in bytes.
const MAX_GREETING: usize = 8 * 1024;

/// How long nobody is let in after the system had no descriptor for it.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Door {
    listener: UnixListener,
    strangers: Vec<Stranger>,
    paused_until: Option<Instant>,
}

#[derive(Debug)]
struct Stranger {
    connection: Connection,
    until: Instant,
}

impl Door {
    /// The descriptor that may be a listening socket when the program is started.
    pub(crate) const DESCRIPTOR: RawFd = 3;

    /// Takes over descriptor 3 if it is a listening socket.
    pub(crate) fn inherited() -> io::Result<Option<Self>> {
        if !sys::is_listening(Self::DESCRIPTOR) {
            return Ok(None);
        }
        let socket = sys::inherited(Self::DESCRIPTOR)?;
        sys::set_close_on_exec(std::os::fd::AsFd::as_fd(&socket))?;
        Self::new(UnixListener::from(socket)).map(Some)
    }

    /// Makes a listening socket at a path where nothing is yet.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        Self::new(UnixListener::bind(path)?)
    }

    fn new(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener, strangers: Vec::new(), paused_until: None })
    }

    /// Returns the descriptors to wait for.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let listener = self.paused_until.is_none().then(|| self.listener.as_raw_fd());
        let strangers = self.strangers.iter().map(|stranger| stranger.connection.input_fd());
        listener.into_iter().chain(strangers)
    }

    /// Returns when to look again even if nothing is ready.
    pub(crate) fn due(&self) -> Option<Instant> {
        let strangers = self.strangers.iter().map(|stranger| stranger.until);
        strangers.chain(self.paused_until).min()
    }

    /// Lets strangers in, listens to them, and returns the first that has greeted.
    pub(crate) fn answer(&mut self, buffer: &mut [u8]) -> Option<(Connection, HostHello)> {
        let now = Instant::now();
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        for _ in 0..MAX_STRANGERS {
            match self.listener.accept() {
                Ok((socket, _)) => {
                    let Ok(connection) = Connection::of_socket(OwnedFd::from(socket)) else {
                        continue;
                    };
                    self.strangers.push(Stranger { connection, until: now + GREETING_TIME });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.paused_until = Some(now + PAUSE);
                    break;
                }
            }
        }
        let mut greeted = None;
        let mut at = 0;
        while at < self.strangers.len() {
            let stranger = &mut self.strangers[at];
            match stranger.listen(buffer) {
                _ if stranger.until <= now => drop(self.strangers.remove(at)),
                Heard::Nothing => at += 1,
                Heard::Nonsense => drop(self.strangers.remove(at)),
                Heard::Greeting(hello) => {
                    greeted = Some((self.strangers.remove(at).connection, hello));
                    break;
                }
            }
        }
        // Only now, so that one whose greeting has come already is heard, however many crowd in front of the door.
        let over = self.strangers.len().saturating_sub(MAX_STRANGERS);
        self.strangers.drain(..over);
        greeted
    }
}

/// What a stranger said.
enum Heard {
    Nothing,
    Greeting(HostHello),
    Nonsense,
}

impl Stranger {
    fn listen(&mut self, buffer: &mut [u8]) -> Heard {
        let limit = buffer.len().min(MAX_GREETING);
        match self.connection.read(&mut buffer[..limit]) {
            Ok(Arrived::Bytes | Arrived::Nothing) => {}
            Ok(Arrived::End) | Err(_) => return Heard::Nonsense,
        }
        let short = self.connection.decoder.pending() <= MAX_GREETING;
        match self.connection.decoder.next_frame() {
            Ok(Some(frame)) if frame.channel == 0 => match HostMessage::decode(frame) {
                Ok(HostMessage::Hello(hello)) => Heard::Greeting(hello),
                _ => Heard::Nonsense,
            },
            Ok(None) if short => Heard::Nothing,
            _ => Heard::Nonsense,
        }
    }
}
