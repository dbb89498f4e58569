//! [`Watcher`] over the guest.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use cofferdam_core::WorkspacePath;
use cofferdam_guest::{Change, Failure, HostMessage, Watch};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};

use super::{
    GuestClient,
    connection::Connection,
    files::{refused, wire},
    operation::{Operation, errno_text, unsupported},
    tree::require_inside,
};
use crate::{SandboxError, WatchEvent, WatchOptions, Watcher};

#[async_trait]
impl Watcher for GuestClient {
    async fn watch(
        &self,
        path: &WorkspacePath,
        options: &WatchOptions,
    ) -> Result<BoxStream<'static, Result<WatchEvent, SandboxError>>, SandboxError> {
        let request = Watch { path: wire(path), recursive: options.recursive };
        let operation = self.connection.open(&HostMessage::Watch(request)).await?;
        operation.opened().await?.map_err(|failure| cannot_watch(path, &failure))?;
        let watching = Watching {
            connection: Arc::clone(&self.connection),
            operation,
            path: path.clone(),
            events: VecDeque::new(),
            ended: false,
        };
        Ok(stream::unfold(watching, Watching::next).boxed())
    }
}

fn cannot_watch(path: &WorkspacePath, failure: &Failure) -> SandboxError {
    unsupported("watching files", failure).unwrap_or_else(|| refused("watch", path, failure))
}

struct Watching {
    connection: Arc<Connection>,
    operation: Operation,
    path: WorkspacePath,
    /// Events of the last piece.
    events: VecDeque<WatchEvent>,
    ended: bool,
}

impl Watching {
    async fn next(mut self) -> Option<(Result<WatchEvent, SandboxError>, Self)> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some((Ok(event), self));
            }
            if self.ended {
                return None;
            }
            let error = match self.operation.data().await {
                Ok(Ok(Some(piece))) => match read(&piece) {
                    Ok(events) => {
                        self.events = events;
                        continue;
                    }
                    Err(detail) => {
                        self.connection.breach(detail.clone());
                        SandboxError::Protocol { detail }
                    }
                },
                Ok(Ok(None)) => return None,
                Ok(Err(failure)) => cannot_watch(&self.path, &failure),
                Err(error) => error,
            };
            self.ended = true;
            return Some((Err(error), self));
        }
    }
}

/// Reads change records; an error says how the guest broke its word.
fn read(piece: &[u8]) -> Result<VecDeque<WatchEvent>, String> {
    let changes = Change::decode_all(piece).map_err(|error| error.to_string())?;
    let mut events = VecDeque::with_capacity(changes.len());
    for change in changes {
        let event = match change {
            Change::Created { path } => WatchEvent::Created { path: inside(path)? },
            Change::Modified { path } => WatchEvent::Modified { path: inside(path)? },
            Change::Removed { path } => WatchEvent::Removed { path: inside(path)? },
            Change::Moved { from, to } => {
                WatchEvent::Moved { from: inside(from)?, to: inside(to)? }
            }
            // Something changed of which this version knows no more.
            Change::Overflow | Change::Unknown(_) => WatchEvent::Overflow,
            Change::Unwatched { path, errno } => {
                WatchEvent::Unwatched { path: inside(path)?, reason: errno_text(errno), errno }
            }
        };
        events.push_back(event);
    }
    Ok(events)
}

fn inside(path: Vec<u8>) -> Result<Vec<u8>, String> {
    require_inside(&path).map(|()| path)
}
