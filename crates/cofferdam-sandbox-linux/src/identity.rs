//! Which user of the host a sandbox is.
//!
//! Inside there is one user, 1000, and no user 0. On the host it is:
//!
//! - started by an ordinary user: that user, since the kernel lets it map no other;
//! - started by root: a user of a high range that nothing else uses, another one for each sandbox, so that no file,
//!   process or limit of the host or of another sandbox belongs to it. Never user 0: a user 0 without capabilities
//!   can still write whatever is owned by user 0, such as most of `/proc/sys`.

use std::{fs, ops::Range};

use rustix::thread::CapabilitySet;

use crate::plan::Identity;

/// User and group inside the sandbox.
pub(crate) const INNER_ID: u32 = 1000;

/// The range for sandboxes that root starts on a host with all ids: above what systemd gives to containers
/// (`0x0008_0000..0x7000_0000`), below its range for foreign images, and below `i32::MAX`.
const HIGH_RANGE: Range<u32> = 0x7000_0000..0x7ffd_0000;

/// What decides on the identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) user: u32,
    pub(crate) group: u32,
    /// Whether this process may map any user and group (`CAP_SETUID` and `CAP_SETGID`).
    pub(crate) may_map: bool,
    /// The content of `/proc/self/uid_map`.
    pub(crate) uid_map: String,
    /// The content of `/proc/self/gid_map`.
    pub(crate) gid_map: String,
}

impl Facts {
    /// Reads the facts of this process.
    pub(crate) fn read() -> std::io::Result<Self> {
        let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
        Ok(Self {
            user: rustix::process::geteuid().as_raw(),
            group: rustix::process::getegid().as_raw(),
            may_map: rustix::thread::capabilities(None)?.effective.contains(needed),
            uid_map: fs::read_to_string("/proc/self/uid_map")?,
            gid_map: fs::read_to_string("/proc/self/gid_map")?,
        })
    }
}

impl Facts {
    /// Returns whether sandboxes can be users of the host of their own.
    pub(crate) fn other_user(&self) -> bool {
        self.may_map && free_range(&self.uid_map).is_some() && free_range(&self.gid_map).is_some()
    }
}

/// Returns the identity of a new sandbox, or why there is none that is safe. `random` picks from the range.
pub(crate) fn choose(facts: &Facts, random: u32) -> Result<Identity, &'static str> {
    let own = Identity {
        inner: INNER_ID,
        outer_user: facts.user,
        outer_group: facts.group,
        drop_groups: facts.may_map,
    };
    if facts.may_map
        && let Some(users) = free_range(&facts.uid_map)
        && let Some(groups) = free_range(&facts.gid_map)
    {
        let pick = |range: Range<u32>| range.start + random % (range.end - range.start);
        return Ok(Identity { outer_user: pick(users), outer_group: pick(groups), ..own });
    }
    // User 0 of a namespace in which it is an ordinary user of the host is as good as that user.
    let is_host_root = facts.user == 0 && extents(&facts.uid_map).any(|(_, outer, _)| outer == 0);
    if is_host_root {
        return Err("this process is the host's user 0 and may not map another user; \
                    give it CAP_SETUID and CAP_SETGID, or run it as an ordinary user");
    }
    Ok(own)
}

/// Returns ids that exist here and that nobody uses, if there are some.
fn free_range(map: &str) -> Option<Range<u32>> {
    let (inner, count) = extents(map).map(|(inner, _, count)| (inner, count)).max()?;
    let end = inner.saturating_add(count);
    if inner <= HIGH_RANGE.start && end >= HIGH_RANGE.end {
        return Some(HIGH_RANGE);
    }
    // In a container: the upper tenth, without the last two, which are `nobody` where 65536 ids are mapped.
    let last_free = end.saturating_sub(2);
    let start = end - count / 10;
    (start > 0 && start < last_free).then_some(start..last_free)
}

/// Returns the lines of an id map: first id here, first id outside, count.
fn extents(map: &str) -> impl Iterator<Item = (u32, u32, u32)> {
    map.lines().filter_map(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "         0          0 4294967295\n";
    const CONTAINER: &str = "0 100000 65536\n";
    const ROOTLESS_CONTAINER: &str = "0 1000 1\n";

    fn check(user: u32, may_map: bool, map: &str, random: u32) -> Result<u32, &'static str> {
        let facts = Facts { user, group: user, may_map, uid_map: map.into(), gid_map: map.into() };
        let identity = choose(&facts, random)?;
        assert_eq!(identity.inner, INNER_ID);
        assert_eq!(identity.outer_group, identity.outer_user);
        assert_eq!(identity.drop_groups, may_map);
        Ok(identity.outer_user)
    }

    #[test]
    fn an_ordinary_user_is_itself() {
        assert_eq!(check(1234, false, ALL, 5), Ok(1234));
        assert_eq!(check(0, false, ROOTLESS_CONTAINER, 5), Ok(0), "an ordinary user of the host");
        assert_eq!(check(0, true, ROOTLESS_CONTAINER, 5), Ok(0), "no other id to map");
    }

    #[test]
    fn root_is_never_itself() {
        assert_eq!(check(0, true, ALL, 0), Ok(HIGH_RANGE.start));
        assert_eq!(check(0, true, ALL, 9), Ok(HIGH_RANGE.start + 9));
        assert!(HIGH_RANGE.contains(&check(0, true, ALL, u32::MAX).expect("in range")));
        assert!(check(0, false, ALL, 0).is_err_and(|reason| reason.contains("CAP_SETUID")));
    }

    #[test]
    fn in_a_container_the_id_is_one_of_the_container() {
        assert_eq!(check(0, true, CONTAINER, 0), Ok(65536 - 6553));
        for random in 0..20_000 {
            let id = check(0, true, CONTAINER, random).expect("a free id");
            assert!((1..65534).contains(&id), "{id}");
        }
    }
}
