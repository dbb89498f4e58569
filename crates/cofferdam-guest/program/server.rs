//! The server: one connection at a time, one session, and one loop around `poll`.
//!
//! Nothing is read from a command or a file before its channel has credit and the stream has room, so what nobody
//! reads stays in the command's own pipe. Channels with something to send take turns, one piece each.

use std::{
    error::Error,
    fs::File,
    io::Read,
    os::fd::AsRawFd,
    path::Path,
    time::{Duration, Instant},
};

use cofferdam_guest::{
    Frame, GuestHello, GuestMessage, HostHello, HostMessage, ProtocolError, Refusal, Versions,
};

use crate::{
    connection::{Arrived, Connection},
    door::Door,
    flow::PIECE,
    poll::Waiting,
    process_tree,
    session::{Session, own_pid},
    sys,
    workspace::Workspace,
};

/// How long a guest that nobody has greeted yet waits at its door.
const FIRST_GREETING: Duration = Duration::from_secs(60);

/// Serves until there is nobody left to serve, then kills every process that was started.
pub(crate) fn serve(listen: Option<&Path>) -> Result<(), Box<dyn Error>> {
    // What commands inherit. Nothing is delivered here: all signals are blocked first.
    sys::block_signals();
    sys::reset_signal_actions();
    let door = match Door::inherited()? {
        Some(door) => {
            sys::close_range(Door::DESCRIPTOR + 1, u32::MAX)?;
            Some(door)
        }
        None => {
            sys::close_range(Door::DESCRIPTOR, u32::MAX)?;
            listen.map(Door::at).transpose()?
        }
    };
    sys::hide_from_tracers()?;
    sys::adopt_orphans()?;
    let mut server = Server {
        connection: Some(Connection::inherited()?),
        door,
        children: File::from(sys::child_signals()?),
        session: None,
        alone_until: None,
        buffer: vec![0; PIECE],
    };
    let result = server.run();
    server.kill_everything();
    // A reaper that the kernel could not end in time still lives in this memory.
    std::mem::forget(server);
    result
}

struct Server {
    connection: Option<Connection>,
    door: Option<Door>,
    /// Readable when a child has ended.
    children: File,
    session: Option<Session>,
    /// When to end if nobody comes; only while there is no connection.
    alone_until: Option<Instant>,
    /// Reused for every read.
    buffer: Vec<u8>,
}

impl Server {
    fn run(&mut self) -> Result<(), Box<dyn Error>> {
        loop {
            let end = match self.step() {
                Ok(true) => continue,
                Ok(false) => Ok(()),
                Err(error) => Err(error),
            };
            let Some(patience) = self.patience() else {
                return end;
            };
            if let Err(error) = end {
                crate::complain(&*error);
            }
            self.connection = None;
            if let Some(session) = &mut self.session {
                session.disconnect();
            }
            self.alone_until = Some(Instant::now() + patience);
        }
    }

    /// Returns how long to go on without a connection, if at all.
    fn patience(&self) -> Option<Duration> {
        self.connection.as_ref()?;
        self.door.as_ref()?;
        let patience = self.session.as_ref().map_or(FIRST_GREETING, |session| session.linger);
        (!patience.is_zero()).then_some(patience)
    }

    /// Waits for something to do and does it; returns false when the connection is over, or the wait for one.
    fn step(&mut self) -> Result<bool, Box<dyn Error>> {
        let mut waiting = Waiting::default();
        let children = waiting.readable(self.children.as_raw_fd());
        // A host that does not read its answers gets no more of them.
        let room = self.connection.as_ref().is_none_or(Connection::has_room);
        let input = self.connection.as_ref().filter(|_| room).map(Connection::input_fd);
        let input = input.map(|fd| waiting.readable(fd));
        if let Some(fd) = self.connection.as_ref().and_then(Connection::output_fd) {
            waiting.writable(fd);
        }
        if let Some(door) = &self.door {
            for fd in door.descriptors() {
                waiting.readable(fd);
            }
            waiting.until(door.due());
        }
        if let Some(session) = &self.session {
            session.wait_for(&mut waiting, room);
        }
        waiting.until(self.alone_until);
        waiting.wait()?;

        if waiting.is_ready(Some(children)) {
            // Only wakes: all children are looked at anyhow.
            let _ = self.children.read(&mut self.buffer);
        }
        if waiting.is_ready(input) && !self.read_input()? {
            return Ok(false);
        }
        self.answer_the_door()?;
        let mut nowhere = Vec::new();
        if let Some(session) = &mut self.session {
            let out = match &mut self.connection {
                Some(connection) => &mut connection.out,
                None => &mut nowhere,
            };
            session.advance(&mut self.buffer, out)?;
        }
        if let Some(connection) = &mut self.connection {
            if let Some(session) = &mut self.session {
                let written = connection.written();
                session.give_turns(&mut self.buffer, &mut connection.out, written)?;
            }
            connection.write()?;
        }
        Ok(self.alone_until.is_none_or(|until| until > Instant::now()))
    }

