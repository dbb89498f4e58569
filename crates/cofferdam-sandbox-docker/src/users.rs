//! [`Users`]: the users that sandboxes run as, one for each sandbox of a host as far as there are enough.
//!
//! Two sandboxes with one user share what the kernel counts for each user of the host: watches, pending signals, keys. So
//! each has its own, out of a range that no image uses; all are called `sandbox`.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::container::HOME;

/// How many there are. Each is a line in the tables of a prepared image.
const COUNT: u32 = 1024;

/// A range of user and group ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Users {
    first: u32,
}

impl Users {
    /// Ids of the host that nothing else uses.
    pub(crate) const HIGH: Self = Self { first: 0x7fb0_0000 };

    /// Ids for an engine that maps only 65 536 of them to others of its host; below `nobody`, above those of images.
    pub(crate) const MAPPED: Self = Self { first: 64_000 };

    pub(crate) fn first(self) -> u32 {
        self.first
    }

    /// Returns the next id after another one, around the range.
    pub(crate) fn next(self, turn: &AtomicU32) -> u32 {
        self.first + turn.fetch_add(1, Ordering::Relaxed) % COUNT
    }

    /// Adds the users to a table of users.
    pub(crate) fn passwd(self, table: &str) -> String {
        self.extend(table, "root:x:0:0:root:/root:/sbin/nologin\n", |lines, id| {
            // The name says what, the number who; whoever looks up the name gets the first.
            let _ = writeln!(lines, "sandbox:x:{id}:{id}::{HOME}:/bin/sh");
        })
    }

    /// Adds the groups to a table of groups.
    pub(crate) fn group(self, table: &str) -> String {
        self.extend(table, "root:x:0:\n", |lines, id| {
            let _ = writeln!(lines, "sandbox:x:{id}:");
        })
    }

    fn extend(self, table: &str, of_an_empty_one: &str, line: impl Fn(&mut String, u32)) -> String {
        let mut lines = if table.trim().is_empty() { of_an_empty_one } else { table }.to_owned();
        if !lines.ends_with('\n') {
            lines.push('\n');
        }
        for id in self.first..self.first + COUNT {
            line(&mut lines, id);
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_keep_what_they_have_and_name_each_user() {
        let check = |table: &str, first: &str| {
            let made = Users::HIGH.passwd(table);
            let lines: Vec<_> = made.lines().collect();
            assert_eq!(lines[0], first, "{table:?}");
            assert_eq!(lines.len(), 1 + COUNT as usize, "{table:?}");
            assert_eq!(lines[1], "sandbox:x:2142240768:2142240768::/home/sandbox:/bin/sh");
        };
        check("", "root:x:0:0:root:/root:/sbin/nologin");
        check("a:x:1:1::/:/bin/sh\n", "a:x:1:1::/:/bin/sh");
        check("a:x:1:1::/:/bin/sh", "a:x:1:1::/:/bin/sh");
    }

    #[test]
    fn ids_go_round_within_the_range() {
        let turn = AtomicU32::new(u32::MAX);
        let ids: std::collections::BTreeSet<_> =
            (0..2 * COUNT).map(|_| Users::MAPPED.next(&turn)).collect();
        assert_eq!(ids.len(), COUNT as usize);
        assert!(ids.iter().all(|id| (64_000..65_534).contains(id)));
    }
}
