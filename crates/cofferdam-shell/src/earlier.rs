//! [`EarlierSessions`]: where sessions are that this process does not hear: those of a process before it, as the journal
//! tells of them, and those whose sandbox is gone.
//!
//! The result of each call on a session says, for programs, which command of the sandbox the session is and how much of its
//! output the model was told ([`SessionFacts`]). A process that goes on with the run is told those results again, and joins
//! the command at its first use, where the model stopped reading.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use cofferdam_core::SandboxId;
use cofferdam_sandbox::OutputPosition;
use serde::{Deserialize, Serialize};

/// Sessions that are kept in mind; the oldest is dropped beyond, and is then told of as one that never was.
const MAX_EARLIER: usize = 256;

/// What the result of a call says of its session, under `session` of the structured output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionFacts {
    /// The session's id.
    pub(crate) id: u32,
    /// The name of its command in the sandbox.
    pub(crate) command: String,
    /// It runs on a terminal.
    pub(crate) terminal: bool,
    /// Bytes of standard output that the model was told of.
    pub(crate) stdout: u64,
    /// Bytes of standard error that the model was told of.
    pub(crate) stderr: u64,
    /// The model was told of its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) ended: bool,
}

impl SessionFacts {
    /// Where the model stopped reading.
    pub(crate) fn told(&self) -> OutputPosition {
        OutputPosition { stdout: self.stdout, stderr: self.stderr }
    }
}

/// What is known of a session that this process does not hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// It is in this sandbox, as far as the journal tells.
    In(SandboxId, SessionFacts),
    /// It ended with its sandbox.
    LostWithSandbox,
}

/// The whereabouts of sessions by id, bounded in number.
#[derive(Debug, Default)]
pub(crate) struct EarlierSessions(Mutex<VecDeque<(u32, Whereabouts)>>);

impl EarlierSessions {
    /// Returns what is known of a session.
    pub(crate) fn get(&self, id: u32) -> Option<Whereabouts> {
        self.lock().iter().find(|(known, _)| *known == id).map(|(_, it)| it.clone())
    }

    /// Notes what is known of a session.
    pub(crate) fn note(&self, id: u32, whereabouts: Whereabouts) {
        let mut sessions = self.lock();
        sessions.retain(|(known, _)| *known != id);
        sessions.push_back((id, whereabouts));
        let excess = sessions.len().saturating_sub(MAX_EARLIER);
        sessions.drain(..excess);
    }

    /// Forgets a session.
    pub(crate) fn remove(&self, id: u32) {
        self.lock().retain(|(known, _)| *known != id);
    }

    /// Notes that the sandbox of all of them is gone.
    pub(crate) fn lose_all(&self) {
        self.lock().iter_mut().for_each(|(_, it)| *it = Whereabouts::LostWithSandbox);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(u32, Whereabouts)>> {
        // A panic elsewhere cannot leave the queue half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