    /// Reads what the host sent; returns false at the end of the stream.
    fn read_input(&mut self) -> Result<bool, Box<dyn Error>> {
        let Some(connection) = &mut self.connection else {
            return Ok(true);
        };
        match connection.read(&mut self.buffer)? {
            Arrived::End => return Ok(false),
            Arrived::Nothing => return Ok(true),
            Arrived::Bytes => {}
        }
        self.handle_waiting()?;
        Ok(true)
    }

    /// Handles the frames that have arrived.
    fn handle_waiting(&mut self) -> Result<(), Box<dyn Error>> {
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        let mut decoder = std::mem::take(&mut connection.decoder);
        while let Some(frame) = decoder.next_frame()? {
            self.handle(frame)?;
        }
        if let Some(connection) = &mut self.connection {
            connection.decoder = decoder;
        }
        Ok(())
    }

    fn handle(&mut self, frame: Frame<'_>) -> Result<(), Box<dyn Error>> {
        let channel = frame.channel;
        let unexpected = ProtocolError::Unexpected { channel, kind: frame.kind };
        let message = HostMessage::decode(frame)?;
        let (Some(session), Some(connection)) = (&mut self.session, &mut self.connection) else {
            return match message {
                HostMessage::Hello(hello) if channel == 0 => self.greet(&hello),
                _ => Err(ProtocolError::NotAGreeting.into()),
            };
        };
        if channel == 0 || matches!(message, HostMessage::Hello(_)) {
            return Err(unexpected.into());
        }
        session.handle(channel, message, &mut connection.out)?;
        Ok(())
    }

    /// Starts the session with a host that greets over the present connection, or goes on with it.
    fn greet(&mut self, hello: &HostHello) -> Result<(), Box<dyn Error>> {
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        let refuse = |errno, connection: &mut Connection| -> Result<(), Box<dyn Error>> {
            let versions = Versions::SPOKEN;
            GuestMessage::Refused(Refusal { versions, errno }).encode(0, &mut connection.out)?;
            Ok(connection.write()?)
        };
        let version = match Versions::SPOKEN.common(hello.versions) {
            Ok(version) => version,
            Err(error) => {
                refuse(0, connection)?;
                return Err(error.into());
            }
        };
        let session = match &mut self.session {
            Some(session) => session,
            none => match Workspace::open(&hello.workspace) {
                Ok(workspace) => none.insert(Session::new(workspace, hello, self.door.is_some())),
                Err(error) => {
                    refuse(error.raw_os_error().unwrap_or(sys::EINVAL), connection)?;
                    return Err(error.into());
                }
            },
        };
        let answer = GuestHello {
            version,
            build: option_env!("CARGO_PKG_VERSION").unwrap_or("unknown").to_owned(),
            pid: std::process::id(),
            uid: sys::user_id(),
            session: session.grant(),
        };
        GuestMessage::Hello(answer).encode(0, &mut connection.out)?;
        Ok(())
    }

    /// Lets the session's host in, in the place of its connection before.
    fn answer_the_door(&mut self) -> Result<(), Box<dyn Error>> {
        let Some((connection, hello)) =
            self.door.as_mut().and_then(|door| door.answer(&mut self.buffer))
        else {
            return Ok(());
        };
        match &mut self.session {
            Some(session) if !session.recognises(&hello) => return Ok(()),
            Some(session) => session.resume(&hello),
            None => {}
        }
        self.connection = Some(connection);
        self.alone_until = None;
        self.greet(&hello)?;
        // What the host sent together with its greeting is in the decoder, and `poll` does not know of it.
        self.handle_waiting()
    }

    /// Ends every process below this one.
    fn kill_everything(&mut self) {
        const PATIENCE: Duration = Duration::from_secs(10);
        let start = Instant::now();
        let own = own_pid();
        // A process that the kernel cannot end at once must not keep the sandbox from ending: as first process, this
        // one takes all others with it anyhow.
        while start.elapsed() < PATIENCE {
            match sys::reap_child() {
                sys::Wait::NoChildren => return,
                sys::Wait::Ended(_) | sys::Wait::Stopped(_) => {}
                sys::Wait::Running => {
                    process_tree::kill_below(own, &[]);
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }
}
