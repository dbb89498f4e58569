//! The relay: the same program, started beside a guest, that joins its own standard descriptors to the guest's door.
//!
//! An engine that can start a program in a box and hand back its standard input and output so lets the host come back
//! to a guest whose socket it cannot reach.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    thread,
};

/// Copies both ways until the guest ends the connection.
pub(crate) fn relay(path: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(path)?;
    let to_guest = stream.try_clone()?;
    thread::spawn(move || {
        // Whatever ends it, the guest is to know that nothing more comes.
        let _ = copy(io::stdin().lock(), &to_guest);
        let _ = to_guest.shutdown(Shutdown::Write);
    });
    copy(&mut stream, io::stdout().lock())
}

/// Copies piece by piece, each passed on at once.
fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            length => to.write_all(&buffer[..length])?,
        }
        to.flush()?;
    }
}
