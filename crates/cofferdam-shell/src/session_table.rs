//! [`SessionTable`]: the commands that outlived their calls, bounded in number.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{ids::IdSource, session::Session};

/// Sessions by id. A new session beyond the bound ends another: one that has ended already, or else the one used longest
/// ago; those used last are spared.
#[derive(Debug)]
pub(crate) struct SessionTable {
    max_sessions: usize,
    protected_sessions: usize,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_id: BTreeMap<u32, Entry>,
    /// Counts uses; the order of use needs no clock.
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    session: Arc<Session>,
    last_use: u64,
}

impl SessionTable {
    pub(crate) fn new(max_sessions: usize, protected_sessions: usize) -> Self {
        Self {
            max_sessions: max_sessions.max(1),
            protected_sessions,
            entries: Mutex::new(Entries::default()),
        }
    }

    /// Adds a session and returns its id, which is none of those that are `known` otherwise.
    pub(crate) fn insert(
        &self,
        session: Arc<Session>,
        ids: &IdSource,
        known: impl Fn(u32) -> bool,
    ) -> u32 {
        let mut entries = self.lock();
        let id = std::iter::repeat_with(|| ids.session_id())
            .find(|id| !entries.by_id.contains_key(id) && !known(*id))
            .unwrap_or_default();
        self.put(&mut entries, id, session);
        id
    }

    /// Adds a session that has an id.
    pub(crate) fn insert_as(&self, id: u32, session: Arc<Session>) {
        self.put(&mut self.lock(), id, session);
    }

    fn put(&self, entries: &mut Entries, id: u32, session: Arc<Session>) {
        while entries.by_id.len() >= self.max_sessions {
            let Some(id) = entries.least_needed(self.protected_sessions.min(self.max_sessions - 1))
            else {
                break;
            };
            // The last handle kills what still runs, so a call that waits for it at this moment is answered first.
            entries.by_id.remove(&id);
        }
        entries.uses += 1;
        let last_use = entries.uses;
        entries.by_id.insert(id, Entry { session, last_use });
    }

    /// Returns a session and notes that it was used.
    pub(crate) fn get(&self, id: u32) -> Option<Arc<Session>> {
        let mut entries = self.lock();
        entries.uses += 1;
        let now = entries.uses;
        let entry = entries.by_id.get_mut(&id)?;
        entry.last_use = now;
        Some(Arc::clone(&entry.session))
    }

    pub(crate) fn remove(&self, id: u32) {
        self.lock().by_id.remove(&id);
    }

    /// Returns true if the session is here.
    pub(crate) fn has(&self, id: u32) -> bool {
        self.lock().by_id.contains_key(&id)
    }

    /// Lets what is still here live on.
    pub(crate) fn leave(&self) {
        self.lock().by_id.values().for_each(|entry| entry.session.leave());
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().by_id.len()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // A panic elsewhere cannot leave the map half-changed.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn least_needed(&self, protected: usize) -> Option<u32> {
        let mut by_age: Vec<(&u32, &Entry)> = self.by_id.iter().collect();
        by_age.sort_by_key(|(_, entry)| entry.last_use);
        by_age.truncate(by_age.len().saturating_sub(protected));
        let ended = by_age.iter().find(|(_, entry)| entry.session.has_ended());
        ended.or(by_age.first()).map(|(id, _)| **id)
    }
}
