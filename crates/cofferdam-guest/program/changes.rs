//! Changes that were not sent yet: in order, each told once, and not too many.

use std::collections::{HashMap, VecDeque};

use cofferdam_guest::Change;

/// Changes that wait at most; with more, all of them become one [`Change::Overflow`].
const MAX_WAITING: usize = 4096;

/// Changes that wait to be sent.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    waiting: VecDeque<Change>,
    /// The last thing that waits to be told of a path: created, or modified.
    last: HashMap<Vec<u8>, Last>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Created,
    Modified,
}

impl Changes {
    /// Adds a change, unless what waits says it already.
    pub(crate) fn push(&mut self, change: Change) {
        match &change {
            Change::Created { path } => {
                if self.last.insert(path.clone(), Last::Created) == Some(Last::Created) {
                    return;
                }
            }
            // Something new is told as created, whatever happens to it before that is heard.
            Change::Modified { path } => {
                if self.last.contains_key(path) {
                    return;
                }
                self.last.insert(path.clone(), Last::Modified);
            }
            Change::Removed { path } => {
                self.last.remove(path);
            }
            // Paths below may have changed their meaning.
            Change::Moved { .. } => self.last.clear(),
            Change::Overflow => {
                self.waiting.clear();
                self.last.clear();
            }
            Change::Unwatched { .. } | Change::Unknown(_) => {}
        }
        if self.waiting.len() >= MAX_WAITING {
            self.waiting.clear();
            self.last.clear();
            self.waiting.push_back(Change::Overflow);
        } else {
            self.waiting.push_back(change);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes whole records of at most so many bytes.
    pub(crate) fn take(&mut self, room: usize) -> Vec<u8> {
        let mut records = Vec::new();
        while let Some(change) = self.waiting.front() {
            let before = records.len();
            change.encode(&mut records);
            if records.len() > room {
                records.truncate(before);
                break;
            }
            if let Some(Change::Created { path } | Change::Modified { path }) =
                self.waiting.pop_front()
            {
                self.last.remove(&path);
            }
        }
        records
    }
}
