//! The guest's stream, out of the one that the engine attaches to a container.
//!
//! The engine puts standard output and error into one stream, in frames. Standard output is the guest's protocol; what it
//! writes to standard error, one line when the host breaks the protocol, is kept for the message about its end.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use bollard::container::{AttachContainerResults, LogOutput};
use bytes::Bytes;
use futures::{StreamExt as _, future};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::StreamReader;

/// Most bytes of standard error that are kept.
const MAX_SAID: usize = 1024;

/// What the guest wrote to standard error.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    fn push(&self, bytes: &[u8]) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_SAID.saturating_sub(said.len());
        said.extend_from_slice(&bytes[..room.min(bytes.len())]);
    }

    /// Returns it as one line.
    pub(crate) fn text(&self) -> String {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&said).trim().replace(['\n', '\r'], " ")
    }
}

/// Returns the guest's stream. Dropping it cuts the connection, upon which the engine ends the guest's standard input.
pub(crate) fn guest_stream(
    attached: AttachContainerResults,
    said: Said,
) -> impl AsyncRead + AsyncWrite + Send + Unpin + 'static {
    let AttachContainerResults { output, input } = attached;
    let output = output.filter_map(move |piece| future::ready(stdout_of(piece, &said)));
    tokio::io::join(StreamReader::new(output), input)
}

fn stdout_of(
    piece: Result<LogOutput, bollard::errors::Error>,
    said: &Said,
) -> Option<io::Result<Bytes>> {
    match piece {
        Ok(LogOutput::StdOut { message }) => Some(Ok(message)),
        Ok(LogOutput::StdErr { message }) => {
            said.push(&message);
            None
        }
        Ok(LogOutput::StdIn { .. }) => None,
        // The engine itself speaks, outside of its frames.
        Ok(LogOutput::Console { message }) => {
            said.push(&message);
            Some(Err(io::Error::other("the engine left the form of its stream")))
        }
        Err(error) => Some(Err(io::Error::other(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_told_apart_and_what_was_said_is_bounded() {
        let said = Said::default();
        let message = || Bytes::from_static(b"x\ny\n");
        let out = stdout_of(Ok(LogOutput::StdOut { message: message() }), &said);
        assert_eq!(out.expect("output").expect("no error"), message());
        assert!(stdout_of(Ok(LogOutput::StdErr { message: message() }), &said).is_none());
        assert_eq!(said.text(), "x y");
        for _ in 0..1000 {
            said.push(b"more");
        }
        assert_eq!(said.text().len(), MAX_SAID);
        let console = stdout_of(Ok(LogOutput::Console { message: message() }), &said);
        assert!(console.is_some_and(|piece| piece.is_err()));
    }
}
