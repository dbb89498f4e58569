//! Connections and listeners inside the box, each carried by a channel. Nothing is opened that the host did not ask for.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use cofferdam_guest::{Address, GuestMessage, ProtocolError};

use crate::{
    flow::Sender,
    outcome::{Outcome, bad_request, refused},
    poll::Waiting,
    sys,
    workspace::Workspace,
};

/// Connections that wait to be taken; more wait in the system.
const MAX_WAITING: usize = 16;

/// How long nobody is let in after the system had no descriptor for it.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection: bytes both ways, each of which ends alone.
#[derive(Debug)]
pub(crate) struct Port {
    socket: File,
    /// Where it leads, for failures.
    address: Vec<u8>,
    stands: bool,
    told: bool,
    /// Bytes of the host that the socket has not taken yet.
    waiting: Vec<u8>,
    /// No more comes from the host.
    host_ended: bool,
    /// The socket takes no more, or was told that no more comes.
    writing_ended: bool,
    reading_ended: bool,
}

impl Port {
    /// Starts to connect.
    pub(crate) fn connect(workspace: &Workspace, address: &Address) -> Outcome<Self> {
        let (name, socket) = match address {
            Address::Tcp { port } => {
                (format!("127.0.0.1:{port}").into_bytes(), sys::connect_loopback(*port))
            }
            Address::Unix { path } => (path.clone(), connect_unix(workspace, path)),
        };
        let socket = socket.map_err(refused("connect", &name))?;
        Ok(Self::of_socket(socket, name, false))
    }

    fn of_socket(socket: OwnedFd, address: Vec<u8>, stands: bool) -> Self {
        Self {
            socket: File::from(socket),
            address,
            stands,
            told: false,
            waiting: Vec::new(),
            host_ended: false,
            writing_ended: false,
            reading_ended: false,
        }
    }

    /// Adds what is to be waited for. `room` tells whether its bytes can be taken.
    pub(crate) fn wait_for(&self, waiting: &mut Waiting, room: bool) {
        let fd = self.socket.as_raw_fd();
        if if self.stands { !self.waiting.is_empty() } else { room } {
            waiting.writable(fd);
        }
        if self.stands && room && !self.reading_ended {
            waiting.readable(fd);
        }
        waiting.busy |= room && self.stands && !self.told;
    }

    /// Takes bytes of the host.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// Notes that no more comes from the host.
    pub(crate) fn end(&mut self) {
        self.host_ended = true;
    }

    /// Writes what the socket takes; returns how many bytes are no longer held.
    pub(crate) fn feed(&mut self) -> usize {
        if !self.stands {
            return 0;
        }
        let mut written = 0;
        while written < self.waiting.len() {
            if self.writing_ended {
                // Nobody reads it any more: the rest goes nowhere.
                written = self.waiting.len();
                break;
            }
            match self.socket.write(&self.waiting[written..]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.writing_ended = true,
            }
        }
        self.waiting.drain(..written);
        if self.host_ended && self.waiting.is_empty() && !self.writing_ended {
            self.writing_ended = true;
            // If it is closed already, it knows.
            let _ = sys::end_writing(self.socket.as_fd());
        }
        written
    }

    /// Sends what there is; returns whether that was something, and whether it was the end.
    pub(crate) fn turn(
        &mut self,
        sender: &mut Sender<'_>,
    ) -> Result<Outcome<(bool, bool)>, ProtocolError> {
        let fail = || refused("connect", &self.address);
        if !self.stands {
            match sys::connection_stands(self.socket.as_fd()) {
                Ok(true) => self.stands = true,
                Ok(false) => return Ok(Ok((false, false))),
                Err(error) => return Ok(Err(fail()(error))),
            }
        }
        if !self.told {
            self.told = true;
            sender.send(&GuestMessage::Opened)?;
        }
        let mut sent = false;
        let piece = sender.piece();
        if !self.reading_ended && !piece.is_empty() {
            match self.socket.read(piece) {
                Ok(0) => {
                    self.reading_ended = true;
                    sender.send(&GuestMessage::EndOfData)?;
                }
                Ok(length) => {
                    sender.send_piece(length, |piece| GuestMessage::Data(piece))?;
                    sent = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Ok(Err(refused("read from", &self.address)(error))),
            }
        }
        let writing_done = self.writing_ended && self.host_ended && self.waiting.is_empty();
        Ok(Ok((sent, self.reading_ended && writing_done)))
    }
}

/// Connects to a socket beneath the workspace, whatever is swapped meanwhile.
fn connect_unix(workspace: &Workspace, path: &[u8]) -> io::Result<OwnedFd> {
    let place = workspace.open_as(path, sys::O_PATH, 0)?;
    if !sys::stat_open(place.as_fd())?.is(sys::S_IFSOCK) {
        return Err(sys::error(sys::ECONNREFUSED));
    }
    sys::connect_unix(&format!("/proc/self/fd/{}", place.as_raw_fd()))
}

/// A port of the loopback that the host listens on.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    port: u16,
    told: bool,
    waiting: BTreeMap<u32, OwnedFd>,
    last: u32,
    paused_until: Option<Instant>,
}

impl Listener {
    pub(crate) fn open(port: u16) -> Outcome<Self> {
        let name = format!("127.0.0.1:{port}").into_bytes();
        Self::bind(port).map_err(refused("listen on", &name))
    }

    fn bind(port: u16) -> io::Result<Self> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        socket.set_nonblocking(true)?;
        let port = socket.local_addr()?.port();
        let waiting = BTreeMap::new();
        Ok(Self { socket, port, told: false, waiting, last: 0, paused_until: None })
    }

    pub(crate) fn wait_for(&self, waiting: &mut Waiting) {
        if self.waiting.len() < MAX_WAITING && self.paused_until.is_none() {
            waiting.readable(self.socket.as_raw_fd());
        }
        waiting.until(self.paused_until);
    }

    /// Gives away a connection that was announced.
    pub(crate) fn take(&mut self, connection: u32) -> Outcome<Port> {
        let socket = self
            .waiting
            .remove(&connection)
            .ok_or_else(|| bad_request("there is no such connection to accept"))?;
        let name = format!("127.0.0.1:{}", self.port).into_bytes();
        Ok(Port::of_socket(socket, name, true))
    }

    /// Announces connections; returns whether there were any.
    pub(crate) fn turn(&mut self, sender: &mut Sender<'_>) -> Result<bool, ProtocolError> {
        if !self.told {
            self.told = true;
            sender.send(&GuestMessage::Listening { port: self.port })?;
        }
        let now = Instant::now();
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        while self.waiting.len() < MAX_WAITING && self.paused_until.is_none() {
            match self.socket.accept().and_then(|(socket, _)| {
                socket.set_nonblocking(true)?;
                Ok(socket)
            }) {
                Ok(socket) => {
                    self.last = self.last.wrapping_add(1);
                    self.waiting.insert(self.last, OwnedFd::from(socket));
                    sender.send(&GuestMessage::Incoming { connection: self.last })?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // It went away before it was taken, or the system has no descriptor for it.
                Err(_) => self.paused_until = Some(now + PAUSE),
            }
        }
        Ok(false)
    }
}
