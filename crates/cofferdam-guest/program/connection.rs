//! A connection to the host: a stream of bytes, cut to frames on the way in and put together on the way out.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
};

use cofferdam_guest::FrameDecoder;

use crate::sys;

/// Waiting bytes above which nothing more is read from commands and files, nor from the host.
pub(crate) const OUT_FULL: usize = 256 * 1024;

/// What pipes to the host hold, as the kernel allows every user: then neither side waits for the other after each piece.
const PIPE_SIZE: i32 = 1 << 20;

#[derive(Debug)]
pub(crate) struct Connection {
    input: File,
    output: File,
    pub(crate) decoder: FrameDecoder,
    /// What is to be written. Whoever has something to say appends it.
    pub(crate) out: Vec<u8>,
    /// Bytes of `out` that were written already.
    out_start: usize,
}

/// What came of an attempt to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// Bytes, which are in the decoder now.
    Bytes,
    /// Nothing yet.
    Nothing,
    /// The end.
    End,
}

impl Connection {
    /// Takes over the stream that this program was started with.
    pub(crate) fn inherited() -> io::Result<Self> {
        let input = sys::inherited(0)?;
        // A socket is both halves; a pair of pipes or a terminal has its writing half on descriptor 1.
        let output = if sys::stat_open(input.as_fd())?.is(sys::S_IFSOCK) {
            input.try_clone()?
        } else {
            let output = sys::inherited(1)?;
            for fd in [&input, &output] {
                // Only faster: a terminal has no such size, and a small pipe serves too.
                let _ = sys::set_pipe_size(fd.as_fd(), PIPE_SIZE);
            }
            output
        };
        Self::new(input, output)
    }

    /// Makes a connection of a socket.
    pub(crate) fn of_socket(socket: OwnedFd) -> io::Result<Self> {
        let input = socket.try_clone()?;
        Self::new(input, socket)
    }

    fn new(input: OwnedFd, output: OwnedFd) -> io::Result<Self> {
        for fd in [&input, &output] {
            sys::set_close_on_exec(fd.as_fd())?;
            sys::set_nonblocking(fd.as_fd())?;
        }
        Ok(Self {
            input: File::from(input),
            output: File::from(output),
            decoder: FrameDecoder::new(),
            out: Vec::new(),
            out_start: 0,
        })
    }

    pub(crate) fn input_fd(&self) -> RawFd {
        self.input.as_raw_fd()
    }

    /// Returns the descriptor to wait for if something waits to be written.
    pub(crate) fn output_fd(&self) -> Option<RawFd> {
        (self.waiting() > 0).then(|| self.output.as_raw_fd())
    }

    fn waiting(&self) -> usize {
        self.out.len() - self.out_start
    }

    /// Returns how many bytes at the beginning of `out` were written already.
    pub(crate) fn written(&self) -> usize {
        self.out_start
    }

    /// Returns whether more may be put into `out`, and more requests be read.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting() < OUT_FULL
    }

    /// Reads what the host sent.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Arrived> {
        match self.input.read(buffer) {
            Ok(0) => Ok(Arrived::End),
            Ok(length) => {
                self.decoder.push(&buffer[..length]);
                Ok(Arrived::Bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Arrived::Nothing),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Arrived::End),
            Err(error) => Err(error),
        }
    }

    /// Writes what the stream takes.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        while self.waiting() > 0 {
            match self.output.write(&self.out[self.out_start..]) {
                Ok(length) => self.out_start += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // A host that never takes all must not make the part that was written grow.
                    if self.out_start >= OUT_FULL {
                        self.out.drain(..self.out_start);
                        self.out_start = 0;
                    }
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.out_start = 0;
        Ok(())
    }
}
