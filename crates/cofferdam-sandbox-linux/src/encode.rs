//! Writes a [`Plan`] as the bytes that the launcher's `decode.rs` reads.

use crate::plan::{Entry, Plan};

/// Encodes a plan.
pub(crate) fn encode(plan: &Plan) -> Vec<u8> {
    let mut w = Writer(Vec::new());
    let (step, errno) = plan.fault.map_or((0, 0), |(step, errno)| (step.code(), errno));
    w.u8(step);
    w.u32(errno.cast_unsigned());
    w.bytes(&plan.hostname);
    w.flag(plan.own_network);
    w.flag(plan.own_users);
    w.u32(plan.identity.inner);
    w.u32(plan.identity.outer_user);
    w.u32(plan.identity.outer_group);
    w.flag(plan.identity.drop_groups);
    w.option(plan.cgroup_into.as_ref(), |w, path| w.bytes(path));
    w.list(&plan.cgroup_joins, |w, path| w.bytes(path));
    w.list(&plan.cgroup_directories, |w, path| w.bytes(path));
    w.option(plan.cgroup_thaw.as_ref(), |w, (file, word)| {
        w.bytes(file);
        w.bytes(word);
    });
    w.option(plan.oom_counter.as_ref(), |w, path| w.bytes(path));
    w.u64(plan.wall_time_ms);
    w.option(plan.confined.as_ref(), |w, confined| {
        w.bytes(confined.directory.to_bytes());
        w.flag(confined.own_user);
    });
    w.option(plan.linger.as_ref(), |w, linger| {
        w.u64(linger.time_ms);
        w.bytes(&linger.directory);
        w.bytes(&linger.ended);
    });
    w.bytes(plan.root.staging.to_bytes());
    w.list(&plan.root.layers, |w, path| w.bytes(path.to_bytes()));
    w.list(&plan.root.trees, |w, tree| {
        w.bytes(tree.source.to_bytes());
        w.bytes(tree.target.to_bytes());
        w.flag(tree.devices);
    });
    w.list(&plan.root.entries, |w, entry| match entry {
        Entry::Directory(path) => {
            w.u8(0);
            w.bytes(path.to_bytes());
        }
        Entry::Link(path, target) => {
            w.u8(1);
            w.bytes(path.to_bytes());
            w.bytes(target.to_bytes());
        }
        Entry::File(path, content) => {
            w.u8(2);
            w.bytes(path.to_bytes());
            w.bytes(content);
        }
    });
    w.flag(plan.root.own_proc);
    w.u64(plan.scratch.bytes);
    w.u64(plan.scratch.inodes);
    w.list(&plan.scratch.directories, |w, path| w.bytes(path.to_bytes()));
    w.option(plan.base.as_ref(), |w, base| {
        w.bytes(base.directory.to_bytes());
        w.option(base.owner.as_ref(), |w, &(user, group)| {
            w.u32(user);
            w.u32(group);
        });
    });
    w.list(&plan.masks, |w, path| w.bytes(path.to_bytes()));
    w.list(&plan.resource_limits, |w, &(resource, value)| {
        w.u32(resource);
        w.u64(value);
    });
    w.list(&plan.landlock, |w, rule| {
        w.u8(rule.access as u8);
        w.bytes(rule.path.to_bytes());
    });
    w.list(&plan.filters, |w, filter| w.bytes(filter));
    w.0
}

struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, value: &[u8]) {
        self.u32(length(value.len()));
        self.0.extend_from_slice(value);
    }

    fn option<T>(&mut self, value: Option<&T>, item: impl FnOnce(&mut Self, &T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            item(self, value);
        }
    }

    fn list<T>(&mut self, items: &[T], mut item: impl FnMut(&mut Self, &T)) {
        self.u32(length(items.len()));
        items.iter().for_each(|value| item(self, value));
    }
}

/// A length that does not fit is above the launcher's bound of a plan, which then refuses it.
fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        decode::{BadPlan, decode},
        plan::{
            Base, Confined, HostTree, Identity, LandlockAccess, LandlockRule, Linger, Root, Scratch,
        },
        report::Step,
    };

    fn example() -> Plan {
        Plan {
            fault: Some((Step::MountProc, 1)),
            hostname: b"sandbox".to_vec(),
            own_network: true,
            own_users: true,
            identity: Identity { inner: 1000, outer_user: 7, outer_group: 8, drop_groups: true },
            cgroup_into: Some(b"/cg2".to_vec()),
            cgroup_joins: vec![b"/cg/cgroup.procs".to_vec()],
            cgroup_directories: vec![b"/cg".to_vec()],
            cgroup_thaw: Some((b"/cg/freezer.state".to_vec(), b"THAWED".to_vec())),
            oom_counter: Some(b"/cg/memory.events".to_vec()),
            wall_time_ms: u64::MAX,
            confined: Some(Confined { directory: c"/var/tmp/1".into(), own_user: true }),
            linger: Some(Linger {
                time_ms: 60_000,
                directory: b"/run/1".to_vec(),
                ended: b"/run/1.ended".to_vec(),
            }),
            root: Root {
                staging: c"/tmp".into(),
                layers: vec![c"/cache/2".into(), c"/cache/1".into()],
                trees: vec![HostTree {
                    source: c"/usr".into(),
                    target: c"usr".into(),
                    devices: false,
                }],
                entries: vec![
                    Entry::Directory(c"etc".into()),
                    Entry::Link(c"bin".into(), c"usr/bin".into()),
                    Entry::File(c"etc/hosts".into(), b"127.0.0.1 localhost\n".to_vec()),
                ],
                own_proc: true,
            },
            scratch: Scratch { bytes: 1, inodes: 2, directories: vec![c"/tmp".into()] },
            base: Some(Base { directory: c"/cache/base".into(), owner: Some((0, 5)) }),
            masks: vec![c"/proc/kcore".into()],
            resource_limits: vec![(7, 1024)],
            landlock: vec![LandlockRule { path: c"/".into(), access: LandlockAccess::Read }],
            filters: vec![vec![1, 2, 3, 4, 5, 6, 7, 8]],
        }
    }

    #[test]
    fn the_launcher_reads_what_the_host_writes() {
        let bytes = encode(&example());
        assert_eq!(decode(&bytes), Ok(example()));
    }

    #[test]
    fn no_prefix_is_a_plan() {
        let bytes = encode(&example());
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), Err(BadPlan), "{end} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(plan) = decode(&bytes) {
                prop_assert_eq!(decode(&encode(&plan)), Ok(plan));
            }
        }
    }
}
