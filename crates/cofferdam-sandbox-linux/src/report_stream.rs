//! [`ReportStream`]: reads what the launcher tells of one sandbox.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::fd::OwnedFd,
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use tokio::{io::Interest, net::UnixStream};

use crate::report;

/// Reports as they come, with the descriptors that come with them.
#[derive(Debug)]
pub(crate) struct ReportStream {
    socket: UnixStream,
    /// What was read and is not yet a whole report.
    bytes: Vec<u8>,
    /// The newest descriptor that no report has taken yet.
    descriptor: Option<OwnedFd>,
}

/// One report; see [`report`].
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) kind: u8,
    pub(crate) code: u8,
    pub(crate) number: i32,
    pub(crate) detail: String,
    /// Of [`report::WORKSPACE`].
    pub(crate) descriptor: Option<OwnedFd>,
}

impl ReportStream {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self { socket, bytes: Vec::new(), descriptor: None }
    }

    /// Waits for the next report; `None` when there are no more.
    pub(crate) async fn next(&mut self) -> Option<Report> {
        loop {
            if let Some(report) = self.take() {
                return Some(report);
            }
            self.socket.readable().await.ok()?;
            match self.socket.try_io(Interest::READABLE, || receive(&self.socket)) {
                Ok((piece, descriptor)) => {
                    if piece.is_empty() {
                        return None;
                    }
                    self.bytes.extend(piece);
                    self.descriptor = descriptor.or(self.descriptor.take());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
    }

    /// Takes a whole report off what was read, if there is one.
    fn take(&mut self) -> Option<Report> {
        let (mut report, end) = Report::parse(&self.bytes)?;
        self.bytes.drain(..end);
        if report.kind == report::WORKSPACE {
            report.descriptor = self.descriptor.take();
        }
        Some(report)
    }
}

impl Report {
    /// Reads the first one of what was told, without a descriptor, and where it ends; `None` if it is not whole.
    pub(crate) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let &[kind, code, n0, n1, n2, n3, l0, l1] =
            bytes.first_chunk::<{ report::HEADER_LENGTH }>()?;
        let end = report::HEADER_LENGTH + usize::from(u16::from_le_bytes([l0, l1]));
        let detail = bytes.get(report::HEADER_LENGTH..end)?;
        let detail = String::from_utf8_lossy(detail).into_owned();
        let number = i32::from_le_bytes([n0, n1, n2, n3]);
        Some((Self { kind, code, number, detail, descriptor: None }, end))
    }
}

/// Takes what is there, with a descriptor if one came along.
fn receive(socket: &UnixStream) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut piece = [0; 512];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(&mut piece)];
    let received =
        rustix::net::recvmsg(socket, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptor = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.last(),
            _ => None,
        })
        .last();
    Ok((piece[..received.bytes].to_vec(), descriptor))
}
